/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* All policies of a run in one table, at the same footprint. */
#ifndef KVSIM_ANALYSIS_RANK_H
#define KVSIM_ANALYSIS_RANK_H

#include "analysis/curves.h"

#include <stdio.h>

/* What one curve predicts at a footprint. */
typedef struct kv_ranked {
    double accuracy;     /* NaN: the curve starts beyond the footprint, or knows no accuracy */
    double kv_footprint; /* that the accuracy is for: the one asked for, or less where the curve
                            ends before it */
} kv_ranked;

/* Linear between neighbouring points; a curve that ends below the footprint counts with its last
 * point. */
kv_ranked kv_rank_at(const kv_curve *curve, double kv_footprint);

/* Writes a table of all curves, best first: mean accuracy over the tasks at the footprint, each
 * task weighing the same. Equal ones: the smaller mean critical footprint first (none known: last),
 * then the order of the experiment. What does not come down to the footprint in every task stands
 * at the end without a rank. */
kv_err kv_rank_write(const kv_curves *curves, double kv_footprint, FILE *out,
                     kv_diag *diag) KV_MUST_USE;

#endif
