/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "sim/idle.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Of all policies that have both settings, beside their own (kv_method.conditions). */
static const kv_condition common[] = {{"interval", "evict", "interval", false},
                                      {"charge_probes", "evict", "patched", false},
                                      {.setting = NULL}};

static bool is_default(const kv_method *method, const kv_param *row, const void *config)
{
    void *fresh = calloc(1, method->config_bytes);
    bool same = fresh == NULL || kv_params_default(method->params, fresh, NULL) != KV_OK ||
                kv_param_equal(row, config, fresh);
    if (fresh != NULL)
        kv_params_fini(method->params, fresh);
    free(fresh);
    return same;
}

static bool is_same_setting(const kv_condition *a, const kv_condition *b)
{
    return b->setting != NULL && strcmp(a->setting, b->setting) == 0;
}

/* Whether the other setting of a point is such that the condition's does something; where there is
 * no memory to tell, it does. */
static bool holds(const kv_idle_point *point, const kv_condition *under)
{
    const kv_param *other = kv_param_find(point->method.params, under->other);
    if (kv_param_absent(other, point->config))
        return false;
    char *value = kv_param_text(other, point->config);
    bool same = value != NULL && strcmp(value, under->value) == 0, known = value != NULL;
    free(value);
    return !known || same != under->except;
}

static bool is_busy(const kv_idle_point *point, const kv_condition *under)
{
    for (const kv_condition *c = under; is_same_setting(under, c); c++)
        if (holds(point, c))
            return true;
    return false;
}

static bool is_same_policy(const kv_idle_point *a, const kv_idle_point *b)
{
    return a->method.family == b->method.family && a->scores == b->scores &&
           strcmp(a->method.name, b->method.name) == 0;
}

/* Whether the condition's setting is given in a point of the policy at [first], which is the first
 * of its points, and does something in none. */
static bool is_idle(const kv_idle_point *point, int points, int first, const kv_condition *under)
{
    const kv_method *method = &point[first].method;
    const kv_param *row = kv_param_find(method->params, under->setting);
    bool given = false;
    if (row == NULL || kv_param_find(method->params, under->other) == NULL ||
        (point[first].scores && (row->flags & KV_PARAM_OUTERMOST)))
        return false;
    for (int i = 0; i < points; i++) {
        if (!is_same_policy(&point[i], &point[first]))
            continue;
        if (i < first || is_busy(&point[i], under))
            return false;
        given = given || !is_default(method, row, point[i].config);
    }
    return given;
}

int kv_idle_scorers(const kv_idle_point *point, kv_idle_point *out)
{
    const kv_retention_config *config = point->config;
    int count = 0;
    if (point->method.family != KV_FAMILY_RETENTION)
        return 0;
    for (; config->scorer.name != NULL && count < KV_SCORERS_MOST; config = out[count - 1].config)
        out[count++] = (kv_idle_point){.method = kv_method_of_retention(config->scorer.of),
                                       .config = config->scorer.config,
                                       .scores = true};
    return count;
}

/* Who is told. */
typedef struct told {
    void (*warn)(void *closure, const char *text);
    void *closure;
} told;

static void tell_idle(const kv_idle_point *point, int points, int first, const kv_condition *list,
                      const told *to)
{
    char text[256];
    for (const kv_condition *under = list; under != NULL && under->setting != NULL; under++) {
        bool told_already = under > list && is_same_setting(under, under - 1);
        if (told_already || !is_idle(point, points, first, under))
            continue;
        snprintf(text, sizeof text, "%s: %s does nothing, as it is %s %s: %s",
                 point[first].method.name, under->setting, under->except ? "for all but" : "for",
                 under->other, under->value);
        to->warn(to->closure, text);
    }
}

static bool lacks_evictions(const kv_idle_point *point)
{
    return point->method.transform != NULL && point->method.transform->evicted &&
           point->beside != NULL && strcmp(point->beside->name, "full") == 0;
}

static void tell_beside_full(const kv_idle_point *point, int first, const told *to)
{
    char text[256];
    const char *name = point[first].method.name;
    if (!lacks_evictions(&point[first]))
        return;
    for (int i = 0; i < first; i++)
        if (lacks_evictions(&point[i]) && strcmp(point[i].method.name, name) == 0)
            return;
    snprintf(
        text, sizeof text,
        "%s does nothing beside full, as nothing leaves; list it with a retention policy, as in "
        "[{snapkv: {keep: 0.3}}, %s]",
        name, name);
    to->warn(to->closure, text);
}

void kv_idle_settings(const kv_idle_point *point, int points,
                      void (*warn)(void *closure, const char *text), void *closure)
{
    const told to = {warn, closure};
    for (int i = 0; i < points; i++) {
        tell_idle(point, points, i, common, &to);
        tell_idle(point, points, i, point[i].method.conditions, &to);
        tell_beside_full(point, i, &to);
    }
}
