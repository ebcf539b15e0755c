/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/scoring.h"
#include "sim/base/kernels.h"

#include <math.h>
#include <string.h>

enum { ROWS_TOGETHER = 16 }; /* of a group's query heads, added in one go */

/* The mass that the query at `position` puts on what it sees at the event: the candidates' chunk
 * alone, or all that is present and, for a probe beyond the chunk, the probes up to itself. */
static double visible_mass(const kv_event *event, const float *row, int position)
{
    double mass = 0;
    if (event->restrict_to_chunk) {
        int end = position < event->chunk_end ? position + 1 : event->chunk_end;
        for (int j = event->chunk_start; j < end; j++)
            mass += row[j];
        return mass;
    }
    for (int k = 0; k < event->presents && event->present[k] <= position; k++)
        mass += row[event->present[k]];
    int probe = event->observer_first > event->chunk_end ? event->observer_first : event->chunk_end;
    for (int j = probe; j <= position; j++)
        mass += row[j];
    return mass;
}

void kv_score_window_head(const kv_event *event, int query_head, double *score)
{
    const kv_retention_config *config = event->config;
    int rows = event->observer_end - event->observer_first;
    bool as_recorded = config->evict == KV_POSTFILL; /* nothing has left: rows are whole */
    memset(score, 0, (size_t)event->scored * sizeof *score);
    for (int i = event->observer_first; i < event->observer_end; i++) {
        const float *row = kv_view_row(event->view, query_head, i);
        double mass = row == NULL ? 0 : as_recorded ? 1 : visible_mass(event, row, i);
        if (mass <= 0)
            continue;
        double weight = 1.0 / mass / rows;
        for (int k = 0; k < event->scored && event->candidate[k] <= i; k++)
            score[k] += weight * row[event->candidate[k]];
    }
}

static void pool_average(const double *score, int n, int half, double *pooled)
{
    for (int k = 0; k < n; k++) {
        double sum = 0;
        for (int j = k - half < 0 ? 0 : k - half; j <= k + half && j < n; j++)
            sum += score[j];
        pooled[k] = sum / (2 * half + 1);
    }
}

static void pool_maximum(const double *score, int n, int half, double *pooled)
{
    for (int k = 0; k < n; k++) {
        double most = -INFINITY;
        for (int j = k - half < 0 ? 0 : k - half; j <= k + half && j < n; j++)
            most = fmax(most, score[j]);
        pooled[k] = most;
    }
}

void kv_score_pool(const kv_retention_config *config, const double *score, int n, double *pooled)
{
    int half = (int)(config->kernel_tokens / 2);
    if (config->pooling == KV_POOL_MAX)
        pool_maximum(score, n, half, pooled);
    else
        pool_average(score, n, half, pooled);
}

/* Folds one query head's score into the group's. */
static void group_fold(const kv_retention_config *config, const double *head, int n, int heads,
                       bool first, double *score)
{
    double weight = config->group == KV_GROUP_MEAN ? 1.0 / heads : 1.0;
    for (int k = 0; k < n; k++) {
        double value = weight * head[k];
        if (first)
            score[k] = value;
        else
            score[k] = config->group == KV_GROUP_MAX ? fmax(score[k], value) : score[k] + value;
    }
}

void kv_score_window(const kv_event *event, double *score)
{
    const kv_retention_config *config = event->config;
    const kv_shape *shape = event->view->shape;
    int heads = shape->heads / shape->kv_heads, n = event->scored;
    bool pool_heads = config->kernel_tokens > 1 && config->group_when == KV_GROUP_AFTER;
    double *head = event->view->work, *pooled = head + event->view->example->total_tokens;
    for (int g = 0; g < heads; g++) {
        kv_score_window_head(event, event->kv_head * heads + g, head);
        if (pool_heads)
            kv_score_pool(config, head, n, pooled);
        group_fold(config, pool_heads ? pooled : head, n, heads, g == 0, score);
    }
    if (config->kernel_tokens > 1 && !pool_heads) {
        kv_score_pool(config, score, n, pooled);
        memcpy(score, pooled, (size_t)n * sizeof *score);
    }
}

void kv_score_accumulate(const kv_row_event *event, double *state)
{
    const float *tail[ROWS_TOGETHER];
    double weight[ROWS_TOGETHER];
    for (int first = 0; first < event->group_heads; first += ROWS_TOGETHER) {
        int rows = event->group_heads - first;
        rows = rows < ROWS_TOGETHER ? rows : ROWS_TOGETHER;
        for (int r = 0; r < rows; r++) {
            const float *row = event->row[first + r];
            weight[r] = event->scale[first + r] / event->group_heads;
            tail[r] = row + event->tail_first;
            kv__kernels()->add_at(state, weight[r], row, event->kept, (size_t)event->kepts);
        }
        kv__kernels()->add_rows(state + event->tail_first, weight, tail, rows,
                                (size_t)(event->position + 1 - event->tail_first));
    }
}

double kv_score_norm(const float *vector, int width)
{
    double sum = 0;
    for (int d = 0; d < width; d++)
        sum += (double)vector[d] * vector[d];
    return sqrt(sum);
}
