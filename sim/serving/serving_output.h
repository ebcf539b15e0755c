/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* What a point says while it runs: written to the results at once, or held in a temporary file
 * until its turn has come, when several points run at the same time. Internal to sim/serving. */
#ifndef KVSIM_SIM_SERVING_OUTPUT_H
#define KVSIM_SIM_SERVING_OUTPUT_H

#include "analysis/serving_results.h"

typedef struct kv__timeline_row {
    double time_s;
    const char *tier;
    long long used_bytes, running, waiting;
} kv__timeline_row;

/* The record that goes with each kind. */
typedef enum kv__output_kind {
    KV__OUTPUT_REQUEST, /* kv_request_row */
    KV__OUTPUT_SAMPLE,  /* kv__timeline_row */
    KV__OUTPUT_TIER,    /* kv_tier_row */
    KV__OUTPUT_END      /* kv_serving_row */
} kv__output_kind;

/* One of them is set. */
typedef struct kv__output {
    kv_serving_rows *rows;
    FILE *held; /* texts of its records are borrowed: what owns them outlives it */
} kv__output;

/* Opens a temporary file; the caller closes out->held. */
kv_err kv__output_hold(kv__output *out, kv_diag *diag) KV_MUST_USE;
kv_err kv__output_put(kv__output *out, kv__output_kind kind, const void *record,
                      kv_diag *diag) KV_MUST_USE;
/* Writes what was held. */
kv_err kv__output_release(kv__output *out, kv_serving_rows *rows, kv_diag *diag) KV_MUST_USE;

#endif
