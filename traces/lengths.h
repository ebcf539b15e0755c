/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Lengths in tokens, drawn from a named distribution. */
#ifndef KVSIM_TRACES_LENGTHS_H
#define KVSIM_TRACES_LENGTHS_H

#include "sim/base/param.h"

#include <stdint.h>

#include <gsl/gsl_rng.h>

typedef enum kv__length_kind {
    KV_LENGTHS_LOGNORMAL,
    KV_LENGTHS_GAMMA,
    KV_LENGTHS_UNIFORM,
    KV_LENGTHS_FIXED
} kv__length_kind;

extern const char *const kv__length_choices[];

/* Lengths are rounded and clipped to min..max, which moves their mean where it bites. */
typedef struct kv__lengths {
    int kind;           /* kv__length_kind */
    double mean;        /* of lognormal, gamma and fixed */
    double cv;          /* coefficient of variation of lognormal and gamma */
    long long min, max; /* uniform draws from these */
} kv__lengths;

int32_t kv__length_draw(const kv__lengths *lengths, gsl_rng *rng);

#endif
