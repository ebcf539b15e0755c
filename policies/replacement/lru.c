/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/replacement/queue.h"

static void hit(void *state, uint32_t slot, const kv_access *access);

KV_REPLACEMENT_DEFINE(lru) = {
    .name = "lru",
    .brief = "the least recently used block leaves",
    .state_bytes = sizeof(kv__queues),
    KV__QUEUE_POLICY,
    .init = kv__queue_policy_init,
    .insert = kv__queue_policy_insert,
    .hit = hit,
    .remove = kv__queue_policy_remove,
    .victim = kv__queue_policy_victim,
};

static void hit(void *state, uint32_t slot, const kv_access *access)
{
    kv__queue_move(state, 0, slot);
}
