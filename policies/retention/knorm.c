/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/retention.h"
#include "policies/retention_params.h"
#include "policies/scoring.h"

#include <math.h>

typedef struct knorm_config {
    kv_retention_config base;
    long long skip_layers;
} knorm_config;

static const char *const preset_names[] = {"none", "kvpress", "prulong", "kvcache-factory", NULL};
static const kv_preset presets[] = {
    {"kvpress", "evict=postfill rounding=kvpress ratio_arithmetic=true", "KnormPress"},
    {"prulong", "skip_layers=2 window=64 window_in_budget=false evict=pool", "L2 norm of PruLong"},
    {"kvcache-factory", "skip_layers=2 evict=postfill rounding=half_even", "L2NormCluster"},
    {.name = NULL}};

static const kv_param params[] = {KV_ROWS_PLAIN_SCORE("postfill"),
                                  {.name = "skip_layers",
                                   .type = KV_INT,
                                   .offset = offsetof(knorm_config, skip_layers),
                                   .fallback = "0",
                                   .min = 0,
                                   .max = INFINITY,
                                   .flags = KV_PARAM_SWEEP | KV_PARAM_OUTERMOST,
                                   .unit = "layers",
                                   .help = "lowest layers that keep everything"},
                                  KV_ROW_PRESET(preset_names),
                                  KV_ROW_END};

static long long quota(const void *config, const kv_quota_query *query)
{
    const knorm_config *c = config;
    return query->layer < c->skip_layers ? query->candidates : kv_quota_uniform(config, query);
}

/* Keys of small norm receive much attention. */
KV_RETENTION_DEFINE(knorm) = {
    .name = "knorm",
    .brief = "keeps the keys with the smallest L2 norm",
    .cite = "Devoto et al. 2024, arXiv 2406.11430",
    .stage = "compression",
    .config_bytes = sizeof(knorm_config),
    .params = params,
    .presets = presets,
    .needs = KV_NEEDS_KEYS,
    .claims = KV_NESTED | KV_COUNTS_FIXED,
    .quota = quota,
    .score = kv_score_short_keys,
};
