/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* The accuracy of a policy under a chunk size, as a run of the attention replay has it. */
#ifndef KVSIM_ANALYSIS_PLAN_ACCURACY_H
#define KVSIM_ANALYSIS_PLAN_ACCURACY_H

#include "analysis/results.h"

#include <stdbool.h>

/* Each number is the least over the tasks: what the task that fares worst in it has. */
typedef struct kv_plan_accuracy {
    bool known;
    bool has_interval;                      /* of some task */
    double value, lo, hi;                   /* NaN: not known */
    double of_full, lo_of_full, hi_of_full; /* the same over the accuracy of the full cache */
    char source[16];                        /* measured, calibrated or proxy */
    char task[64];          /* with the least share or, where no share is known, the least value */
    long long chunk_tokens; /* of the point it was taken from; 0: whole */
} kv_plan_accuracy;

/* Looks for points of the policy with exactly these settings (canonical JSON); their chunk size is
 * that nearest to chunk_tokens (0: whole), by ratio. The full policy keeps the full accuracy,
 * whatever was run. run_id 0: the latest. */
kv_err kv_plan_accuracy_find(kv_results *results, long long run_id, const char *policy,
                             const char *params, double chunk_tokens, kv_plan_accuracy *out,
                             kv_diag *diag) KV_MUST_USE;

#endif
