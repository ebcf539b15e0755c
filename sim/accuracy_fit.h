/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* A calibration by itself, without an experiment: measured points are replayed and fitted. */
#ifndef KVSIM_SIM_ACCURACY_FIT_H
#define KVSIM_SIM_ACCURACY_FIT_H

#include "analysis/calibration.h"
#include "sim/sweep.h"

typedef struct kv_accuracy_fit_options {
    const char *measured;      /* CSV (sim/measured.h) */
    const char *const *traces; /* [trace_count] recorded attention that was measured */
    int trace_count;
    long long seed;
    int threads;
    kv_critical_info critical;
    kv_sweep_progress progress; /* NULL: none */
    void *progress_closure;
} kv_accuracy_fit_options;

typedef struct kv_accuracy_fit kv_accuracy_fit;

kv_err kv_accuracy_fit_new(const kv_accuracy_fit_options *options, kv_accuracy_fit **out,
                           kv_diag *diag) KV_MUST_USE;
void kv_accuracy_fit_free(kv_accuracy_fit *fit);

/* Borrowed. The plan says what the calibration's points are. */
const kv_calibration *kv_accuracy_fit_calibration(const kv_accuracy_fit *fit);
const kv_points_plan *kv_accuracy_fit_plan(const kv_accuracy_fit *fit);
/* A sentence about rows that were left out; NULL if there are none. */
const char *kv_accuracy_fit_skipped(const kv_accuracy_fit *fit);

#endif
