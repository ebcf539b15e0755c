/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Accuracies that were measured at points of a plan: what kv_points_plan.accuracy_spec holds.
 *
 * One line "points,turn,accuracy,n,task" each, so that a resumed or merged run needs no other file.
 * A policy that draws random numbers has several points, "3+17+18", which differ in their draws. */
#ifndef KVSIM_ANALYSIS_MEASUREMENTS_H
#define KVSIM_ANALYSIS_MEASUREMENTS_H

#include "sim/base/diag.h"

#include <stdbool.h>

enum { KV_MEASUREMENT_MOST_POINTS = 8 };

typedef struct kv_measurement {
    int point[KV_MEASUREMENT_MOST_POINTS]; /* places in the plan, the first one in the results if
                                              any is */
    int points;                            /* 1, or as many as there are draws */
    int turn;                              /* 0: all turns together */
    double accuracy;                       /* 0..1 */
    double n;                              /* examples behind it; 0: not known */
    char *task;                            /* owned by the list */
} kv_measurement;

typedef struct kv_measurements {
    kv_measurement *row;
    int count;
} kv_measurements;

/* Reads a spec (NULL: none) for a plan with that many points. */
kv_err kv_measurements_parse(const char *spec, int points, kv_measurements *out,
                             kv_diag *diag) KV_MUST_USE;
void kv_measurements_fini(kv_measurements *list);

/* The spec that reads back to the list; the caller frees it. NULL: no memory. */
char *kv_measurements_write(const kv_measurements *list);

/* The measurement that has a point first, on a task; or NULL. */
const kv_measurement *kv_measurements_find(const kv_measurements *list, int point, const char *task,
                                           int turn);

#endif
