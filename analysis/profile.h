/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* What the attention part of a run found of one policy, as serving needs it: how much each head
 * kept, and how much was read. */
#ifndef KVSIM_ANALYSIS_PROFILE_H
#define KVSIM_ANALYSIS_PROFILE_H

#include "analysis/results.h"

/* Which point: as footprint_point names it. */
typedef struct kv_profile_key {
    const char *policy, *params;
    long long chunk_tokens; /* 0: whole */
} kv_profile_key;

/* What one KV head kept of one example, after the last prompt chunk. */
typedef struct kv_profile_head {
    int layer, kv_head;
    int prompt_tokens, entries;
} kv_profile_head;

/* The latest run of a file; 0: there is none. */
kv_err kv_profile_latest(kv_results *results, long long *run_id, kv_diag *diag) KV_MUST_USE;
/* Every head of every example of the point that has a retained set; the caller frees *out. None:
 * *count is 0. */
kv_err kv_profile_heads(kv_results *results, long long run_id, const kv_profile_key *key,
                        kv_profile_head **out, int *count, kv_diag *diag) KV_MUST_USE;
/* Mean length of the prompts of a run's examples, in tokens; NaN: there are none. */
kv_err kv_profile_context(kv_results *results, long long run_id, double *out,
                          kv_diag *diag) KV_MUST_USE;
/* Mean over the examples of the point of a column of footprint_point; NaN: there is none. */
kv_err kv_profile_mean(kv_results *results, long long run_id, const kv_profile_key *key,
                       const char *column, double *out, kv_diag *diag) KV_MUST_USE;

#endif
