/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "sim/base/map.h"

#include <stdlib.h>

enum { FIRST_CELLS_LOG2 = 10 };

/* Multiplication by 2^64 / golden ratio spreads consecutive names, which traces are full of. */
static size_t home_of(const kv__map *map, uint64_t key)
{
    return (size_t)((key * UINT64_C(0x9E3779B97F4A7C15)) >> map->shift);
}

/* The cell that holds the key, or the free one where it belongs. */
static size_t cell_of(const kv__map *map, uint64_t key)
{
    size_t i = home_of(map, key);
    while (map->cell[i].value != KV_MAP_ABSENT && map->cell[i].key != key)
        i = (i + 1) & map->mask;
    return i;
}

static kv_err resize(kv__map *map, int cells_log2)
{
    size_t cells = (size_t)1 << cells_log2;
    kv__map larger = {.mask = cells - 1, .count = map->count, .shift = 64 - cells_log2};
    larger.cell = malloc(cells * sizeof *larger.cell);
    if (larger.cell == NULL)
        return KV_ERR_MEMORY;
    kv__map_clear(&(kv__map){.cell = larger.cell, .mask = larger.mask});
    for (size_t i = 0; map->cell != NULL && i <= map->mask; i++)
        if (map->cell[i].value != KV_MAP_ABSENT)
            larger.cell[cell_of(&larger, map->cell[i].key)] = map->cell[i];
    free(map->cell);
    *map = larger;
    return KV_OK;
}

void kv__map_fini(kv__map *map)
{
    free(map->cell);
    *map = (kv__map){0};
}

uint32_t kv__map_get(const kv__map *map, uint64_t key)
{
    return map->cell == NULL ? KV_MAP_ABSENT : map->cell[cell_of(map, key)].value;
}

uint32_t *kv__map_find(kv__map *map, uint64_t key)
{
    if (map->cell == NULL)
        return NULL;
    kv__map_cell *cell = &map->cell[cell_of(map, key)];
    return cell->value == KV_MAP_ABSENT ? NULL : &cell->value;
}

kv_err kv__map_reserve(kv__map *map, size_t count)
{
    int cells_log2 = map->cell == NULL ? FIRST_CELLS_LOG2 : 64 - map->shift;
    while (count * 2 > (size_t)1 << cells_log2)
        cells_log2++;
    if (map->cell != NULL && cells_log2 == 64 - map->shift)
        return KV_OK;
    return resize(map, cells_log2);
}

kv_err kv__map_add(kv__map *map, uint64_t key, uint32_t value)
{
    kv_err err = kv__map_reserve(map, map->count + 1);
    if (err != KV_OK)
        return err;
    map->cell[cell_of(map, key)] = (kv__map_cell){key, value};
    map->count++;
    return KV_OK;
}

uint32_t kv__map_remove(kv__map *map, uint64_t key)
{
    if (map->cell == NULL)
        return KV_MAP_ABSENT;
    size_t hole = cell_of(map, key);
    uint32_t value = map->cell[hole].value;
    if (value == KV_MAP_ABSENT)
        return KV_MAP_ABSENT;
    /* What follows moves into the hole unless it would then stand before its home cell. */
    for (size_t i = (hole + 1) & map->mask; map->cell[i].value != KV_MAP_ABSENT;
         i = (i + 1) & map->mask) {
        size_t home = home_of(map, map->cell[i].key);
        if (((i - home) & map->mask) >= ((i - hole) & map->mask)) {
            map->cell[hole] = map->cell[i];
            hole = i;
        }
    }
    map->cell[hole].value = KV_MAP_ABSENT;
    map->count--;
    return value;
}

void kv__map_clear(kv__map *map)
{
    for (size_t i = 0; map->cell != NULL && i <= map->mask; i++)
        map->cell[i].value = KV_MAP_ABSENT;
    map->count = 0;
}
