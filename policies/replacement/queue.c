/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/replacement/queue.h"

void kv__queues_init(kv__queues *queues, const kv_slots *slots)
{
    queues->slots = slots;
    for (int q = 0; q < KV_QUEUES; q++)
        queues->queue[q] = (kv__queue){KV_NO_SLOT, KV_NO_SLOT, 0};
}

/* Links a slot between two neighbours (either may be KV_NO_SLOT) of a queue. */
static void link_between(kv__queues *queues, int queue, uint32_t slot, uint32_t newer,
                         uint32_t older)
{
    kv__queue *q = &queues->queue[queue];
    kv__link *link = kv__link_of(queues, slot);
    link->newer = newer;
    link->older = older;
    link->queue = (uint8_t)queue;
    link->parked = false;
    *(newer == KV_NO_SLOT ? &q->head : &kv__link_of(queues, newer)->older) = slot;
    *(older == KV_NO_SLOT ? &q->tail : &kv__link_of(queues, older)->newer) = slot;
}

static void unlink_slot(kv__queues *queues, const kv__link *link)
{
    kv__queue *q = &queues->queue[link->queue];
    *(link->newer == KV_NO_SLOT ? &q->head : &kv__link_of(queues, link->newer)->older) =
        link->older;
    *(link->older == KV_NO_SLOT ? &q->tail : &kv__link_of(queues, link->older)->newer) =
        link->newer;
}

void kv__queue_push(kv__queues *queues, int queue, uint32_t slot)
{
    link_between(queues, queue, slot, KV_NO_SLOT, queues->queue[queue].head);
    queues->queue[queue].length++;
}

void kv__queue_take(kv__queues *queues, uint32_t slot)
{
    kv__link *link = kv__link_of(queues, slot);
    if (!link->parked)
        unlink_slot(queues, link);
    link->parked = false;
    queues->queue[link->queue].length--;
}

void kv__queue_move(kv__queues *queues, int queue, uint32_t slot)
{
    if (queues->queue[queue].head == slot)
        return;
    kv__queue_take(queues, slot);
    kv__queue_push(queues, queue, slot);
}

uint32_t kv__queue_oldest(kv__queues *queues, int queue)
{
    kv__queue *q = &queues->queue[queue];
    while (q->tail != KV_NO_SLOT && kv__link_of(queues, q->tail)->pinned) {
        kv__link *link = kv__link_of(queues, q->tail);
        unlink_slot(queues, link);
        link->parked = true;
    }
    return q->tail;
}

kv_err kv__queue_policy_init(void *state, const kv_replacement_env *env, kv_diag *diag)
{
    kv__queues_init(state, env->slots);
    return KV_OK;
}

kv_err kv__queue_policy_insert(void *state, uint32_t slot, const kv_access *access)
{
    kv__queue_push(state, 0, slot);
    return KV_OK;
}

uint32_t kv__queue_policy_victim(void *state, const kv_access *incoming)
{
    return kv__queue_oldest(state, 0);
}

void kv__queue_policy_remove(void *state, uint32_t slot, bool evicted)
{
    kv__queue_take(state, slot);
}

void kv__queue_policy_pin(void *state, uint32_t slot)
{
    kv__link_of(state, slot)->pinned = true;
}

void kv__queue_policy_unpin(void *state, uint32_t slot)
{
    kv__link *link = kv__link_of(state, slot);
    link->pinned = false;
    if (link->parked)
        link_between(state, link->queue, slot, ((kv__queues *)state)->queue[link->queue].tail,
                     KV_NO_SLOT);
}

const char *kv__queue_policy_check(const void *state)
{
    const kv__queues *queues = state;
    for (int i = 0; i < KV_QUEUES; i++) {
        const kv__queue *q = &queues->queue[i];
        uint32_t seen = 0, newer = KV_NO_SLOT;
        for (uint32_t s = q->head; s != KV_NO_SLOT; s = kv__link_of(queues, s)->older) {
            const kv__link *link = kv__link_of(queues, s);
            if (link->newer != newer || link->queue != i || link->parked)
                return "a queue is linked wrongly";
            if (++seen > queues->slots->count)
                return "a queue has a cycle";
            newer = s;
        }
        if (q->tail != newer || seen > q->length)
            return "a queue has lost its tail";
    }
    return NULL;
}
