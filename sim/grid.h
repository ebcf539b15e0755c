/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Grids: a mapping whose values may be lists stands for every combination of their items. */
#ifndef KVSIM_SIM_GRID_H
#define KVSIM_SIM_GRID_H

#include "sim/base/yaml.h"

enum { KV_GRID_MOST = 100000 }; /* combinations of one grid */

typedef struct kv_grid {
    const kv_node *map; /* NULL: nothing is set, one combination */
    int count;          /* combinations, at least 1 */
} kv_grid;

/* Looks at the lists of a mapping. Empty lists and more than KV_GRID_MOST combinations are errors.
 */
kv_err kv_grid_init(kv_grid *grid, const kv_node *map, kv_diag *diag) KV_MUST_USE;

/* The value of the i-th entry of the mapping in one combination. Keys vary in the order they are
 * written in, the last one fastest. */
const kv_node *kv_grid_pick(const kv_grid *grid, int combination, int i);

#endif
