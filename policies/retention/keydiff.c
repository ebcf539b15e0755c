/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/retention.h"
#include "policies/retention_params.h"
#include "policies/scoring.h"

#include <math.h>
#include <string.h>

static const char *const preset_names[] = {"none", "kvpress", NULL};
static const kv_preset presets[] = {
    {"kvpress", "anchor=unit evict=postfill rounding=kvpress ratio_arithmetic=true",
     "KeyDiffPress"},
    {.name = NULL}};

static const kv_param params[] = {KV_ROWS_PLAIN_SCORE("postfill"), KV_ROW_ANCHOR("unit"),
                                  KV_ROW_PRESET(preset_names), KV_ROW_END};

/* The mean direction of all candidates, those of the window included. */
static void anchor_of(const kv_event *event, const float *keys, int width, double *anchor)
{
    const kv_retention_config *config = event->config;
    memset(anchor, 0, (size_t)width * sizeof *anchor);
    for (int k = 0; k < event->candidates; k++) {
        const float *key = keys + (size_t)event->candidate[k] * width;
        double norm = config->anchor == KV_ANCHOR_UNIT ? kv_score_norm(key, width) : 1;
        for (int d = 0; d < width && norm > 0; d++)
            anchor[d] += key[d] / norm;
    }
}

/* Minus the cosine between the key and the anchor. */
static void score(const kv_event *event, double *out)
{
    const float *keys = kv_layer_keys(event->view->source, event->kv_head);
    int width = event->view->shape->head_dim;
    double *anchor = event->view->anchor;
    double squares = 0;
    anchor_of(event, keys, width, anchor);
    for (int d = 0; d < width; d++)
        squares += anchor[d] * anchor[d];
    for (int k = 0; k < event->scored; k++) {
        const float *key = keys + (size_t)event->candidate[k] * width;
        double dot = 0, norm = kv_score_norm(key, width) * sqrt(squares);
        for (int d = 0; d < width; d++)
            dot += key[d] * anchor[d];
        out[k] = norm > 0 ? -dot / norm : 0;
    }
}

/* Keys that point away from the mean are the distinctive ones. */
KV_RETENTION_DEFINE(keydiff) = {
    .name = "keydiff",
    .brief = "keeps the keys least similar to the mean key",
    .cite = "KeyDiff (Park et al. 2025, arXiv 2504.15364)",
    .stage = "compression",
    .config_bytes = sizeof(kv_retention_config),
    .params = params,
    .presets = presets,
    .needs = KV_NEEDS_KEYS,
    .claims = KV_NESTED | KV_COUNTS_FIXED,
    .score = score,
};
