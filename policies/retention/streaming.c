/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/retention.h"
#include "policies/retention_params.h"

static const char *const preset_names[] = {"none", "kvpress", "kvcache-factory", "minference",
                                           NULL};
static const kv_preset presets[] = {
    {"kvpress", "sinks=4 evict=postfill rounding=kvpress ratio_arithmetic=true",
     "StreamingLLMPress: once after the prompt, sinks inside the budget"},
    {"kvcache-factory", "sinks=4 evict=postfill rounding=half_even", "StreamingLLMKVCluster"},
    {"minference", "sinks=128 window=3968", "streaming configuration of MInference"},
    {.name = NULL}};

static const kv_param params[] = {KV_ROW_SINKS("4"),
                                  KV_ROW_WINDOW_BUDGET,
                                  KV_ROW_KEEP,
                                  KV_ROW_BUDGET,
                                  KV_ROW_EVICT("online"),
                                  KV_ROW_INTERVAL("512"),
                                  KV_ROW_ROUNDING("half_up"),
                                  KV_ROW_RATIO_ARITHMETIC("false"),
                                  KV_ROW_PRESET(preset_names),
                                  KV_ROW_END};

static long long quota(const void *config, const kv_quota_query *query)
{
    const kv_retention_config *c = config;
    long long total =
        c->window_tokens > 0 ? c->sinks_tokens + c->window_tokens : kv_quota_amount(c, query);
    return total < query->candidates ? total : query->candidates;
}

static kv_pins pins(const void *config, const kv_quota_query *query, long long total)
{
    const kv_retention_config *c = config;
    long long sinks = c->sinks_tokens < total ? c->sinks_tokens : total;
    return (kv_pins){.first = (int)sinks, .last = (int)(total - sinks)};
}

/* Sinks and a sliding window. With keep or budget the window is what the sinks leave of it. */
KV_RETENTION_DEFINE(streaming) = {
    .name = "streaming",
    .brief = "keeps the first tokens and a sliding window of the last",
    .cite = "StreamingLLM (Xiao et al. 2023, arXiv 2309.17453)",
    .stage = "compression",
    .config_bytes = sizeof(kv_retention_config),
    .params = params,
    .presets = presets,
    .claims = KV_NESTED | KV_COUNTS_FIXED | KV_LAYERS_ALIKE,
    .quota = quota,
    .pins = pins,
};
