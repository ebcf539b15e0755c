/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Building a sweep: traces are opened, examples and points listed with what the results say of
 * them. The plan owns all of it; policies' settings are borrowed from the point specs. */
#ifndef KVSIM_SIM_SWEEP_PLAN_H
#define KVSIM_SIM_SWEEP_PLAN_H

#include "sim/experiment.h"
#include "sim/sweep.h"

typedef struct kv_sweep_plan {
    kv_attention **trace; /* [traces] */
    char (*digest)[65];   /* [traces] */
    char **trace_name;    /* [traces] as the experiment writes it */
    int traces;
    kv_sweep_point *point; /* [points] */
    int points, point_room;
    kv_sweep_example *example; /* [examples] */
    int examples, example_room;
} kv_sweep_plan;

/* Opens a trace, unless it is open already. path: to open; name: to show. */
kv_err kv_sweep_plan_trace(kv_sweep_plan *plan, const char *path, const char *name, int *trace,
                           kv_diag *diag) KV_MUST_USE;
/* Adds the examples of a trace whose task is in the list (empty: all), unless they are there.
 * calibrates: accuracy was measured on them; those that are not there yet serve only for that. */
kv_err kv_sweep_plan_examples(kv_sweep_plan *plan, int trace, const kv_texts *tasks,
                              bool calibrates, kv_diag *diag) KV_MUST_USE;
/* Adds a point. task: replayed on this task only (borrowed); NULL: on all. */
kv_err kv_sweep_plan_point(kv_sweep_plan *plan, const kv_point_spec *spec, const char *task,
                           bool calibration_only, int *point, kv_diag *diag) KV_MUST_USE;
/* Traces, examples and points of an experiment's attention section. */
kv_err kv_sweep_plan_attention(kv_sweep_plan *plan, const kv_attention_config *attention,
                               kv_diag *diag) KV_MUST_USE;
/* What to sweep; borrows from the plan. cache: how entries are stored; NULL: as recorded in f16. */
kv_sweep kv_sweep_plan_sweep(const kv_sweep_plan *plan, const kv_attention_config *attention,
                             long long seed, const kv_replay_cache *cache, int threads);
/* Takes a point out; those after it move up. */
void kv_sweep_plan_remove(kv_sweep_plan *plan, int point);
void kv_sweep_plan_fini(kv_sweep_plan *plan);

/* Points and examples of a sweep as the results want them; the caller frees out->point and
 * out->example, whose texts are the plan's. The rest of *out is left alone. */
kv_err kv_sweep_list(const kv_sweep *sweep, kv_points_plan *out, kv_diag *diag) KV_MUST_USE;

#endif
