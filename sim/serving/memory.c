/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "sim/serving/memory.h"

#include "sim/serving/blend.h"
#include "sim/serving/foresight.h"
#include "sim/serving/names.h"

#include <assert.h>

uint64_t kv__block_key(const kv__live *live, int32_t index)
{
    if (index < live->named)
        return live->key[index];
    return kv__spread_name(kv__spread_name((uint64_t)live->number ^ 0x7072697661746500u) +
                           (uint64_t)index);
}

int64_t kv__memory_used(const kv__memory *memory)
{
    int64_t pinned = memory->cache != NULL ? kv_block_cache_pinned(memory->cache) : 0;
    return memory->private_ + pinned * memory->block_pages;
}

int64_t kv__memory_empty(const kv__memory *memory)
{
    int64_t cached = memory->cache != NULL ? kv_block_cache_count(memory->cache) : 0;
    return memory->capacity - memory->private_ - cached * memory->block_pages;
}

int64_t kv__memory_available(const kv__memory *memory)
{
    return memory->capacity - kv__memory_used(memory);
}

/* How many requests use a resident block. */
static uint64_t *users(const kv__memory *memory, uint32_t slot)
{
    return kv_block_cache_value(memory->cache, slot);
}

int32_t kv__memory_reusable(const kv__memory *memory, const kv__live *live)
{
    bool own = memory->own_names && live->preemptions > 0;
    int32_t tokens = memory->own_names ? kv__live_tokens(live) : live->prompt_tokens;
    int32_t most = (tokens - 1) / memory->block_tokens;
    return own || most < live->named ? most : live->named;
}

kv__hit kv__memory_look(const kv__memory *memory, const kv__live *live)
{
    kv__hit hit = {0, 0};
    int32_t most = kv__memory_reusable(memory, live);
    if (memory->cache == NULL)
        return hit;
    for (; hit.blocks < most; hit.blocks++) {
        uint32_t slot = kv_block_cache_find(memory->cache, kv__block_key(live, hit.blocks));
        if (slot == KV_NO_SLOT)
            break;
        hit.idle += *users(memory, slot) == 0;
    }
    return hit;
}

static void make_room(kv__memory *memory, int64_t pages, const kv_access *incoming)
{
    kv_evicted evicted;
    while (memory->cache != NULL && kv__memory_empty(memory) < pages &&
           kv_block_cache_evict(memory->cache, incoming, &evicted)) {
        memory->evictions++;
        if (memory->evicted != NULL)
            memory->evicted(memory->closure, evicted.key);
    }
}

void kv__memory_take(kv__memory *memory, int64_t pages)
{
    make_room(memory, pages, NULL);
    memory->private_ += pages;
    assert(memory->private_ <= memory->capacity);
}

void kv__memory_give(kv__memory *memory, int64_t pages)
{
    memory->private_ -= pages;
    assert(memory->private_ >= 0);
}

/* Blocks without a name are used by a request that was preempted: it is the next to come. */
static kv_access access_of(kv__memory *memory, const kv__live *live, int32_t index)
{
    uint64_t key = kv__block_key(live, index);
    int64_t next = index < live->named ? kv__foresight_next(memory->foresight, key) : 0;
    return (kv_access){.key = key,
                       .time = memory->clock++,
                       .next_use = next,
                       .position = index,
                       .prompt_blocks = live->named};
}

/* Puts a block into the cache, unless it is there, for a request to use or (slot NULL) for none. */
static kv_err cache_block(kv__memory *memory, const kv__live *live, int32_t index, uint32_t *slot)
{
    kv_access access = access_of(memory, live, index);
    bool absent = kv_block_cache_find(memory->cache, access.key) == KV_NO_SLOT;
    if (absent)
        make_room(memory, memory->block_pages, &access);
    kv_err err = KV_OK;
    if (absent && memory->contents != NULL)
        err = kv__contents_add(memory->contents, access.key, kv__blend_content(live, index));
    if (absent && memory->inserted != NULL)
        memory->inserted(memory->closure, access.key);
    if (err == KV_OK)
        err = kv_block_cache_use(memory->cache, &access, NULL, slot);
    return err == KV_END ? KV_ERR_BUG : err;
}

/* Has a request use a block of the cache, resident or not. */
static kv_err share(kv__memory *memory, kv__live *live, int32_t index)
{
    kv_err err = cache_block(memory, live, index, &live->slot[index]);
    if (err != KV_OK)
        return err;
    kv_block_cache_pin(memory->cache, live->slot[index]);
    ++*users(memory, live->slot[index]);
    live->shared++;
    return KV_OK;
}

static bool is_resident(const kv__memory *memory, const kv__live *live, int32_t index)
{
    return kv_block_cache_find(memory->cache, kv__block_key(live, index)) != KV_NO_SLOT;
}

/* Whether all tokens of a block are among the first so many. Of the block at the end of a prompt,
 * if the trace names it, those of the prompt: answers are none of what its name stands for. */
static bool is_within(const kv__memory *memory, const kv__live *live, int32_t index, int64_t tokens)
{
    int64_t end = (index + (int64_t)1) * memory->block_tokens;
    return (index < live->named && end > live->prompt_tokens ? live->prompt_tokens : end) <= tokens;
}

/* Found at admission behind a hole that is loaded. */
static bool is_found(const kv__memory *memory, const kv__live *live, int32_t index)
{
    return (int64_t)index * memory->block_tokens >= live->load_from &&
           is_within(memory, live, index, live->load_to) && is_resident(memory, live, index);
}

kv_err kv__memory_hold(kv__memory *memory, kv__live *live, int32_t index)
{
    bool named = memory->cache != NULL && index < live->named;
    bool full = is_within(memory, live, index, (int64_t)live->computed_tokens + live->scheduled);
    kv_err err = KV_OK;
    if (index < live->named)
        live->slot[index] = KV_NO_SLOT;
    if (named && (is_found(memory, live, index) || (full && !is_resident(memory, live, index))))
        err = share(memory, live, index);
    else
        kv__memory_take(memory, memory->block_pages);
    live->held = index + 1;
    return err;
}

kv_err kv__memory_name(kv__memory *memory, kv__live *live)
{
    int64_t tokens = (int64_t)live->computed_tokens + live->scheduled;
    int32_t end = live->held < live->named ? live->held : live->named;
    kv_err err = KV_OK;
    if (memory->cache == NULL)
        return KV_OK;
    for (; err == KV_OK && live->filed < end && is_within(memory, live, live->filed, tokens);
         live->filed++) {
        if (live->slot[live->filed] != KV_NO_SLOT || is_resident(memory, live, live->filed))
            continue;
        memory->private_ -= memory->block_pages;
        err = share(memory, live, live->filed);
    }
    return err;
}

kv_err kv__memory_claim(kv__memory *memory, kv__live *live, kv__hit hit)
{
    for (int32_t i = 0; i < hit.blocks; i++) {
        kv_err err = KV_OK;
        if (i < live->named) {
            err = share(memory, live, i);
            live->filed = i + 1;
        } else { /* its own from before it was preempted: private again */
            uint32_t slot = kv_block_cache_find(memory->cache, kv__block_key(live, i));
            kv_block_cache_remove(memory->cache, slot);
            memory->private_++;
        }
        live->held = i + 1;
        if (err != KV_OK)
            return err;
    }
    return KV_OK;
}

kv_err kv__memory_grow(kv__memory *memory, kv__live *live, int32_t tokens)
{
    int64_t lacks = kv__memory_lacks(memory, live, tokens);
    int32_t end = live->held + (int32_t)lacks, named_end = end < live->named ? end : live->named;
    kv_err err = KV_OK;
    for (int32_t i = live->held; memory->cache != NULL && i < named_end && err == KV_OK; i++) {
        err = kv__memory_hold(memory, live, i);
        lacks--;
    }
    if (err == KV_OK && lacks > 0)
        kv__memory_take(memory, lacks);
    live->held = end;
    return err == KV_OK ? kv__memory_name(memory, live) : err;
}

/* A private block goes. Its content stays, if it is whole: under the name that the trace has for it
 * (where another copy is there, that one counts as used, so that the beginnings of prompts still go
 * last), or (keep) under one that its request knows. */
static kv_err let_go_private(kv__memory *memory, const kv__live *live, int32_t index, bool keep)
{
    memory->private_ -= memory->block_pages;
    if (memory->cache == NULL || !is_within(memory, live, index, live->computed_tokens))
        return KV_OK;
    if (index < live->named)
        return memory->idle_order || !is_resident(memory, live, index)
                   ? cache_block(memory, live, index, NULL)
                   : KV_OK;
    kv_access access = access_of(memory, live, index);
    kv_err err = keep ? kv_block_cache_use(memory->cache, &access, NULL, NULL) : KV_OK;
    return err == KV_END ? KV_ERR_BUG : err;
}

/* One block less, the last. Tail first: what is let go later is evicted later. */
static kv_err let_go(kv__memory *memory, kv__live *live, bool keep)
{
    int32_t index = --live->held;
    live->filed = live->filed < live->held ? live->filed : live->held;
    if (memory->cache == NULL || index >= live->named || live->slot[index] == KV_NO_SLOT)
        return let_go_private(memory, live, index, keep);
    live->shared--;
    --*users(memory, live->slot[index]);
    kv_block_cache_unpin(memory->cache, live->slot[index]);
    if (!memory->idle_order)
        return KV_OK;
    kv_access access = access_of(memory, live, index);
    kv_err err = kv_block_cache_use(memory->cache, &access, NULL, NULL);
    return err == KV_END ? KV_ERR_BUG : err;
}

kv_err kv__memory_unhold(kv__memory *memory, kv__live *live)
{
    kv_err err = KV_OK;
    while (err == KV_OK && live->held > 0)
        err = let_go(memory, live, false);
    return err;
}

kv_err kv__memory_release(kv__memory *memory, kv__live *live, bool keep)
{
    kv__memory_give(memory, live->pages);
    live->pages = 0;
    if (!keep && live->held > live->named) { /* private blocks go all at once */
        memory->private_ -= live->held - live->named;
        live->held = live->named;
    }
    kv_err err = KV_OK;
    while (err == KV_OK && live->held > 0)
        err = let_go(memory, live, keep);
    return err;
}
