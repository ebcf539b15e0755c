/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* The plan of the attention part of a run, as the database keeps it. Internal. */
#ifndef KVSIM_ANALYSIS_PLAN_H
#define KVSIM_ANALYSIS_PLAN_H

#include "analysis/points.h"

/* A plan that owns its texts, and what follows from it. */
typedef struct kv_plan {
    kv_points_plan info;
    char **example_name; /* [examples] unique in the run: the name, with its trace if need be */
    char **task;         /* [tasks] of examples in the results, in byte order */
    int *task_turns;     /* [tasks] most turns of an example */
    int tasks;
    long long first_point; /* id of the first footprint_point */
    bool done;             /* its result tables are complete */
} kv_plan;

/* Stores a plan for a run, inside the caller's transaction. */
kv_err kv__plan_store(kv_run *run, const kv_points_plan *plan, kv_diag *diag) KV_MUST_USE;
/* Reads the plan of a run; *out is NULL if it has none. */
kv_err kv__plan_load(kv_results *results, long long run_id, kv_plan **out,
                     kv_diag *diag) KV_MUST_USE;
void kv__plan_free(kv_plan *plan);

/* Fails with the first difference between a plan and the stored one. `path` is the file to name. */
kv_err kv__plan_compare(const kv_plan *stored, const kv_points_plan *plan, const char *path,
                        kv_diag *diag) KV_MUST_USE;

/* True if two points differ in their budgets at most. */
bool kv__same_curve(const kv_point_info *a, const kv_point_info *b);

/* Rows of footprint_point per point and task: all turns, then each turn if there are several. */
int kv__plan_slots(const kv_plan *plan, int task);
/* True if the results hold this point for this task. */
bool kv__plan_has(const kv_plan *plan, int point, int task);
/* Id of the first of the point's rows for a task; the other slots follow it. */
long long kv__plan_point_id(const kv_plan *plan, int point, int task);

#endif
