/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* What a request trace amounts to: rate, burstiness, lengths, sessions, and how much of its prompts
 * caches of unlimited and of given size could serve. */
#ifndef KVSIM_TRACES_REQUEST_INFO_H
#define KVSIM_TRACES_REQUEST_INFO_H

#include "traces/request.h"

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
    /* Prefix sharing; all 0 where no request names blocks. */
    int32_t block_tokens;
    int64_t blocks;             /* named by all requests together */
    int64_t distinct_blocks;    /* the working set of an unlimited cache */
    int64_t reused_blocks;      /* of these, named more than once */
    int64_t working_set_tokens; /* distinct_blocks in tokens, partial blocks counted as whole */
    int64_t ideal_hit_tokens;   /* prompt tokens that an unlimited cache would serve */
    double ideal_hit_ratio;     /* of all prompt tokens; 0 without requests */
    bool has_lru;
    int64_t lru_hit_tokens; /* prompt tokens that an LRU cache of lru_blocks would serve */
    double lru_hit_ratio;
} kv_request_info;

/* What to find out beside the rest. */
typedef struct kv_request_question {
    bool lru;
    uint32_t lru_blocks; /* 0: no limit */
} kv_request_question;

/* Reads a trace to its end (one without arrival times too: open it with KV_ARRIVALS_IF_RECORDED).
 * In a closed loop answers take no time. Memory grows with the number of blocks and sessions that
 * differ, not with that of requests. Of a request: hits are the longest prefix of its blocks that
 * is resident, looked up before it inserts any; a hit counts min(block_tokens x blocks, prompt)
 * tokens; then all its blocks are used from head to tail, absent ones inserted, one eviction at a
 * time. */
kv_err kv_request_info_read(kv_request_reader *reader, const kv_request_question *question,
                            kv_request_info *out, kv_diag *diag) KV_MUST_USE;

#endif
