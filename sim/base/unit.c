/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "sim/base/json.h"
#include "sim/base/unit.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KIB 1024.0
const kv_unit kv_units_bytes[] = {{"TiB", KIB *KIB *KIB *KIB},
                                  {"TB", 1e12},
                                  {"GiB", KIB *KIB *KIB},
                                  {"GB", 1e9},
                                  {"MiB", KIB *KIB},
                                  {"MB", 1e6},
                                  {"KiB", KIB},
                                  {"KB", 1e3},
                                  {"kB", 1e3},
                                  {"B", 1},
                                  {NULL, 0}};
const kv_unit kv_units_rate[] = {{"TiB/s", KIB *KIB *KIB *KIB},
                                 {"TB/s", 1e12},
                                 {"GiB/s", KIB *KIB *KIB},
                                 {"GB/s", 1e9},
                                 {"MiB/s", KIB *KIB},
                                 {"MB/s", 1e6},
                                 {"KiB/s", KIB},
                                 {"KB/s", 1e3},
                                 {"kB/s", 1e3},
                                 {"B/s", 1},
                                 {NULL, 0}};
/* The micro sign and the Greek mu look alike, so both are read; "us" comes first and is written. */
const kv_unit kv_units_duration[] = {{"h", 3600e9},      {"min", 60e9}, {"s", 1e9},
                                     {"ms", 1e6},        {"us", 1e3},   {"\xc2\xb5s", 1e3},
                                     {"\xce\xbcs", 1e3}, {"ns", 1},     {NULL, 0}};

int kv_number_parse(const char *text, double *out, const char **end)
{
    const char *c = text + (*text == '+' || *text == '-');
    int digits = 0;
    for (; (*c >= '0' && *c <= '9') || *c == '.'; c++)
        digits += *c != '.';
    char *rest;
    *out = strtod(text, &rest);
    /* strtod also reads hexadecimals, infinities and leading blanks; those have no digits here. */
    if (digits == 0 || *c == 'x' || *c == 'X' || rest < c || !isfinite(*out))
        return 0;
    if (end != NULL)
        *end = rest;
    return end != NULL || *rest == '\0';
}

static void list_units(const kv_unit *units, char *out, size_t out_bytes)
{
    size_t used = 0;
    for (const kv_unit *u = units; u->name != NULL && used < out_bytes; u++)
        used += (size_t)snprintf(out + used, out_bytes - used, "%s%s",
                                 u == units          ? ""
                                 : u[1].name == NULL ? " or "
                                                     : ", ",
                                 u->name);
}

static kv_err unit_error(const kv_unit *units, const char *what, const char *text,
                         const char *found, const kv_mark *mark, kv_diag *diag)
{
    enum { MOST = 16 };
    const char *names[MOST], *near;
    char list[128];
    int count = 0;
    for (const kv_unit *u = units; u->name != NULL && count < MOST; u++)
        names[count++] = u->name;
    list_units(units, list, sizeof list);
    if (*found == '\0')
        return kv_fail(diag, KV_ERR_INPUT, mark, "%s: '%.60s' needs a unit: %s", what, text, list);
    near = kv_nearest(found, names, count);
    return kv_fail(diag, KV_ERR_INPUT, mark, "%s: '%.60s' has an unknown unit%s%s%s; there are %s",
                   what, text, near ? ", did you mean '" : "", near ? near : "", near ? "'" : "",
                   list);
}

kv_err kv_quantity_parse(const kv_unit *units, const char *what, const char *text, double *out,
                         const kv_mark *mark, kv_diag *diag)
{
    const char *unit;
    double number;
    if (!kv_number_parse(text, &number, &unit)) {
        char list[128];
        list_units(units, list, sizeof list);
        return kv_fail(diag, KV_ERR_INPUT, mark,
                       "%s: expected a number with a unit (%s), found '%.60s'", what, list, text);
    }
    unit += strspn(unit, " ");
    for (const kv_unit *u = units; u->name != NULL; u++)
        if (strcmp(u->name, unit) == 0) {
            *out = number * u->factor;
            return KV_OK;
        }
    return unit_error(units, what, text, unit, mark, diag);
}

void kv_quantity_text(const kv_unit *units, double value, char out[48])
{
    const kv_unit *u = units;
    while (u[1].name != NULL && (value == 0 || fmod(value, u->factor) != 0))
        u++;
    char number[KV_REAL_TEXT];
    kv_real_text(value / u->factor, number);
    snprintf(out, 48, "%s%s", number, u->name);
}
