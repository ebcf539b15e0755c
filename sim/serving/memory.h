/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* GPU memory of one replica: blocks in use, and the prefix cache in the rest.
 *
 * A block is private or named. It gets its name (so that others find it) when the step being
 * scheduled fills it; if the cache has that content already it remains the private copy of its
 * request: only what is found at admission is shared. Named blocks stand in the prefix cache,
 * pinned while a request uses them. Private blocks are only counted. When a request is preempted
 * its private blocks get names of their own and become cache, so that it finds again what nobody
 * took meanwhile; when it ends they are empty at once, for no one can ask for them. Empty blocks
 * are taken first, then the replacement policy's victims. */
#ifndef KVSIM_SIM_SERVING_MEMORY_H
#define KVSIM_SIM_SERVING_MEMORY_H

#include "sim/cache/block_cache.h"
#include "sim/serving/contents.h"
#include "sim/serving/live.h"

typedef struct kv__memory {
    kv_block_cache *cache; /* NULL: no prefix cache */
    int64_t capacity;      /* pages; without a retention policy a page is a block */
    int64_t block_pages;   /* of a block of the cache */
    int64_t private_;      /* pages in use that are not in the cache */
    int64_t evictions;     /* blocks that left the cache for others */
    int64_t clock;         /* counts accesses */
    int32_t block_tokens;
    bool own_names;          /* what a preempted request computed can be found again by itself */
    kv__contents *contents;  /* what named blocks hold; NULL: no one asks */
    kv_foresight *foresight; /* NULL: the policy does not look ahead */
    bool idle_order; /* the policy orders by when blocks fell idle (lru), not only by their use */
    /* Called for every block that leaves the cache for another; may be NULL. */
    void (*evicted)(void *closure, uint64_t key);
    /* Called for every named block that becomes resident; may be NULL. */
    void (*inserted)(void *closure, uint64_t key);
    void *closure;
} kv__memory;

/* Pages that hold nothing: taking them evicts no one. */
int64_t kv__memory_empty(const kv__memory *memory);

/* What a request would find. */
typedef struct kv__hit {
    int32_t blocks; /* leading blocks that are resident */
    int32_t idle;   /* of these, in use by nobody: using them takes them from what is available */
} kv__hit;

/* Pages in use. */
int64_t kv__memory_used(const kv__memory *memory);
/* Pages that an allocation can get: empty ones and cache that nobody uses. */
int64_t kv__memory_available(const kv__memory *memory);

/* Leading blocks that a waiting request may find anywhere: at most all but its last token. */
int32_t kv__memory_reusable(const kv__memory *memory, const kv__live *live);
/* The longest resident prefix of a request that waits, at most all but its last token. */
kv__hit kv__memory_look(const kv__memory *memory, const kv__live *live);
/* The name of a block of a request: the trace's, or its own. */
uint64_t kv__block_key(const kv__live *live, int32_t index);

/* Makes a waiting request hold its hit. */
kv_err kv__memory_claim(kv__memory *memory, kv__live *live, kv__hit hit) KV_MUST_USE;
/* Blocks that a request lacks to hold so many tokens. */
static inline int64_t kv__memory_lacks(const kv__memory *memory, const kv__live *live,
                                       int32_t tokens)
{
    int64_t more = tokens - (int64_t)live->held * memory->block_tokens;
    return more > 0 ? (more + memory->block_tokens - 1) / memory->block_tokens : 0;
}
/* Gives it those blocks, which must be available, and names to those that are full when what is
 * scheduled is computed. */
kv_err kv__memory_grow(kv__memory *memory, kv__live *live, int32_t tokens) KV_MUST_USE;
/* Takes private pages for requests that count them themselves; they must be available. */
void kv__memory_take(kv__memory *memory, int64_t pages);
/* Gives them back. */
void kv__memory_give(kv__memory *memory, int64_t pages);
/* Gives it the next block of those with names; it must be available. */
kv_err kv__memory_hold(kv__memory *memory, kv__live *live, int32_t index) KV_MUST_USE;
/* Gives names to the blocks it holds that are full when what is scheduled is computed. */
kv_err kv__memory_name(kv__memory *memory, kv__live *live) KV_MUST_USE;
/* Has it let go of all blocks that it holds, none but those of the names; named ones stay in the
 * cache. */
kv_err kv__memory_unhold(kv__memory *memory, kv__live *live) KV_MUST_USE;
/* Takes all blocks of a request away. keep: computed private blocks stay findable by itself. */
kv_err kv__memory_release(kv__memory *memory, kv__live *live, bool keep) KV_MUST_USE;

#endif
