/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* What a plan writes: plan_limit, plan_choice, plan_point, plan_case; and its summary. */
#ifndef KVSIM_ANALYSIS_PLAN_RESULTS_H
#define KVSIM_ANALYSIS_PLAN_RESULTS_H

#include "analysis/results.h"
#include "analysis/schema.h"

#include <stdbool.h>
#include <stdio.h>

extern const kv_table kv__plan_tables[];

/* A row of plan_limit. Choices are named by number. */
typedef struct kv_plan_limit_row {
    const char *text, *metric, *relation;
    double value;
    const char *nearest_text; /* NULL: this limit can be kept, or why_none says why there is none */
    const char *why_none;     /* NULL: there is one, or none is needed */
    double nearest;
    int nearest_choice; /* -1: none */
    int nearest_replicas;
    bool alone; /* relaxing this limit is enough */
} kv_plan_limit_row;

/* A row of plan_choice; NaN and 0 as each column says. */
typedef struct kv_plan_choice_row {
    const char *policy, *params, *settings, *label, *device, *verdict, *binding;
    long long chunk_tokens;
    int rank; /* 0: infeasible */
    int replicas, devices;
    double cost_per_hour, rate_req_s, max_rate_req_s;
    bool max_rate_open;
    double accuracy, accuracy_of_full, accuracy_lo, accuracy_hi;
    const char *accuracy_source, *accuracy_task; /* NULL: not known */
    double ttft_p99, tpot_p99, e2e_p99, goodput, throughput_tok_s;
    int replicas_fewer_blocks, replicas_more_blocks; /* 0: infeasible */
} kv_plan_choice_row;

/* A row of plan_point. */
typedef struct kv_plan_point_row {
    int choice; /* its number */
    int replicas, devices;
    double rate_factor, blocks_factor, rate_req_s, cost_per_hour, accuracy_of_full;
    double ttft_p99, tpot_p99, e2e_p99, goodput, throughput_tok_s, gpu_busy;
    long long requests, rejected_too_long; /* the latter of the former: longer than the context */
    double latency;                        /* of the front, s */
    bool feasible, pareto;
    const char *binding;
    double excess;
} kv_plan_point_row;

/* A row of plan_case. */
typedef struct kv_plan_case_row {
    const char *name;
    int choice; /* -1: none */
    int replicas, devices;
    double cost_per_hour;
} kv_plan_case_row;

typedef struct kv_plan_rows kv_plan_rows;

/* Begins a transaction; the rows of limits and choices come in order of their numbers, from 0. */
kv_err kv_plan_rows_open(kv_results *results, long long run_id, kv_plan_rows **out,
                         kv_diag *diag) KV_MUST_USE;
kv_err kv_plan_rows_choice(kv_plan_rows *rows, const kv_plan_choice_row *row,
                           kv_diag *diag) KV_MUST_USE;
kv_err kv_plan_rows_limit(kv_plan_rows *rows, const kv_plan_limit_row *row,
                          kv_diag *diag) KV_MUST_USE;
kv_err kv_plan_rows_point(kv_plan_rows *rows, const kv_plan_point_row *row,
                          kv_diag *diag) KV_MUST_USE;
kv_err kv_plan_rows_case(kv_plan_rows *rows, const kv_plan_case_row *row,
                         kv_diag *diag) KV_MUST_USE;
/* Commits if err is KV_OK, else undoes all; frees the rows and answers the error of either. */
kv_err kv_plan_rows_close(kv_plan_rows *rows, kv_err err, kv_diag *diag) KV_MUST_USE;

/* Writes the plan of a run as text: what to run, what it gives, why not the others. */
kv_err kv_plan_summary(kv_results *results, long long run_id, FILE *out, kv_diag *diag) KV_MUST_USE;

#endif
