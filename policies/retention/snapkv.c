/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/retention.h"
#include "policies/retention_params.h"
#include "policies/scoring.h"

static const char *const preset_names[] = {"none",       "kvpress", "prulong", "kvcache-factory",
                                           "minference", NULL};
static const kv_preset presets[] = {
    {"kvpress",
     "window=64 kernel=5 pooling=avg group=mean group_when=after window_in_budget=true "
     "rounding=kvpress ratio_arithmetic=true evict=postfill",
     "SnapKVPress"},
    {"prulong",
     "window=64 kernel=5 pooling=avg group=mean group_when=after window_in_budget=false "
     "rounding=prulong ratio_arithmetic=true evict=chunked score_over=chunk",
     "chunked eviction of the PruLong evaluation (arXiv 2506.17121)"},
    {"kvcache-factory",
     "window=64 kernel=5 pooling=avg group=mean group_when=before window_in_budget=true "
     "rounding=half_even evict=postfill",
     "SnapKVCluster; its LongBench runner sets window=8 kernel=7 pooling=max"},
    {"minference",
     "window=32 kernel=5 pooling=avg group=mean group_when=before window_in_budget=true "
     "rounding=truncate evict=postfill",
     "SnapKV of MInference; its capacity is budget=4096"},
    {.name = NULL}};

static const kv_param params[] = {KV_ROWS_WINDOW_SCORE("64", "5", "avg"),
                                  KV_ROW_PRESET(preset_names), KV_ROW_END};

/* What the last queries attend to. */
KV_RETENTION_DEFINE(snapkv) = {
    .name = "snapkv",
    .brief = "keeps what the last queries attend to, pooled over neighbours, and the window itself",
    .cite = "SnapKV (Li et al. 2024, arXiv 2404.14469); chunked and patched: PruLong, 2506.17121",
    .stage = "compression",
    .config_bytes = sizeof(kv_retention_config),
    .params = params,
    .presets = presets,
    .needs = KV_NEEDS_OBSERVERS,
    .claims = KV_NESTED | KV_COUNTS_FIXED,
    .score = kv_score_window,
};
