/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/replacement/rank.h"

static kv_err insert(void *state, uint32_t slot, const kv_access *access);
static void hit(void *state, uint32_t slot, const kv_access *access);

KV_REPLACEMENT_DEFINE(lfu) = {
    .name = "lfu",
    .brief =
        "the block used least often since it came in leaves; of equals the least recently used",
    KV__RANK_POLICY,
    .insert = insert,
    .hit = hit,
};

/* Counts one more use. */
static void count(kv__ranks *ranks, kv__ranked *block)
{
    block->major++;
    block->minor = ++ranks->uses;
}

static kv_err insert(void *state, uint32_t slot, const kv_access *access)
{
    count(state, kv__ranked_of(state, slot));
    return kv__rank_add(state, slot);
}

static void hit(void *state, uint32_t slot, const kv_access *access)
{
    count(state, kv__ranked_of(state, slot));
    kv__rank_changed(state, slot);
}
