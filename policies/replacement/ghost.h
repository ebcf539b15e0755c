/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* A queue that newcomers go through, a main queue, and the names ("ghosts") of what left the first
 * without reaching the second: a newcomer that is remembered goes to the main queue at once. What
 * 2q and s3-fifo have in common. */
#ifndef KVSIM_POLICIES_REPLACEMENT_GHOST_H
#define KVSIM_POLICIES_REPLACEMENT_GHOST_H

#include "policies/replacement/history.h"
#include "policies/replacement/queue.h"

enum { KV__NEWCOMERS, KV__MAIN };

/* First member of a policy's state. init sets the limit of the names. */
typedef struct kv__ghosted {
    kv__queues queues;
    kv__history ghosts;
} kv__ghosted;

/* The calls of such a policy beside init, hit and victim, and the size of its record of a block. */
#define KV__GHOST_POLICY                                                                           \
    KV__QUEUE_POLICY, .fini = kv__ghost_policy_fini, .insert = kv__ghost_policy_insert,            \
                      .remove = kv__ghost_policy_remove
void kv__ghost_policy_fini(void *state);
kv_err kv__ghost_policy_insert(void *state, uint32_t slot, const kv_access *access);
void kv__ghost_policy_remove(void *state, uint32_t slot, bool evicted);

#endif
