/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/replacement/rank.h"

#include <stdlib.h>

static bool leaves_before(const kv__ranks *ranks, uint32_t a, uint32_t b)
{
    const kv__ranked *x = kv__ranked_of(ranks, a), *y = kv__ranked_of(ranks, b);
    return x->major != y->major ? x->major < y->major : x->minor < y->minor;
}

static void put(kv__ranks *ranks, uint32_t place, uint32_t slot)
{
    ranks->heap[place] = slot;
    kv__ranked_of(ranks, slot)->place = place;
}

static void sift_up(kv__ranks *ranks, uint32_t place)
{
    uint32_t slot = ranks->heap[place];
    while (place > 0 && leaves_before(ranks, slot, ranks->heap[(place - 1) / 2])) {
        put(ranks, place, ranks->heap[(place - 1) / 2]);
        place = (place - 1) / 2;
    }
    put(ranks, place, slot);
}

static void sift_down(kv__ranks *ranks, uint32_t place)
{
    uint32_t slot = ranks->heap[place];
    for (;;) {
        uint32_t child = 2 * place + 1;
        if (child >= ranks->length)
            break;
        if (child + 1 < ranks->length &&
            leaves_before(ranks, ranks->heap[child + 1], ranks->heap[child]))
            child++;
        if (!leaves_before(ranks, ranks->heap[child], slot))
            break;
        put(ranks, place, ranks->heap[child]);
        place = child;
    }
    put(ranks, place, slot);
}

/* Appends a slot; the heap has room. */
static void add(kv__ranks *ranks, uint32_t slot)
{
    ranks->heap[ranks->length] = slot;
    sift_up(ranks, ranks->length++);
}

/* Room for every slot, so that unpinning, which may not fail, finds it. */
kv_err kv__rank_add(kv__ranks *ranks, uint32_t slot)
{
    if (ranks->allocated < ranks->slots->count) {
        uint32_t wanted =
            ranks->slots->count < UINT32_MAX / 2 ? 2 * ranks->slots->count : UINT32_MAX;
        uint32_t *heap = realloc(ranks->heap, wanted * sizeof *heap);
        if (heap == NULL)
            return KV_ERR_MEMORY;
        ranks->heap = heap;
        ranks->allocated = wanted;
    }
    add(ranks, slot);
    return KV_OK;
}

void kv__rank_changed(kv__ranks *ranks, uint32_t slot)
{
    uint32_t place = kv__ranked_of(ranks, slot)->place;
    if (place == KV_NO_SLOT)
        return;
    sift_up(ranks, place);
    sift_down(ranks, kv__ranked_of(ranks, slot)->place);
}

kv_err kv__rank_policy_init(void *state, const kv_replacement_env *env, kv_diag *diag)
{
    ((kv__ranks *)state)->slots = env->slots;
    return KV_OK;
}

void kv__rank_policy_fini(void *state)
{
    free(((kv__ranks *)state)->heap);
}

void kv__rank_policy_remove(void *state, uint32_t slot, bool evicted)
{
    kv__ranks *ranks = state;
    uint32_t place = kv__ranked_of(ranks, slot)->place;
    uint32_t last = ranks->heap[--ranks->length];
    kv__ranked_of(ranks, slot)->place = KV_NO_SLOT;
    if (last == slot)
        return;
    put(ranks, place, last);
    kv__rank_changed(ranks, last);
}

uint32_t kv__rank_policy_victim(void *state, const kv_access *incoming)
{
    const kv__ranks *ranks = state;
    return ranks->length == 0 ? KV_NO_SLOT : ranks->heap[0];
}

void kv__rank_policy_pin(void *state, uint32_t slot)
{
    kv__rank_policy_remove(state, slot, false);
}

void kv__rank_policy_unpin(void *state, uint32_t slot)
{
    add(state, slot);
}

const char *kv__rank_policy_check(const void *state)
{
    const kv__ranks *ranks = state;
    for (uint32_t i = 0; i < ranks->length; i++) {
        if (kv__ranked_of(ranks, ranks->heap[i])->place != i)
            return "a place in the heap is wrong";
        if (i > 0 && leaves_before(ranks, ranks->heap[i], ranks->heap[(i - 1) / 2]))
            return "the heap is out of order";
    }
    return NULL;
}
