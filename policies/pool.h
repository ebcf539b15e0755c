/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Budgets that layers share: all scores of a prompt are ranked together before it is replayed, and
 * each head keeps as many entries as it has among the best. For policies that evict once, after the
 * prompt (`enter`, `leave`, `quota`). */
#ifndef KVSIM_POLICIES_POOL_H
#define KVSIM_POLICIES_POOL_H

#include "policies/retention.h"

/* What is ranked. */
typedef struct kv_pool_scores {
    kv_view view;       /* of the example; its layers are loaded one after the other */
    unsigned want;      /* KV_WANT_* that the score reads */
    const void *config; /* that the score reads: budgets do not matter to it */
    void (*score)(const kv_event *event, double *score); /* the policy's own */
    int sinks, question, window; /* entries that stay beside those that are ranked: first, last,
                                    last. The window's rows are the ones that score */
    bool per_layer;              /* heads of one layer share their budgets, layers do not */
    bool even_heads;             /* layers share theirs, heads of one layer have equal ones */
    double most; /* even_heads: a layer's ranked entries over the mean, at most; 0: no bound */
} kv_pool_scores;

/* How many entries each head keeps, for each of the budgets. Equal scores: lower layer, head,
 * position. */
kv_err kv_pool_memo_new(const kv_pool_scores *scores, const void *const *config, int budgets,
                        void **memo, kv_diag *diag) KV_MUST_USE;
void kv_pool_memo_free(void *memo);
/* The quota of the query's head by its memo; without one kv_quota_uniform. */
long long kv_pool_memo_quota(const void *config, const kv_quota_query *query);

#endif
