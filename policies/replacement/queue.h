/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Queues of slots, for policies that keep their blocks in lists.
 *
 * A policy's record of a block begins with a kv__link. A pinned block may stay in its queue; the
 * search for a victim takes those it meets at the tail out ("parks" them), and unpinning puts a
 * parked block back at the tail. So a pin costs O(1) however many blocks are pinned. */
#ifndef KVSIM_POLICIES_REPLACEMENT_QUEUE_H
#define KVSIM_POLICIES_REPLACEMENT_QUEUE_H

#include "policies/replacement.h"

/* Must be the first member of the policy's record of a block. */
typedef struct kv__link {
    uint32_t newer, older; /* neighbours; KV_NO_SLOT at the ends */
    uint8_t queue;         /* number of the queue it is in or was parked from */
    bool parked;
    bool pinned;
    uint8_t mark; /* for the policy: visited, use count, ... */
} kv__link;

typedef struct kv__queue {
    uint32_t head, tail; /* newest, oldest; KV_NO_SLOT if empty */
    uint32_t length;     /* blocks that belong to it, parked ones included */
} kv__queue;

enum { KV_QUEUES = 2 };

/* The queues of one cache. First member of a policy's state. */
typedef struct kv__queues {
    const kv_slots *slots;
    kv__queue queue[KV_QUEUES];
} kv__queues;

static inline kv__link *kv__link_of(const kv__queues *queues, uint32_t slot)
{
    return kv_slot_meta(queues->slots, slot);
}

void kv__queues_init(kv__queues *queues, const kv_slots *slots);
void kv__queue_push(kv__queues *queues, int queue, uint32_t slot); /* at the head */
void kv__queue_take(kv__queues *queues, uint32_t slot);            /* out of its queue */
/* To the head of a queue, from wherever it is. */
void kv__queue_move(kv__queues *queues, int queue, uint32_t slot);
/* The oldest block of a queue that is not pinned, or KV_NO_SLOT. */
uint32_t kv__queue_oldest(kv__queues *queues, int queue);

/* What every policy whose state begins with a kv__queues and whose record of a block is a kv__link
 * puts into kv_replacement. */
#define KV__QUEUE_POLICY                                                                           \
    .meta_bytes = sizeof(kv__link), .pin = kv__queue_policy_pin, .unpin = kv__queue_policy_unpin,  \
    .check = kv__queue_policy_check
/* What it may put there. Insertion is at the
 * head of queue 0, the victim is the oldest of queue 0. */
kv_err kv__queue_policy_init(void *state, const kv_replacement_env *env, kv_diag *diag);
kv_err kv__queue_policy_insert(void *state, uint32_t slot, const kv_access *access);
uint32_t kv__queue_policy_victim(void *state, const kv_access *incoming);
void kv__queue_policy_remove(void *state, uint32_t slot, bool evicted);
void kv__queue_policy_pin(void *state, uint32_t slot);
void kv__queue_policy_unpin(void *state, uint32_t slot);
const char *kv__queue_policy_check(const void *state);

#endif
