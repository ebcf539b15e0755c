/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* CaM: the value of what leaves is spread over the entries that follow it, more often the more
 * attention it still gets. */
#include "config.h"

#include "policies/draw.h"
#include "policies/retention_params.h"
#include "policies/transform/merge.h"

#include <math.h>
#include <string.h>

typedef struct cam_config {
    long long merge; /* entries that share a value */
    long long seed;  /* of the draws; -1 if not given: the experiment's */
    int preset;
} cam_config;

enum preset { NONE, KVPRESS };
static const char *const preset_names[] = {"none", "kvpress", NULL};
static const kv_preset presets[] = {{"kvpress", "merge=32", "CAMPress"}, {.name = NULL}};

static const kv_param params[] = {KV_ROW_OF_COUNT(cam_config, "merge", merge, "32", 1, "entries",
                                                  "next kept entries over which a value is spread"),
                                  KV_ROW_OF_COUNT(cam_config, "seed", seed, NULL, 0, "",
                                                  "of the draws; the experiment's if not given"),
                                  KV_TRANSFORM_PRESET(cam_config, preset_names), KV_ROW_END};

/* attention[i] = what the step's last query gives token[i], of all that it saw, mean over the
 * group's query heads. */
static void last_row(const kv_transform_step *step, const int32_t *token, int n, double *attention)
{
    const kv_shape *shape = step->view->shape;
    int group = shape->heads / shape->kv_heads;
    memset(attention, 0, (size_t)n * sizeof *attention);
    for (int g = 0; g < group; g++) {
        const float *row = kv_view_row(step->view, step->kv_head * group + g, step->step_end - 1);
        double seen = 0;
        for (int k = 0; k < step->presents; k++)
            seen += row[step->present[k]];
        for (int i = 0; i < step->droppeds; i++)
            seen += row[step->dropped[i]];
        for (int i = 0; i < n && seen > 0; i++)
            attention[i] += row[token[i]] / seen / group;
    }
}

/* Adds a share of a value to the `count` entries from present[first]. */
static void spread(const kv_transform_step *step, int dropped, int first, int count, double share)
{
    int width = step->view->shape->head_dim;
    const float *value = kv_stored_row(step->value, step, dropped);
    for (int k = first; k < first + count; k++) {
        float *taker = kv_stored_row(step->value, step, step->present[k]);
        for (int d = 0; d < width; d++)
            taker[d] = (float)(taker[d] + share * value[d]);
    }
}

/* The chance of a merge is the attention on what leaves over the mean attention on what is kept
 * behind it, at most 1. */
static void apply(const kv_transform_step *step)
{
    const cam_config *config = step->config;
    size_t tokens = (size_t)step->view->example->total_tokens;
    double *leaving = step->work, *staying = leaving + tokens;
    if (step->droppeds == 0)
        return;
    last_row(step, step->dropped, step->droppeds, leaving);
    last_row(step, step->present, step->presents, staying);
    int behind = step->presents;
    double sum = 0;
    for (int i = step->droppeds - 1; i >= 0; i--) {
        int token = step->dropped[i];
        while (behind > 0 && step->present[behind - 1] > token)
            sum += staying[--behind];
        int follow = step->presents - behind;
        double chance = sum > 0 ? leaving[i] * follow / sum : 0;
        int takers = follow < config->merge ? follow : (int)config->merge;
        int shares = config->preset == KVPRESS ? takers : (int)config->merge;
        if (kv_draw(step->view, config->seed, step->kv_head, token) < chance)
            spread(step, token, behind, takers, 1 / (double)shares);
    }
}

KV_TRANSFORM_DEFINE(cam) = {
    .name = "cam",
    .brief = "spreads the value of what leaves over the next entries, by chance of its attention",
    .cite = "CaM (Zhang et al. 2024, ICML)",
    .stage = "compression",
    .config_bytes = sizeof(cam_config),
    .params = params,
    .presets = presets,
    .needs = KV_NEEDS_VALUES | KV_NEEDS_EVENT_ROWS,
    .changes = KV_CHANGES_VALUES,
    .evicted = true,
    .apply = apply,
};
