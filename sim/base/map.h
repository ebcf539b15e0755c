/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* A hash table from 64-bit names to 32-bit numbers, for the block caches and their histories.
 *
 * Open addressing with linear probing and backward-shift deletion: no tombstones, so it never needs
 * cleaning, and a lookup costs about one cache miss. */
#ifndef KVSIM_BASE_MAP_H
#define KVSIM_BASE_MAP_H

#include "sim/base/diag.h"

#include <stddef.h>
#include <stdint.h>

#define KV_MAP_ABSENT UINT32_MAX /* not allowed as a value */

typedef struct kv__map_cell {
    uint64_t key;
    uint32_t value; /* KV_MAP_ABSENT: the cell is free */
} kv__map_cell;

/* Zeroed is empty and usable. */
typedef struct kv__map {
    kv__map_cell *cell; /* [mask + 1], a power of two; NULL while nothing was inserted */
    size_t mask;
    size_t count;
    int shift; /* of the multiplied key, so that its high bits choose the cell */
} kv__map;

void kv__map_fini(kv__map *map);
/* The value of a key, or KV_MAP_ABSENT. */
uint32_t kv__map_get(const kv__map *map, uint64_t key);
/* Where the value of a key is, or NULL; until the next change of the map. */
uint32_t *kv__map_find(kv__map *map, uint64_t key);
/* Makes sure that the map can hold `count` keys in all without allocating. */
kv_err kv__map_reserve(kv__map *map, size_t count) KV_MUST_USE;
/* Adds a key that is absent. Grows by doubling when half full. */
kv_err kv__map_add(kv__map *map, uint64_t key, uint32_t value) KV_MUST_USE;
/* Removes a key and returns its value, or KV_MAP_ABSENT if it was absent. */
uint32_t kv__map_remove(kv__map *map, uint64_t key);
/* Forgets all keys, keeps the memory. */
void kv__map_clear(kv__map *map);

#endif
