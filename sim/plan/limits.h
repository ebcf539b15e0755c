/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Limits of a plan, as users write them: "ttft_p99 <= 2s", "accuracy >= 0.9 of full". */
#ifndef KVSIM_SIM_PLAN_LIMITS_H
#define KVSIM_SIM_PLAN_LIMITS_H

#include "analysis/serving_results.h"
#include "sim/base/diag.h"

#include <stdbool.h>
#include <stddef.h>

/* What one configuration does, as far as limits ask. */
typedef struct kv_plan_measures {
    kv_serving_row row;      /* texts unset */
    double accuracy;         /* of the worst task; NaN: not known */
    double accuracy_of_full; /* the same over the full cache's */
    double price;            /* per hour, of all devices; NaN: not known */
} kv_plan_measures;

typedef enum kv_metric_kind {
    KV_METRIC_SECONDS, /* limits have a unit of time */
    KV_METRIC_NUMBER
} kv_metric_kind;

/* What can be limited. */
typedef struct kv_metric {
    const char *name; /* NULL ends the table */
    kv_metric_kind kind;
    bool at_least; /* more is better: limits are >= */
    size_t offset; /* of a double in kv_plan_measures */
    const char *help;
} kv_metric;

extern const kv_metric kv_metrics[];

typedef struct kv_limit {
    char text[96]; /* canonical */
    const kv_metric *metric;
    double value; /* s, or a number */
    bool of_full; /* of accuracy: a share of the full cache's */
} kv_limit;

/* Reads one limit. */
kv_err kv_limit_parse(const char *text, const kv_mark *mark, kv_limit *out,
                      kv_diag *diag) KV_MUST_USE;

/* What is measured; NaN: not known. */
double kv_limit_measure(const kv_limit *limit, const kv_plan_measures *measures);

/* A limit that is missed by less, as a share of it, is missed by the rounding of its sums alone. */
#define KV_LIMIT_ROUNDING 1e-9

/* By how much a limit is missed, as a share of it: 0 or less keeps it, infinite if what it asks for
 * is not known. A latency that no request has is kept. */
double kv_limit_excess(const kv_limit *limit, const kv_plan_measures *measures);

/* Writes the limit as it would be with another value. */
void kv_limit_text(const kv_limit *limit, double value, char *out, size_t bytes);

#endif
