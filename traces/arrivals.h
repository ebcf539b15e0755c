/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Arrival processes: even, Poisson or Gamma gaps, whose rate may swing over the day and burst.
 *
 * A rate that changes is made by stretching time: gaps are drawn for the rate 1 and the time is
 * found until which the changing rate integrates to them. So the gaps keep their kind at any rate.
 */
#ifndef KVSIM_TRACES_ARRIVALS_H
#define KVSIM_TRACES_ARRIVALS_H

#include "sim/base/diag.h"

#include <stdbool.h>
#include <stdint.h>

#include <gsl/gsl_rng.h>

typedef enum kv__gaps { KV_GAPS_EVEN, KV_GAPS_POISSON, KV_GAPS_GAMMA } kv__gaps;

/* Zeroed fields switch their feature off. */
typedef struct kv__arrivals_config {
    kv__gaps gaps;
    double rate;         /* per second, on average over swings and bursts; above 0 */
    double burstiness;   /* coefficient of variation of Gamma gaps; above 0 */
    double swing;        /* share by which the rate swings around its mean, 0 .. below 1 */
    double swing_s;      /* period of the swing */
    double burst_factor; /* rate within a burst over rate between bursts; 0 or above 1 */
    double burst_s;      /* mean duration of a burst, and of what is between two bursts */
    double calm_s;
} kv__arrivals_config;

typedef struct kv__arrivals {
    kv__arrivals_config config;
    gsl_rng *rng; /* borrowed */
    double now_s;
    double level;        /* the rate now over the mean rate, without the swing */
    double level_ends_s; /* when a burst begins or ends */
    bool bursting;
} kv__arrivals;

void kv__arrivals_init(kv__arrivals *arrivals, const kv__arrivals_config *config, gsl_rng *rng);
/* The time of the next arrival, from 0; INT64_MAX beyond the 292 years that nanoseconds reach. */
int64_t kv__arrivals_next(kv__arrivals *arrivals);

/* A random number generator with a seed of 64 bits and a stream that keeps uses apart; NULL: no
 * memory. gsl_rng_free frees it. */
gsl_rng *kv__rng_new(uint64_t seed, uint64_t stream);

#endif
