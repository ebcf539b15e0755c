/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/retention.h"
#include "policies/retention_params.h"
#include "policies/scorer.h"
#include "policies/scoring.h"

#include <math.h>

typedef struct adakv_config {
    kv_retention_config base;
    double alpha;   /* share of a head's budget that it keeps in any case */
    bool normalize; /* heads compete by their share of their own best scores */
} adakv_config;

static const char *const preset_names[] = {"none", "kvpress", "kvcache-factory", NULL};
enum { NONE, KVPRESS, KVCACHE_FACTORY };

static const kv_preset presets[] = {
    {"kvpress",
     "alpha=0.2 window=64 kernel=5 pooling=avg group=mean group_when=after window_in_budget=true "
     "rounding=kvpress ratio_arithmetic=true evict=postfill",
     "AdaKVPress over SnapKVPress: the total is exact, heads compete for what the floor leaves"},
    {"kvcache-factory",
     "alpha=0.2 normalize=true window=32 kernel=7 pooling=max group=mean group_when=before "
     "window_in_budget=true rounding=half_even evict=postfill",
     "AdaKVCluster: counts among the pooled best, mixed with the floor; the total is near"},
    {.name = NULL}};

static const kv_param params[] = {
    KV_ROW_SCORER,
    KV_ROWS_WINDOW_SCORE("64", "5", "avg"),
    {.name = "alpha",
     .type = KV_REAL,
     .offset = offsetof(adakv_config, alpha),
     .fallback = "0.2",
     .min = 0,
     .max = 1,
     .flags = KV_PARAM_SWEEP,
     .unit = "fraction",
     .help = "share of its even budget that a head keeps in any case"},
    {.name = "normalize",
     .type = KV_BOOL,
     .offset = offsetof(adakv_config, normalize),
     .fallback = "false",
     .flags = KV_PARAM_SWEEP,
     .unit = "",
     .help = "whether scores are divided by the head's total over its best (kvcache-factory)"},
    KV_ROW_PRESET(preset_names),
    KV_ROW_END};

/* Repeatedly takes the best remaining score of all heads (ties: lower head), starting below what
 * taken[] holds already, until `room` more are taken. weight scales each head's scores. */
static void take_best(int heads, const double *const *ranked, const int *scored,
                      const double *weight, long long room, long long *taken)
{
    for (; room > 0; room--) {
        int best = -1;
        double most = 0;
        for (int h = 0; h < heads; h++) {
            if (taken[h] >= scored[h])
                continue;
            double score = ranked[h][taken[h]] * (weight ? weight[h] : 1);
            if (best < 0 || score > most) {
                best = h;
                most = score;
            }
        }
        if (best < 0)
            return;
        taken[best]++;
    }
}

/* kvpress: every head's best floor stays, window entries counted first as they score highest; the
 * rest of the layer's total goes to the best of all heads. */
static void allocate_exact(const adakv_config *c, const kv_quota_query *query, int heads,
                           const double *const *ranked, const int *scored, long long *counts)
{
    long long total = 0;
    for (int h = 0; h < heads; h++) {
        long long quota = kv_quota_uniform(c, query);
        long long pinned = quota - counts[h];
        long long floor_entries = (long long)(c->alpha * (double)quota);
        if (c->base.preset == KVPRESS && c->alpha > 0 && quota > 0 && floor_entries < 1)
            floor_entries = 1;
        floor_entries -= pinned;
        total += counts[h];
        counts[h] = floor_entries < 0 ? 0 : floor_entries < scored[h] ? floor_entries : scored[h];
        total -= counts[h];
    }
    take_best(heads, ranked, scored, NULL, total, counts);
}

/* KVCache-Factory: a head's count among the pooled best of the layer, mixed with the floor. */
static void allocate_mixed(const adakv_config *c, int heads, const double *const *ranked,
                           const int *scored, double *weight, long long *counts)
{
    long long base = counts[0], floor_entries = (long long)(c->alpha * (double)base);
    for (int h = 0; h < heads; h++) {
        double best = 0, all = 0;
        for (int r = 0; r < scored[h]; r++) {
            best += r < base ? ranked[h][r] : 0;
            all += ranked[h][r];
        }
        weight[h] = c->normalize && all > 0 ? best / all : 1;
        counts[h] = 0;
    }
    take_best(heads, ranked, scored, weight, base * heads, counts);
    for (int h = 0; h < heads; h++) {
        counts[h] = llrint((double)counts[h] * (1 - c->alpha) + (double)floor_entries);
        if (counts[h] > scored[h])
            counts[h] = scored[h];
    }
}

static void allocate(const void *config, const kv_quota_query *query, int heads,
                     const double *const *ranked, const int *scored, double *work,
                     long long *counts)
{
    const adakv_config *c = config;
    if (c->base.preset == KVCACHE_FACTORY)
        allocate_mixed(c, heads, ranked, scored, work, counts);
    else
        allocate_exact(c, query, heads, ranked, scored, counts);
}

static kv_err check(const void *config, const kv_mark *mark, kv_diag *diag)
{
    const adakv_config *c = config;
    if (c->normalize && c->base.preset != KVCACHE_FACTORY)
        return kv_fail(
            diag, KV_ERR_INPUT, mark,
            "adakv: normalize is what preset kvcache-factory does; expected that preset");
    return KV_OK;
}

/* How heads' scores are weighted depends on the budget, and so may what competes. */
static bool nested(const void *config)
{
    const adakv_config *c = config;
    return (c->base.preset != KVCACHE_FACTORY || !c->normalize) && kv_scorer_ignores_budget(config);
}

/* Heads of a layer share one budget. */
KV_RETENTION_DEFINE(adakv) = {
    .name = "adakv",
    .brief = "as snapkv, with a layer's budget divided among its heads by their scores",
    .cite = "Ada-KV (Feng et al. 2024, arXiv 2407.11550)",
    .stage = "compression",
    .config_bytes = sizeof(adakv_config),
    .params = params,
    .presets = presets,
    .needs = KV_NEEDS_OBSERVERS,
    .claims = KV_NESTED,
    .check = check,
    .nested = nested,
    .score = kv_scorer_score,
    .allocate = allocate,
};
