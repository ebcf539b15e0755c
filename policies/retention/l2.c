/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/retention.h"
#include "policies/retention_params.h"
#include "policies/scoring.h"

#include <math.h>

typedef struct l2_config {
    kv_retention_config base;
    long long skip_layers;
    long long prune_after_tokens; /* fewer entries than this are left alone */
} l2_config;

static const char *const preset_names[] = {"none", "devoto", NULL};
static const kv_preset presets[] = {
    {"devoto", "skip_layers=2 prune_after=2048 rounding=ceil evict=online",
     "the paper's own code: of everything present, again at every update"},
    {.name = NULL}};

static const kv_param params[] = {
    KV_ROWS_PLAIN_SCORE("postfill"),
    KV_ROW_OF(l2_config, "skip_layers", KV_INT, skip_layers, "2", 0, INFINITY, NULL,
              KV_PARAM_OUTERMOST, "layers", "lowest layers that keep everything"),
    KV_ROW_OF(l2_config, "prune_after", KV_INT, prune_after_tokens, "0", 0, INFINITY, NULL,
              KV_PARAM_OUTERMOST, "tokens", "a head with fewer entries than this keeps them all"),
    KV_ROW_PRESET(preset_names), KV_ROW_END};

static long long quota(const void *config, const kv_quota_query *query)
{
    const l2_config *c = config;
    if (query->layer < c->skip_layers || query->candidates < c->prune_after_tokens)
        return query->candidates;
    return kv_quota_uniform(config, query);
}

/* Keys of small norm receive much attention; as the paper applies it, whole layers are spared. */
KV_RETENTION_DEFINE(l2) = {
    .name = "l2",
    .brief = "keeps the keys with the smallest L2 norm, the lowest layers spared",
    .cite = "A Simple and Effective L2 Norm-Based Strategy (Devoto et al. 2024, arXiv 2406.11430)",
    .stage = "compression",
    .config_bytes = sizeof(l2_config),
    .params = params,
    .presets = presets,
    .needs = KV_NEEDS_KEYS,
    .claims = KV_NESTED | KV_COUNTS_FIXED,
    .quota = quota,
    .score = kv_score_short_keys,
};
