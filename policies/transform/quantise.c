/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/transform/quantise.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_ITERATIONS = 50, MOST_LEVELS = 256 };

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

kv_range kv_range_trim(double *x, int n, int below, int above)
{
    qsort(x, (size_t)n, sizeof *x, compare);
    int first = below < n ? below : n - 1, last = n - 1 - above;
    return (kv_range){x[first], x[last > first ? last : first]};
}

kv_range kv_range_least(double *x, int n, int outliers)
{
    qsort(x, (size_t)n, sizeof *x, compare);
    int left = outliers < n ? n - outliers : 1;
    kv_range best = {x[0], x[left - 1]};
    for (int first = 1; first + left <= n; first++)
        if (x[first + left - 1] - x[first] < best.high - best.low)
            best = (kv_range){x[first], x[first + left - 1]};
    return best;
}

kv_range kv_range_of(const double *x, int n, kv_range within)
{
    kv_range range = {INFINITY, -INFINITY};
    for (int i = 0; i < n; i++)
        if (x[i] >= within.low && x[i] <= within.high) {
            range.low = fmin(range.low, x[i]);
            range.high = fmax(range.high, x[i]);
        }
    return range;
}

double kv_quantise(kv_range range, long long bits, double x)
{
    double step = (range.high - range.low) / (double)((1LL << bits) - 1);
    if (!(step > 0) || x < range.low || x > range.high)
        return x;
    return range.low + nearbyint((x - range.low) / step) * step;
}

static int compare_weighted(const void *a, const void *b)
{
    const kv_weighted *x = a, *y = b;
    return x->x != y->x ? compare(&x->x, &y->x) : compare(&x->weight, &y->weight);
}

double kv_levels_nearest(const double *level, int levels, double x)
{
    int low = 0, high = levels - 1;
    while (low < high) {
        int middle = (low + high) / 2;
        if (x <= (level[middle] + level[middle + 1]) / 2)
            high = middle;
        else
            low = middle + 1;
    }
    return level[low];
}

/* How many of the ordered numbers are at most x. */
static int count_to(const kv_weighted *sample, int n, double x)
{
    int low = 0, high = n;
    while (low < high) {
        int middle = (low + high) / 2;
        if (sample[middle].x <= x)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Numbers at the middle of equal shares of the weight. */
static void start_by_weight(const kv_weighted *sample, int n, double *level, int levels)
{
    double total = sample[n - 1].mass;
    for (int l = 0, i = 0; l < levels; l++) {
        while (i < n - 1 && sample[i].mass < total * (l + 0.5) / levels)
            i++;
        level[l] = sample[i].x;
    }
}

/* Moves each level to the mean of what is nearest to it; answers whether one moved. *gain: the
 * weighted squares of the numbers less their weighted squared distance to the levels before. */
static bool move_levels(const kv_weighted *sample, int n, double *level, int levels, double *gain)
{
    bool moved = false;
    double mass = 0, moment = 0; /* of all numbers below the level's */
    *gain = 0;
    for (int l = 0; l < levels; l++) {
        int end = l + 1 < levels ? count_to(sample, n, (level[l] + level[l + 1]) / 2) : n;
        double to_mass = end > 0 ? sample[end - 1].mass : 0;
        double to_moment = end > 0 ? sample[end - 1].moment : 0;
        double weight = to_mass - mass, sum = to_moment - moment;
        double mean = weight > 0 ? sum / weight : level[l];
        *gain += level[l] * (2 * sum - level[l] * weight);
        mass = to_mass;
        moment = to_moment;
        moved = moved || mean != level[l];
        level[l] = mean;
    }
    return moved;
}

static double settle_levels(const kv_weighted *sample, int n, double *level, int levels)
{
    double gain = 0, last[MOST_LEVELS];
    for (int i = 0; i < MOST_ITERATIONS && move_levels(sample, n, level, levels, &gain); i++)
        ;
    memcpy(last, level, (size_t)levels * sizeof *level);
    move_levels(sample, n, last, levels, &gain);
    return gain;
}

void kv_levels_fit(kv_weighted *sample, int n, double *level, int levels)
{
    double even[MOST_LEVELS], mass = 0, moment = 0;
    qsort(sample, (size_t)n, sizeof *sample, compare_weighted);
    for (int i = 0; i < n; i++) {
        sample[i].mass = mass += sample[i].weight;
        sample[i].moment = moment += sample[i].weight * sample[i].x;
    }
    double low = sample[0].x, step = (sample[n - 1].x - low) / (levels - 1);
    for (int l = 0; l < levels; l++)
        even[l] = low + l * step;
    start_by_weight(sample, n, level, levels);
    double gain = settle_levels(sample, n, level, levels);
    if (settle_levels(sample, n, even, levels) > gain)
        memcpy(level, even, (size_t)levels * sizeof *level);
}

void kv_column_get(const float *numbers, int width, int channel, const int32_t *token, int n,
                   double *out)
{
    for (int i = 0; i < n; i++)
        out[i] = numbers[(size_t)token[i] * (size_t)width + (size_t)channel];
}

void kv_column_put(float *numbers, int width, int channel, const int32_t *token, int n,
                   const double *in)
{
    for (int i = 0; i < n; i++)
        numbers[(size_t)token[i] * (size_t)width + (size_t)channel] = (float)in[i];
}

int kv_stored_pending(const kv_transform_step *step, unsigned mark)
{
    int n = 0;
    for (int i = 0; i < step->presents; i++)
        if (!((unsigned)step->state[step->present[i]] & mark))
            step->order[n++] = step->present[i];
    return n;
}

void kv_stored_mark(const kv_transform_step *step, int token, unsigned mark)
{
    step->state[token] = (unsigned)step->state[token] | mark;
}

double kv_quantised_bits(long long bits, long long group)
{
    return (double)bits + (double)KV_SCALE_BITS / (double)group;
}
