/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* What the setting `reuse` comes to in a point. */
#include "config.h"

#include "sim/serving/foresight.h"
#include "sim/serving/plan_reuse.h"

#include "sim/base/yaml_tree.h"

#include <math.h>
#include <string.h>

#define IN(f) (offsetof(kv_serving_config, reuse.f) - offsetof(kv_serving_config, reuse))

static const char *const modes[] = {"prefix", "blend", NULL};

const kv_param kv__reuse_params[] = {
    {"mode", KV_CHOICE, IN(mode), "prefix", 0, 0, modes, KV_PARAM_SWEEP, "",
     "which cached text a prompt uses: what it begins with, or (blend, CacheBlend) also what "
     "stands "
     "elsewhere in it"},
    {"recompute", KV_REAL, IN(recompute), "0.15", 0, 1, NULL, KV_PARAM_SWEEP, "fraction",
     "of blended tokens that are computed again in every layer"},
    {"full_layers", KV_INT, IN(full_layers), "1", 0, 4096, NULL, KV_PARAM_SWEEP, "layers",
     "first layers that compute all blended tokens, by which those to go on with are chosen"},
    {.name = NULL}};

bool kv__reuse_blends(const kv_grid *grid, int combination)
{
    int mode = grid->map == NULL ? -1 : kv__node_index(grid->map, "mode");
    const char *text = mode < 0 ? NULL : kv_node_text(kv_grid_pick(grid, combination, mode), NULL);
    return text != NULL && strcmp(text, "prefix") != 0;
}

/* Of those that do not blend the ones with the first value of each setting of blending stay. */
static bool is_kept(const kv_grid *grid, int combination)
{
    if (kv__reuse_blends(grid, combination))
        return true;
    for (int i = 0; grid->map != NULL && i < kv_node_count(grid->map); i++)
        if (strcmp(kv_node_key(grid->map, i), "mode") != 0 &&
            kv_grid_pick(grid, combination, i) != kv_grid_pick(grid, 0, i))
            return false;
    return true;
}

static kv_err check_values(const kv_node *values, const kv_param *param, kv_diag *diag)
{
    kv_serving_config config = {0};
    kv_err err = KV_OK;
    for (int i = 0; i < kv_node_count(values) && err == KV_OK; i++)
        err = kv_param_parse(param, &config.reuse, kv_node_at(values, i), diag);
    return err;
}

kv_err kv__reuse_collapse(kv_grid *grid, kv_diag *diag)
{
    kv_err err = KV_OK;
    int kept = 0;
    for (int i = 0; grid->map != NULL && i < kv_node_count(grid->map) && err == KV_OK; i++) {
        const kv_param *param = kv_param_find(kv__reuse_params, kv_node_key(grid->map, i));
        const kv_node *value = kv_node_at(grid->map, i);
        if (param != NULL && kv_node_get_kind(value) == KV_NODE_LIST)
            err = check_values(value, param, diag);
    }
    for (int c = 0; c < grid->count; c++)
        kept += is_kept(grid, c);
    grid->count = kept;
    return err;
}

int kv__reuse_pick(const kv_grid *grid, int number)
{
    int combination = 0;
    for (; number > 0 || !is_kept(grid, combination); combination++)
        number -= is_kept(grid, combination);
    return combination;
}

const char *kv__reuse_idle(const kv_serving_plan *plan)
{
    const kv_grid *grid = &plan->grid[KV_SERVING_REUSE];
    const char *idle = NULL;
    for (int i = 0; grid->map != NULL && i < kv_node_count(grid->map); i++)
        if (strcmp(kv_node_key(grid->map, i), "mode") != 0)
            idle = kv_node_key(grid->map, i);
    for (int n = 0; n < grid->count && idle != NULL; n++)
        if (kv__reuse_blends(grid, kv__reuse_pick(grid, n)))
            idle = NULL;
    return idle;
}

/* What blending does not go with; NULL: nothing. */
static const char *in_the_way(const kv_serving_point *point)
{
    const kv_serving_settings *s = &point->settings;
    if (s->keep != NULL)
        return "is for caches that are kept whole in every layer, not for this policy and model; "
               "expected prefix";
    if (s->swap)
        return "does not go with scheduler.preemption: swap; expected recompute";
    if (!s->prefix_cache)
        return "needs what the prefix cache holds; expected prefix_cache.enabled: true";
    if (kv_foresight_needed(s))
        return "does not go with replacement belady, which foresees uses of prefixes only";
    if (s->full_layers > s->layers)
        return "has more full_layers than the model has layers";
    return NULL;
}

kv_err kv__plan_reuse(const kv_serving_plan *plan, kv_serving_point *point, kv_diag *diag)
{
    const kv_serving_config *c = &point->config;
    kv_serving_settings *s = &point->settings;
    const kv_node *reuse = kv_node_find(plan->map, "reuse");
    kv_mark mark = kv_node_mark(reuse != NULL ? reuse : plan->map);
    s->blend = c->reuse.mode == 1;
    s->recompute_millionths = llround(c->reuse.recompute * 1e6);
    s->full_layers = c->reuse.full_layers;
    const char *wrong = s->blend ? in_the_way(point) : NULL;
    return wrong == NULL ? KV_OK
                         : kv_fail(diag, KV_ERR_UNSUPPORTED, &mark, "reuse.mode: blend %s", wrong);
}
