/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Accuracy models: from what a replay measures to the accuracy it predicts.
 *
 * A model says, per example and turn, how likely the answer stays right. Averages over examples,
 * bootstrap intervals, curves and critical footprints are shared code, and so is the label: every
 * accuracy in the database names its source. A model is one kv_accuracy_type and one line in the
 * table in accuracy.c. */
#ifndef KVSIM_ANALYSIS_ACCURACY_H
#define KVSIM_ANALYSIS_ACCURACY_H

#include "analysis/points.h"

/* Reads stored records; given to kv_accuracy_type.fit. */
typedef struct kv_record_source {
    const kv_points_plan *plan;
    /* Fills records[turns + 1] of one example at one point. */
    kv_err (*read)(void *closure, int point, int example, kv_record *records, kv_diag *diag);
    void *closure;
} kv_record_source;

typedef struct kv_accuracy_type {
    const char *name;   /* of kv_points_plan.accuracy_model */
    const char *source; /* accuracy_source of what it predicts: "proxy", "calibrated", "measured" */
    const char *interval; /* what its intervals contain, in words */

    /* Makes a model from the plan and its accuracy_spec. Default (NULL): a model without state. */
    kv_err (*make)(const kv_points_plan *plan, long long seed, void **out, kv_diag *diag);
    void (*release)(void *model);
    /* Fits it to recorded points, before any prediction. Default: nothing to fit. */
    kv_err (*fit)(void *model, const kv_record_source *source, kv_diag *diag);
    /* How many draws of its own parameters it offers, so that intervals contain the uncertainty of
     * the fit; the resample r of the examples uses draw 1 + r % draws. Default: 0. */
    int (*draws)(const void *model);
    /* Whether it predicts a task; the others stay a proxy, and are labelled so. Default: all. */
    bool (*covers)(const void *model, const char *task);
    /* Predicts one example at one point: accuracy[t - 1] of turn t from records[0..turns], 0..1,
     * NaN where it cannot say. draw 0 is the best estimate. Default: all NaN. */
    void (*predict)(const void *model, int draw, int point, const kv_example_info *example,
                    const kv_record *records, double *accuracy);
    /* A mean accuracy with the model's own error as one draw (from 1) has it. turn 0: all. Default:
     * unchanged. */
    double (*disturb)(const void *model, int draw, const char *task, int turn, double accuracy);
    /* An accuracy measured at this very point, which wins over predictions and is labelled
     * "measured": true if there is one. turn 0: all. n: examples behind it, 0 if not known.
     * Default: none. */
    bool (*measured)(const void *model, int point, const char *task, int turn, double *accuracy,
                     double *n);
    /* Writes tables of its own (coefficients, residuals) inside the last transaction. Default:
     * none. */
    kv_err (*store)(const void *model, kv_run *run, kv_diag *diag);
} kv_accuracy_type;

/* The model of that name (NULL: the proxy), or NULL if there is none. */
const kv_accuracy_type *kv_accuracy_find(const char *name);

#endif
