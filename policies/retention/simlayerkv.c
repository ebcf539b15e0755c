/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/retention.h"
#include "policies/retention_params.h"
#include "policies/scoring.h"

#include <math.h>

typedef struct simlayerkv_config {
    kv_retention_config base;
    double threshold;        /* share of the attention above which a layer is lazy */
    long long rows;          /* last queries that say whether it is */
    long long recent_tokens; /* entries at the end that a lazy layer keeps, those rows among them */
} simlayerkv_config;

static const char *const preset_names[] = {"none", "kvpress", NULL};
static const kv_preset presets[] = {
    {"kvpress", "sinks=4 recent=1024 rows=1 evict=postfill score_over=present", "SimLayerKVPress"},
    {.name = NULL}};

static const kv_param params[] = {
    KV_ROW_OF(simlayerkv_config, "threshold", KV_REAL, threshold, "1", 0, 1, NULL, KV_PARAM_BUDGET,
              "fraction", "a layer whose sinks and recent entries get a larger share is lazy"),
    KV_ROW_SINKS("4"),
    KV_ROW_OF_COUNT(simlayerkv_config, "recent", recent_tokens, "1024", 1, "tokens",
                    "last entries that a lazy layer keeps, the asked rows among them"),
    KV_ROW_OF_COUNT(simlayerkv_config, "rows", rows, "1", 1, "rows",
                    "last queries that say whether a layer is lazy"),
    KV_ROW_EVICT("postfill"),
    KV_ROW_INTERVAL("512"),
    KV_ROW_SCORE_OVER("present"),
    KV_ROW_PRESET(preset_names),
    KV_ROW_END};

static long long observers(const void *config)
{
    return ((const simlayerkv_config *)config)->rows;
}

static long long quota(const void *config, const kv_quota_query *query)
{
    return query->candidates;
}

/* In a lazy layer later entries are worth more; in others nothing leaves. */
static void score(const kv_event *event, double *out)
{
    for (int k = 0; k < event->scored; k++)
        out[k] = event->candidate[k];
}

/* The share of one row on the candidates first..end-1, first >= 0. */
static double share_of(const kv_event *event, const kv_seen_row *row, long long first, int end)
{
    double share = 0;
    for (long long k = first; row->at != NULL && k < end; k++)
        share += row->weight * row->at[event->candidate[k]];
    return share;
}

/* The mean share, over the rows and all heads of the layer, of the sinks plus that of the recent
 * entries before those rows; nothing counts twice. */
static double lazy_share(const kv_event *event, const simlayerkv_config *c)
{
    int before = kv_score_before_window(event), sinks = kv_score_sinks(event), samples = 0;
    long long recent = before - c->recent_tokens; /* first of them */
    double share = 0;
    for (int h = 0; h < event->view->shape->heads; h++)
        for (int i = event->observer_first; i < event->observer_end; i++, samples++) {
            kv_seen_row row = kv_score_row(event, h, i);
            share += share_of(event, &row, 0, sinks < before ? sinks : before);
            share += share_of(event, &row, recent > sinks ? recent : sinks, before);
        }
    return samples > 0 ? share / samples : 0;
}

static long long resize(const void *config, const kv_event *event, const double *score,
                        const int32_t *order, int ranked, long long quota_entries)
{
    const simlayerkv_config *c = config;
    long long lazy = kv_score_sinks(event) + c->recent_tokens;
    bool too_few = event->candidates <= lazy + c->rows;
    if (too_few || c->threshold >= 1 || lazy_share(event, c) <= c->threshold)
        return event->candidates;
    return lazy - (c->rows < c->recent_tokens ? c->rows : c->recent_tokens);
}

/* Layers that look at nothing but sinks and neighbours need nothing else. */
KV_RETENTION_DEFINE(simlayerkv) = {
    .name = "simlayerkv",
    .brief = "lazy layers keep sinks and the most recent, the others everything",
    .cite = "SimLayerKV (Zhang et al. 2024, arXiv 2410.13846)",
    .stage = "compression",
    .config_bytes = sizeof(simlayerkv_config),
    .params = params,
    .presets = presets,
    .needs = KV_NEEDS_OBSERVERS,
    .observers = observers,
    .quota = quota,
    .score = score,
    .resize = resize,
};
