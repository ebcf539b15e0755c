/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/head_mask.h"
#include "policies/retention_params.h"

static const kv_param params[] = {
    KV_ROW_HEADS,           KV_ROW_SPARSITY("0.5"), KV_ROW_SINKS("128"), KV_ROW_WINDOW("1024"),
    KV_ROW_EVICT("online"), KV_ROW_INTERVAL("512"), KV_ROW_END};

/* The same rule with masks that PruLong learned. */
KV_RETENTION_DEFINE(prulong) = {
    .name = "prulong",
    .brief = "as duo, with the masks and the wider window of PruLong",
    .cite = "PruLong (Bhaskar et al. 2025, arXiv 2506.17121)",
    .stage = "compression",
    .params = params,
    KV_HEAD_MASK_POLICY,
};
