/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Scores that several policies are made of. */
#ifndef KVSIM_POLICIES_SCORING_H
#define KVSIM_POLICIES_SCORING_H

#include "policies/retention.h"

/* SnapKV's score: the probability that the observation window gives each candidate, averaged over
 * the window's rows, each renormalised over what it sees, reduced over the group's query heads and
 * pooled as the settings say. Writes score[0 .. event->scored). */
void kv_score_window(const kv_event *event, double *score);

/* The same before pooling, for one query head. Writes score[0 .. event->scored). */
void kv_score_window_head(const kv_event *event, int query_head, double *score);

/* How one query head scores a head's candidates. Writes score[0 .. event->scored). */
typedef void (*kv_head_score)(const kv_event *event, int query_head, double *score);

/* Any such score, reduced over the group's query heads and pooled as the settings say. */
void kv_score_group(const kv_event *event, kv_head_score head, double *score);

/* A row of the observation window as an event sees it. */
typedef struct kv_seen_row {
    const float *at; /* the recorded row, NULL if nothing of it is left */
    double weight;   /* one over its mass on what it sees */
    int visible;     /* keys that it sees, its own included */
} kv_seen_row;
kv_seen_row kv_score_row(const kv_event *event, int query_head, int position);

/* The settings of policies whose window is safe by its score and not by a pin
 * (kv_scorer_score_padded). */
typedef struct kv_padded_config {
    kv_retention_config base;
    long long observed_tokens; /* rows that score */
} kv_padded_config;
/* `observers` of a policy whose configuration begins with a kv_padded_config. */
long long kv_padded_observers(const void *config);
/* How many of the candidates lie before the observation window. */
int kv_score_before_window(const kv_event *event);

/* How many of the candidates are sinks: they come first. */
int kv_score_sinks(const kv_event *event);

/* Sets the best `count` of score[0..n) to INFINITY; ties: lower index. scratch: n doubles. */
void kv_score_pin_best(double *score, int n, long long count, double *scratch);

/* score/temperature plus a Gumbel draw: the best n of these are a sample of n without replacement
 * by softmax(score/temperature) (Vieira 2014; Kool et al. 2019, arXiv 1903.06059). */
void kv_score_sample(const kv_event *event, double temperature, double *score);

/* Minus the length of each key: the shortest stay. */
void kv_score_short_keys(const kv_event *event, double *score);

/* One-dimensional pooling with stride 1 over score[0..n): averages count zeros beyond the ends and
 * always divide by the kernel; maxima ignore what is beyond. */
void kv_score_pool(const kv_retention_config *config, const double *score, int n, double *pooled);

/* state[j] += mean over the group's query heads of the renormalised row, for all that is seen. */
void kv_score_accumulate(const kv_row_event *row, double *state);

/* The Euclidean norm of a key or value. */
double kv_score_norm(const float *vector, int width);

/* Settings of policies that score by an observation window (snapkv and its kin). */
#define KV_ROWS_WINDOW_SCORE(window, kernel, pooling)                                              \
    KV_ROW_KEEP, KV_ROW_BUDGET, KV_ROW_WINDOW(window), KV_ROW_WINDOW_IN_BUDGET("true"),            \
        KV_ROW_SINKS("0"), KV_ROW_KERNEL(kernel), KV_ROW_POOLING(pooling), KV_ROW_GROUP("mean"),   \
        KV_ROW_GROUP_WHEN("before"), KV_ROW_SCORE_OVER("chunk"), KV_ROW_EVICT("postfill"),         \
        KV_ROW_INTERVAL("512"), KV_ROW_CHARGE_PROBES("false"), KV_ROW_ROUNDING("half_up"),         \
        KV_ROW_RATIO_ARITHMETIC("false")

/* Settings of policies whose configuration begins with a kv_padded_config. */
#define KV_ROWS_PADDED_SCORE                                                                       \
    KV_ROW_SCORER, KV_ROW_KEEP, KV_ROW_BUDGET,                                                     \
        KV_ROW_OF(kv_padded_config, "window", KV_INT, observed_tokens, "64", 1, INFINITY, NULL,    \
                  KV_PARAM_REPLACED, "tokens",                                                     \
                  "last rows, which score; their own entries score above all others"),             \
        KV_ROW_KERNEL("5"), KV_ROW_POOLING("avg"), KV_ROW_GROUP("mean"),                           \
        KV_ROW_GROUP_WHEN("before"), KV_ROW_SCORE_OVER("chunk"), KV_ROW_EVICT("postfill"),         \
        KV_ROW_INTERVAL("512"), KV_ROW_ROUNDING("half_up"), KV_ROW_RATIO_ARITHMETIC("false")

/* How much stays beside `sinks` first tokens, and when the rest leaves. */
#define KV_ROWS_AMOUNT(sinks)                                                                      \
    KV_ROW_KEEP, KV_ROW_BUDGET, KV_ROW_WINDOW("0"), KV_ROW_WINDOW_IN_BUDGET("true"),               \
        KV_ROW_SINKS(sinks)
#define KV_ROWS_WHEN(evict)                                                                        \
    KV_ROW_EVICT(evict), KV_ROW_INTERVAL("512"), KV_ROW_ROUNDING("half_up"),                       \
        KV_ROW_RATIO_ARITHMETIC("false")

/* Settings of policies whose score needs none of its own: from keys or draws, and from rows. */
#define KV_ROWS_PLAIN_SCORE(evict) KV_ROWS_AMOUNT("0"), KV_ROWS_WHEN(evict)
#define KV_ROWS_ROW_SCORE(evict) KV_ROWS_PLAIN_SCORE(evict), KV_ROW_SCORE_OVER("chunk")

#endif
