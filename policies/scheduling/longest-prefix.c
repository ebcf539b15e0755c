/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/scheduling.h"

static bool before(const kv_waiting *a, const kv_waiting *b);

/* Serving what is cached before it is evicted (SGLang's default). */
KV_QUEUE_ORDER_DEFINE(longest_prefix) = {
    .name = "longest-prefix-first",
    .brief = "who has most blocks in the GPU's cache goes first",
    .wants_prefix = true,
    .before = before,
};

static bool before(const kv_waiting *a, const kv_waiting *b)
{
    return a->prefix_blocks > b->prefix_blocks;
}
