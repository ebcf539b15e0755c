/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/head_mask.h"
#include "policies/retention.h"
#include "policies/retention_params.h"
#include "policies/scoring.h"

#include <stdlib.h>

typedef struct qfilter_config {
    kv_retention_config base;
    char *filters; /* path of the directions */
} qfilter_config;

static const char *const preset_names[] = {"none", "kvpress", NULL};
static const kv_preset presets[] = {
    {"kvpress", "evict=postfill rounding=kvpress ratio_arithmetic=true", "QFilterPress"},
    {.name = NULL}};

static const kv_param params[] = {
    KV_ROWS_PLAIN_SCORE("postfill"),
    KV_ROW_OF(qfilter_config, "filters", KV_PATH, filters, NULL, 0, 0, NULL, 0, "",
              "file of a direction per KV head: [layers, KV heads, head_dim] in HDF5, or a line of "
              "KV heads x head_dim numbers per layer"),
    KV_ROW_PRESET(preset_names), KV_ROW_END};

typedef struct qfilter_plan {
    double *direction; /* [layers][kv_heads][head_dim] */
} qfilter_plan;

static kv_err prepare(const void *config, const char *directory, const kv_shape *shape, void **out,
                      kv_diag *diag)
{
    const qfilter_config *c = config;
    if (c->filters == NULL)
        return KV_OK;
    qfilter_plan *plan = calloc(1, sizeof *plan);
    if (plan == NULL)
        return kv_fail_memory(diag);
    kv_err err = kv_layer_numbers_load(directory, c->filters, shape->layers,
                                       shape->kv_heads * shape->head_dim, "dimension of a KV head",
                                       &plan->direction, diag);
    if (err != KV_OK) {
        free(plan);
        return err;
    }
    *out = plan;
    return KV_OK;
}

static void release(void *opaque)
{
    qfilter_plan *plan = opaque;
    if (plan != NULL)
        free(plan->direction);
    free(plan);
}

static bool counts_only(const void *config)
{
    return ((const qfilter_config *)config)->filters == NULL;
}

/* Minus the key's part along the direction that queries share: the sign is the published files'.
 */
static void score(const kv_event *event, double *out)
{
    const qfilter_plan *plan = event->plan;
    const kv_shape *shape = event->view->shape;
    const float *keys = kv_layer_keys(event->view->source, event->kv_head);
    int width = shape->head_dim, head = event->view->layer * shape->kv_heads + event->kv_head;
    for (int k = 0; k < event->scored; k++) {
        const float *key = keys + (size_t)event->candidate[k] * (size_t)width;
        out[k] = event->candidate[k];
        if (plan == NULL)
            continue;
        const double *direction = plan->direction + (size_t)head * (size_t)width;
        double dot = 0;
        for (int d = 0; d < width; d++)
            dot += direction[d] * key[d];
        out[k] = -dot;
    }
}

/* Queries of a head point one way; how far a key goes along it tells how much it will get. */
KV_RETENTION_DEFINE(qfilter) = {
    .name = "qfilter",
    .brief = "keeps the keys that lie least along a stored direction of each KV head",
    .cite = "Q-Filters (Godey et al. 2025, arXiv 2503.02812)",
    .stage = "compression",
    .config_bytes = sizeof(qfilter_config),
    .params = params,
    .presets = presets,
    .needs = KV_NEEDS_KEYS,
    .claims = KV_NESTED | KV_COUNTS_FIXED,
    .prepare = prepare,
    .release = release,
    .score = score,
    .file = "filters, a file with a direction for each KV head",
    .counts_only = counts_only,
};
