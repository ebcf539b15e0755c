/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "traces/arrivals.h"

#include <gsl/gsl_math.h>
#include <gsl/gsl_randist.h>

/* A bijection that scatters (splitmix64 by Vigna), so that seeds 1, 2, 3 give unlike streams. */
static uint64_t scatter(uint64_t x)
{
    x += UINT64_C(0x9E3779B97F4A7C15);
    x = (x ^ (x >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94D049BB133111EB);
    return x ^ (x >> 31);
}

gsl_rng *kv__rng_new(uint64_t seed, uint64_t stream)
{
    gsl_rng *rng = gsl_rng_alloc(gsl_rng_taus2);
    if (rng != NULL)
        gsl_rng_set(rng, (unsigned long)(scatter(seed ^ scatter(stream)) & 0xffffffff));
    return rng;
}

static double level_between_bursts(const kv__arrivals_config *c)
{
    double share = c->burst_s / (c->burst_s + c->calm_s);
    return 1 / (1 + share * (c->burst_factor - 1));
}

/* Draws when the present level ends. */
static void enter_level(kv__arrivals *a, bool bursting)
{
    const kv__arrivals_config *c = &a->config;
    a->bursting = bursting;
    a->level = level_between_bursts(c) * (bursting ? c->burst_factor : 1);
    a->level_ends_s = a->now_s + gsl_ran_exponential(a->rng, bursting ? c->burst_s : c->calm_s);
}

void kv__arrivals_init(kv__arrivals *arrivals, const kv__arrivals_config *config, gsl_rng *rng)
{
    *arrivals = (kv__arrivals){.config = *config, .rng = rng, .level = 1, .level_ends_s = INFINITY};
    if (config->burst_factor > 1)
        enter_level(arrivals, false);
}

static double draw_gap(const kv__arrivals *a)
{
    double shape = 1 / (a->config.burstiness * a->config.burstiness);
    switch (a->config.gaps) {
    case KV_GAPS_POISSON:
        return gsl_ran_exponential(a->rng, 1);
    case KV_GAPS_GAMMA:
        return gsl_ran_gamma(a->rng, shape, 1 / shape);
    default:
        return 1;
    }
}

/* The integral of 1 + swing sin(2 pi t / period) over a span that begins at from_s. */
static double swung(const kv__arrivals_config *c, double from_s, double span_s)
{
    if (c->swing == 0)
        return span_s;
    double turn = 2 * M_PI / c->swing_s;
    return span_s + c->swing / turn * (cos(turn * from_s) - cos(turn * (from_s + span_s)));
}

/* The span that begins at from_s over which swung() is amount: bisection, for it only ever grows.
 */
static double unswung(const kv__arrivals_config *c, double from_s, double amount)
{
    double low = amount / (1 + c->swing), high = amount / (1 - c->swing);
    for (int i = 0; c->swing > 0 && i < 60 && high - low > 1e-12 * high; i++) {
        double middle = low + (high - low) / 2;
        *(swung(c, from_s, middle) < amount ? &low : &high) = middle;
    }
    return high;
}

int64_t kv__arrivals_next(kv__arrivals *a)
{
    double amount = draw_gap(a) / a->config.rate;
    for (;;) {
        double span_s = unswung(&a->config, a->now_s, amount / a->level);
        double left_s = a->level_ends_s - a->now_s;
        if (span_s <= left_s) {
            a->now_s += span_s;
            break;
        }
        amount -= a->level * swung(&a->config, a->now_s, left_s);
        a->now_s = a->level_ends_s;
        enter_level(a, !a->bursting);
        if (amount <= 0)
            break;
    }
    return a->now_s < 9.2e9 ? llround(a->now_s * 1e9) : INT64_MAX;
}
