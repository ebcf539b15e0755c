/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* The names of blocks that were evicted lately, for policies that learn from misses.
 *
 * Names are added when a block leaves, which may not fail; so room is reserved when blocks come. */
#ifndef KVSIM_POLICIES_REPLACEMENT_HISTORY_H
#define KVSIM_POLICIES_REPLACEMENT_HISTORY_H

#include "sim/base/map.h"

#include <stdbool.h>

typedef struct kv__past {
    uint64_t key;
    uint32_t newer, older; /* neighbours; of a free entry, older is the next free one */
} kv__past;

/* Zeroed and then kv__history_init is empty. Grows while warming up, then allocates no more. */
typedef struct kv__history {
    kv__map by_key;
    kv__past *entry;                /* [allocated] */
    uint32_t allocated, used, free; /* entries ever used; first free one below that */
    uint32_t newest, oldest;
    uint32_t length, limit; /* names held; at most */
} kv__history;

void kv__history_init(kv__history *history, uint32_t limit);
void kv__history_fini(kv__history *history);
bool kv__history_has(const kv__history *history, uint64_t key);
/* Takes a name out; false if it is not there. */
bool kv__history_take(kv__history *history, uint64_t key);
/* Forgets the oldest name, if there is one. */
void kv__history_forget(kv__history *history);
/* Makes sure that `more` names can be added without allocating. */
kv_err kv__history_reserve(kv__history *history, uint32_t more) KV_MUST_USE;
/* Adds a name that is not there, after kv__history_reserve; beyond the limit the oldest goes. */
void kv__history_add(kv__history *history, uint64_t key);

#endif
