/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/transform/merge.h"
#include "sim/base/kernels.h"

#include <math.h>
#include <string.h>

float *kv_stored_row(float *numbers, const kv_transform_step *step, int token)
{
    return numbers + (size_t)token * (size_t)step->view->shape->head_dim;
}

/* Channel d goes into partial sum d % 8, so that products do not wait for one another. */
static double dot(const float *x, const float *y, int width)
{
    double part[8] = {0};
    int d = 0;
    for (; d + 8 <= width; d += 8)
        for (int i = 0; i < 8; i++)
            part[i] += (double)x[d + i] * y[d + i];
    for (; d < width; d++)
        part[d % 8] += (double)x[d] * y[d];
    return ((part[0] + part[4]) + (part[2] + part[6])) +
           ((part[1] + part[5]) + (part[3] + part[7]));
}

double kv_merge_cosine(const float *x, const float *y, int width)
{
    double lengths = sqrt(dot(x, x, width)) * sqrt(dot(y, y, width));
    return lengths > 0 ? dot(x, y, width) / lengths : 0;
}

double kv_merge_distance2(const float *x, const float *y, int width)
{
    double sum = 0;
    for (int d = 0; d < width; d++)
        sum += ((double)x[d] - y[d]) * ((double)x[d] - y[d]);
    return sum;
}

size_t kv_merge_work(const void *config, const kv_shape *shape, int tokens)
{
    return 3 * (size_t)tokens + (size_t)shape->head_dim;
}

void kv_merge_find_nearest(const kv_transform_step *step)
{
    int width = step->view->shape->head_dim;
    size_t tokens = (size_t)step->view->example->total_tokens;
    double *length = step->work, *product = length + tokens, *wide = product + tokens;
    for (int k = 0; k < step->presents; k++) {
        const float *key = kv_stored_row(step->key, step, step->present[k]);
        length[k] = sqrt(dot(key, key, width));
    }
    for (int i = 0; i < step->droppeds; i++) {
        const float *key = kv_stored_row(step->key, step, step->dropped[i]);
        double best = -INFINITY;
        step->order[i] = -1;
        for (int d = 0; d < width; d++)
            wide[d] = key[d];
        kv__kernels()->dots(product, wide, step->key, step->present, (size_t)step->presents,
                            (size_t)width);
        for (int k = 0; k < step->presents; k++) {
            double cosine = length[k] > 0 ? product[k] / length[k] : 0;
            if (cosine > best) {
                best = cosine;
                step->order[i] = k;
            }
        }
    }
}

/* One kind of numbers, keys or values: all takers are scaled, take, and are divided. */
static void blend(const kv_transform_step *step, float *numbers, const double *weight,
                  const double *self, const double *norm)
{
    int width = step->view->shape->head_dim;
    for (int k = 0; k < step->presents; k++) {
        float *x = kv_stored_row(numbers, step, step->present[k]);
        for (int d = 0; d < width && self[k] != 0; d++)
            x[d] = (float)(x[d] * (1 + self[k]));
    }
    for (int i = 0; i < step->droppeds; i++) {
        if (step->order[i] < 0)
            continue;
        float *x = kv_stored_row(numbers, step, step->present[step->order[i]]);
        const float *y = kv_stored_row(numbers, step, step->dropped[i]);
        for (int d = 0; d < width; d++)
            x[d] = (float)(x[d] + weight[i] * y[d]);
    }
    for (int k = 0; k < step->presents; k++) {
        float *x = kv_stored_row(numbers, step, step->present[k]);
        for (int d = 0; d < width && norm[k] != 0; d++)
            x[d] = (float)(x[d] / (1 + norm[k]));
    }
}

void kv_merge(const kv_transform_step *step, kv_blend_rule rule, unsigned changes)
{
    int width = step->view->shape->head_dim;
    size_t tokens = (size_t)step->view->example->total_tokens;
    double *weight = step->work, *self = weight + tokens, *norm = self + tokens;
    memset(weight, 0, 3 * tokens * sizeof *weight);
    for (int i = 0; i < step->droppeds; i++) {
        int taker = step->order[i];
        if (taker < 0)
            continue;
        kv_merge_pair pair = {step->dropped[i], step->present[taker], 0};
        pair.cosine = kv_merge_cosine(kv_stored_row(step->key, step, pair.dropped),
                                      kv_stored_row(step->key, step, pair.taker), width);
        kv_blend part = rule(step, &pair);
        weight[i] = part.weight;
        self[taker] += part.self;
        norm[taker] += part.norm;
    }
    if (changes & KV_CHANGES_KEYS)
        blend(step, step->key, weight, self, norm);
    if (changes & KV_CHANGES_VALUES)
        blend(step, step->value, weight, self, norm);
}

kv_blend kv_merge_averaged(const kv_transform_step *step, const kv_merge_pair *pair)
{
    return (kv_blend){1, 0, 1};
}

kv_blend kv_merge_pivotal(const kv_transform_step *step, const kv_merge_pair *pair)
{
    return (kv_blend){0.5, 0.5, 1};
}

kv_blend kv_merge_by_cosine(const kv_transform_step *step, const kv_merge_pair *pair)
{
    return (kv_blend){pair->cosine, 0, 1};
}
