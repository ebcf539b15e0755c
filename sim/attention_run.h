/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* The attention part of an experiment, from the open results file to its finished tables. */
#ifndef KVSIM_SIM_ATTENTION_RUN_H
#define KVSIM_SIM_ATTENTION_RUN_H

#include "analysis/results.h"
#include "sim/experiment.h"
#include "sim/sweep.h"

/* How a sweep is run: kv_sweep_run, or what spreads it over processes. */
typedef kv_err (*kv_sweep_runner)(const kv_sweep *sweep, const bool *wants, kv_sweep_sink sink,
                                  void *closure, kv_sweep_progress progress, void *progress_closure,
                                  kv_diag *diag);

typedef struct kv_attention_run_options {
    int threads;
    kv_sweep_runner runner;     /* NULL: kv_sweep_run */
    kv_sweep_progress progress; /* NULL: none */
    void *progress_closure;
    void (*warn)(void *closure,
                 const char *text); /* what the user should know; NULL: nobody asks */
    void *warn_closure;
} kv_attention_run_options;

/* An experiment whose attention part is ready to run: traces are open, points are listed, and every
 * example has what they need. */
typedef struct kv_attention_job kv_attention_job;

/* Finds mistakes before anything is written. The experiment must outlive the job. warn (may be
 * NULL) is told what the user should know. */
kv_err kv_attention_prepare(const kv_experiment *experiment,
                            void (*warn)(void *closure, const char *text), void *warn_closure,
                            kv_attention_job **out, kv_diag *diag) KV_MUST_USE;
void kv_attention_job_free(kv_attention_job *job);

/* What was left out (skip_refused): "kvzip: why, and what to record", each policy and reason once;
 * NULL beyond the last. Lives as long as the job. */
const char *kv_attention_refused(const kv_attention_job *job, int index);

/* Replays what the run still lacks and writes the result tables; a shard leaves them to merge. A
 * process that only helps the runner of another one has no run (NULL). */
kv_err kv_attention_run(const kv_attention_job *job, kv_run *run,
                        const kv_attention_run_options *options, kv_diag *diag) KV_MUST_USE;

#endif
