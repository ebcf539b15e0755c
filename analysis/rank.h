/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* All policies of a run in one table, each at the same share of what it saves. */
#ifndef KVSIM_ANALYSIS_RANK_H
#define KVSIM_ANALYSIS_RANK_H

#include "analysis/curves.h"

#include <stdio.h>

/* What a curve predicts at a limit. */
typedef struct kv_ranked {
    double accuracy; /* NaN: the curve starts beyond the limit, or knows no accuracy */
    double amount; /* that the accuracy is for: the limit, or less where the curve ends below it */
} kv_ranked;

/* Linear between neighbouring points (ascending by footprint); a curve that ends below the limit
 * counts with its last point. */
kv_ranked kv_rank_at(const kv_sample *sample, int samples, double limit);

/* Writes a table of all policies, best first: mean accuracy over the tasks at the limit, each task
 * weighing the same. A policy is compared by what it saves (kv_curve.saves): entries, bytes or
 * reads, as shares of the full cache's; one whose entries never come down to the limit, as it
 * evicts only after the prompt, by the entries that decode steps read, if those do in every task.
 * Of one that saves bytes or reads, of whose settings each is a curve, the best within the limit is
 * shown. Equal ones: the smaller mean critical amount first (none known: last), then the order of
 * the experiment. What does not come down to the limit in every task stands at the end without a
 * rank; so do `full` and oracles in their places. */
kv_err kv_rank_write(const kv_curves *curves, double limit, FILE *out, kv_diag *diag) KV_MUST_USE;

#endif
