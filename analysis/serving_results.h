/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* What a serving run writes: serving_point, tier_stat, request_result, timeline.
 *
 * One point after the other; each is one transaction, so a killed run holds whole points only and a
 * resumed one skips them. */
#ifndef KVSIM_ANALYSIS_SERVING_RESULTS_H
#define KVSIM_ANALYSIS_SERVING_RESULTS_H

#include "analysis/results.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

typedef struct kv_serving_rows kv_serving_rows;

/* mean, p50, p90, p95 and p99 in seconds; NaN where there is none. */
typedef struct kv_latency_row {
    double mean, p50, p90, p95, p99;
} kv_latency_row;

/* A row of serving_point. */
typedef struct kv_serving_row {
    const char *policy, *params, *label, *settings;
    double keep;            /* NaN: none */
    long long chunk_tokens; /* 0: whole */
    long long requests, completed, rejected, rejected_too_long, rejected_too_large, skipped;
    long long preemptions, recomputed_tokens, prompt_tokens, output_tokens, steps;
    long long blended_tokens, blend_recomputed_tokens; /* of prompt_tokens */
    double duration_s, throughput_tok_s, throughput_req_s;
    kv_latency_row ttft, tpot, itl, e2e, queue;
    double goodput; /* requests per second within the limits */
    double prefix_hit_ratio, kv_capacity_bytes, kv_peak_bytes, kv_ideal_peak_bytes,
        gpu_bytes_seconds, ideal_bytes_seconds, kv_read_bytes, running_mean, cpu_bytes_seconds,
        gpu_busy;
    long long running_peak;
    double cost;         /* NaN: not known */
    double loaded_bytes; /* from lower tiers */
    long long evictions;
    long long gpu_hit_tokens, gpu_blended_tokens;
} kv_serving_row;

/* A row of tier_stat of a tier below the GPU. */
typedef struct kv_tier_row {
    const char *tier;
    double capacity_bytes, peak_bytes, mean_bytes, bytes_in, bytes_out, busy_s;
    long long hits, blended_tokens, evictions;
} kv_tier_row;

/* A row of request_result; NaN: none. */
typedef struct kv_request_row {
    long long request, cached_tokens, blended_tokens, preemptions;
    double arrival_s, ttft_s, tpot_s, e2e_s, queue_s;
    const char *status;
} kv_request_row;

/* Notes which requests a run replays; path and digest may be NULL. Noting it again replaces it. */
kv_err kv_request_trace_put(kv_run *run, const char *path, const char *format, const char *digest,
                            kv_diag *diag) KV_MUST_USE;

/* Begins the serving part of a run, or goes on with it. points: of the whole experiment. */
kv_err kv_serving_rows_open(kv_run *run, int points, kv_serving_rows **out,
                            kv_diag *diag) KV_MUST_USE;
void kv_serving_rows_close(kv_serving_rows *rows);

/* True if the point of that number, from 0, is this run's (of a shard, every so many are) and is
 * not there yet. */
kv_err kv_serving_rows_lacks(kv_serving_rows *rows, int number, bool *lacks,
                             kv_diag *diag) KV_MUST_USE;
/* After the last point: drops what only an incomplete run needs. */
kv_err kv_serving_rows_finish(kv_serving_rows *rows, kv_diag *diag) KV_MUST_USE;
/* Begins a point; its requests and samples follow, then kv_serving_rows_end. */
kv_err kv_serving_rows_begin(kv_serving_rows *rows, int number, kv_diag *diag) KV_MUST_USE;
kv_err kv_serving_rows_request(kv_serving_rows *rows, const kv_request_row *row,
                               kv_diag *diag) KV_MUST_USE;
kv_err kv_serving_rows_sample(kv_serving_rows *rows, double time_s, const char *tier,
                              long long used_bytes, long long running, long long waiting,
                              kv_diag *diag) KV_MUST_USE;
kv_err kv_serving_rows_tier(kv_serving_rows *rows, const kv_tier_row *row,
                            kv_diag *diag) KV_MUST_USE;
/* Writes the point and commits, or (row NULL) undoes what was begun. */
kv_err kv_serving_rows_end(kv_serving_rows *rows, const kv_serving_row *row,
                           kv_diag *diag) KV_MUST_USE;

/* Writes a table of all points of a run. */
kv_err kv_serving_summary(kv_results *results, long long run_id, FILE *out,
                          kv_diag *diag) KV_MUST_USE;

#endif
