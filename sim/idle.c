/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "sim/idle.h"

#include "policies/retention_params.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One line per setting. */
static const struct {
    const char *setting;
    kv_schedule under;
} rules[] = {{"interval", KV_INTERVAL}, {"charge_probes", KV_PATCHED}};

static bool is_default(const kv_retention *policy, const kv_param *row, const void *config)
{
    void *fresh = calloc(1, policy->config_bytes);
    bool same = fresh == NULL || kv_params_default(policy->params, fresh, NULL) != KV_OK ||
                kv_param_equal(row, config, fresh);
    if (fresh != NULL)
        kv_params_fini(policy->params, fresh);
    free(fresh);
    return same;
}

/* Whether the setting is given in a point of the policy at [first], and its schedule in none. */
static bool is_idle(const kv_idle_point *point, int points, int first, const char *setting,
                    kv_schedule under)
{
    const kv_retention *policy = point[first].policy;
    const kv_param *row = kv_param_find(policy->params, setting);
    bool given = false;
    if (row == NULL || kv_param_find(policy->params, "evict") == NULL)
        return false;
    for (int i = 0; i < points; i++) {
        if (point[i].policy != policy)
            continue;
        if (i < first || ((const kv_retention_config *)point[i].config)->evict == (int)under)
            return false;
        given = given || !is_default(policy, row, point[i].config);
    }
    return given;
}

void kv_idle_settings(const kv_idle_point *point, int points,
                      void (*warn)(void *closure, const char *text), void *closure)
{
    char text[256];
    for (int i = 0; i < points; i++)
        for (size_t r = 0; r < sizeof rules / sizeof rules[0]; r++)
            if (is_idle(point, points, i, rules[r].setting, rules[r].under)) {
                snprintf(text, sizeof text, "%s: %s does nothing, as it is for evict: %s",
                         point[i].policy->name, rules[r].setting,
                         kv__names_schedule[rules[r].under]);
                warn(closure, text);
            }
}
