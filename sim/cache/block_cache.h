/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* A set of resident blocks of limited size: a hash table over names, pins, and a replacement
 * policy.
 *
 * Slots stay valid while their block is resident. Tables grow by doubling up to the capacity, so a
 * large or unlimited cache costs what it holds; once grown, nothing is allocated. */
#ifndef KVSIM_SIM_CACHE_BLOCK_CACHE_H
#define KVSIM_SIM_CACHE_BLOCK_CACHE_H

#include "policies/replacement.h"

typedef struct kv_block_cache kv_block_cache;

/* The block that made room. */
typedef struct kv_evicted {
    uint64_t key;
    uint64_t value; /* what the owner kept with the block */
    bool happened;  /* false: nothing had to leave, the rest has no meaning */
} kv_evicted;

/* capacity_blocks 0: no limit. config: settings of the policy, NULL: its defaults; copied. */
kv_err kv_block_cache_new(const kv_replacement *policy, const void *config,
                          uint32_t capacity_blocks, uint64_t seed, kv_block_cache **out,
                          kv_diag *diag) KV_MUST_USE;
void kv_block_cache_free(kv_block_cache *cache);

uint32_t kv_block_cache_count(const kv_block_cache *cache);    /* resident blocks */
uint32_t kv_block_cache_pinned(const kv_block_cache *cache);   /* of these, pinned ones */
uint32_t kv_block_cache_capacity(const kv_block_cache *cache); /* 0: no limit */

/* The slot of a resident block, or KV_NO_SLOT. Looking is not using. */
uint32_t kv_block_cache_find(const kv_block_cache *cache, uint64_t key);
/* How many leading blocks of keys[0..count) are resident, up to the first that is not. */
int32_t kv_block_cache_prefix(const kv_block_cache *cache, const uint64_t *keys, int32_t count);

/* Uses a block: a hit if it is resident; if not, it is inserted (its value 0), after one block was
 * evicted when the cache is full. KV_END: full and all pinned, nothing changed. evicted may be
 * NULL; slot (may be NULL) gets the block's slot. */
kv_err kv_block_cache_use(kv_block_cache *cache, const kv_access *access, kv_evicted *evicted,
                          uint32_t *slot) KV_MUST_USE;
/* Evicts the policy's next victim, although there may be room, for a block that comes in next or
 * (NULL) for other use of its memory. False: nothing but pinned blocks. */
bool kv_block_cache_evict(kv_block_cache *cache, const kv_access *incoming, kv_evicted *evicted);
/* Drops a block that is not pinned and whose content is void: it is not an eviction. */
void kv_block_cache_remove(kv_block_cache *cache, uint32_t slot);

/* Pins nest: a block may leave when it was unpinned as often as it was pinned. */
void kv_block_cache_pin(kv_block_cache *cache, uint32_t slot);
void kv_block_cache_unpin(kv_block_cache *cache, uint32_t slot);

/* What the owner keeps with a block. */
uint64_t *kv_block_cache_value(kv_block_cache *cache, uint32_t slot);
uint64_t kv_block_cache_key(const kv_block_cache *cache, uint32_t slot);

/* What is wrong inside, NULL if nothing: for tests and --selfcheck; costs as much as it holds. */
const char *kv_block_cache_check(const kv_block_cache *cache);

#endif
