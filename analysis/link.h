/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* The link from what a replay measures of a turn to the chance that its answer stays right.
 *
 *   pass = g + (1 - g) n(x; b, m) n(q; 5, t)
 *   n(z; b, m) = (s(b (z - m)) - s(-b m)) / (s(b (1 - m)) - s(-b m)),  s(z) = 1 / (1 + exp(-z))
 *
 * x is how much of what heads read from evidence is unchanged, q how intact the layers below them
 * left the query (docs/calibration.md). n rises from n(0) = 0 to n(1) = 1, so that a turn that
 * lost nothing is as good as with the full cache. */
#ifndef KVSIM_ANALYSIS_LINK_H
#define KVSIM_ANALYSIS_LINK_H

#include "analysis/measure.h"
#include "sim/base/diag.h"

#include <stdbool.h>

/* Parameters as they are fitted. */
enum {
    KV_LINK_STEEPNESS,      /* ln b, 0 .. 3.5 */
    KV_LINK_MIDPOINT,       /* m, 0 .. 1 */
    KV_LINK_QUERY_MIDPOINT, /* t, -1 .. 1 */
    KV_LINK_GUESS,          /* logit of g; only where values were not recorded */
    KV_LINK_PARAMETERS
};

/* A curve n(z; b, m) with what of it does not depend on z. */
typedef struct kv_link_curve {
    double b, m;
    double low, range;     /* s(-b m), s(b (1 - m)) - s(-b m) */
    double low_db, low_dm; /* derivatives of low by b and m */
    double range_db, range_dm;
} kv_link_curve;

/* A link ready to be evaluated. */
typedef struct kv_link {
    kv_link_curve output, query;
    double guess;                  /* g; 0 if the link has no guess */
    bool free[KV_LINK_PARAMETERS]; /* false: at a bound, so that the pass does not depend on it */
} kv_link;

/* What is fitted: parameters, and how sure they are. */
typedef struct kv_link_fit {
    double theta[KV_LINK_PARAMETERS];
    double covariance[KV_LINK_PARAMETERS][KV_LINK_PARAMETERS]; /* 0 for what was not fitted */
    int parameters;                                            /* 3, or 4 with the guess */
    double residual_rms;                                       /* of the rows it was fitted to */
} kv_link_fit;

/* One turn of one example; its share of a row's accuracy is weight * pass. */
typedef struct kv_link_cell {
    int example; /* for resampling: 0 .. examples-1 */
    double x, q, weight;
} kv_link_cell;

/* A measured accuracy and the turns that it is the average of. */
typedef struct kv_link_row {
    const kv_link_cell *cell;
    int cells;
    double accuracy;
} kv_link_row;

/* x and q of a turn. Without evidence x is what is left of the outputs of all heads (of their
 * attention where no values were recorded) and q is 1. False: the record tells nothing. */
bool kv_link_features(const kv_record *record, double *x, double *q);

/* Parameters beyond their bounds stand for the bound. */
void kv_link_init(kv_link *link, const double theta[KV_LINK_PARAMETERS], int parameters);

/* The chance; gradient (may be NULL) gets its derivatives by the parameters. */
double kv_link_pass(const kv_link *link, double x, double q, double gradient[KV_LINK_PARAMETERS]);

/* The accuracy that a link predicts for a row. */
double kv_link_predict(const kv_link *link, const kv_link_row *row);

/* Fits 3 or 4 parameters to rows by least squares; a weak pull (weight 0.02) towards usual values
 * keeps what the rows do not tell in place. The rows may be in any order of pointers. */
kv_err kv_link_fit_rows(const kv_link_row *const *rows, int count, int parameters, kv_link_fit *out,
                        kv_diag *diag) KV_MUST_USE;

#endif
