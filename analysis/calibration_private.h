/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* What the parts of the calibration share. Internal. */
#ifndef KVSIM_ANALYSIS_CALIBRATION_PRIVATE_H
#define KVSIM_ANALYSIS_CALIBRATION_PRIVATE_H

#include "analysis/calibration.h"

/* Draws of a fit's parameters and of its error, for intervals. */
enum { KV_CALIBRATION_DRAWS = 200 };

typedef struct kv_calibration_draws {
    kv_link link[KV_CALIBRATION_DRAWS];
    double shift[KV_CALIBRATION_DRAWS]; /* in units of spread x scale */
} kv_calibration_draws;

/* The fit that has not seen one policy. */
typedef struct kv_calibration_fold {
    int policy; /* a place in kv_calibration.policy_of */
    kv_link_fit fit;
} kv_calibration_fold;

/* Tasks that are fitted together. */
typedef struct kv_calibration_pool {
    int only; /* the only task; -1: all */
    int parameters;
    kv_link_fit fit;
    kv_calibration_fold *fold;
    int folds;
    double *held_out; /* [points] of the calibration; NaN where not in the pool */
} kv_calibration_pool;

struct kv_calibration {
    const kv_points_plan *plan;
    long long seed;
    kv_calibration_task *task;
    int tasks;
    kv_calibration_point *point;
    const kv_measurement **from; /* [points] while rows are built */
    kv_link_row *row;            /* [points] what each is the average of */
    int *policy_of;              /* [points] the first point with the same policy */
    int points;
    bool *no_values;   /* [tasks] values were not recorded */
    bool *no_evidence; /* [tasks] some turn has none */
};

bool kv__calibration_in_pool(const kv_calibration *c, const kv_calibration_pool *pool, int i);

/* Draws for a fit with so many policies behind its spread. purpose names the random stream. */
kv_err kv__calibration_draw(const kv_link_fit *fit, int freedom, unsigned long stream,
                            kv_calibration_draws *out, kv_diag *diag) KV_MUST_USE;

/* An accuracy with the error of draw d. */
double kv__calibration_shift(const kv_calibration_task *task, double spread, double shift,
                             double accuracy);

/* Root mean square of the held-out errors in units of scale, each policy counting once, of points
 * of all turns together or of single turns. except: a policy left out, -1 none. *policies gets how
 * many there are; 0: the answer is NaN. */
double kv__calibration_spread(const kv_calibration *c, const kv_calibration_pool *pool, bool turns,
                              int except, int *policies);

/* Fills what a task's held-out points tell: errors, intervals, coverage, critical footprints. */
kv_err kv__calibration_check(kv_calibration *c, const kv_calibration_pool *pool, int task,
                             kv_diag *diag) KV_MUST_USE;

#endif
