/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Samples of latencies: mean and percentiles.
 *
 * The first KV_SAMPLES_EXACT values are kept as they are and percentiles interpolate between them;
 * of more values only counts per bucket are kept, each bucket 1/1024 of its value wide, so memory
 * stays bounded however long a trace is. Integers all through: the order of values does not matter.
 */
#ifndef KVSIM_SIM_SERVING_SAMPLES_H
#define KVSIM_SIM_SERVING_SAMPLES_H

#include "sim/base/diag.h"

#include <stddef.h>
#include <stdint.h>

enum { KV_SAMPLES_EXACT = 1 << 18, KV_SAMPLES_OCTAVES = 64 };

/* Zeroed is empty and usable. */
typedef struct kv_samples {
    int64_t count;
    unsigned __int128 sum;
    int64_t *exact; /* [count] while all are kept; NULL before the first and after they are not */
    size_t room;
    int64_t *octave[KV_SAMPLES_OCTAVES]; /* [1024] counts of the values from 2^o to 2^(o+1) */
} kv_samples;

void kv_samples_fini(kv_samples *samples);
/* Adds a value of at least 0. */
kv_err kv_samples_add(kv_samples *samples, int64_t value) KV_MUST_USE;
/* Adds `weight` times each of the values floor((first + j * slope) / 2^shift), j < steps, to the
 * buckets only; the sum (and so the mean) is then of the values before the shift. None of them may
 * be below 0 or above 2^63 - 1. A set takes values by kv_samples_add or by ramps, not by both. */
kv_err kv_samples_add_ramp(kv_samples *samples, __int128 first, __int128 slope, int64_t steps,
                           int shift, int64_t weight) KV_MUST_USE;
/* NaN if there is none. */
double kv_samples_mean(const kv_samples *samples);
/* The value below which a share of 0..1 lies, linear between neighbours; NaN if there is none. */
double kv_samples_quantile(kv_samples *samples, double share);

#endif
