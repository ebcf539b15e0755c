/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* KVMerger: keys of neighbouring tokens are alike, so what leaves is merged inside runs of such
 * neighbours, each entry by a Gaussian of its distance to the one that stays. */
#include "config.h"

#include "policies/retention_params.h"
#include "policies/transform/merge.h"

#include <math.h>

typedef struct kvmerger_config {
    double threshold; /* least cosine of neighbouring keys in one run */
    double sigma;     /* of the Gaussian; 0: the mean distance to the entry that stays */
} kvmerger_config;

static const kv_param params[] = {
    KV_ROW_OF_REAL(kvmerger_config, "threshold", threshold, "0.75", -1, 1, "cosine",
                   "least cosine of the keys of two neighbours that belong to one run"),
    KV_ROW_OF_REAL(
        kvmerger_config, "sigma", sigma, "0", 0, INFINITY, "distance",
        "width of the Gaussian; 0: the mean distance of a set's keys to the one that stays"),
    KV_ROW_END};

/* Whether two neighbouring tokens belong to one run. */
static bool alike(const kv_transform_step *step, int before, int token)
{
    const kvmerger_config *config = step->config;
    return kv_merge_cosine(kv_stored_row(step->key, step, before),
                           kv_stored_row(step->key, step, token),
                           step->view->shape->head_dim) >= config->threshold;
}

/* run[token] = the number of the token's run, of all that was present before the eviction. */
static void find_runs(const kv_transform_step *step, double *run)
{
    int before = -1, number = 0, k = 0, i = 0;
    while (k < step->presents || i < step->droppeds) {
        bool kept =
            i == step->droppeds || (k < step->presents && step->present[k] < step->dropped[i]);
        int token = kept ? step->present[k++] : step->dropped[i++];
        number += before >= 0 && !alike(step, before, token);
        run[token] = number;
        before = token;
    }
}

/* order[i] = the kept entry of the run of dropped[i] that is nearest in tokens, the earlier one of
 * two; -1: the run keeps none. */
static void find_takers(const kv_transform_step *step, const double *run)
{
    int behind = 0; /* first kept entry after the dropped one */
    for (int i = 0; i < step->droppeds; i++) {
        int token = step->dropped[i];
        while (behind < step->presents && step->present[behind] < token)
            behind++;
        bool after = behind < step->presents && run[step->present[behind]] == run[token];
        bool before = behind > 0 && run[step->present[behind - 1]] == run[token];
        if (after && before)
            after = step->present[behind] - token < token - step->present[behind - 1];
        step->order[i] = after ? behind : before ? behind - 1 : -1;
    }
}

/* The Gaussian's width for each entry that stays: work + 3N, see sigma. */
static void find_widths(const kv_transform_step *step)
{
    const kvmerger_config *config = step->config;
    size_t tokens = (size_t)step->view->example->total_tokens;
    double *sum = step->work + 3 * tokens, *count = step->work;
    for (int k = 0; k < step->presents; k++)
        sum[k] = count[k] = 0;
    for (int i = 0; i < step->droppeds; i++) {
        int taker = step->order[i];
        if (taker < 0)
            continue;
        const float *key = kv_stored_row(step->key, step, step->present[taker]);
        sum[taker] += sqrt(kv_merge_distance2(kv_stored_row(step->key, step, step->dropped[i]), key,
                                              step->view->shape->head_dim));
        count[taker]++;
    }
    for (int k = 0; k < step->presents; k++)
        sum[k] = config->sigma > 0 ? config->sigma : count[k] > 0 ? sum[k] / count[k] : 0;
    for (int k = step->presents - 1; k >= 0; k--) /* by token, as the rule asks */
        sum[step->present[k]] = sum[k];
}

static kv_blend gaussian(const kv_transform_step *step, const kv_merge_pair *pair)
{
    double sigma = step->work[3 * (size_t)step->view->example->total_tokens + (size_t)pair->taker];
    double far = kv_merge_distance2(kv_stored_row(step->key, step, pair->dropped),
                                    kv_stored_row(step->key, step, pair->taker),
                                    step->view->shape->head_dim);
    double weight = sigma > 0 ? exp(-far / (2 * sigma * sigma)) : 1;
    return (kv_blend){weight, 0, weight};
}

static void apply(const kv_transform_step *step)
{
    if (step->droppeds == 0)
        return;
    find_runs(step, step->work);
    find_takers(step, step->work);
    find_widths(step);
    kv_merge(step, gaussian, KV_CHANGES_KEYS | KV_CHANGES_VALUES);
}

KV_TRANSFORM_DEFINE(kvmerger) = {
    .name = "kvmerger",
    .brief = "merges what leaves inside runs of similar neighbours, by a Gaussian of distance",
    .cite = "KVMerger (Wang et al. 2024, arXiv 2407.08454)",
    .stage = "compression",
    .config_bytes = sizeof(kvmerger_config),
    .params = params,
    .needs = KV_NEEDS_KEYS | KV_NEEDS_VALUES,
    .changes = KV_CHANGES_KEYS | KV_CHANGES_VALUES,
    .evicted = true,
    .apply = apply,
};
