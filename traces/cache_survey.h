/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Block caches that watch a request trace go by: what each would have found. Internal to traces. */
#ifndef KVSIM_TRACES_CACHE_SURVEY_H
#define KVSIM_TRACES_CACHE_SURVEY_H

#include "sim/cache/block_cache.h"
#include "sim/cache/next_use.h"
#include "traces/request_info.h"

/* What is kept of a request until the future is known. */
typedef struct kv__seen_prompt {
    int32_t tokens, blocks;
} kv__seen_prompt;

/* Zeroed, kv__cache_survey_fini may be called. */
typedef struct kv__cache_survey {
    kv_block_cache *cache[KV_CACHES_MOST]; /* [caches] NULL: the policy looks ahead */
    kv_cache_hits *hits;                   /* [caches] borrowed */
    int caches;
    int64_t accesses;
    /* For policies that look ahead the trace is kept, and replayed at its end. */
    bool keeps;
    uint32_t capacity;
    int32_t block_tokens;
    kv__uses uses;
    uint64_t *key; /* [uses.count] */
    size_t keys_allocated;
    kv__seen_prompt *prompt; /* [prompts] of requests that name blocks */
    size_t prompts, prompts_allocated;
} kv__cache_survey;

/* hits: [caches] with their policies set; filled as the trace goes by. */
kv_err kv__cache_survey_init(kv__cache_survey *survey, kv_cache_hits *hits, int caches,
                             uint32_t capacity, kv_diag *diag) KV_MUST_USE;
void kv__cache_survey_fini(kv__cache_survey *survey);
/* A request that names blocks. */
kv_err kv__cache_survey_add(kv__cache_survey *survey, const kv_request *request,
                            kv_diag *diag) KV_MUST_USE;
/* The trace is over. */
kv_err kv__cache_survey_end(kv__cache_survey *survey, kv_diag *diag) KV_MUST_USE;

#endif
