/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "sim/serving/plan_policy.h"

#include <stdlib.h>
#include <string.h>

static const char key[] = "policies";

static int choices_of(const kv_node *value)
{
    return kv_node_get_kind(value) == KV_NODE_LIST ? kv_node_count(value) : 1;
}

/* Where a grid stands: combinations of what varies faster than the key `policies`. */
static int faster_combinations(const kv_serving_plan *plan)
{
    int count = 1, at = -1;
    for (int i = 0; i < kv_node_count(plan->map); i++)
        if (strcmp(kv_node_key(plan->map, i), key) == 0)
            at = i;
    for (int i = at + 1; at >= 0 && i < kv_node_count(plan->map); i++)
        count *= choices_of(kv_node_at(plan->map, i));
    for (int p = 1; p < KV_SERVING_PARTS + KV_MOST_TIERS; p++)
        count *= plan->grid[p].count;
    return count;
}

static kv_err parse(kv_serving_plan *plan, const kv_node *node, kv_diag *diag)
{
    kv_err err = KV_OK;
    if (node == NULL)
        return kv_policy_parse_text("full", &(kv_mark){0}, "", &plan->policies, diag);
    if (kv_node_get_kind(node) != KV_NODE_LIST)
        return kv_policy_parse(node, &plan->policies, diag);
    for (int i = 0; i < kv_node_count(node) && err == KV_OK; i++)
        err = kv_policy_parse(kv_node_at(node, i), &plan->policies, diag);
    return err;
}

kv_err kv__plan_policies_init(kv_serving_plan *plan, kv_diag *diag)
{
    const kv_node *node = kv_node_find(plan->map, key);
    kv_err err = parse(plan, node, diag);
    if (err != KV_OK)
        return err;
    plan->policy_items = node != NULL ? choices_of(node) : 1;
    plan->faster = faster_combinations(plan);
    long long all = (long long)plan->combinations / plan->policy_items * plan->policies.count;
    kv_mark mark = kv_node_mark(node != NULL ? node : plan->map);
    if (all > KV_GRID_MOST)
        return kv_fail(diag, KV_ERR_INPUT, &mark,
                       "the policies make more than %d combinations with the other lists; expected "
                       "fewer",
                       KV_GRID_MOST);
    plan->combinations = (int)all;
    return KV_OK;
}

const kv_point_spec *kv__plan_policy_pick(const kv_serving_plan *plan, int *combination)
{
    int fast = *combination % plan->faster, rest = *combination / plan->faster;
    int policy = rest % plan->policies.count;
    *combination = rest / plan->policies.count * plan->policy_items * plan->faster + fast;
    return &plan->policies.point[policy];
}

kv_err kv__plan_policy_name(const kv_point_spec *spec, kv_serving_point *point, kv_diag *diag)
{
    point->policy = kv_spec_name(spec);
    point->label = kv_spec_label(spec);
    point->keep_fraction = kv_spec_keep(spec);
    point->params = kv_spec_params_json(spec);
    if (spec->chunk_tokens != KV_CHUNK_NOT_GIVEN)
        point->chunk_tokens = spec->chunk_tokens;
    point->settings.chunk_tokens = (int32_t)point->chunk_tokens;
    bool good = point->policy != NULL && point->params != NULL && point->label != NULL;
    return good ? KV_OK : kv_fail_memory(diag);
}

/* Loads what the policy needs to know of heads. */
static kv_err prepare(const kv_point_spec *spec, kv_serving_point *point, kv_diag *diag)
{
    const kv_model *model = point->model;
    kv_shape shape = {.model = model->name,
                      .layers = (int)model->layers,
                      .heads = (int)model->attention.heads,
                      .kv_heads = kv_model_kv_heads(model),
                      .head_dim = (int)model->attention.head_dim};
    if (spec->policy->prepare == NULL)
        return KV_OK;
    point->retention = spec->policy;
    return spec->policy->prepare(spec->config, spec->directory, &shape, &point->retention_plan,
                                 diag);
}

kv_err kv__plan_policy_keep(const kv_point_spec *spec, kv_cache_format format,
                            kv_serving_point *point, kv_diag *diag)
{
    kv_serving_settings *s = &point->settings;
    if (spec->parts > 0)
        return kv_fail(diag, KV_ERR_UNSUPPORTED, &spec->mark,
                       "serving under transforms and read policies is not built yet; expected a "
                       "retention policy alone");
    if (!kv_keep_needed(point->model, spec->policy))
        return KV_OK;
    if ((spec->policy->claims & KV_COUNTS_FIXED) == 0)
        return kv_fail(diag, KV_ERR_UNSUPPORTED, &spec->mark,
                       "how much '%s' keeps depends on attention, which a request trace does not "
                       "hold",
                       spec->policy->name);
    kv_err err = prepare(spec, point, diag);
    if (err != KV_OK)
        return err;
    kv_counts_rule rule = {
        .policy = spec->policy, .config = spec->config, .plan = point->retention_plan};
    err = kv_keep_new(point->model, &rule, format, point->chunk_tokens, s->block_tokens,
                      s->max_batched_tokens, &point->keep, diag);
    s->keep = point->keep;
    s->prefix_cache = s->prefix_cache && (s->keep == NULL || s->keep->reuse);
    return err;
}

void kv__plan_policy_fini(kv_serving_point *point)
{
    kv_keep_free(point->keep);
    if (point->retention_plan != NULL && point->retention->release != NULL)
        point->retention->release(point->retention_plan);
}
