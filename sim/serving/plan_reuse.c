/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* What the setting `reuse` comes to in a point. */
#include "config.h"

#include "sim/serving/foresight.h"
#include "sim/serving/plan_reuse.h"

#include <math.h>

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
