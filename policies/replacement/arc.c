/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/replacement/history.h"
#include "policies/replacement/queue.h"

static kv_err init(void *state, const kv_replacement_env *env, kv_diag *diag);
static void fini(void *state);
static kv_err insert(void *state, uint32_t slot, const kv_access *access);
static void hit(void *state, uint32_t slot, const kv_access *access);
static void drop(void *state, uint32_t slot, bool evicted);
static uint32_t victim(void *state, const kv_access *incoming);

enum { ONCE, OFTEN }; /* T1 and T2 of the paper; their histories are B1 and B2 */

typedef struct arc {
    kv__queues queues;
    kv__history past[KV_QUEUES];
    uint32_t capacity_blocks;
    uint32_t target;     /* p: blocks that ONCE should hold */
    uint64_t adapted_to; /* the name that victim has already adapted to */
    bool adapted;
    bool silent; /* the victim leaves without a trace (case IV.A, B1 empty) */
} arc;

/* Two LRU queues, for blocks used once and more often, share the room; a miss on a name that left
 * one of them lately moves the border in its favour. */
KV_REPLACEMENT_DEFINE(arc) = {
    .name = "arc",
    .brief = "balances recency and frequency by watching what was evicted too early",
    .cite = "Megiddo and Modha, ARC: a self-tuning, low overhead replacement cache, FAST 2003",
    .state_bytes = sizeof(arc),
    KV__QUEUE_POLICY,
    .init = init,
    .fini = fini,
    .insert = insert,
    .hit = hit,
    .remove = drop,
    .victim = victim,
};

static kv_err init(void *state, const kv_replacement_env *env, kv_diag *diag)
{
    arc *s = state;
    s->capacity_blocks = env->capacity_blocks;
    /* One more than the capacity: the name of a victim is added before that of the newcomer goes.
     */
    uint32_t names = env->capacity_blocks == UINT32_MAX ? 0 : env->capacity_blocks + 1;
    for (int q = 0; q < KV_QUEUES; q++)
        kv__history_init(&s->past[q], names);
    return kv__queue_policy_init(state, env, diag);
}

static void fini(void *state)
{
    for (int q = 0; q < KV_QUEUES; q++)
        kv__history_fini(&((arc *)state)->past[q]);
}

static uint32_t ratio(uint32_t a, uint32_t b)
{
    return b == 0 || a / b == 0 ? 1 : a / b;
}

/* Moves the border when the name of a miss is remembered (cases II and III of the paper). */
static void adapt(arc *s, uint64_t key)
{
    uint32_t b1 = s->past[ONCE].length, b2 = s->past[OFTEN].length;
    if (kv__history_has(&s->past[ONCE], key)) {
        uint32_t room = s->capacity_blocks - s->target, step = ratio(b2, b1);
        s->target += step < room ? step : room;
    } else if (kv__history_has(&s->past[OFTEN], key)) {
        uint32_t step = ratio(b1, b2);
        s->target -= step < s->target ? step : s->target;
    }
}

/* Case IV: keeps the names within one capacity for ONCE and two in all. */
static void make_room_in_history(arc *s)
{
    uint64_t once = (uint64_t)s->queues.queue[ONCE].length + s->past[ONCE].length;
    uint64_t often = (uint64_t)s->queues.queue[OFTEN].length + s->past[OFTEN].length;
    if (once >= s->capacity_blocks && s->past[ONCE].length > 0)
        kv__history_forget(&s->past[ONCE]);
    else if (once >= s->capacity_blocks)
        s->silent = true;
    else if (once + often >= 2ULL * s->capacity_blocks)
        kv__history_forget(&s->past[OFTEN]);
}

static kv_err insert(void *state, uint32_t slot, const kv_access *access)
{
    arc *s = state;
    for (int q = 0; q < KV_QUEUES; q++) {
        kv_err err = kv__history_reserve(&s->past[q], s->queues.slots->count);
        if (err != KV_OK)
            return err;
    }
    if (!s->adapted || s->adapted_to != access->key)
        adapt(s, access->key);
    s->adapted = false;
    bool known = kv__history_take(&s->past[ONCE], access->key) ||
                 kv__history_take(&s->past[OFTEN], access->key);
    kv__queue_push(&s->queues, known ? OFTEN : ONCE, slot);
    return KV_OK;
}

static void hit(void *state, uint32_t slot, const kv_access *access)
{
    kv__queue_move(state, OFTEN, slot);
}

static void drop(void *state, uint32_t slot, bool evicted)
{
    arc *s = state;
    int queue = kv__link_of(state, slot)->queue;
    if (evicted && !s->silent)
        kv__history_add(&s->past[queue], s->queues.slots->key[slot]);
    s->silent = false;
    kv__queue_take(&s->queues, slot);
}

/* REPLACE of the paper. */
static uint32_t victim(void *state, const kv_access *incoming)
{
    arc *s = state;
    bool in_often = false;
    if (incoming != NULL) {
        in_often = kv__history_has(&s->past[OFTEN], incoming->key);
        adapt(s, incoming->key);
        s->adapted = true;
        s->adapted_to = incoming->key;
        if (!in_often && !kv__history_has(&s->past[ONCE], incoming->key))
            make_room_in_history(s);
    }
    uint32_t once = s->queues.queue[ONCE].length;
    bool from_once = s->silent || once > s->target || (in_often && once == s->target);
    int first = once > 0 && from_once ? ONCE : OFTEN;
    uint32_t slot = kv__queue_oldest(&s->queues, first);
    return slot != KV_NO_SLOT ? slot : kv__queue_oldest(&s->queues, first == ONCE ? OFTEN : ONCE);
}
