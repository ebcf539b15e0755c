/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/head_mask.h"
#include "policies/retention_params.h"

static const kv_param params[] = {
    KV_ROW_HEADS,           KV_ROW_SPARSITY("0.5"), KV_ROW_SINKS("128"), KV_ROW_WINDOW("256"),
    KV_ROW_EVICT("online"), KV_ROW_INTERVAL("512"), KV_ROW_END};

/* Retrieval heads keep all, the others stream: gates from DuoAttention's training. */
KV_RETENTION_DEFINE(duo) = {
    .name = "duo",
    .brief = "heads of low gate keep sinks and a sliding window, the others everything",
    .cite = "DuoAttention (Xiao et al. 2024, arXiv 2410.10819)",
    .stage = "compression",
    .config_bytes = sizeof(kv_retention_config),
    .params = params,
    .claims = KV_COUNTS_FIXED | KV_LAYERS_ALIKE,
    .prepare = kv_head_mask_prepare,
    .release = kv_head_mask_release,
    .quota = kv_head_mask_quota,
    .pins = kv_head_mask_pins,
    .head_share = kv_head_mask_share,
    .count_class = kv_head_mask_class,
    .counts_only = kv_head_mask_counts_only,
};
