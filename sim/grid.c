/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "sim/grid.h"

static int choices_of(const kv_node *value)
{
    return kv_node_get_kind(value) == KV_NODE_LIST ? kv_node_count(value) : 1;
}

kv_err kv_grid_init(kv_grid *grid, const kv_node *map, kv_diag *diag)
{
    *grid = (kv_grid){map, 1};
    for (int i = 0; map != NULL && i < kv_node_count(map); i++) {
        kv_mark mark = kv_node_mark(kv_node_at(map, i));
        int choices = choices_of(kv_node_at(map, i));
        if (choices == 0)
            return kv_fail(diag, KV_ERR_INPUT, &mark,
                           "%s: the list is empty; expected at least one value",
                           kv_node_key(map, i));
        if (choices > KV_GRID_MOST / grid->count)
            return kv_fail(diag, KV_ERR_INPUT, &mark,
                           "%s: the lists make more than %d combinations; expected fewer",
                           kv_node_key(map, i), KV_GRID_MOST);
        grid->count *= choices;
    }
    return KV_OK;
}

const kv_node *kv_grid_pick(const kv_grid *grid, int combination, int i)
{
    const kv_node *value = kv_node_at(grid->map, i);
    if (kv_node_get_kind(value) != KV_NODE_LIST)
        return value;
    for (int later = kv_node_count(grid->map) - 1; later > i; later--)
        combination /= choices_of(kv_node_at(grid->map, later));
    return kv_node_at(value, combination % choices_of(value));
}
