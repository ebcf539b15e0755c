/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/rotary.h"

#include <math.h>

int kv_rotation_pairs(const kv_rotation *r)
{
    return r->theta > 0 ? r->width / 2 : r->rope->pairs;
}

double kv_rotation_frequency(const kv_rotation *r, int pair)
{
    return r->theta > 0 ? pow(r->theta, -2.0 * pair / r->width) : r->rope->frequency[pair];
}

void kv_rotation_turn(const kv_rotation *r, int pair, double cosine, double sine, double *x)
{
    int i = r->rope->interleaved ? 2 * pair : pair,
        j = r->rope->interleaved ? i + 1 : i + kv_rotation_pairs(r);
    double a = x[i], b = x[j];
    x[i] = cosine * a - sine * b;
    x[j] = sine * a + cosine * b;
}

void kv_rotation_move(const kv_rotation *r, double positions, double *x)
{
    for (int pair = 0; pair < kv_rotation_pairs(r); pair++) {
        double angle = positions * kv_rotation_frequency(r, pair);
        kv_rotation_turn(r, pair, cos(angle), sin(angle), x);
    }
}
