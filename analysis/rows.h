/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Writes rows of the result tables of an attention run. Internal. */
#ifndef KVSIM_ANALYSIS_ROWS_H
#define KVSIM_ANALYSIS_ROWS_H

#include "analysis/critical.h"
#include "analysis/summarise.h"

typedef struct kv_rows kv_rows;

/* Where a curve crosses its target on one axis, and the interval of that. */
typedef struct kv_crossing {
    bool known;
    kv_critical critical;
    double lo, hi; /* NaN: open */
} kv_crossing;

/* A row of critical_footprint. */
typedef struct kv_critical_row {
    int task;
    int turn;  /* 0: all */
    int point; /* one of the curve's */
    double full_accuracy;
    kv_crossing entries, bytes;
    int points;
    const char *source;
} kv_critical_row;

kv_err kv__rows_open(kv_run *run, const kv_plan *plan, kv_rows **out, kv_diag *diag) KV_MUST_USE;
void kv__rows_close(kv_rows *rows);

/* Writes a point with its examples and retained sets in one transaction, unless it is there. */
kv_err kv__rows_put_point(kv_rows *rows, const kv_task_set *set, const kv_accuracy_type *type,
                          const kv_summary *summary, kv_diag *diag) KV_MUST_USE;

/* Writes a critical footprint inside the caller's transaction. */
kv_err kv__rows_put_critical(kv_rows *rows, const kv_critical_row *row, kv_diag *diag) KV_MUST_USE;

#endif
