/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Reading the serving points of a run, each with a label that says in few words what sets it apart
 * from the others. Internal. */
#ifndef KVSIM_ANALYSIS_SERVING_POINTS_H
#define KVSIM_ANALYSIS_SERVING_POINTS_H

#include "analysis/plot.h"

typedef struct kv_serving_item {
    long long id; /* serving_point.id */
    char *policy; /* its policy */
    char *label;  /* policy and the settings that differ between points, chunk size aside */
    long long chunk_tokens;                               /* 0: no limit */
    double ttft_p99, tpot_p99, goodput, throughput_tok_s; /* s, s, 1/s, tokens/s; NaN: none */
} kv_serving_item;

typedef struct kv_serving_list {
    long long run_id;
    char *name, *version; /* of the experiment, of kvsim */
    bool finished;
    kv_serving_item *item; /* in the order of the sweep */
    int items;
    int unfiltered; /* points there are whatever the options say */
} kv_serving_list;

/* Reads the points that pass the options' run, policies, chunk sizes and point. `having` narrows
 * them further: an SQL condition on serving_point p, NULL: none. No point is no error here. */
kv_err kv__serving_list_load(kv_results *results, const kv_plot_options *options,
                             const char *having, kv_serving_list *out, kv_diag *diag) KV_MUST_USE;
/* An error that says which policies, chunk sizes and points the options could have asked for. */
kv_err kv__serving_list_nothing(kv_results *results, const kv_serving_list *list,
                                kv_diag *diag) KV_MUST_USE;
void kv__serving_list_fini(kv_serving_list *list);

/* One step of a latency's cumulative share. */
typedef struct kv_latency_share {
    double seconds; /* at least 1e-6: 0 has no place on a logarithmic axis */
    double percent; /* of the requests that have one: these have this latency or less */
} kv_latency_share;

/* The shares of a point's latency (a column of request_result), ascending, the least and the most
 * among them: at most steps + 2, for which the caller has room. */
kv_err kv__serving_latencies(kv_results *results, const char *column, long long point, int steps,
                             kv_latency_share *out, int *count, kv_diag *diag) KV_MUST_USE;

/* "label, chunk 512" in at most `bytes`. */
void kv__serving_text(const kv_serving_item *item, char *out, size_t bytes);

/* The caption's end that every plot of serving points has. */
void kv__serving_caption(const kv_serving_list *list, int shown, char *out, size_t bytes);

#endif
