/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "sim/idle.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One line per setting: under what value of another it does something, or (`but`) under which it
 * does nothing. */
static const struct {
    const char *policy; /* NULL: of all that have both */
    const char *setting, *other, *value;
    bool but;
} rules[] = {{NULL, "interval", "evict", "interval", false},
             {NULL, "charge_probes", "evict", "patched", false},
             {"scissorhands", "temperature", "selection", "sample", false},
             {"scissorhands", "seed", "selection", "sample", false},
             {"nacl", "temperature", "random", "0", true},
             {"nacl", "seed", "random", "0", true},
             {"expected_attention", "epsilon", "vnorm", "true", false},
             {"minference", "block", "pattern", "vertical_slash", true},
             {"minference", "blocks", "pattern", "block", false},
             {"minference", "vertical", "pattern", "block", true},
             {"minference", "slash", "pattern", "block", true},
             {"minference", "last", "pattern", "block", true}};
enum { RULES = sizeof rules / sizeof rules[0] };

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

/* Whether a point's other setting is such that the rule's setting does something; where there is no
 * memory to tell, it does. */
static bool is_busy(const kv_idle_point *point, int rule)
{
    char *value =
        kv_param_text(kv_param_find(point->method.params, rules[rule].other), point->config);
    bool same = value != NULL && strcmp(value, rules[rule].value) == 0, known = value != NULL;
    free(value);
    return !known || same != rules[rule].but;
}

static bool is_same_policy(const kv_idle_point *a, const kv_idle_point *b)
{
    return a->method.family == b->method.family && a->scores == b->scores &&
           strcmp(a->method.name, b->method.name) == 0;
}

/* Whether the rule's setting is given in a point of the policy at [first], which is the first of
 * its points, and does something in none. */
static bool is_idle(const kv_idle_point *point, int points, int first, int rule)
{
    const kv_method *method = &point[first].method;
    const kv_param *row = kv_param_find(method->params, rules[rule].setting);
    bool given = false;
    if (row == NULL || kv_param_find(method->params, rules[rule].other) == NULL ||
        (rules[rule].policy != NULL && strcmp(rules[rule].policy, method->name) != 0) ||
        (point[first].scores && (row->flags & KV_PARAM_OUTERMOST)))
        return false;
    for (int i = 0; i < points; i++) {
        if (!is_same_policy(&point[i], &point[first]))
            continue;
        if (i < first || is_busy(&point[i], rule))
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

void kv_idle_settings(const kv_idle_point *point, int points,
                      void (*warn)(void *closure, const char *text), void *closure)
{
    char text[256];
    for (int i = 0; i < points; i++)
        for (int r = 0; r < RULES; r++)
            if (is_idle(point, points, i, r)) {
                snprintf(text, sizeof text, "%s: %s does nothing, as it is %s %s: %s",
                         point[i].method.name, rules[r].setting,
                         rules[r].but ? "for all but" : "for", rules[r].other, rules[r].value);
                warn(closure, text);
            }
}
