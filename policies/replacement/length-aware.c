/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/replacement/rank.h"

static kv_err insert(void *state, uint32_t slot, const kv_access *access);
static void hit(void *state, uint32_t slot, const kv_access *access);

/* A block is of use only while all before it in the prompt are there, so the end of a prompt goes
 * first. */
KV_REPLACEMENT_DEFINE(length_aware) = {
    .name = "length-aware",
    .brief = "as lfu, but of equals the block that stands deepest in its prompt leaves",
    .cite = "Qin et al., Mooncake: trading more storage for less computation, FAST 2025",
    KV__RANK_POLICY,
    .insert = insert,
    .hit = hit,
};

/* Counts one more use in the high half; the low half is the less the deeper the block. */
static void count(kv__ranks *ranks, kv__ranked *block, const kv_access *access)
{
    uint64_t uses = (block->major >> 32) + 1;
    block->major = uses << 32 | (UINT32_MAX - (uint32_t)access->position);
    block->minor = ++ranks->uses;
}

static kv_err insert(void *state, uint32_t slot, const kv_access *access)
{
    count(state, kv__ranked_of(state, slot), access);
    return kv__rank_add(state, slot);
}

static void hit(void *state, uint32_t slot, const kv_access *access)
{
    count(state, kv__ranked_of(state, slot), access);
    kv__rank_changed(state, slot);
}
