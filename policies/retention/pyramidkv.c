/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/retention.h"
#include "policies/retention_params.h"
#include "policies/scorer.h"
#include "policies/scoring.h"

#include <math.h>

static const char *const preset_names[] = {"none",       "kvpress", "prulong", "kvcache-factory",
                                           "minference", NULL};
enum { NONE, KVPRESS, PRULONG, KVCACHE_FACTORY, MINFERENCE };

static const kv_preset presets[] = {
    {"kvpress",
     "beta=20 window=64 kernel=5 pooling=avg group=mean group_when=after window_in_budget=true "
     "rounding=kvpress ratio_arithmetic=true evict=postfill",
     "PyramidKVPress: real-valued slope, uniform where a layer would fall below the window"},
    {"prulong",
     "beta=20 window=64 kernel=5 pooling=avg group=mean group_when=after window_in_budget=true "
     "rounding=truncate ratio_arithmetic=true evict=chunked score_over=chunk",
     "chunked eviction of the PruLong evaluation (arXiv 2506.17121): integer slope"},
    {"kvcache-factory",
     "beta=20 window=64 kernel=5 pooling=avg group=mean group_when=before window_in_budget=true "
     "rounding=half_even evict=postfill",
     "PyramidKVCluster: integer slope; its LongBench runner sets window=8 kernel=7 pooling=max"},
    {"minference",
     "beta=20 window=32 kernel=5 pooling=avg group=mean group_when=before window_in_budget=true "
     "rounding=truncate evict=postfill",
     "PyramidKV of MInference: integer slope"},
    {.name = NULL}};

static const kv_param params[] = {KV_ROW_SCORER, KV_ROWS_WINDOW_SCORE("64", "5", "avg"),
                                  KV_ROW_BETA("2"), KV_ROW_PRESET(preset_names), KV_ROW_END};

/* What the budget is a share of. A total budget is one of the prompt, however few entries compete.
 */
static int entries_of(const kv_quota_query *q)
{
    return q->own_chunk ? q->candidates : q->prompt_tokens;
}

/* kvpress: hi - layer * step in reals, the window included; uniform where the slope does not fit.
 */
static long long quota_kvpress(const kv_retention_config *c, const kv_quota_query *q)
{
    double n = entries_of(q), window = (double)c->window_tokens;
    double share = c->budget_tokens > 0 ? c->budget_tokens / n : 1.0 - (1.0 - c->keep);
    double spread = n * share, low = spread / c->beta, high = 2 * spread - low;
    if (high >= n - window) {
        high = n - window;
        low = 2 * spread - high;
    }
    if (!(n >= high && high >= low && low >= window)) {
        long long uniform = llrint(n * share);
        return share > 0 && uniform < 1 ? 1 : uniform;
    }
    double step = q->layers > 1 ? (high - low) / (q->layers - 1) : 0;
    return llrint(high - q->layer * step);
}

/* The original's integers: capacity c beyond the window; all or uniform where the slope does not
 * fit. */
static long long quota_integer(const kv_retention_config *c, const kv_quota_query *q)
{
    long long n = entries_of(q), window = c->window_tokens, amount = kv_quota_amount(c, q);
    long long capacity = c->window_in_budget ? amount : amount + window;
    long long beyond = capacity - window;
    if (n < capacity || n < 2 * beyond || beyond <= 0)
        return capacity;
    long long low = beyond / (long long)c->beta, high = 2 * beyond - low;
    if (high >= n - window) {
        high = n - window;
        low = 2 * beyond - high;
    }
    long long step = q->layers > 1 ? (high - low) / (q->layers - 1) : 0;
    return high - q->layer * step + window;
}

/* kvsim's own: the mean over layers stays what was asked for, and no layer exceeds what there is.
 * Layer l of L keeps k (1 + s (1 - 2 l / (L - 1))) beyond the window, s = 1 - 1/beta or less. */
static long long quota_linear(const kv_retention_config *c, const kv_quota_query *q)
{
    double n = entries_of(q), window = fmin((double)c->window_tokens, n);
    double beyond = (double)kv_quota_amount(c, q) - (c->window_in_budget ? window : 0);
    beyond = fmin(beyond, n - window);
    if (beyond <= 0)
        return kv_quota_uniform(c, q);
    double slope = fmin(1 - 1 / c->beta, (n - window) / beyond - 1);
    double centred = q->layers > 1 ? 1 - 2.0 * q->layer / (q->layers - 1) : 0;
    return (long long)floor(beyond * (1 + slope * centred) + 0.5) + (long long)window;
}

static long long quota(const void *config, const kv_quota_query *query)
{
    const kv_retention_config *c = config;
    long long entries = c->preset == NONE      ? quota_linear(c, query)
                        : c->preset == KVPRESS ? quota_kvpress(c, query)
                                               : quota_integer(c, query);
    return entries < query->candidates ? entries : query->candidates;
}

/* The budget of kvpress is made in real numbers, of a capacity with the window in it. */
static kv_err check(const void *config, const kv_mark *mark, kv_diag *diag)
{
    const kv_retention_config *c = config;
    const char *idle = !c->window_in_budget           ? "window_in_budget"
                       : c->rounding != KV_AS_KVPRESS ? "rounding"
                       : !c->ratio_arithmetic         ? "ratio_arithmetic"
                                                      : NULL;
    if (c->preset != KVPRESS || idle == NULL)
        return KV_OK;
    return kv_fail(diag, KV_ERR_INPUT, mark,
                   "pyramidkv: %s does nothing beside preset kvpress, which has a formula of its "
                   "own; leave it out",
                   idle);
}

/* kvpress falls back to a uniform budget where the slope does not fit, so that a larger budget may
 * keep less in a layer. */
static bool nested(const void *config)
{
    const kv_retention_config *c = config;
    return c->preset == NONE;
}

/* SnapKV's score with more entries in the lower layers. */
KV_RETENTION_DEFINE(pyramidkv) = {
    .name = "pyramidkv",
    .brief = "as snapkv, with more entries in lower layers and fewer in higher ones",
    .cite = "PyramidKV (Cai et al. 2024, arXiv 2406.02069)",
    .stage = "compression",
    .config_bytes = sizeof(kv_retention_config),
    .params = params,
    .presets = presets,
    .needs = KV_NEEDS_OBSERVERS,
    .claims = KV_NESTED | KV_COUNTS_FIXED,
    .check = check,
    .nested = nested,
    .quota = quota,
    .score = kv_scorer_score,
};
