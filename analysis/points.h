/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* What an attention replay writes: points of the sweep, averages, accuracy, critical footprints.
 *
 * The replay goes example by example, all points at once, and puts the records of each finished
 * example in one transaction, in any order. When the last one is in, kv_points_finish makes the
 * result tables from them; they do not depend on threads, order of arrival, kills or shards. */
#ifndef KVSIM_ANALYSIS_POINTS_H
#define KVSIM_ANALYSIS_POINTS_H

#include "analysis/measure.h"
#include "analysis/results.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct kv_points kv_points; /* the attention part of a run */

/* One point of the sweep: a policy with its settings under one chunk size. */
typedef struct kv_point_info {
    const char *policy;      /* name; "full" is the reference of critical footprints */
    const char *params_json; /* canonical JSON of all settings */
    const char *curve_json; /* the same without the budget: points with equal policy, curve_json and
                             * chunk_tokens lie on one curve */
    const char *label;      /* the curve in few words for legends: "snapkv chunked, window 16" */
    const char
        *saves;             /* what the policy saves: "entries", "bytes" (where a transform is part
                             * of it), "reads" (a read policy) or "prefill" (of prefill alone); NULL: entries */
    const char *task;       /* replayed on this task only; NULL: on all */
    long long chunk_tokens; /* 0: whole (NULL in the database) */
    double keep;            /* fraction kept, NaN: the policy has none (NULL in the database) */
    bool calibration_only;  /* replayed for the accuracy model, absent from the result tables */
} kv_point_info;

/* One example of a trace. */
typedef struct kv_example_info {
    const char *trace;  /* path as the experiment writes it */
    const char *digest; /* of the trace, 64 hex digits */
    const char *name;   /* in the trace */
    const char *task;
    int turns;             /* T >= 1 */
    int prompt_tokens;     /* P */
    double full_score;     /* 0..1 */
    bool calibrates;       /* the accuracies that were measured are those of such examples */
    bool calibration_only; /* as above; such an example calibrates */
} kv_example_info;

/* How critical footprints and intervals are found. */
typedef struct kv_critical_info {
    double threshold;  /* share of the full accuracy that must remain */
    double confidence; /* of the intervals, 0..1 */
    int resamples;     /* of the examples, for the bootstrap */
} kv_critical_info;

/* Everything that fixes the attention part of a run, kept in the database until it is finished. */
typedef struct kv_points_plan {
    const kv_point_info *point;
    int points;
    const kv_example_info *example;
    int examples;
    kv_critical_info critical;
    const char *accuracy_model; /* a name of kv_accuracy_types (analysis/accuracy.h); NULL: proxy */
    const char *accuracy_spec; /* what that model reads; NULL: nothing. Stored, so that a resumed or
                                * merged run needs no other file */
} kv_points_plan;

/* Which entries of one KV head are in memory after the last prompt chunk. */
typedef struct kv_retained_set {
    int point; /* index into the plan */
    int layer, kv_head;
    const int32_t *position; /* [positions], ascending */
    int positions;
} kv_retained_set;

/* Begins the attention part, or takes it up again. A resumed run whose plan is not the stored one
 * (a trace has changed) is an error (KV_ERR_INPUT) that names the first difference. */
kv_err kv_points_begin(kv_run *run, const kv_points_plan *plan, kv_points **out,
                       kv_diag *diag) KV_MUST_USE;
/* Frees it. NULL is fine. */
void kv_points_free(kv_points *points);

/* True if this run (this shard of it) still has to replay the example. Shard i of n takes the
 * examples whose index leaves i-1 when divided by n. */
bool kv_points_wants(const kv_points *points, int example);

/* Stores a finished example, at once or not at all. records[p * (turns + 1) + slot] is point p;
 * slot 0 is all turns together, slot t is turn t (from 1); NaN where a measure does not apply.
 * Points with a task other than the example's are ignored. sets may be NULL. Any thread may call.
 */
kv_err kv_points_put(kv_points *points, int example, const kv_record *records,
                     const kv_retained_set *sets, int set_count, kv_diag *diag) KV_MUST_USE;

/* Writes footprint_point, example_point, retained_set and critical_footprint once every example is
 * in, each point in one transaction, and drops what kv_points_put stored. Does nothing for a shard.
 */
kv_err kv_points_finish(kv_points *points, kv_diag *diag) KV_MUST_USE;

#endif
