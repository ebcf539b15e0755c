/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Calibration: fits the link (analysis/link.h) to measured accuracies, task by task, and tells how
 * well it predicts policies that it has not seen. docs/calibration.md says why it is this link.
 *
 * A task with enough measured points gets a fit of its own; one with few shares a fit with all
 * tasks; where there are too few for that, accuracy stays a proxy. Each policy in turn is left out
 * of the fit and predicted; what these held-out predictions miss goes into every interval. */
#ifndef KVSIM_ANALYSIS_CALIBRATION_H
#define KVSIM_ANALYSIS_CALIBRATION_H

#include "analysis/accuracy.h"
#include "analysis/link.h"
#include "analysis/measurements.h"

typedef enum kv_calibration_kind {
    KV_CALIBRATION_OWN,    /* fitted to points of this task */
    KV_CALIBRATION_SHARED, /* fitted to points of all tasks */
    KV_CALIBRATION_NONE    /* too few points; parameters and errors are NaN */
} kv_calibration_kind;

/* What is needed for a fit. */
enum {
    KV_CALIBRATION_LEAST_POINTS = 6,
    KV_CALIBRATION_LEAST_POLICIES = 2,
    KV_CALIBRATION_LEAST_ACCURACIES = 4 /* different ones */
};

/* Accuracies are fractions; errors are absolute. "Held out" is predicted by a fit that has not seen
 * the point's policy. Points of policy `full` count for nothing here. */
typedef struct kv_calibration_task {
    const char *name;
    kv_calibration_kind kind;
    kv_link_fit fit;
    int examples;         /* recorded, that the measured points were replayed on */
    int points, policies; /* measured, that were fitted */
    double full_accuracy; /* measured with the full cache, else the examples' mean full_score */
    bool full_measured;
    double mean_score;                 /* mean full_score of the examples */
    double mean_turns;                 /* per example */
    double least_output, least_intact; /* least mean measures that were fitted */
    double mae, rms, max, bias;        /* of held-out points */
    double turn_mae;                   /* of held-out points of single turns; NaN: none */
    double coverage;                   /* share of held-out points within their interval */
    double spread, turn_spread;        /* of held-out errors, see kv_calibration_scale */
    int freedom;                       /* policies behind the spread */
    double critical_mae;               /* of held-out critical footprints; NaN: none */
    int critical_curves;               /* where both cross */
    int critical_differ;               /* where only one does */
} kv_calibration_task;

/* One measured accuracy. */
typedef struct kv_calibration_point {
    int task;                        /* place in the tasks */
    int point;                       /* place in the plan; of several draws the first */
    int turn;                        /* 0: all */
    double n;                        /* examples behind it; 0: not known */
    double accuracy;                 /* measured */
    bool full;                       /* policy `full` */
    bool fitted_to;                  /* false: only compared */
    double fitted, held_out;         /* predicted; NaN: not */
    double held_out_lo, held_out_hi; /* its interval; NaN: none */
    double footprint;                /* kv_footprint of the replay, mean of the examples */
    double output, intact;           /* x and q of the link, mean of examples and turns */
} kv_calibration_point;

typedef struct kv_calibration kv_calibration;

/* Fits everything. The plan must outlive the calibration; measurements at points or tasks that no
 * calibrating example was replayed at are left out. seed: of the intervals. */
kv_err kv_calibration_new(const kv_record_source *source, const kv_measurements *measured,
                          long long seed, kv_calibration **out, kv_diag *diag) KV_MUST_USE;
void kv_calibration_free(kv_calibration *calibration);

/* Tasks in byte order of their names, and points in the order of task, plan and turn; borrowed. */
const kv_calibration_task *kv_calibration_tasks(const kv_calibration *calibration, int *count);
const kv_calibration_point *kv_calibration_points(const kv_calibration *calibration, int *count);

/* The unit of the errors of predictions near an accuracy: the standard deviation of the held-out
 * error is spread times this. Small where next to all answers or next to none are right. */
double kv_calibration_scale(const kv_calibration_task *task, double accuracy);

/* The full score of an example, as the measured full accuracy corrects it: the mean over the
 * calibrating examples is that accuracy. */
double kv_calibration_full(const kv_calibration_task *task, double score);

/* The model "calibrated". */
extern const kv_accuracy_type kv__accuracy_calibrated;

#endif
