/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/replacement/history.h"

#include <stdlib.h>

#define NONE UINT32_MAX

void kv__history_init(kv__history *history, uint32_t limit)
{
    *history = (kv__history){.free = NONE, .newest = NONE, .oldest = NONE, .limit = limit};
}

void kv__history_fini(kv__history *history)
{
    kv__map_fini(&history->by_key);
    free(history->entry);
}

bool kv__history_has(const kv__history *history, uint64_t key)
{
    return kv__map_get(&history->by_key, key) != KV_MAP_ABSENT;
}

bool kv__history_take(kv__history *history, uint64_t key)
{
    uint32_t i = kv__map_remove(&history->by_key, key);
    if (i == KV_MAP_ABSENT)
        return false;
    kv__past *past = &history->entry[i];
    *(past->newer == NONE ? &history->newest : &history->entry[past->newer].older) = past->older;
    *(past->older == NONE ? &history->oldest : &history->entry[past->older].newer) = past->newer;
    past->older = history->free;
    history->free = i;
    history->length--;
    return true;
}

void kv__history_forget(kv__history *history)
{
    if (history->oldest != NONE)
        kv__history_take(history, history->entry[history->oldest].key);
}

kv_err kv__history_reserve(kv__history *history, uint32_t more)
{
    uint64_t wanted = (uint64_t)history->length + more;
    if (wanted > history->limit)
        wanted = history->limit;
    if (wanted <= history->allocated)
        return KV_OK;
    uint64_t doubled = 2 * wanted < history->limit ? 2 * wanted : history->limit;
    kv__past *entry = realloc(history->entry, doubled * sizeof *entry);
    if (entry == NULL)
        return KV_ERR_MEMORY;
    history->entry = entry;
    history->allocated = (uint32_t)doubled;
    return kv__map_reserve(&history->by_key, doubled);
}

/* An entry that is free; kv__history_reserve has seen to that. */
static uint32_t take_entry(kv__history *history)
{
    uint32_t i = history->free;
    if (i == NONE)
        return history->used++;
    history->free = history->entry[i].older;
    return i;
}

void kv__history_add(kv__history *history, uint64_t key)
{
    if (history->length >= history->limit)
        kv__history_forget(history);
    uint32_t i = history->limit == 0 ? NONE : take_entry(history);
    if (i == NONE || kv__map_add(&history->by_key, key, i) != KV_OK)
        return; /* the map is reserved: only a limit of 0 comes here */
    history->entry[i] = (kv__past){key, NONE, history->newest};
    *(history->newest == NONE ? &history->oldest : &history->entry[history->newest].newer) = i;
    history->newest = i;
    history->length++;
}
