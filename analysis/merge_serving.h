/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Merging the serving part of shards. Internal. */
#ifndef KVSIM_ANALYSIS_MERGE_SERVING_H
#define KVSIM_ANALYSIS_MERGE_SERVING_H

#include "analysis/results.h"

/* The run of one shard. */
typedef struct kv__serving_shard {
    kv_results *results;
    long long run_id;
    long long points; /* of the whole experiment; 0: it has no serving part, or never began it */
} kv__serving_shard;

/* Reads `points` of a shard whose results and run_id are set. */
kv_err kv__serving_shard_read(kv__serving_shard *shard, kv_diag *diag) KV_MUST_USE;
/* Fails unless every point is in exactly one of shard[0..count); shards: into how many the run was
 * divided. */
kv_err kv__serving_shards_check(const kv__serving_shard *shard, int count, int shards,
                                kv_diag *diag) KV_MUST_USE;
/* Copies all points in their order, inside the caller's transaction. */
kv_err kv__serving_shards_copy(const kv__serving_shard *shard, int count, kv_results *to,
                               long long run_id, kv_diag *diag) KV_MUST_USE;

#endif
