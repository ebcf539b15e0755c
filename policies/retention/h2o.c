/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/retention.h"
#include "policies/retention_params.h"
#include "policies/scoring.h"

#include <math.h>
#include <string.h>

enum preset { NONE, KVCACHE_FACTORY };
static const char *const preset_names[] = {"none", "kvcache-factory", NULL};
static const kv_preset presets[] = {{"kvcache-factory",
                                     "recent=64 evict=postfill rounding=half_even",
                                     "H2OKVCluster: all rows summed once, the last `recent` kept"},
                                    {.name = NULL}};

static const kv_param params[] = {KV_ROW_KEEP,
                                  KV_ROW_BUDGET,
                                  KV_ROW_RECENT(NULL),
                                  KV_ROW_WINDOW("0"),
                                  KV_ROW_SINKS("0"),
                                  KV_ROW_EVICT("online"),
                                  KV_ROW_SCORE_OVER("chunk"),
                                  KV_ROW_INTERVAL("512"),
                                  KV_ROW_ROUNDING("half_up"),
                                  KV_ROW_PRESET(preset_names),
                                  KV_ROW_END};

static long long quota(const void *config, const kv_quota_query *query)
{
    long long amount = kv_quota_amount(config, query);
    return amount < query->candidates ? amount : query->candidates;
}

/* Half heavy hitters, half recent; the odd one is recent. A window, if given, takes the place of
 * the recent half. */
static kv_pins pins(const void *config, const kv_quota_query *query, long long total)
{
    const kv_retention_config *c = config;
    double recent = c->recent < 0   ? (double)(total - total / 2)
                    : c->recent < 1 ? floor(c->recent * (double)total + 0.5)
                                    : c->recent;
    if (c->window_tokens > 0)
        recent = (double)c->window_tokens;
    long long room = total - c->sinks_tokens > 0 ? total - c->sinks_tokens : 0;
    return (kv_pins){.first = (int)c->sinks_tokens,
                     .last = recent < (double)room ? (int)recent : (int)room};
}

/* Beside a preset, which has a `recent` of its own, a window simply takes its place. */
static kv_err check(const void *config, const kv_mark *mark, kv_diag *diag)
{
    const kv_retention_config *c = config;
    if (c->preset == NONE && c->window_tokens > 0 && c->recent >= 0)
        return kv_fail(
            diag, KV_ERR_INPUT, mark,
            "h2o: recent does nothing beside window, which takes its place; expected one "
            "of them");
    return KV_OK;
}

static void score(const kv_event *event, double *out)
{
    for (int k = 0; k < event->scored; k++)
        out[k] = event->state[event->candidate[k]];
}

/* Heavy hitters: the attention that a key has received from all queries so far. */
KV_RETENTION_DEFINE(h2o) = {
    .name = "h2o",
    .brief = "keeps the keys with the most attention received so far, and the most recent",
    .cite = "H2O (Zhang et al. 2023, arXiv 2306.14048)",
    .stage = "compression",
    .config_bytes = sizeof(kv_retention_config),
    .params = params,
    .presets = presets,
    .needs = KV_NEEDS_EVERY_ROW,
    .claims = KV_NESTED | KV_COUNTS_FIXED | KV_LAYERS_ALIKE,
    .state_doubles = 1,
    .check = check,
    .quota = quota,
    .pins = pins,
    .score = score,
    .observe = kv_score_accumulate,
};
