/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Planning: the cheapest configuration of a server that keeps all limits, by search with the
 * serving replay as the oracle (docs/plan.md). */
#ifndef KVSIM_SIM_PLAN_PLAN_H
#define KVSIM_SIM_PLAN_PLAN_H

#include "analysis/results.h"
#include "sim/section.h"

/* Section `plan` of an experiment. */
typedef struct kv_plan_config {
    kv_texts limits;         /* see sim/plan/limits.h; at least one */
    const kv_node *price;    /* {DEVICE: per hour}; NULL: the devices' own */
    char *results;           /* database whose latest run says accuracies; NULL: this run's own */
    kv_mark results_mark;    /* where that is said; lives as long as the experiment */
    double chunk_scale;      /* chunk size of the attention replay over that of serving */
    long long most_replicas; /* that are tried */
    double tolerance;        /* of the largest rate, as a share of it */
    double capacity;         /* by how much the number of KV blocks may be wrong, as a share */
} kv_plan_config;

extern const kv_section kv__section_plan;

struct kv_experiment;

typedef struct kv_plan_options {
    int threads;
    void (*progress)(void *closure, int done, int total); /* NULL: none */
    void (*warn)(void *closure, const char *text);        /* NULL: nobody asks */
    void *closure;
} kv_plan_options;

/* Finds the mistakes that can be found before anything is written: limits that need what is not
 * there, devices without a price beside others with one, a trace without requests. */
kv_err kv_plan_check(const struct kv_experiment *experiment, kv_diag *diag) KV_MUST_USE;

/* Searches and writes tables plan_limit, plan_choice, plan_point and plan_case of a run. accuracy:
 * the database whose run `accuracy_run` (0: the latest) says accuracies; NULL: nothing does. */
kv_err kv_plan_search(const struct kv_experiment *experiment, kv_run *run, kv_results *results,
                      kv_results *accuracy, long long accuracy_run, const kv_plan_options *options,
                      kv_diag *diag) KV_MUST_USE;

#endif
