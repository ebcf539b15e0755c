/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/replacement/queue.h"

KV_REPLACEMENT_DEFINE(fifo) = {
    .name = "fifo",
    .brief = "the block that came in first leaves",
    .state_bytes = sizeof(kv__queues),
    KV__QUEUE_POLICY,
    .init = kv__queue_policy_init,
    .insert = kv__queue_policy_insert,
    .remove = kv__queue_policy_remove,
    .victim = kv__queue_policy_victim,
};
