/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* The attention part of a run: every example of every trace at every point, on several threads. */
#ifndef KVSIM_SIM_SWEEP_H
#define KVSIM_SIM_SWEEP_H

#include "analysis/points.h"
#include "sim/replay/replay.h"

/* A point with what the results say about it. */
typedef struct kv_sweep_point {
    kv_replay_point replay;
    bool implied;       /* see kv_point_spec */
    kv_point_info info; /* info.task: replayed on this task only, NULL: on all */
} kv_sweep_point;

/* An example with the trace that holds it. */
typedef struct kv_sweep_example {
    int trace; /* index into kv_sweep.trace */
    int index; /* in the trace */
    kv_example_info info;
} kv_sweep_example;

typedef struct kv_sweep {
    kv_attention **trace; /* [traces] open files */
    int traces;
    const kv_sweep_point *point;
    int points;
    const kv_sweep_example *example;
    int examples;
    kv_replay_options options;
    int threads; /* at least 1 */
} kv_sweep;

/* How far a sweep has come, for a progress line. Called from one thread at a time. */
typedef void (*kv_sweep_progress)(void *closure, int done, int total);

/* Receives the records of one finished example: record[p * (turns + 1) + slot] for every point of
 * the sweep, NaN where a point is not for this example. Called from one thread at a time. */
typedef kv_err (*kv_sweep_sink)(void *closure, int example, const kv_record *record,
                                const kv_retained_set *sets, int set_count, kv_diag *diag);

/* Replays the examples that wants[] marks (NULL: all), in any order; stops at the first error. The
 * records of an example do not depend on the threads. */
kv_err kv_sweep_run(const kv_sweep *sweep, const bool *wants, kv_sweep_sink sink, void *closure,
                    kv_sweep_progress progress, void *progress_closure, kv_diag *diag) KV_MUST_USE;

/* Refuses the sweep before anything is replayed if an example lacks what a point needs. */
kv_err kv_sweep_check(const kv_sweep *sweep, kv_diag *diag) KV_MUST_USE;

#endif
