/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Fits of step times: the roofline to measured kernel tables, the host's work per step to a
 * measured run. */
#ifndef KVSIM_SIM_SERVING_STEP_FIT_H
#define KVSIM_SIM_SERVING_STEP_FIT_H

#include "sim/serving/plan.h"

/* Steps that the fit of the roofline looks at, by kind. */
typedef enum kv_fit_kind { KV_FIT_PREFILL, KV_FIT_DECODE, KV_FIT_KINDS } kv_fit_kind;

/* One kind of steps: how far the roofline is from the tables, as fractions of the tables' times. */
typedef struct kv_fit_residual {
    int shapes;
    double rms, worst;         /* worst has a sign: > 0: the roofline is slower */
    long long tokens, history; /* of the worst: chunk and keys before it; decodes and their keys */
} kv_fit_residual;

typedef struct kv_roofline_fit {
    double compute_efficiency, attention_efficiency, memory_efficiency; /* 0..1 */
    double layer_overhead_ns;
    kv_fit_residual residual[KV_FIT_KINDS];
    bool outside; /* the tables were continued beyond what they measured */
} kv_roofline_fit;

/* The efficiencies of the roofline with which prefill and decode steps of up to max_batched_tokens
 * and max_seqs come closest to those of the point's tables (least squares of the logarithms). Fails
 * if the point's step times are no tables, and if the tables are faster than the device can be. */
kv_err kv_roofline_fit_tables(const kv_serving_point *point, kv_roofline_fit *out,
                              kv_diag *diag) KV_MUST_USE;

/* Means and 99th percentiles of a run, in nanoseconds. */
typedef struct kv_run_figures {
    double ttft_mean, ttft_p99, tpot_mean, tpot_p99, e2e_mean, e2e_p99;
} kv_run_figures;

typedef struct kv_overhead_fit {
    int requests;
    double overhead_ns; /* with which the mean latency is the measured one; may be below 0 */
    double error_ns;    /* half of its 95 % interval, by leaving out a twentieth of the requests */
    kv_run_figures measured, before, after; /* before: as the point has it; after: with it */
} kv_overhead_fit;

/* The step_overhead with which the point's requests, a measured run of format vllm-bench, take as
 * long on average as they did. */
kv_err kv_overhead_fit_run(const kv_serving_plan *plan, const kv_serving_point *point,
                           kv_overhead_fit *out, kv_diag *diag) KV_MUST_USE;

#endif
