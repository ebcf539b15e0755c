/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Averages of one point over the examples of one task, with what resampling makes of them.
 * Internal. */
#ifndef KVSIM_ANALYSIS_SUMMARISE_H
#define KVSIM_ANALYSIS_SUMMARISE_H

#include "analysis/accuracy.h"
#include "analysis/bootstrap.h"
#include "analysis/plan.h"
#include "analysis/units.h"

/* An accuracy model at work. */
typedef struct kv_predictor {
    const kv_accuracy_type *type;
    const kv_accuracy_type *rule; /* what predicts the task: the type, or the proxy in its place */
    void *model;
    int draws; /* of the rule's parameters, beside the best estimate */
    long long seed;
} kv_predictor;

/* The examples of one task and their resamples. */
typedef struct kv_task_set {
    const kv_plan *plan;
    int task;
    const char *name;
    int *example; /* [examples] places in the plan, ascending */
    int examples;
    int slots;  /* of the result tables: all turns, then each turn if there are several */
    int stride; /* records per example: slot 0 and the most turns of an example */
    kv_bootstrap bootstrap;
} kv_task_set;

/* One slot of a point. */
typedef struct kv_slot {
    kv_record mean;
    int examples;             /* that have this turn */
    double accuracy, lo, hi;  /* NaN if not known */
    bool measured;            /* the accuracy was given, not predicted */
    double measured_n;        /* examples behind it; 0: not known */
    double *footprint_sample; /* [resamples] in entries */
    double *bytes_sample;     /* [resamples] in bytes */
    double *accuracy_sample;  /* [resamples] */
} kv_slot;

/* A point on a task. */
typedef struct kv_summary {
    int point;
    kv_record *record; /* [examples][stride], NaN where there is none */
    double *accuracy;  /* [1 + draws][examples][stride] */
    kv_slot *slot;     /* [slots] */
    double *samples;   /* what the slots' samples point into */
    int slots;
} kv_summary;

kv_err kv__task_set_init(kv_task_set *set, const kv_plan *plan, int task, long long seed,
                         kv_diag *diag) KV_MUST_USE;
void kv__task_set_fini(kv_task_set *set);

/* Reads, predicts and averages one point. */
kv_err kv__summary_make(const kv_task_set *set, const kv_predictor *predictor, kv_units *units,
                        int point, kv_summary *out, kv_diag *diag) KV_MUST_USE;
void kv__summary_fini(kv_summary *summary);

#endif
