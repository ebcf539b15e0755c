/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* The inner loops of replay, over rows of attention probabilities and over values.
 *
 * There is one source of each loop, kernels_body.h, compiled once for every processor of the
 * architecture and once per wider instruction set; the best that this processor can run is chosen
 * when asked for. The order of every sum is fixed by the source, so all versions give the same bits
 * (what a NaN carries aside). Sums of floats are kept in doubles. No pointer needs an alignment
 * beyond its type's own. */
#ifndef KVSIM_BASE_KERNELS_H
#define KVSIM_BASE_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct kv_kernels {
    const char *name; /* of the instruction set */

    /* out[i] = half[i], IEEE binary16 in the order of the machine, at any address. A signalling NaN
     * becomes quiet, all else is exact. */
    void (*widen)(float *out, const void *half, size_t n);

    /* The sum of x[0..n), and of x[at[0..n)]. Element i goes into partial sum i % 16; these are
     * then added in pairs at distance 8, 4, 2, 1. */
    double (*sum)(const float *x, size_t n);
    double (*sum_at)(const float *x, const int32_t *at, size_t n);

    /* out[i] = the inner product of x[0..width) and row at[i] of rows [][width]. Element d goes
     * into partial sum d % 8; these are then added in pairs at distance 4, 2, 1. */
    void (*dots)(double *out, const double *x, const float *rows, const int32_t *at, size_t n,
                 size_t width);

    /* acc[i] += scale[r] * row[r][i] for each of the rows, in their order. */
    void (*add_rows)(double *acc, const double *scale, const float *const *row, int rows, size_t n);
    /* acc[at[i]] += scale * x[at[i]], each position once. */
    void (*add_at)(double *acc, double scale, const float *x, const int32_t *at, size_t n);

    /* out[d] += the sum of weight[j] * rows[j * width + d] over j in 0..n, in the order of j. */
    void (*mix)(double *out, const float *weight, const float *rows, size_t n, size_t width);
    /* The same over the n rows j = at[i]. */
    void (*mix_at)(double *out, const float *weight, const float *rows, const int32_t *at, size_t n,
                   size_t width);

    /* The sum of x[0..n) in single precision: element i goes into partial sum i % 16, these are
     * added as in `sum`. *signs tells whether some element has its sign bit set. For checks only.
     */
    float (*rough_sum)(const float *x, size_t n, bool *signs);
    /* widen, and rough_sum of out, in one go. What lies at `ahead` is to be widened soon: it is
     * fetched into the cache meanwhile; it need not be readable. */
    float (*widen_row)(float *out, const void *half, size_t n, const void *ahead, bool *signs);

    /* Does every x[i] lie in 0..most? (A NaN does not, -0 does.) */
    bool (*within)(const float *x, size_t n, float most);

    /* x[i] = softmax of x over 0..n, within 4 ulp of the exact value; probabilities below 2^-126
     * are 0. Does nothing when n is 0. */
    void (*softmax)(float *x, size_t n);
} kv_kernels;

/* The best version for this processor. */
const kv_kernels *kv__kernels(void);

/* Every version that this processor can run, the one for all processors first; NULL at the end. */
const kv_kernels *const *kv__kernels_all(void);

#endif
