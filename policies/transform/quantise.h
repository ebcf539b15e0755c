/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* What transforms that quantise share: asymmetric uniform levels over a range, levels fitted to
 * numbers, and the range of numbers of which the outliers are stored as they are. */
#ifndef KVSIM_POLICIES_TRANSFORM_QUANTISE_H
#define KVSIM_POLICIES_TRANSFORM_QUANTISE_H

#include "policies/retention_params.h"
#include "policies/transform.h"

/* Bits of a plain number, of a scale, of a zero and of an outlier's index. */
enum { KV_PLAIN_BITS = 16, KV_SCALE_BITS = 32, KV_OUTLIER_BITS = 32 };

/* The row of a setting `group` that stands in the member of that name. */
#define KV_ROW_QUANTISE_GROUP(type_of, fallback)                                                   \
    KV_ROW_OF(                                                                                     \
        type_of, "group", KV_INT, group, fallback, 2, 1024, NULL, 0, "numbers",                    \
        "that share a 16-bit scale and zero: tokens of a key's channel, channels of a value")

/* The numbers from low to high are quantised, those outside are outliers. */
typedef struct kv_range {
    double low, high;
} kv_range;

/* The range of x[0..n), n >= 1, without its `below` least and `above` greatest numbers (equal ones
 * at the edge stay in, as they are levels). x is put in order. */
kv_range kv_range_trim(double *x, int n, int below, int above);
/* The least range that is left when `outliers` numbers are taken off its two ends; of several the
 * one that takes most off the upper end. x is put in order. */
kv_range kv_range_least(double *x, int n, int outliers);
/* The range of those x[0..n) that lie within `within`; low > high: there are none. */
kv_range kv_range_of(const double *x, int n, kv_range within);

/* The nearest of 2^bits evenly spaced levels low .. high, halves to the even level; x itself if it
 * lies outside or the range is one point. */
double kv_quantise(kv_range range, long long bits, double x);

/* A number and how much its error counts. */
typedef struct kv_weighted {
    double x, weight;
    double mass, moment; /* made by kv_levels_fit: sums of weight and of weight x up to this one */
} kv_weighted;

/* Levels of small weighted squared distance to sample[0..n), n >= 1, ascending: one-dimensional
 * k-means by Lloyd's iterations, 50 at most, of two starts the better, ties to the first: numbers
 * at equal steps of the sample's weight, and even steps of its range. A number half way between two
 * levels belongs to the lower one, and a level that none belongs to stays. sample is put in order.
 */
void kv_levels_fit(kv_weighted *sample, int n, double *level, int levels);
/* The level nearest to x, the lower of two. */
double kv_levels_nearest(const double *level, int levels, double x);

/* Column `channel` of the rows token[0..n) of numbers [N][width] into out[0..n), and back. */
void kv_column_get(const float *numbers, int width, int channel, const int32_t *token, int n,
                   double *out);
void kv_column_put(float *numbers, int width, int channel, const int32_t *token, int n,
                   const double *in);

/* Those of present entries that lack a mark in step->state (one double per token), ascending, into
 * step->order; answers how many. Marks are bits. */
int kv_stored_pending(const kv_transform_step *step, unsigned mark);
void kv_stored_mark(const kv_transform_step *step, int token, unsigned mark);

/* Bits per number, its share of scales counted, of groups of `group` numbers. */
double kv_quantised_bits(long long bits, long long group);

#endif
