/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* A heap of slots by rank, for policies that evict the block of least rank.
 *
 * A policy's record of a block begins with a kv__ranked. Pinned blocks are not in the heap. */
#ifndef KVSIM_POLICIES_REPLACEMENT_RANK_H
#define KVSIM_POLICIES_REPLACEMENT_RANK_H

#include "policies/replacement.h"

/* Must be the first member of the policy's record of a block. */
typedef struct kv__ranked {
    uint64_t major, minor; /* the least (major, minor) leaves first */
    uint32_t place;        /* in the heap; KV_NO_SLOT while pinned */
} kv__ranked;

/* First member of a policy's state. */
typedef struct kv__ranks {
    const kv_slots *slots;
    uint32_t *heap; /* [allocated] slots, the least rank first */
    uint32_t length, allocated;
    uint64_t uses; /* accesses so far: a minor rank that never ties */
} kv__ranks;

static inline kv__ranked *kv__ranked_of(const kv__ranks *ranks, uint32_t slot)
{
    return kv_slot_meta(ranks->slots, slot);
}

/* Puts a slot that has its rank into the heap. */
kv_err kv__rank_add(kv__ranks *ranks, uint32_t slot) KV_MUST_USE;
/* Restores the order after the rank of a slot changed; pinned ones may be passed too. */
void kv__rank_changed(kv__ranks *ranks, uint32_t slot);

/* The sizes of a policy whose state is a kv__ranks and whose record of a block is a kv__ranked, and
 * its calls beside insert and hit. */
#define KV__RANK_POLICY                                                                            \
    .state_bytes = sizeof(kv__ranks), .meta_bytes = sizeof(kv__ranked),                            \
    .init = kv__rank_policy_init, .fini = kv__rank_policy_fini, .remove = kv__rank_policy_remove,  \
    .victim = kv__rank_policy_victim, .pin = kv__rank_policy_pin, .unpin = kv__rank_policy_unpin,  \
    .check = kv__rank_policy_check
kv_err kv__rank_policy_init(void *state, const kv_replacement_env *env, kv_diag *diag);
void kv__rank_policy_fini(void *state);
void kv__rank_policy_remove(void *state, uint32_t slot, bool evicted);
uint32_t kv__rank_policy_victim(void *state, const kv_access *incoming);
void kv__rank_policy_pin(void *state, uint32_t slot);
void kv__rank_policy_unpin(void *state, uint32_t slot);
const char *kv__rank_policy_check(const void *state);

#endif
