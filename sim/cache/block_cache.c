/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "sim/cache/block_cache.h"

#include "sim/base/map.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_SLOTS = 1024 };

/* What the cache itself keeps of a slot, beside the name and the policy's record. */
typedef struct slot_record {
    uint64_t value;
    uint32_t pins;
    uint32_t next_free; /* of a free slot */
} slot_record;

struct kv_block_cache {
    const kv_replacement *policy;
    void *state;
    void *config;
    kv_slots slots; /* shared with the policy */
    slot_record *record;
    kv__map by_key;
    uint32_t slots_allocated;
    uint32_t first_free; /* KV_NO_SLOT: none below slots.count */
    uint32_t capacity;   /* UINT32_MAX: no limit */
    uint32_t count, pinned;
};

static kv_err make_config(kv_block_cache *cache, const void *config, kv_diag *diag)
{
    const kv_replacement *policy = cache->policy;
    if (policy->params == NULL)
        return KV_OK;
    cache->config = calloc(1, policy->config_bytes);
    if (cache->config == NULL)
        return kv_fail_memory(diag);
    if (config != NULL)
        return kv_params_copy(policy->params, config, policy->config_bytes, cache->config, diag);
    return kv_params_default(policy->params, cache->config, diag);
}

static kv_err start_policy(kv_block_cache *cache, uint64_t seed, kv_diag *diag)
{
    cache->state = calloc(1, cache->policy->state_bytes);
    if (cache->state == NULL)
        return kv_fail_memory(diag);
    kv_replacement_env env = {&cache->slots, cache->capacity, cache->config, seed};
    kv_err err = cache->policy->init(cache->state, &env, diag);
    if (err != KV_OK) { /* so that kv_block_cache_free does not finish what did not start */
        free(cache->state);
        cache->state = NULL;
    }
    return err;
}

kv_err kv_block_cache_new(const kv_replacement *policy, const void *config,
                          uint32_t capacity_blocks, uint64_t seed, kv_block_cache **out,
                          kv_diag *diag)
{
    kv_block_cache *cache = calloc(1, sizeof *cache);
    if (cache == NULL)
        return kv_fail_memory(diag);
    cache->policy = policy;
    cache->capacity = capacity_blocks == 0 ? UINT32_MAX : capacity_blocks;
    cache->first_free = KV_NO_SLOT;
    cache->slots.meta_bytes = policy->meta_bytes;
    kv_err err = make_config(cache, config, diag);
    if (err == KV_OK)
        err = start_policy(cache, seed, diag);
    if (err != KV_OK) {
        kv_block_cache_free(cache);
        return err;
    }
    *out = cache;
    return KV_OK;
}

void kv_block_cache_free(kv_block_cache *cache)
{
    if (cache == NULL)
        return;
    if (cache->state != NULL && cache->policy->fini != NULL)
        cache->policy->fini(cache->state);
    if (cache->config != NULL)
        kv_params_fini(cache->policy->params, cache->config);
    kv__map_fini(&cache->by_key);
    free(cache->slots.key);
    free(cache->slots.meta);
    free(cache->record);
    free(cache->state);
    free(cache->config);
    free(cache);
}

uint32_t kv_block_cache_count(const kv_block_cache *cache)
{
    return cache->count;
}

uint32_t kv_block_cache_pinned(const kv_block_cache *cache)
{
    return cache->pinned;
}

uint32_t kv_block_cache_capacity(const kv_block_cache *cache)
{
    return cache->capacity == UINT32_MAX ? 0 : cache->capacity;
}

uint32_t kv_block_cache_find(const kv_block_cache *cache, uint64_t key)
{
    return kv__map_get(&cache->by_key, key);
}

int32_t kv_block_cache_prefix(const kv_block_cache *cache, const uint64_t *keys, int32_t count)
{
    int32_t n = 0;
    while (n < count && kv_block_cache_find(cache, keys[n]) != KV_NO_SLOT)
        n++;
    return n;
}

static kv_err grow_array(void *array, size_t count, size_t item_bytes)
{
    void **pointer = array;
    void *larger = realloc(*pointer, count * item_bytes);
    if (larger == NULL)
        return KV_ERR_MEMORY;
    *pointer = larger;
    return KV_OK;
}

static kv_err grow_slots(kv_block_cache *cache)
{
    uint64_t wanted = cache->slots_allocated == 0 ? FIRST_SLOTS : 2ULL * cache->slots_allocated;
    if (wanted > cache->capacity)
        wanted = cache->capacity;
    if (wanted <= cache->slots_allocated)
        return KV_ERR_MEMORY; /* 2^32 blocks without a limit */
    size_t meta_bytes = cache->slots.meta_bytes == 0 ? 1 : cache->slots.meta_bytes;
    if (grow_array(&cache->slots.key, wanted, sizeof *cache->slots.key) != KV_OK ||
        grow_array(&cache->slots.meta, wanted, meta_bytes) != KV_OK ||
        grow_array(&cache->record, wanted, sizeof *cache->record) != KV_OK)
        return KV_ERR_MEMORY;
    cache->slots_allocated = (uint32_t)wanted;
    return KV_OK;
}

/* A slot that is free; there must be room. */
static kv_err take_slot(kv_block_cache *cache, uint32_t *slot)
{
    if (cache->first_free != KV_NO_SLOT) {
        *slot = cache->first_free;
        cache->first_free = cache->record[*slot].next_free;
        return KV_OK;
    }
    if (cache->slots.count == cache->slots_allocated) {
        kv_err err = grow_slots(cache);
        if (err != KV_OK)
            return err;
    }
    *slot = cache->slots.count++;
    return KV_OK;
}

static void give_slot_back(kv_block_cache *cache, uint32_t slot)
{
    cache->record[slot].next_free = cache->first_free;
    cache->first_free = slot;
}

static void drop(kv_block_cache *cache, uint32_t slot, bool evicted)
{
    assert(cache->record[slot].pins == 0);
    cache->policy->remove(cache->state, slot, evicted);
    kv__map_remove(&cache->by_key, cache->slots.key[slot]);
    give_slot_back(cache, slot);
    cache->count--;
}

bool kv_block_cache_evict(kv_block_cache *cache, const kv_access *incoming, kv_evicted *evicted)
{
    if (cache->count == cache->pinned)
        return false;
    uint32_t slot = cache->policy->victim(cache->state, incoming);
    if (slot == KV_NO_SLOT)
        return false;
    if (evicted != NULL)
        *evicted = (kv_evicted){cache->slots.key[slot], cache->record[slot].value, true};
    drop(cache, slot, true);
    return true;
}

static kv_err insert(kv_block_cache *cache, const kv_access *access, uint32_t *out)
{
    uint32_t slot;
    kv_err err = take_slot(cache, &slot);
    if (err != KV_OK)
        return err;
    cache->slots.key[slot] = access->key;
    cache->record[slot] = (slot_record){0};
    memset(kv_slot_meta(&cache->slots, slot), 0, cache->slots.meta_bytes);
    err = kv__map_add(&cache->by_key, access->key, slot);
    if (err != KV_OK) {
        give_slot_back(cache, slot);
        return err;
    }
    err = cache->policy->insert(cache->state, slot, access);
    if (err != KV_OK) {
        kv__map_remove(&cache->by_key, access->key);
        give_slot_back(cache, slot);
        return err;
    }
    cache->count++;
    *out = slot;
    return KV_OK;
}

kv_err kv_block_cache_use(kv_block_cache *cache, const kv_access *access, kv_evicted *evicted,
                          uint32_t *slot)
{
    kv_err err = KV_OK;
    uint32_t found = kv_block_cache_find(cache, access->key);
    if (evicted != NULL)
        evicted->happened = false;
    if (found != KV_NO_SLOT) {
        if (cache->policy->hit != NULL)
            cache->policy->hit(cache->state, found, access);
    } else {
        if (cache->count >= cache->capacity && !kv_block_cache_evict(cache, access, evicted))
            return KV_END;
        err = insert(cache, access, &found);
    }
    if (slot != NULL)
        *slot = found;
    return err;
}

void kv_block_cache_remove(kv_block_cache *cache, uint32_t slot)
{
    drop(cache, slot, false);
}

void kv_block_cache_pin(kv_block_cache *cache, uint32_t slot)
{
    if (cache->record[slot].pins++ > 0)
        return;
    cache->pinned++;
    cache->policy->pin(cache->state, slot);
}

void kv_block_cache_unpin(kv_block_cache *cache, uint32_t slot)
{
    assert(cache->record[slot].pins > 0);
    if (--cache->record[slot].pins > 0)
        return;
    cache->pinned--;
    cache->policy->unpin(cache->state, slot);
}

uint64_t *kv_block_cache_value(kv_block_cache *cache, uint32_t slot)
{
    return &cache->record[slot].value;
}

uint64_t kv_block_cache_key(const kv_block_cache *cache, uint32_t slot)
{
    return cache->slots.key[slot];
}

const char *kv_block_cache_check(const kv_block_cache *cache)
{
    uint32_t found = 0, pinned = 0, free_slots = 0;
    for (uint32_t s = 0; s < cache->slots.count; s++)
        if (kv_block_cache_find(cache, cache->slots.key[s]) == s) {
            found++;
            pinned += cache->record[s].pins > 0;
        }
    for (uint32_t s = cache->first_free; s != KV_NO_SLOT; s = cache->record[s].next_free)
        free_slots++;
    if (cache->count > cache->capacity)
        return "more blocks than the capacity";
    if (found != cache->count || cache->by_key.count != cache->count)
        return "the hash table and the slots disagree";
    if (free_slots + found != cache->slots.count)
        return "slots are lost";
    if (pinned != cache->pinned)
        return "pins are miscounted";
    return cache->policy->check == NULL ? NULL : cache->policy->check(cache->state);
}
