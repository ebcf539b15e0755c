/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "traces/lengths.h"

#include <math.h>

#include <gsl/gsl_randist.h>

const char *const kv__length_choices[] = {"lognormal", "gamma", "uniform", "fixed", NULL};

/* Of the normal distribution behind a lognormal one of the mean and variation asked for. */
static double draw_lognormal(const kv__lengths *l, gsl_rng *rng)
{
    double variance = log1p(l->cv * l->cv);
    return gsl_ran_lognormal(rng, log(l->mean) - variance / 2, sqrt(variance));
}

static double draw(const kv__lengths *l, gsl_rng *rng)
{
    double shape = 1 / (l->cv * l->cv);
    switch (l->kind) {
    case KV_LENGTHS_LOGNORMAL:
        return draw_lognormal(l, rng);
    case KV_LENGTHS_GAMMA:
        return gsl_ran_gamma(rng, shape, l->mean / shape);
    case KV_LENGTHS_UNIFORM:
        return (double)(l->min +
                        (long long)gsl_rng_uniform_int(rng, (unsigned long)(l->max - l->min + 1)));
    default:
        return l->mean;
    }
}

int32_t kv__length_draw(const kv__lengths *lengths, gsl_rng *rng)
{
    double length = nearbyint(draw(lengths, rng));
    length = fmin(length, (double)lengths->max);
    return (int32_t)fmax(length, (double)lengths->min);
}
