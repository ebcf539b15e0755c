/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "sim/serving/samples.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { BUCKET_BITS = 10, BUCKETS = 1 << BUCKET_BITS };

void kv_samples_fini(kv_samples *samples)
{
    free(samples->exact);
    for (int o = 0; o < KV_SAMPLES_OCTAVES; o++)
        free(samples->octave[o]);
    *samples = (kv_samples){0};
}

static int octave_of(int64_t value)
{
    return value < BUCKETS ? 0 : 63 - __builtin_clzll((unsigned long long)value) - BUCKET_BITS + 1;
}

/* Values below BUCKETS have octave 0 and a bucket each; octave o > 0 begins at BUCKETS << (o-1). */
static int64_t bucket_start(int octave, int bucket)
{
    return octave == 0 ? bucket : ((int64_t)BUCKETS + bucket) << (octave - 1);
}

static int bucket_of(int64_t value, int octave)
{
    return octave == 0 ? (int)value : (int)((value >> (octave - 1)) - BUCKETS);
}

static kv_err put(kv_samples *samples, int64_t value, int64_t weight)
{
    int octave = octave_of(value);
    if (samples->octave[octave] == NULL) {
        samples->octave[octave] = calloc(BUCKETS, sizeof *samples->octave[octave]);
        if (samples->octave[octave] == NULL)
            return KV_ERR_MEMORY;
    }
    samples->octave[octave][bucket_of(value, octave)] += weight;
    return KV_OK;
}

/* From now on only buckets are kept. */
static kv_err spill(kv_samples *samples)
{
    kv_err err = KV_OK;
    for (int64_t i = 0; i < samples->count && err == KV_OK; i++)
        err = put(samples, samples->exact[i], 1);
    free(samples->exact);
    samples->exact = NULL;
    return err;
}

static kv_err keep(kv_samples *samples, int64_t value)
{
    if ((size_t)samples->count == samples->room) {
        size_t room = samples->room == 0 ? 256 : 2 * samples->room;
        int64_t *exact = realloc(samples->exact, room * sizeof *exact);
        if (exact == NULL)
            return KV_ERR_MEMORY;
        samples->exact = exact;
        samples->room = room;
    }
    samples->exact[samples->count] = value;
    return KV_OK;
}

kv_err kv_samples_add(kv_samples *samples, int64_t value)
{
    kv_err err;
    if (samples->count == KV_SAMPLES_EXACT && samples->exact != NULL &&
        (err = spill(samples)) != KV_OK)
        return err;
    bool all_kept = samples->exact != NULL || samples->count == 0;
    err = all_kept ? keep(samples, value) : put(samples, value, 1);
    if (err != KV_OK)
        return err;
    samples->count++;
    samples->sum += (unsigned __int128)value;
    return KV_OK;
}

/* The last j <= steps - 1, from `from` on, whose value falls into the bucket of j = from. */
static int64_t same_bucket_until(int64_t from, int64_t end_value_fine, int64_t first, int64_t slope,
                                 int64_t steps, int64_t start_value_fine)
{
    if (slope == 0)
        return steps - 1;
    /* rising: first + j slope < end; falling: first + j slope >= start */
    int64_t j =
        slope > 0 ? (end_value_fine - 1 - first) / slope : (first - start_value_fine) / -slope;
    return j < from ? from : j < steps - 1 ? j : steps - 1;
}

/* Of a ramp whose numbers fit 63 bits. */
static kv_err add_short_ramp(kv_samples *samples, int64_t first, int64_t slope, int64_t steps,
                             int shift, int64_t weight)
{
    for (int64_t j = 0; j < steps;) {
        int64_t value = (first + j * slope) >> shift;
        int octave = octave_of(value), bucket = bucket_of(value, octave);
        int64_t low = bucket_start(octave, bucket);
        int64_t high = octave == 0 ? low + 1 : low + ((int64_t)1 << (octave - 1));
        int64_t last = same_bucket_until(j, high << shift, first, slope, steps, low << shift);
        kv_err err = put(samples, value, (last - j + 1) * weight);
        if (err != KV_OK)
            return err;
        /* Exact and in fine time, so that no order of adding changes it. */
        unsigned __int128 n = (unsigned __int128)(last - j + 1);
        unsigned __int128 fine = n * (unsigned __int128)(first + j * slope);
        __int128 rise = (__int128)slope * (last - j) * (last - j + 1) / 2;
        samples->sum += (fine + (unsigned __int128)rise) * (unsigned __int128)weight;
        samples->count += (last - j + 1) * weight;
        j = last + 1;
    }
    return KV_OK;
}

kv_err kv_samples_add_ramp(kv_samples *samples, __int128 first, __int128 slope, int64_t steps,
                           int shift, int64_t weight)
{
    const __int128 most = INT64_MAX >> 2; /* the bounds of a bucket fit, too */
    if (steps == 1 && first < most) {     /* as a rule */
        samples->sum += (unsigned __int128)first * (unsigned __int128)weight;
        samples->count += weight;
        return put(samples, (int64_t)first >> shift, weight);
    }
    __int128 last = first + slope * (steps - 1);
    if (first < most && last < most)
        return add_short_ramp(samples, (int64_t)first, (int64_t)slope, steps, shift, weight);
    for (int64_t j = 0; j < steps; j++) {
        __int128 fine = first + slope * j;
        kv_err err = put(samples, (int64_t)(fine >> shift), weight);
        if (err != KV_OK)
            return err;
        samples->sum += (unsigned __int128)fine * (unsigned __int128)weight;
        samples->count += weight;
    }
    return KV_OK;
}

double kv_samples_mean(const kv_samples *samples)
{
    return samples->count == 0 ? NAN : (double)samples->sum / (double)samples->count;
}

static int ascending(const void *left, const void *right)
{
    int64_t a = *(const int64_t *)left, b = *(const int64_t *)right;
    return (a > b) - (a < b);
}

/* The value of a rank, 0 the smallest, from the buckets: evenly spread within one. */
static double bucket_rank(const kv_samples *samples, double rank)
{
    double seen = 0;
    for (int o = 0; o < KV_SAMPLES_OCTAVES; o++)
        for (int b = 0; samples->octave[o] != NULL && b < BUCKETS; b++) {
            double here = (double)samples->octave[o][b];
            if (here > 0 && rank < seen + here) {
                double width = o == 0 ? 1 : (double)((int64_t)1 << (o - 1));
                double part = o == 0 ? 0 : (rank - seen + 0.5) / (here + 0.5);
                return (double)bucket_start(o, b) + part * width;
            }
            seen += here;
        }
    return NAN;
}

double kv_samples_quantile(kv_samples *samples, double share)
{
    if (samples->count == 0)
        return NAN;
    double rank = share * (double)(samples->count - 1);
    if (samples->exact == NULL)
        return bucket_rank(samples, rank);
    qsort(samples->exact, (size_t)samples->count, sizeof *samples->exact, ascending);
    int64_t low = (int64_t)rank;
    double at = (double)samples->exact[low];
    if (low + 1 == samples->count)
        return at;
    return at + (rank - (double)low) * ((double)samples->exact[low + 1] - at);
}
