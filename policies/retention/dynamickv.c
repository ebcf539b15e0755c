/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/pool.h"
#include "policies/retention.h"
#include "policies/retention_params.h"
#include "policies/scorer.h"
#include "policies/scoring.h"

#include <math.h>

typedef struct dynamickv_config {
    kv_retention_config base;
    double most; /* a layer's budget over the mean budget, at most */
} dynamickv_config;

static const kv_param params[] = {KV_ROW_KEEP,
                                  KV_ROW_BUDGET,
                                  KV_ROW_WINDOW("32"),
                                  KV_ROW_WINDOW_IN_BUDGET("true"),
                                  KV_ROW_SINKS("0"),
                                  KV_ROW_KERNEL("7"),
                                  KV_ROW_POOLING("max"),
                                  KV_ROW_GROUP("mean"),
                                  KV_ROW_GROUP_WHEN("before"),
                                  KV_ROW_OF_REAL(dynamickv_config, "most", most, "10", 1, INFINITY,
                                                 "",
                                                 "a layer's budget over the mean budget, at most"),
                                  KV_ROW_ROUNDING("half_up"),
                                  KV_ROW_END};

/* Scores every layer's prompt before the first is replayed. */
static kv_err enter(const void *const *config, int budgets, const kv_view *view, void **memo,
                    kv_diag *diag)
{
    const dynamickv_config *c = config[0];
    kv_pool_scores scores = {.view = *view,
                             .want = KV_WANT_ROWS,
                             .score = kv_score_window,
                             .config = c,
                             .sinks = (int)c->base.sinks_tokens,
                             .window = (int)c->base.window_tokens,
                             .even_heads = true,
                             .most = c->most};
    return kv_pool_memo_new(&scores, config, budgets, memo, diag);
}

/* Layers differ from task to task in how much they retrieve: what the prompt's end attends to says
 * how much each one keeps. */
KV_RETENTION_DEFINE(dynamickv) = {
    .name = "dynamickv",
    .brief = "as snapkv, with the budget of all layers divided by where the best scores are",
    .cite = "DynamicKV (Zhou et al. 2024, arXiv 2412.14838)",
    .stage = "compression",
    .config_bytes = sizeof(dynamickv_config),
    .params = params,
    .needs = KV_NEEDS_OBSERVERS,
    .claims = 0,
    .enter = enter,
    .leave = kv_pool_memo_free,
    .quota = kv_pool_memo_quota,
    .score = kv_scorer_score, /* always the window's: no scorer is asked, and it is none */
};
