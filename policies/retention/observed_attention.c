/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/retention.h"
#include "policies/retention_params.h"
#include "policies/scoring.h"

static const char *const preset_names[] = {"none", "kvpress", NULL};
static const kv_preset presets[] = {
    {"kvpress", "window=0 evict=postfill rounding=kvpress ratio_arithmetic=true",
     "ObservedAttentionPress"},
    {.name = NULL}};

static const kv_param params[] = {KV_ROWS_ROW_SCORE("postfill"), KV_ROW_PRESET(preset_names),
                                  KV_ROW_END};

/* The sum over the queries that saw the key, divided by how many they were. */
static void score(const kv_event *event, double *out)
{
    for (int k = 0; k < event->scored; k++)
        out[k] = event->state[event->candidate[k]] / (event->chunk_end - event->candidate[k]);
}

/* H2O without its bias for early keys. */
KV_RETENTION_DEFINE(observed_attention) = {
    .name = "observed_attention",
    .brief = "keeps the keys with the highest mean attention over the queries that saw them",
    .cite = "ObservedAttentionPress of kvpress, after H2O (arXiv 2306.14048)",
    .stage = "compression",
    .config_bytes = sizeof(kv_retention_config),
    .params = params,
    .presets = presets,
    .needs = KV_NEEDS_EVERY_ROW,
    .claims = KV_NESTED | KV_COUNTS_FIXED,
    .state_doubles = 1,
    .score = score,
    .observe = kv_score_accumulate,
};
