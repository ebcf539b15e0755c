/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* The serving part of an experiment, from its plan to finished tables. */
#ifndef KVSIM_SIM_SERVING_RUN_H
#define KVSIM_SIM_SERVING_RUN_H

#include "analysis/serving_results.h"
#include "sim/serving/plan.h"

typedef struct kv_serving_run_options {
    bool stepwise;            /* take every step by itself: slower, the same results */
    int threads;              /* points that run at the same time; < 1: one */
    const char *trace_events; /* JSON file for Chrome or Perfetto, of the first point; NULL: none */
    void (*progress)(void *closure, int done, int total); /* NULL: none */
    void *progress_closure;
    void (*warn)(void *closure,
                 const char *text); /* told of what a user should know; may be NULL */
    void *warn_closure;
} kv_serving_run_options;

/* Runs the points that the run still lacks, of a shard those that are its own (every so many), and
 * writes their rows in the order of the experiment, whatever the threads. */
kv_err kv_serving_run_plan(const kv_serving_plan *plan, kv_run *run,
                           const kv_serving_run_options *options, kv_diag *diag) KV_MUST_USE;

/* Notes the plan's request trace, with its digest if it is one file, in table request_trace. */
kv_err kv_serving_note_trace(const kv_serving_plan *plan, kv_run *run, kv_diag *diag) KV_MUST_USE;

/* What a point does with arrivals from a source of the caller's, as its row has it (texts and cost
 * as in the point). Nothing is written. last_arrival_ns (may be NULL) is that of the last request
 * that was completed or rejected. */
kv_err kv_serving_probe(const kv_serving_point *point, const kv_serving_source *source,
                        kv_serving_row *row, int64_t *last_arrival_ns, kv_diag *diag) KV_MUST_USE;

#endif
