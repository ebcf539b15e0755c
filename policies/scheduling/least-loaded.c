/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/scheduling.h"

static int choose(const kv_replica_view *replica, int count, int64_t number, int32_t prompt_blocks);

KV_ROUTING_DEFINE(least_loaded) = {
    .name = "least-loaded",
    .brief = "the replica with the fewest tokens left to do, of equals the first",
    .choose = choose,
};

static int choose(const kv_replica_view *replica, int count, int64_t number, int32_t prompt_blocks)
{
    int best = 0;
    for (int r = 1; r < count; r++)
        if (replica[r].tokens < replica[best].tokens)
            best = r;
    return best;
}
