/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "sim/base/json.h"
#include "sim/base/param.h"
#include "sim/base/unit.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

const kv_param *kv_param_find(const kv_param *table, const char *name)
{
    for (const kv_param *p = table; p->name != NULL; p++)
        if (strcmp(p->name, name) == 0)
            return p;
    return NULL;
}

/* --- Fields ---------------------------------------------------------------------------------- */

static void *field_of(const kv_param *param, void *config)
{
    return (char *)config + param->offset;
}

static const void *field_in(const kv_param *param, const void *config)
{
    return (const char *)config + param->offset;
}

static bool is_text(const kv_param *param)
{
    return param->type == KV_TEXT || param->type == KV_PATH;
}

static bool is_number(const kv_param *param)
{
    return !is_text(param) && param->type != KV_BOOL && param->type != KV_CHOICE &&
           param->type != KV_ITEM;
}

static const kv_item *item_in(const kv_param *param, const void *config)
{
    return field_in(param, config);
}

static bool is_real(const kv_param *param)
{
    return param->type == KV_REAL || param->type == KV_RATE;
}

static double number_get(const kv_param *param, const void *config)
{
    const void *field = field_in(param, config);
    return is_real(param) ? *(const double *)field : (double)*(const long long *)field;
}

static bool is_bounded(const kv_param *param)
{
    return param->min != 0 || param->max != 0;
}

static bool in_bounds(const kv_param *param, double value)
{
    if (!is_bounded(param))
        return true;
    if (param->flags & KV_PARAM_OPEN_MIN ? value <= param->min : value < param->min)
        return false;
    return value <= param->max;
}

bool kv_param_absent(const kv_param *param, const void *config)
{
    if (is_text(param))
        return *(char *const *)field_in(param, config) == NULL;
    if (param->type == KV_ITEM)
        return item_in(param, config)->name == NULL;
    return is_number(param) && param->fallback == NULL &&
           !in_bounds(param, number_get(param, config));
}

bool kv_param_replaced(const kv_param *table, const kv_param *param, const void *config)
{
    if (!(param->flags & KV_PARAM_REPLACED))
        return false;
    for (const kv_param *p = table; p->name != NULL; p++)
        if (p->type == KV_ITEM && !kv_param_absent(p, config))
            return true;
    return false;
}

/* --- Words ----------------------------------------------------------------------------------- */

typedef struct words {
    char *text;
    size_t bytes, used;
} words;

static void say(words *out, const char *format, ...) KV_PRINTF(2, 3);
static void say(words *out, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int written = vsnprintf(out->text + out->used, out->bytes - out->used, format, args);
    va_end(args);
    if (written > 0)
        out->used += (size_t)written;
    if (out->used >= out->bytes)
        out->used = out->bytes - 1;
}

static const kv_unit *units_of(kv_type type)
{
    return type == KV_BYTES      ? kv_units_bytes
           : type == KV_RATE     ? kv_units_rate
           : type == KV_DURATION ? kv_units_duration
                                 : NULL;
}

static void say_number(words *out, const kv_param *param, double value)
{
    char text[48];
    if (units_of(param->type) != NULL)
        kv_quantity_text(units_of(param->type), value, text);
    else
        kv_real_text(value, text);
    say(out, "%s", text);
}

static void say_bounds(words *out, const kv_param *param)
{
    bool open = param->flags & KV_PARAM_OPEN_MIN;
    if (!is_bounded(param))
        return;
    if (isfinite(param->min)) {
        say(out, open ? " above " : isfinite(param->max) ? " from " : " of at least ");
        say_number(out, param, param->min);
    }
    if (isfinite(param->max)) {
        say(out, !isfinite(param->min) ? " of at most " : open ? " and at most " : " to ");
        say_number(out, param, param->max);
    }
}

static void say_choices(words *out, const char *const *choices)
{
    say(out, choices[1] != NULL ? "one of " : "");
    for (int i = 0; choices[i] != NULL; i++)
        say(out, "%s%s", i == 0 ? "" : choices[i + 1] == NULL ? " or " : ", ", choices[i]);
}

void kv_param_expects(const kv_param *param, char *out, size_t out_bytes)
{
    static const char *const noun[] = {
        [KV_BOOL] = "true or false",
        [KV_INT] = "a whole number",
        [KV_REAL] = "a number",
        [KV_TEXT] = "text",
        [KV_PATH] = "the name of a file",
        [KV_BYTES] = "a size with a unit, like 256GiB,",
        [KV_RATE] = "a rate with a unit, like 64GB/s,",
        [KV_DURATION] = "a time with a unit, like 5us,",
        [KV_CHUNK] = "`whole` or a whole number",
        [KV_ITEM] = "a name, or a mapping {name: settings}",
    };
    words w = {out, out_bytes, 0};
    out[0] = '\0';
    if (param->type == KV_CHOICE) {
        say_choices(&w, param->choices);
        return;
    }
    bool counts = is_number(param) && param->unit != NULL && param->unit[0] != '\0';
    bool fraction = counts && strcmp(param->unit, "fraction") == 0;
    say(&w, "%s", fraction ? "a fraction" : noun[param->type]);
    if (counts && !fraction && units_of(param->type) == NULL)
        say(&w, " of %s", param->unit);
    if (is_number(param))
        say_bounds(&w, param);
    if (w.used > 0 && out[w.used - 1] == ',')
        out[w.used - 1] = '\0';
}

static kv_err wrong(const kv_param *param, const char *text, const kv_mark *mark, kv_diag *diag)
{
    char expected[512];
    kv_param_expects(param, expected, sizeof expected);
    return kv_fail(diag, KV_ERR_INPUT, mark, "%s: expected %s, found '%.60s'", param->name,
                   expected, text);
}

/* --- Text to value --------------------------------------------------------------------------- */

static kv_err set_choice(const kv_param *param, int *field, const char *text, const kv_mark *mark,
                         kv_diag *diag)
{
    int count = 0;
    for (; param->choices[count] != NULL; count++)
        if (strcmp(param->choices[count], text) == 0) {
            *field = count;
            return KV_OK;
        }
    const char *near = kv_nearest(text, param->choices, count);
    char expected[512];
    kv_param_expects(param, expected, sizeof expected);
    return kv_fail(diag, KV_ERR_INPUT, mark, "%s: expected %s, found '%.60s'%s%s%s", param->name,
                   expected, text, near ? "; did you mean '" : "", near ? near : "",
                   near ? "'?" : "");
}

static kv_err set_string(char **field, const char *text, kv_diag *diag)
{
    char *copy = strdup(text);
    if (copy == NULL)
        return kv_fail_memory(diag);
    free(*field);
    *field = copy;
    return KV_OK;
}

static bool read_whole(const char *text, long long *out)
{
    const char *digits = text + (*text == '+' || *text == '-');
    if (*digits == '\0' || digits[strspn(digits, "0123456789")] != '\0')
        return false;
    if (digits[0] == '0' && digits[1] != '\0') /* 010 is 8 to some readers of YAML, 10 to others */
        return false;
    errno = 0;
    *out = strtoll(text, NULL, 10);
    return errno == 0;
}

/* Sizes and times are whole bytes and nanoseconds; what is not there is rounded, but not to 0. */
static kv_err read_quantity(const kv_param *param, const char *text, long long *whole, double *real,
                            const kv_mark *mark, kv_diag *diag)
{
    double value;
    kv_err err = kv_quantity_parse(units_of(param->type), param->name, text, &value, mark, diag);
    if (err != KV_OK)
        return err;
    bool rounds_away = value != 0 && fabs(value) < 0.5;
    if (value < 0 || value > 9e18 || (whole != NULL && rounds_away))
        return wrong(param, text, mark, diag);
    if (whole != NULL)
        *whole = llrint(value);
    else
        *real = value;
    return KV_OK;
}

static kv_err set_number(const kv_param *param, void *field, const char *text, const kv_mark *mark,
                         kv_diag *diag)
{
    long long whole = 0;
    double real = 0;
    kv_err err = KV_OK;
    bool chunk_whole = param->type == KV_CHUNK && strcmp(text, "whole") == 0;
    if (units_of(param->type) != NULL) {
        err = read_quantity(param, text, is_real(param) ? NULL : &whole, &real, mark, diag);
    } else if (param->type == KV_REAL) {
        if (!kv_number_parse(text, &real, NULL))
            err = wrong(param, text, mark, diag);
    } else if (!chunk_whole && !read_whole(text, &whole)) {
        err = wrong(param, text, mark, diag);
    }
    if (err != KV_OK)
        return err;
    bool too_small = param->type == KV_CHUNK && !chunk_whole && whole < 1;
    if (too_small || (!chunk_whole && !in_bounds(param, is_real(param) ? real : (double)whole)))
        return wrong(param, text, mark, diag);
    if (is_real(param))
        *(double *)field = real;
    else
        *(long long *)field = whole;
    return KV_OK;
}

kv_err kv_param_set(const kv_param *param, void *config, const char *text, const kv_mark *mark,
                    kv_diag *diag)
{
    void *field = field_of(param, config);
    if (param->type == KV_CHOICE)
        return set_choice(param, field, text, mark, diag);
    if (is_text(param)) {
        if (text[0] == '\0')
            return wrong(param, text, mark, diag);
        return set_string(field, text, diag);
    }
    if (param->type == KV_ITEM)
        return kv_fail(diag, KV_ERR_BUG, mark, "%s is an item, which text cannot set", param->name);
    if (param->type != KV_BOOL)
        return set_number(param, field, text, mark, diag);
    if (strcmp(text, "true") != 0 && strcmp(text, "false") != 0)
        return wrong(param, text, mark, diag);
    *(bool *)field = text[0] == 't';
    return KV_OK;
}

/* --- Tables ---------------------------------------------------------------------------------- */

void kv_param_clear(const kv_param *param, void *config)
{
    if (!is_number(param))
        return;
    double absent = is_bounded(param) && in_bounds(param, 0) ? -1 : 0;
    if (is_real(param))
        *(double *)field_of(param, config) = absent;
    else
        *(long long *)field_of(param, config) = (long long)absent;
}

kv_err kv_params_default(const kv_param *table, void *config, kv_diag *diag)
{
    for (const kv_param *p = table; p->name != NULL; p++) {
        if (p->fallback == NULL) {
            kv_param_clear(p, config);
            continue;
        }
        kv_err err = kv_param_set(p, config, p->fallback, NULL, diag);
        if (err != KV_OK)
            return err;
    }
    return KV_OK;
}

static kv_err apply_word(const kv_param *table, const kv_preset *preset, const char *word,
                         void *config, kv_diag *diag)
{
    char name[64];
    const char *equals = strchr(word, '=');
    snprintf(name, sizeof name, "%.*s", equals ? (int)(equals - word) : 0, word);
    const kv_param *param = kv_param_find(table, name);
    if (param == NULL || equals == NULL)
        return kv_fail(diag, KV_ERR_BUG, NULL, "preset %s sets '%s', which is no parameter",
                       preset->name, word);
    return kv_param_set(param, config, equals + 1, NULL, diag);
}

kv_err kv_params_preset(const kv_param *table, const kv_preset *preset, void *config, kv_diag *diag)
{
    char *values = strdup(preset->values), *rest = NULL;
    if (values == NULL)
        return kv_fail_memory(diag);
    kv_err err = KV_OK;
    for (char *word = strtok_r(values, " ", &rest); word != NULL && err == KV_OK;
         word = strtok_r(NULL, " ", &rest))
        err = apply_word(table, preset, word, config, diag);
    free(values);
    return err;
}

static kv_err copy_item(const kv_item *from, kv_item *to, kv_diag *diag)
{
    void *config = calloc(1, from->config_bytes);
    if (config == NULL)
        return kv_fail_memory(diag);
    kv_err err = kv_params_copy(from->params, from->config, from->config_bytes, config, diag);
    if (err != KV_OK) {
        free(config);
        return err;
    }
    *to = *from;
    to->config = config;
    return KV_OK;
}

kv_err kv_params_copy(const kv_param *table, const void *config, size_t bytes, void *copy,
                      kv_diag *diag)
{
    kv_err err = KV_OK;
    memcpy(copy, config, bytes);
    for (const kv_param *p = table; p->name != NULL; p++) {
        if (is_text(p))
            *(char **)field_of(p, copy) = NULL;
        if (p->type == KV_ITEM)
            *(kv_item *)field_of(p, copy) = (kv_item){0};
    }
    for (const kv_param *p = table; p->name != NULL && err == KV_OK; p++) {
        if (kv_param_absent(p, config))
            continue;
        if (is_text(p))
            err = set_string(field_of(p, copy), *(char *const *)field_in(p, config), diag);
        else if (p->type == KV_ITEM)
            err = copy_item(item_in(p, config), field_of(p, copy), diag);
    }
    if (err != KV_OK)
        kv_params_fini(table, copy);
    return err;
}

void kv_item_fini(kv_item *item)
{
    if (item->config != NULL)
        kv_params_fini(item->params, item->config);
    free(item->config);
    *item = (kv_item){0};
}

void kv_params_fini(const kv_param *table, void *config)
{
    for (const kv_param *p = table; p->name != NULL; p++) {
        if (p->type == KV_ITEM)
            kv_item_fini(field_of(p, config));
        if (is_text(p)) {
            char **field = field_of(p, config);
            free(*field);
            *field = NULL;
        }
    }
}

static size_t field_bytes(const kv_param *param)
{
    return param->type == KV_BOOL     ? sizeof(bool)
           : param->type == KV_CHOICE ? sizeof(int)
           : is_real(param)           ? sizeof(double)
                                      : sizeof(long long);
}

void kv_param_assign(const kv_param *param, const void *from, void *to)
{
    if (!is_text(param) && param->type != KV_ITEM)
        memcpy(field_of(param, to), field_in(param, from), field_bytes(param));
}

static bool same_item(const kv_item *a, const kv_item *b)
{
    if (a->name == NULL || b->name == NULL || a->params != b->params)
        return a->name == NULL && b->name == NULL;
    for (const kv_param *p = a->params; p->name != NULL; p++)
        if (!(p->flags & KV_PARAM_OUTERMOST) && !kv_param_equal(p, a->config, b->config))
            return false;
    return true;
}

bool kv_param_equal(const kv_param *param, const void *a, const void *b)
{
    const void *x = field_in(param, a), *y = field_in(param, b);
    if (is_text(param)) {
        const char *s = *(char *const *)x, *t = *(char *const *)y;
        return s == NULL || t == NULL ? s == t : strcmp(s, t) == 0;
    }
    if (param->type == KV_ITEM)
        return same_item(x, y);
    if (is_real(param))
        return *(const double *)x == *(const double *)y;
    if (param->type == KV_BOOL)
        return *(const bool *)x == *(const bool *)y;
    if (param->type == KV_CHOICE)
        return *(const int *)x == *(const int *)y;
    return *(const long long *)x == *(const long long *)y;
}

/* --- Value to text --------------------------------------------------------------------------- */

static void number_text(const kv_param *param, const void *field, char out[48])
{
    if (units_of(param->type) == NULL && !is_real(param)) {
        long long whole = *(const long long *)field;
        if (param->type == KV_CHUNK && whole == 0)
            snprintf(out, 48, "whole");
        else
            snprintf(out, 48, "%lld", whole);
        return;
    }
    if (param->type == KV_REAL)
        kv_real_text(*(const double *)field, out);
    else
        kv_quantity_text(
            units_of(param->type),
            is_real(param) ? *(const double *)field : (double)*(const long long *)field, out);
}

/* JSON is YAML. */
static char *item_text(const kv_param *param, const void *config)
{
    char *text = NULL;
    size_t bytes;
    FILE *out = open_memstream(&text, &bytes);
    if (out == NULL)
        return NULL;
    kv_param_json(param, config, out);
    if (fclose(out) == 0)
        return text;
    free(text);
    return NULL;
}

char *kv_param_text(const kv_param *param, const void *config)
{
    const void *field = field_in(param, config);
    char number[48];
    if (kv_param_absent(param, config))
        return strdup("");
    if (is_text(param))
        return strdup(*(char *const *)field);
    if (param->type == KV_CHOICE)
        return strdup(param->choices[*(const int *)field]);
    if (param->type == KV_BOOL)
        return strdup(*(const bool *)field ? "true" : "false");
    if (param->type == KV_ITEM)
        return item_text(param, config);
    number_text(param, field, number);
    return strdup(number);
}

void kv_param_json(const kv_param *param, const void *config, FILE *out)
{
    const void *field = field_in(param, config);
    char number[48];
    if (kv_param_absent(param, config)) {
        fputs("null", out);
    } else if (is_text(param)) {
        kv_json_string(*(char *const *)field, out);
    } else if (param->type == KV_CHOICE) {
        kv_json_string(param->choices[*(const int *)field], out);
    } else if (param->type == KV_BOOL) {
        fputs(*(const bool *)field ? "true" : "false", out);
    } else if (param->type == KV_ITEM) {
        const kv_item *item = field;
        putc('{', out);
        kv_json_string(item->name, out);
        putc(':', out);
        kv_params_json(item->params, item->config, KV_PARAM_OUTERMOST, out);
        putc('}', out);
    } else {
        number_text(param, field, number);
        bool quoted = units_of(param->type) != NULL || strcmp(number, "whole") == 0;
        fprintf(out, quoted ? "\"%s\"" : "%s", number);
    }
}

void kv_param_fallback_json(const kv_param *param, FILE *out)
{
    kv_param row = *param;
    union {
        bool on;
        int choice;
        long long whole;
        double real;
    } value = {.real = 0};
    row.offset = 0;
    if (row.fallback == NULL || row.type == KV_ITEM)
        fputs("null", out);
    else if (is_text(&row))
        kv_json_string(row.fallback, out);
    else if (row.type == KV_CHOICE &&
             set_choice(&row, &value.choice, row.fallback, NULL, NULL) == KV_OK)
        kv_param_json(&row, &value, out);
    else if (row.type == KV_BOOL)
        fputs(row.fallback, out);
    else if (is_number(&row) && set_number(&row, &value, row.fallback, NULL, NULL) == KV_OK)
        kv_param_json(&row, &value, out);
    else
        fputs("null", out);
}

/* The row whose name comes next after `last` in byte order, or NULL. */
static const kv_param *next_by_name(const kv_param *table, const char *last)
{
    const kv_param *next = NULL;
    for (const kv_param *p = table; p->name != NULL; p++)
        if ((last == NULL || strcmp(p->name, last) > 0) &&
            (next == NULL || strcmp(p->name, next->name) < 0))
            next = p;
    return next;
}

void kv_params_json(const kv_param *table, const void *config, unsigned skip_flags, FILE *out)
{
    const char *separator = "";
    putc('{', out);
    for (const kv_param *p = next_by_name(table, NULL); p != NULL;
         p = next_by_name(table, p->name)) {
        if ((p->flags & skip_flags) || kv_param_absent(p, config) ||
            kv_param_replaced(table, p, config))
            continue;
        fputs(separator, out);
        kv_json_string(p->name, out);
        putc(':', out);
        kv_param_json(p, config, out);
        separator = ",";
    }
    putc('}', out);
}
