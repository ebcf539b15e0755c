/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/retention.h"
#include "policies/retention_params.h"
#include "policies/scoring.h"

#include <math.h>
#include <string.h>

static const kv_param params[] = {
    KV_ROW("window", KV_INT, window_tokens, "256", 1, INFINITY, NULL, KV_PARAM_BUDGET, "tokens",
           "last queries that are asked, and last entries, always kept"),
    KV_ROW_SINKS("0"),
    KV_ROW_EVICT("online"),
    KV_ROW_INTERVAL("512"),
    KV_ROW_SCORE_OVER("present"),
    KV_ROW_END};

/* Nothing says beforehand how much leaves. */
static long long quota(const void *config, const kv_quota_query *query)
{
    return query->candidates;
}

/* 1 where a query of the window gives the key at least an even share of what it sees. */
static void score_head(const kv_event *event, int query_head, double *out)
{
    memset(out, 0, (size_t)event->scored * sizeof *out);
    for (int i = event->observer_first; i < event->observer_end; i++) {
        kv_seen_row row = kv_score_row(event, query_head, i);
        double even = 1.0 / row.visible;
        for (int k = 0; row.at != NULL && k < event->scored && event->candidate[k] <= i; k++)
            if (row.weight * row.at[event->candidate[k]] >= even)
                out[k] = 1;
    }
}

/* A group shares its entries, so one of its query heads is enough to keep one. */
static void score(const kv_event *event, double *out)
{
    const kv_shape *shape = event->view->shape;
    int heads = shape->heads / shape->kv_heads;
    double *one = event->view->work;
    memset(out, 0, (size_t)event->scored * sizeof *out);
    for (int g = 0; g < heads; g++) {
        score_head(event, event->kv_head * heads + g, one);
        for (int k = 0; k < event->scored; k++)
            out[k] = fmax(out[k], one[k]);
    }
}

/* What is not minor to all of the last queries stays, however much that is. */
static long long resize(const void *config, const kv_event *event, const double *score,
                        const int32_t *order, int ranked, long long quota_entries)
{
    long long stays = event->candidates - ranked; /* sinks and window */
    for (int r = 0; r < ranked; r++)
        stays += score[order[r]] > 0;
    return stays;
}

/* Recent queries resemble the next ones: what is minor to all of them leaves. */
KV_RETENTION_DEFINE(corm) = {
    .name = "corm",
    .brief = "drops the keys that got less than an even share from each of the last queries",
    .cite = "CORM (Dai et al. 2024, arXiv 2404.15949)",
    .stage = "compression",
    .config_bytes = sizeof(kv_retention_config),
    .params = params,
    .needs = KV_NEEDS_OBSERVERS,
    .quota = quota,
    .score = score,
    .resize = resize,
};
