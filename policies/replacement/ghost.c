/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/replacement/ghost.h"

void kv__ghost_policy_fini(void *state)
{
    kv__history_fini(&((kv__ghosted *)state)->ghosts);
}

kv_err kv__ghost_policy_insert(void *state, uint32_t slot, const kv_access *access)
{
    kv__ghosted *s = state;
    kv_err err = kv__history_reserve(&s->ghosts, s->queues.slots->count);
    if (err != KV_OK)
        return err;
    bool known = kv__history_take(&s->ghosts, access->key);
    kv__queue_push(&s->queues, known ? KV__MAIN : KV__NEWCOMERS, slot);
    return KV_OK;
}

void kv__ghost_policy_remove(void *state, uint32_t slot, bool evicted)
{
    kv__ghosted *s = state;
    if (evicted && kv__link_of(state, slot)->queue == KV__NEWCOMERS)
        kv__history_add(&s->ghosts, s->queues.slots->key[slot]);
    kv__queue_take(&s->queues, slot);
}
