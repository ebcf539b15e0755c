/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/retention.h"
#include "policies/retention_params.h"
#include "policies/scoring.h"

#include <string.h>

static const char *const preset_names[] = {"none", "kvpress", NULL};
static const kv_preset presets[] = {
    {"kvpress", "scope=layer window=1 evict=postfill rounding=kvpress ratio_arithmetic=true",
     "TOVAPress"},
    {.name = NULL}};

static const kv_param params[] = {KV_ROWS_ROW_SCORE("online"), KV_ROW_SCOPE("layer"),
                                  KV_ROW_PRESET(preset_names), KV_ROW_END};

static long long observers(const void *config)
{
    return 1;
}

/* One set per layer always holds the newest token, as published. */
static kv_pins pins(const void *config, const kv_quota_query *query, long long total)
{
    const kv_retention_config *c = config;
    long long window = c->window_tokens;
    if (c->scope == KV_SCOPE_LAYER && window < 1)
        window = 1;
    return (kv_pins){.first = (int)c->sinks_tokens, .last = (int)window};
}

/* The last query's attention, averaged over the heads that share the set. */
static void score(const kv_event *event, double *out)
{
    const kv_retention_config *config = event->config;
    const kv_shape *shape = event->view->shape;
    bool layer = config->scope == KV_SCOPE_LAYER;
    int heads = layer ? shape->heads : shape->heads / shape->kv_heads;
    int first = layer ? 0 : event->kv_head * heads;
    double *one = event->view->work;
    memset(out, 0, (size_t)event->scored * sizeof *out);
    for (int h = first; h < first + heads; h++) {
        kv_score_window_head(event, h, one);
        for (int k = 0; k < event->scored; k++)
            out[k] += one[k] / heads;
    }
}

/* What the newest query attends to least leaves. */
KV_RETENTION_DEFINE(tova) = {
    .name = "tova",
    .brief = "keeps what the newest query attends to",
    .cite = "TOVA (Oren et al. 2024, arXiv 2401.06104)",
    .stage = "compression",
    .config_bytes = sizeof(kv_retention_config),
    .params = params,
    .presets = presets,
    .needs = KV_NEEDS_OBSERVERS,
    .claims = KV_NESTED | KV_COUNTS_FIXED,
    .observers = observers,
    .pins = pins,
    .score = score,
};
