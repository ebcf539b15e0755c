/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/draw.h"
#include "policies/retention.h"
#include "policies/retention_params.h"

static const char *const preset_names[] = {"none", "kvpress", NULL};
static const kv_preset presets[] = {{"kvpress",
                                     "evict=postfill rounding=truncate ratio_arithmetic=true",
                                     "RandomPress, with draws of kvsim's own"},
                                    {.name = NULL}};

static const kv_param params[] = {KV_ROW_KEEP,
                                  KV_ROW_BUDGET,
                                  KV_ROW_EVICT("postfill"),
                                  KV_ROW_WINDOW("0"),
                                  KV_ROW_SINKS("0"),
                                  KV_ROW_WINDOW_IN_BUDGET("true"),
                                  KV_ROW_SEED(NULL),
                                  KV_ROW_INTERVAL("512"),
                                  KV_ROW_ROUNDING("half_up"),
                                  KV_ROW_RATIO_ARITHMETIC("false"),
                                  KV_ROW_PRESET(preset_names),
                                  KV_ROW_END};

/* A draw per (seed, example, layer, KV head, token): the same whatever else is replayed. */
static void score(const kv_event *event, double *out)
{
    const kv_retention_config *config = event->config;
    for (int k = 0; k < event->scored; k++)
        out[k] = kv_draw(event->view, config->seed, event->kv_head, event->candidate[k]);
}

/* The floor that any score has to beat. */
KV_RETENTION_DEFINE(random) = {
    .name = "random",
    .brief = "keeps entries drawn at random in each KV head",
    .stage = "compression",
    .config_bytes = sizeof(kv_retention_config),
    .params = params,
    .presets = presets,
    .claims = KV_NESTED | KV_COUNTS_FIXED,
    .score = score,
};
