/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Measured accuracies that users supply, as CSV: the columns `task`, `policy` (as in an experiment:
 * `{snapkv: {keep: 0.3, evict: chunked}}`), `chunk_size` (tokens or `whole`) and `accuracy` (0..1);
 * optional are `turn` (from 1; empty: all turns together) and `n` (examples behind the accuracy).
 * Other columns are ignored. Files that a policy names are relative to the CSV. */
#ifndef KVSIM_SIM_MEASURED_H
#define KVSIM_SIM_MEASURED_H

#include "sim/experiment.h"
#include "sim/sweep_plan.h"

typedef struct kv_measured_row {
    int point; /* place in kv_measured.points */
    char *task;
    int turn;        /* 0: all */
    double accuracy; /* 0..1 */
    double n;        /* 0: not known */
    int line;        /* in the file */
} kv_measured_row;

/* A policy that draws random numbers is replayed with so many draws, so that the luck of one does
 * not pass for the policy's. */
enum { KV_MEASURED_DRAWS = 4 };

typedef struct kv_measured {
    char *path;
    kv_point_list points; /* each once, then further draws */
    int distinct;         /* points without the further draws */
    int *draw; /* [distinct] where the KV_MEASURED_DRAWS - 1 further draws are; 0: none */
    kv_measured_row *row; /* in the order of the file, nothing twice */
    int rows;
} kv_measured;

/* Reads a file; *out is owned by the caller, also while a plan borrows its points. */
kv_err kv_measured_read(const char *path, kv_measured **out, kv_diag *diag) KV_MUST_USE;
void kv_measured_free(kv_measured *measured);

/* Adds what was measured to a plan whose traces and examples are listed: rows of tasks that
 * calibrating examples have become points that are replayed for the calibration, unless the
 * experiment has the very point on the very examples. *spec gets the text for
 * kv_points_plan.accuracy_spec. *skipped gets a sentence about rows of tasks that no trace has,
 * NULL if there are none. The caller frees both. tasks: those that the experiment wants; none: all.
 */
kv_err kv_measured_plan(const kv_measured *measured, const kv_texts *tasks, kv_sweep_plan *plan,
                        char **spec, char **skipped, kv_diag *diag) KV_MUST_USE;

#endif
