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

kv_err kv__memory_hold(kv__memory *memory, kv__live *live, int32_t index)
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
        err = kv_block_cache_use(memory->cache, &access, NULL, &live->slot[index]);
    if (err != KV_OK)
        return err == KV_END ? KV_ERR_BUG : err;
    kv_block_cache_pin(memory->cache, live->slot[index]);
    ++*users(memory, live->slot[index]);
    live->held = index + 1;
    return KV_OK;
}

kv_err kv__memory_claim(kv__memory *memory, kv__live *live, kv__hit hit)
{
    for (int32_t i = 0; i < hit.blocks; i++) {
        kv_err err = KV_OK;
        if (i < live->named) {
            err = kv__memory_hold(memory, live, i);
        } else { /* its own from before it was preempted: private again */
            uint32_t slot = kv_block_cache_find(memory->cache, kv__block_key(live, i));
            kv_block_cache_remove(memory->cache, slot);
            memory->private_++;
            live->held = i + 1;
        }
        if (err != KV_OK)
            return err;
    }
    return KV_OK;
}

kv_err kv__memory_grow(kv__memory *memory, kv__live *live, int32_t tokens)
{
    int64_t lacks = kv__memory_lacks(memory, live, tokens);
    int32_t end = live->held + (int32_t)lacks, named_end = end < live->named ? end : live->named;
    for (int32_t i = live->held; memory->cache != NULL && i < named_end; i++) {
        kv_err err = kv__memory_hold(memory, live, i);
        if (err != KV_OK)
            return err;
        lacks--;
    }
    if (lacks > 0)
        kv__memory_take(memory, lacks);
    live->held = end;
    return KV_OK;
}

/* One block less, the last. Tail first: what is let go later is evicted later. */
static kv_err let_go(kv__memory *memory, kv__live *live, bool keep)
{
    int32_t index = --live->held;
    bool named = memory->cache != NULL && index < live->named;
    if (!named)
        memory->private_--;
    if (named) {
        --*users(memory, live->slot[index]);
        kv_block_cache_unpin(memory->cache, live->slot[index]);
    }
    if (!named && !(keep && memory->cache != NULL &&
                    (index + 1) * memory->block_tokens <= live->computed_tokens))
        return KV_OK;
    if (named && !memory->idle_order)
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
