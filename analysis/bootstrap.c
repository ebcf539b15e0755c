/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "analysis/bootstrap.h"

#include <gsl/gsl_randist.h>
#include <gsl/gsl_rng.h>
#include <math.h>
#include <stdlib.h>

unsigned long kv_stream_seed(long long seed, const char *purpose)
{
    uint64_t hash = 0xcbf29ce484222325u ^ (uint64_t)seed; /* FNV-1a */
    for (; *purpose; purpose++)
        hash = (hash ^ (unsigned char)*purpose) * 0x100000001b3u;
    return (unsigned long)((hash ^ hash >> 32) & 0xffffffffu); /* mt19937 takes 32 bits */
}

kv_err kv_bootstrap_init(kv_bootstrap *bootstrap, int resamples, int examples, unsigned long stream,
                         kv_diag *diag)
{
    gsl_rng *random = gsl_rng_alloc(gsl_rng_mt19937);
    uint32_t *weight = calloc((size_t)resamples * (size_t)examples + 1, sizeof *weight);
    if (random == NULL || weight == NULL) {
        gsl_rng_free(random);
        free(weight);
        return kv_fail_memory(diag);
    }
    gsl_rng_set(random, stream);
    for (int r = 0; r < resamples; r++)
        for (int e = 0; e < examples; e++)
            weight[(size_t)r * (size_t)examples +
                   gsl_rng_uniform_int(random, (unsigned long)examples)]++;
    gsl_rng_free(random);
    *bootstrap = (kv_bootstrap){resamples, examples, weight};
    return KV_OK;
}

void kv_bootstrap_fini(kv_bootstrap *bootstrap)
{
    free(bootstrap->weight);
    bootstrap->weight = NULL;
}

double kv_mean(const double *value, int count)
{
    double sum = 0;
    int n = 0;
    for (int i = 0; i < count; i++) {
        if (!isnan(value[i])) {
            sum += value[i];
            n++;
        }
    }
    return n ? sum / n : NAN;
}

double kv_bootstrap_mean(const kv_bootstrap *bootstrap, int resample, const double *value)
{
    const uint32_t *weight = bootstrap->weight + (size_t)resample * (size_t)bootstrap->examples;
    double sum = 0, n = 0;
    for (int e = 0; e < bootstrap->examples; e++) {
        double there = isnan(value[e]) ? 0.0 : (double)weight[e];
        sum += there > 0 ? there * value[e] : 0.0;
        n += there;
    }
    return n > 0 ? sum / n : NAN;
}

kv_err kv_bootstrap_binomial(double accuracy, double n, unsigned long stream, double *out,
                             int resamples, kv_diag *diag)
{
    gsl_rng *random = gsl_rng_alloc(gsl_rng_mt19937);
    if (random == NULL)
        return kv_fail_memory(diag);
    gsl_rng_set(random, stream);
    for (int r = 0; r < resamples; r++)
        out[r] = n >= 1 ? gsl_ran_binomial(random, accuracy, (unsigned)n) / floor(n) : accuracy;
    gsl_rng_free(random);
    return KV_OK;
}

static int compare_reals(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

void kv_interval(double *replicates, int count, double confidence, double *lo, double *hi)
{
    int kept = 0;
    for (int i = 0; i < count; i++)
        if (!isnan(replicates[i]))
            replicates[kept++] = replicates[i];
    *lo = *hi = NAN;
    if (kept == 0)
        return;
    qsort(replicates, (size_t)kept, sizeof *replicates, compare_reals);
    /* 1e-9: (1 - 0.95) / 2 * 1000 is a little more than 25 in doubles. */
    int rank = (int)ceil((1.0 - confidence) / 2.0 * kept - 1e-9);
    rank = rank < 1 ? 1 : rank;
    *lo = replicates[rank - 1];
    *hi = replicates[kept - rank];
}
