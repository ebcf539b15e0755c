/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/replacement/queue.h"

static kv_err init(void *state, const kv_replacement_env *env, kv_diag *diag);
static void hit(void *state, uint32_t slot, const kv_access *access);
static void drop(void *state, uint32_t slot, bool evicted);
static uint32_t victim(void *state, const kv_access *incoming);

typedef struct sieve {
    kv__queues queues;
    uint32_t hand; /* where the walk goes on; KV_NO_SLOT: at the oldest block */
} sieve;

/* Blocks are never moved: a hand walks from the oldest to the newest, spares each block that was
 * used since it last came by, and takes the first that was not. */
KV_REPLACEMENT_DEFINE(sieve) = {
    .name = "sieve",
    .brief = "a hand walks from old to new and takes the first block not used since its last visit",
    .cite = "Zhang et al., SIEVE is Simpler than LRU, NSDI 2024",
    .state_bytes = sizeof(sieve),
    KV__QUEUE_POLICY,
    .init = init,
    .insert = kv__queue_policy_insert,
    .hit = hit,
    .remove = drop,
    .victim = victim,
};

static kv_err init(void *state, const kv_replacement_env *env, kv_diag *diag)
{
    ((sieve *)state)->hand = KV_NO_SLOT;
    return kv__queue_policy_init(state, env, diag);
}

static void hit(void *state, uint32_t slot, const kv_access *access)
{
    kv__link_of(state, slot)->mark = 1;
}

/* The hand never rests on a block that is gone. */
static void drop(void *state, uint32_t slot, bool evicted)
{
    sieve *s = state;
    if (s->hand == slot)
        s->hand = kv__link_of(state, slot)->newer;
    kv__queue_take(&s->queues, slot);
}

/* Two rounds find a victim if any block is free: the first clears all marks. */
static uint32_t victim(void *state, const kv_access *incoming)
{
    sieve *s = state;
    uint32_t steps = 2 * s->queues.queue[0].length;
    for (uint32_t i = 0; i <= steps; i++) {
        uint32_t slot = s->hand != KV_NO_SLOT ? s->hand : s->queues.queue[0].tail;
        kv__link *link = kv__link_of(state, slot);
        s->hand = slot;
        if (!link->pinned && link->mark == 0)
            return slot;
        if (!link->pinned)
            link->mark = 0;
        s->hand = link->newer;
    }
    return KV_NO_SLOT;
}
