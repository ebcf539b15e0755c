/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Rotary position embedding, for policies that turn recorded queries or keys. */
#ifndef KVSIM_POLICIES_ROTARY_H
#define KVSIM_POLICIES_ROTARY_H

#include "traces/attention.h"

/* The embedding in force. */
typedef struct kv_rotation {
    const kv_rope *rope; /* of the recording; its pairing of dimensions holds in any case */
    double theta;        /* above 0: base in place of the recording's frequencies */
    int width;           /* dimensions of a head */
} kv_rotation;

/* Pairs of dimensions that turn. */
int kv_rotation_pairs(const kv_rotation *r);
/* Radians per position of a pair. */
double kv_rotation_frequency(const kv_rotation *r, int pair);
/* Turns pair `pair` of x by cosine and sine, which need not be of one angle. */
void kv_rotation_turn(const kv_rotation *r, int pair, double cosine, double sine, double *x);
/* Moves x[width] by so many positions, forward if above 0. */
void kv_rotation_move(const kv_rotation *r, double positions, double *x);

#endif
