/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/replacement/rank.h"

static kv_err insert(void *state, uint32_t slot, const kv_access *access);
static void hit(void *state, uint32_t slot, const kv_access *access);

KV_REPLACEMENT_DEFINE(belady) = {
    .name = "belady",
    .brief = "the block whose next use is farthest leaves: the bound, it needs to know the future",
    .cite = "Belady, A study of replacement algorithms for a virtual-storage computer, 1966",
    .needs = KV_REPLACEMENT_FUTURE,
    KV__RANK_POLICY,
    .insert = insert,
    .hit = hit,
};

/* Of blocks that are never used again the deepest goes first. */
static void look_ahead(kv__ranked *block, const kv_access *access)
{
    block->major = (uint64_t)(KV_NEVER - access->next_use);
    block->minor = UINT32_MAX - (uint32_t)access->position;
}

static kv_err insert(void *state, uint32_t slot, const kv_access *access)
{
    look_ahead(kv__ranked_of(state, slot), access);
    return kv__rank_add(state, slot);
}

static void hit(void *state, uint32_t slot, const kv_access *access)
{
    look_ahead(kv__ranked_of(state, slot), access);
    kv__rank_changed(state, slot);
}
