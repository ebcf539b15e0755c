/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Bootstrap over examples: what a mean would be, had other examples been drawn. */
#ifndef KVSIM_ANALYSIS_BOOTSTRAP_H
#define KVSIM_ANALYSIS_BOOTSTRAP_H

#include "sim/base/diag.h"

#include <stdint.h>

/* The same resamples serve every point of a task, so that points and the full policy vary together.
 */
typedef struct kv_bootstrap {
    int resamples;
    int examples;
    uint32_t *weight; /* [resamples][examples]: how often resample r drew an example */
} kv_bootstrap;

/* A number for a random stream from the run's seed and what the stream is for. */
unsigned long kv_stream_seed(long long seed, const char *purpose);

/* Draws the resamples. `stream` seeds GSL's mt19937. */
kv_err kv_bootstrap_init(kv_bootstrap *bootstrap, int resamples, int examples, unsigned long stream,
                         kv_diag *diag) KV_MUST_USE;
void kv_bootstrap_fini(kv_bootstrap *bootstrap);

/* Mean of value[0..count), leaving out NaN; NaN if nothing is left. */
double kv_mean(const double *value, int count);

/* The same mean over one resample. */
double kv_bootstrap_mean(const kv_bootstrap *bootstrap, int resample, const double *value);

/* Replicates of an accuracy that was measured on n examples, drawn from the binomial; all equal to
 * it if n is 0. */
kv_err kv_bootstrap_binomial(double accuracy, double n, unsigned long stream, double *out,
                             int resamples, kv_diag *diag) KV_MUST_USE;

/* The central interval that holds `confidence` of the replicates, by nearest rank; they are sorted
 * in place and those that are NaN left out. May be infinite if replicates are; NaN if none is left.
 */
void kv_interval(double *replicates, int count, double confidence, double *lo, double *hi);

#endif
