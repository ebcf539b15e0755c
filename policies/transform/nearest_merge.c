/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Each entry that leaves goes to the remaining one whose key is most like its own. */
#include "config.h"

#include "policies/retention_params.h"
#include "policies/scoring.h"
#include "policies/transform/merge.h"

#include <math.h>

typedef enum scheme { PIVOT, WEIGHTED, VALUES } scheme;

typedef struct nearest_config {
    int scheme;
    int preset;
} nearest_config;

static const char *const preset_names[] = {"none", "kvpress", "kvcache-factory", NULL};
static const kv_preset presets[] = {
    {"kvpress", "scheme=values", "MergingPress"},
    {"kvcache-factory", "scheme=pivot", "merge_kv; its other method is scheme: weighted"},
    {.name = NULL}};

static const char *const scheme_names[] = {"pivot", "weighted", "values", NULL};

static const kv_param params[] = {
    KV_ROW_OF_CHOICE(
        nearest_config, "scheme", scheme, "pivot", scheme_names,
        "pivot and weighted merge keys and values as KVCache-Factory does, values merges "
        "values alone as kvpress does"),
    KV_TRANSFORM_PRESET(nearest_config, preset_names), KV_ROW_END};

static kv_blend weighted(const kv_transform_step *step, const kv_merge_pair *pair)
{
    double weight = fmax((pair->cosine + 1) / 2, 1e-6);
    return (kv_blend){weight, 0, weight};
}

/* A value that is long beside the one that takes it counts more. */
static kv_blend by_values(const kv_transform_step *step, const kv_merge_pair *pair)
{
    int width = step->view->shape->head_dim;
    double dropped = kv_score_norm(kv_stored_row(step->value, step, pair->dropped), width);
    double taker = kv_score_norm(kv_stored_row(step->value, step, pair->taker), width);
    double weight = dropped + taker > 0 ? fmax(pair->cosine, 0) * dropped / (dropped + taker) : 0;
    return (kv_blend){weight, 0, weight};
}

static void apply(const kv_transform_step *step)
{
    static const kv_blend_rule rule[] = {kv_merge_pivotal, weighted, by_values};
    const nearest_config *config = step->config;
    unsigned both = KV_CHANGES_KEYS | KV_CHANGES_VALUES;
    if (step->droppeds == 0)
        return;
    kv_merge_find_nearest(step);
    kv_merge(step, rule[config->scheme], config->scheme == VALUES ? KV_CHANGES_VALUES : both);
}

KV_TRANSFORM_DEFINE(nearest_merge) = {
    .name = "nearest_merge",
    .brief = "merges what leaves into the entry with the most similar key",
    .cite = "merge_kv of KVCache-Factory; MergingPress of kvpress",
    .stage = "compression",
    .config_bytes = sizeof(nearest_config),
    .params = params,
    .presets = presets,
    .needs = KV_NEEDS_KEYS | KV_NEEDS_VALUES,
    .changes = KV_CHANGES_KEYS | KV_CHANGES_VALUES,
    .evicted = true,
    .work_doubles = kv_merge_work,
    .apply = apply,
};
