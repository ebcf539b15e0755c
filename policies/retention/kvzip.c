/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/pool.h"
#include "policies/retention.h"
#include "policies/retention_params.h"
#include "policies/scoring.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct kvzip_config {
    kv_retention_config base;
    int pool; /* what shares a budget */
} kvzip_config;

enum { POOL_MODEL, POOL_LAYER, POOL_KV_HEAD };
static const char *const pool_names[] = {
    [POOL_MODEL] = "model", [POOL_LAYER] = "layer", [POOL_KV_HEAD] = "kv_head", NULL};
static const char *const preset_names[] = {"none", "kvpress", NULL};
static const kv_preset presets[] = {
    {"kvpress", "sinks=4 pool=model rounding=truncate_pruned ratio_arithmetic=true",
     "KVzipPress; pool=layer is its layerwise"},
    {.name = NULL}};

static const kv_param params[] = {
    KV_ROW_KEEP,
    KV_ROW_BUDGET,
    KV_ROW_SINKS("4"),
    KV_ROW_OF(kvzip_config, "pool", KV_CHOICE, pool, "model", 0, 0, pool_names, KV_PARAM_OUTERMOST,
              "", "whether all heads of the model, of a layer, or none share their budgets"),
    KV_ROW_ROUNDING("half_up"),
    KV_ROW_RATIO_ARITHMETIC("false"),
    KV_ROW_PRESET(preset_names),
    KV_ROW_END};

/* The most that a query of the repeating pass gave the key, over the group's heads. */
static double most_of(const kv_view *view, int kv_head, int position)
{
    int group = view->shape->heads / view->shape->kv_heads;
    double most = 0;
    for (int g = 0; g < group; g++)
        most = fmax(most, kv_layer_extra(view->source, KV_EXTRA_RECONSTRUCTION,
                                         kv_head * group + g)[position]);
    return most;
}

static void score(const kv_event *event, double *out)
{
    for (int k = 0; k < event->scored; k++)
        out[k] = most_of(event->view, event->kv_head, event->candidate[k]);
}

/* The question came after the context was compressed: it stays. */
static kv_pins pins(const void *config, const kv_quota_query *query, long long total)
{
    const kv_retention_config *c = config;
    return (kv_pins){.first = (int)c->sinks_tokens, .last = query->question_tokens};
}

static kv_err enter(const void *const *config, int budgets, const kv_view *view, void **memo,
                    kv_diag *diag)
{
    const kvzip_config *c = config[0];
    if (c->pool == POOL_KV_HEAD)
        return KV_OK;
    kv_pool_scores scores = {.view = *view,
                             .want = KV_WANT_EXTRA << KV_EXTRA_RECONSTRUCTION,
                             .score = score,
                             .config = c,
                             .sinks = (int)c->base.sinks_tokens,
                             .question = kv_example_question_tokens(view->example),
                             .per_layer = c->pool == POOL_LAYER};
    return kv_pool_memo_new(&scores, config, budgets, memo, diag);
}

/* What a model needs to repeat its context is what any question may need. */
KV_RETENTION_DEFINE(kvzip) = {
    .name = "kvzip",
    .brief = "keeps what a second pass that repeats the context attends to, over all heads",
    .cite = "KVzip (Kim et al. 2025, arXiv 2505.23416)",
    .stage = "compression",
    .config_bytes = sizeof(kvzip_config),
    .params = params,
    .presets = presets,
    .needs = KV_NEEDS_EXTRA << KV_EXTRA_RECONSTRUCTION,
    .claims = KV_NESTED,
    .enter = enter,
    .leave = kv_pool_memo_free,
    .quota = kv_pool_memo_quota,
    .pins = pins,
    .score = score,
};
