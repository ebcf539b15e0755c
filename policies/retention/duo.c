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
    .params = params,
    KV_HEAD_MASK_POLICY,
};
