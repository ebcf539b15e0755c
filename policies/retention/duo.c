/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/head_mask.h"
#include "policies/retention_params.h"

static const char *const preset_names[] = {"none", "kvpress", NULL};
static const kv_preset presets[] = {
    {"kvpress", "evict=postfill",
     "DuoAttentionPress: once after the prompt, and what is generated stays; give it the sink_size "
     "and recent_size of the head file"},
    {.name = NULL}};

static const kv_param params[] = {KV_ROW_HEADS,
                                  KV_ROW_SPARSITY("0.5"),
                                  KV_ROW_SINKS("128"),
                                  KV_ROW_WINDOW("256"),
                                  KV_ROW_EVICT("online"),
                                  KV_ROW_INTERVAL("512"),
                                  KV_ROW_PRESET(preset_names),
                                  KV_ROW_END};

/* Retrieval heads keep all, the others stream: gates from DuoAttention's training. */
KV_RETENTION_DEFINE(duo) = {
    .name = "duo",
    .brief = "heads of low gate keep sinks and a sliding window, the others everything",
    .cite = "DuoAttention (Xiao et al. 2024, arXiv 2410.10819)",
    .stage = "compression",
    .params = params,
    .presets = presets,
    KV_HEAD_MASK_POLICY,
};
