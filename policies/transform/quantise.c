/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/transform/quantise.h"

#include <math.h>
#include <stdlib.h>

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
