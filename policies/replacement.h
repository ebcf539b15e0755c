/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Replacement policies: which block leaves a full tier.
 *
 * The cache (sim/cache/block_cache.h) owns the blocks. Each resident block sits in a slot; the
 * policy hears of every insertion, hit and removal and, when room is needed, names a victim. Blocks
 * in use are pinned: from `pin` to `unpin` a policy may not name them. All blocks are the same
 * size. Slots are numbers, not pointers, because the tables grow while the cache warms up; after
 * that nothing is allocated.
 *
 * A new policy is one file in policies/replacement/ that ends in KV_REPLACEMENT_DEFINE(name) =
 * {...} and one line in policies/policies.am. The generic tests then run over it. */
#ifndef KVSIM_POLICIES_REPLACEMENT_H
#define KVSIM_POLICIES_REPLACEMENT_H

#include "sim/base/param.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KV_NO_SLOT UINT32_MAX
#define KV_NEVER INT64_MAX /* kv_access.next_use: not used again */

/* The slots of a cache, as a policy sees them. Free slots hold nothing of meaning. */
typedef struct kv_slots {
    uint32_t count;      /* slots that exist: 0 .. count-1; grows up to the capacity */
    uint64_t *key;       /* [count] name of the block in a slot */
    unsigned char *meta; /* [count][meta_bytes] what the policy keeps per block */
    size_t meta_bytes;
} kv_slots;

/* The policy's own record of a slot. */
static inline void *kv_slot_meta(const kv_slots *slots, uint32_t slot)
{
    return slots->meta + (size_t)slot * slots->meta_bytes;
}

/* One use of a block. */
typedef struct kv_access {
    uint64_t key;          /* name of the block */
    int64_t time;          /* counts accesses or nanoseconds; never goes back */
    int64_t next_use;      /* when the block is used next, in any unit that orders; KV_NEVER: not
                              again. Only policies with KV_REPLACEMENT_FUTURE look at it */
    int32_t position;      /* of the block within its prompt, from 0 */
    int32_t prompt_blocks; /* blocks of that prompt */
} kv_access;

enum {
    KV_REPLACEMENT_FUTURE = 1 /* needs next_use: a bound, not something to deploy */
};

/* What a policy is given to start with. */
typedef struct kv_replacement_env {
    const kv_slots *slots;
    uint32_t capacity_blocks; /* >= 1; UINT32_MAX: no limit, victim is never asked for */
    const void *config;       /* its settings */
    uint64_t seed;            /* of what it draws */
} kv_replacement_env;

/* What a policy is. NULL in an optional slot means the default said beside it. Only init and insert
 * may allocate (histories of evicted blocks that grow while warming up). */
typedef struct kv_replacement {
    const char *name;       /* as users write it */
    const char *brief;      /* one line: what leaves */
    const char *cite;       /* paper; NULL if folklore */
    size_t config_bytes;    /* of its settings; 0: none */
    const kv_param *params; /* NULL: none */
    unsigned needs;         /* KV_REPLACEMENT_* */
    size_t state_bytes;     /* per cache, zeroed before init */
    size_t meta_bytes;      /* per block, zeroed before insert */
    kv_err (*init)(void *state, const kv_replacement_env *env, kv_diag *diag);
    void (*fini)(void *state); /* default: nothing to free */
    /* A block that was absent is in `slot` now; it is not pinned. */
    kv_err (*insert)(void *state, uint32_t slot, const kv_access *access);
    /* A resident block is used; it may be pinned. Default: use does not matter. */
    void (*hit)(void *state, uint32_t slot, const kv_access *access);
    /* The block in `slot`, not pinned, leaves: because it was the victim (evicted) or because its
     * content is void (not evicted: no history of it is wanted). */
    void (*remove)(void *state, uint32_t slot, bool evicted);
    /* The block to evict for `incoming`, which is absent, or (NULL) to make room for something
     * else; KV_NO_SLOT if all are pinned. The cache removes it at once, by `remove`. */
    uint32_t (*victim)(void *state, const kv_access *incoming);
    void (*pin)(void *state, uint32_t slot);
    void (*unpin)(void *state, uint32_t slot);
    /* What is wrong with the state, NULL if nothing: called after every step in the tests. Default:
     * nothing to check. */
    const char *(*check)(const void *state);
} kv_replacement;

/* The table of all policies, in the order of policies/policies.am; ends with NULL. */
const kv_replacement *const *kv_replacement_all(void);
/* The policy of that name, or NULL. */
const kv_replacement *kv_replacement_find(const char *name);

#define KV_REPLACEMENT_DEFINE(id) const kv_replacement kv__replacement_##id

#endif
