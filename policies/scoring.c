/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/draw.h"
#include "policies/scoring.h"
#include "sim/base/kernels.h"

#include <math.h>
#include <string.h>

enum { ROWS_TOGETHER = 16 }; /* of a group's query heads, added in one go */

/* Adds the keys first..end-1 of a row to what it sees. */
static void see_range(const float *row, int first, int end, double *mass, int *visible)
{
    for (int j = first; j < end; j++)
        *mass += row[j];
    *visible += end > first ? end - first : 0;
}

/* What the query at `position` sees at the event: the candidates' chunk alone, or all that is
 * present and, for a probe beyond the chunk, the probes up to itself. */
static double visible_mass(const kv_event *event, const float *row, int position, int *visible)
{
    double mass = 0;
    *visible = 0;
    if (event->restrict_to_chunk) {
        int end = position < event->chunk_end ? position + 1 : event->chunk_end;
        see_range(row, event->chunk_start, end, &mass, visible);
        return mass;
    }
    for (int k = 0; k < event->presents && event->present[k] <= position; k++) {
        mass += row[event->present[k]];
        ++*visible;
    }
    int probe = event->observer_first > event->chunk_end ? event->observer_first : event->chunk_end;
    see_range(row, probe, position + 1, &mass, visible);
    return mass;
}

kv_seen_row kv_score_row(const kv_event *event, int query_head, int position)
{
    const kv_retention_config *config = event->config;
    kv_seen_row seen = {.at = kv_view_row(event->view, query_head, position)};
    if (seen.at == NULL)
        return seen;
    double mass = 1;
    if (config->evict == KV_POSTFILL) /* nothing has left: rows are whole */
        seen.visible = position + 1;
    else
        mass = visible_mass(event, seen.at, position, &seen.visible);
    if (mass <= 0)
        seen.at = NULL;
    seen.weight = 1.0 / mass;
    return seen;
}

void kv_score_window_head(const kv_event *event, int query_head, double *score)
{
    int rows = event->observer_end - event->observer_first;
    memset(score, 0, (size_t)event->scored * sizeof *score);
    for (int i = event->observer_first; i < event->observer_end; i++) {
        kv_seen_row row = kv_score_row(event, query_head, i);
        double weight = row.weight / rows;
        for (int k = 0; row.at != NULL && k < event->scored && event->candidate[k] <= i; k++)
            score[k] += weight * row.at[event->candidate[k]];
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

void kv_score_group(const kv_event *event, kv_head_score score_head, double *score)
{
    const kv_retention_config *config = event->config;
    const kv_shape *shape = event->view->shape;
    int heads = shape->heads / shape->kv_heads, n = event->scored;
    bool pool_heads = config->kernel_tokens > 1 && config->group_when == KV_GROUP_AFTER;
    double *head = event->view->work, *pooled = head + event->view->example->total_tokens;
    for (int g = 0; g < heads; g++) {
        score_head(event, event->kv_head * heads + g, head);
        if (pool_heads)
            kv_score_pool(config, head, n, pooled);
        group_fold(config, pool_heads ? pooled : head, n, heads, g == 0, score);
    }
    if (config->kernel_tokens > 1 && !pool_heads) {
        kv_score_pool(config, score, n, pooled);
        memcpy(score, pooled, (size_t)n * sizeof *score);
    }
}

void kv_score_window(const kv_event *event, double *score)
{
    kv_score_group(event, kv_score_window_head, score);
}

long long kv_padded_observers(const void *config)
{
    return ((const kv_padded_config *)config)->observed_tokens;
}

int kv_score_before_window(const kv_event *event)
{
    int n = event->candidates;
    while (n > 0 && event->candidate[n - 1] >= event->observer_first)
        n--;
    return n;
}

int kv_score_sinks(const kv_event *event)
{
    const kv_retention_config *config = event->config;
    int n = 0;
    while (n < event->candidates && event->candidate[n] < config->sinks_tokens)
        n++;
    return n;
}

/* The count-th largest of value[0..n), 1 <= count <= n; reorders value. */
static double nth_largest(double *value, int n, long long count)
{
    int low = 0, high = n - 1, target = (int)count - 1;
    while (low < high) {
        double pivot = value[low + (high - low) / 2];
        int i = low, j = high;
        while (i <= j) {
            while (value[i] > pivot)
                i++;
            while (value[j] < pivot)
                j--;
            if (i > j)
                break;
            double swap = value[i];
            value[i++] = value[j];
            value[j--] = swap;
        }
        if (target <= j)
            high = j;
        else if (target >= i)
            low = i;
        else
            break;
    }
    return value[target];
}

void kv_score_pin_best(double *score, int n, long long count, double *scratch)
{
    if (count <= 0 || n <= 0)
        return;
    count = count < n ? count : n;
    memcpy(scratch, score, (size_t)n * sizeof *score);
    double least = nth_largest(scratch, n, count);
    long long ties = count;
    for (int k = 0; k < n; k++)
        ties -= score[k] > least;
    for (int k = 0; k < n; k++)
        if (score[k] > least || (score[k] == least && ties-- > 0))
            score[k] = INFINITY;
}

void kv_score_sample(const kv_event *event, double temperature, double *score)
{
    const kv_retention_config *config = event->config;
    for (int k = 0; k < event->scored; k++) {
        double draw =
            kv_draw(event->view, config->seed, event->kv_head, event->candidate[k]) + 0x1p-54;
        score[k] = score[k] / temperature - log(-log(draw));
    }
}

void kv_score_short_keys(const kv_event *event, double *score)
{
    const float *keys = kv_layer_keys(event->view->source, event->kv_head);
    int width = event->view->shape->head_dim;
    for (int k = 0; k < event->scored; k++)
        score[k] = -kv_score_norm(keys + (size_t)event->candidate[k] * (size_t)width, width);
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
