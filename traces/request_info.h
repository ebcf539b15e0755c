/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* What a request trace amounts to: rate, burstiness, lengths, sessions, and how much of its prompts
 * caches of unlimited and of given size could serve. */
#ifndef KVSIM_TRACES_REQUEST_INFO_H
#define KVSIM_TRACES_REQUEST_INFO_H

#include "policies/replacement.h"
#include "traces/request.h"

enum { KV_CACHES_MOST = 16 };

/* What a cache of blocks under one replacement policy would have served. */
typedef struct kv_cache_hits {
    const kv_replacement *policy;
    int64_t hit_tokens;      /* prompt tokens in prefixes that were resident */
    double hit_ratio;        /* of all prompt tokens; NaN where no request names blocks */
    int64_t resident_blocks; /* uses of blocks that were resident, after a gap in the prefix too:
                                of these belady has the most there can be, of hit_tokens it may not
                                have, for it does not know that a prefix is of use only whole */
} kv_cache_hits;

/* Lengths in tokens. Percentiles are nearest-rank: the least length that so many do not exceed. */
typedef struct kv_length_info {
    int64_t total;
    double mean;
    int32_t min, p50, p90, p95, p99, max;
} kv_length_info;

typedef struct kv_request_info {
    kv_request_counts counts;
    double duration_s; /* from the first arrival to the last */
    double rate;       /* gaps per second of duration; NaN if duration is 0 */
    double burstiness; /* coefficient of variation of the gaps (1: Poisson); NaN below two gaps */
    kv_length_info prompt, output;
    int64_t sessions; /* that differ; requests without one are not counted */
    int64_t tenants;
    /* Prefix sharing; all 0, and ratios NaN, where no request names blocks. */
    int32_t block_tokens;
    int64_t unnamed;            /* requests that name no block */
    int64_t blocks;             /* named by all requests together */
    int64_t distinct_blocks;    /* the working set of an unlimited cache */
    int64_t reused_blocks;      /* of these, named more than once */
    int64_t working_set_tokens; /* distinct_blocks in tokens, partial blocks counted as whole */
    int64_t ideal_hit_tokens;   /* prompt tokens that an unlimited cache would serve */
    double ideal_hit_ratio;     /* of all prompt tokens */
    /* Blocks that stand behind different blocks, at different places or cover different numbers of
     * tokens in different prompts: equal names should mean equal prefixes. */
    int64_t contradictions;
    kv_diag contradiction;               /* the first, with its place */
    kv_cache_hits cache[KV_CACHES_MOST]; /* [caches] as asked for */
    int caches;
} kv_request_info;

/* What to find out beside the rest. */
typedef struct kv_request_question {
    const kv_replacement *policy[KV_CACHES_MOST]; /* [policies] of caches to try */
    int policies;
    uint32_t blocks; /* room of each; 0: no limit */
} kv_request_question;

/* Reads a trace to its end (one without arrival times too: open it with KV_ARRIVALS_IF_RECORDED).
 * In a closed loop answers take no time. Memory grows with the number of blocks and sessions that
 * differ, not with that of requests; to try a policy that looks ahead, the trace's blocks are kept
 * (12 bytes each). Of a request: hits are the longest prefix of its blocks that
 * is resident, looked up before it inserts any; a hit counts min(block_tokens x blocks, prompt)
 * tokens; then all its blocks are used from head to tail, absent ones inserted, one eviction at a
 * time. */
kv_err kv_request_info_read(kv_request_reader *reader, const kv_request_question *question,
                            kv_request_info *out, kv_diag *diag) KV_MUST_USE;

#endif
