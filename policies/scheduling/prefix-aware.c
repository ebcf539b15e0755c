/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/scheduling.h"

static int choose(const kv_replica_view *replica, int count, int64_t number, int32_t prompt_blocks);

/* As SGLang's router: a prompt of which a replica holds at least half goes there, unless that
 * replica has far more to do than the others; else the load decides. */
KV_ROUTING_DEFINE(prefix_aware) = {
    .name = "prefix-aware",
    .brief =
        "the replica that holds most of the prompt, unless it is overloaded; else least-loaded",
    .wants_prefix = true,
    .choose = choose,
};

enum { MOST_IMBALANCE = 2 };

static int choose(const kv_replica_view *replica, int count, int64_t number, int32_t prompt_blocks)
{
    int idle = 0, holder = 0;
    for (int r = 1; r < count; r++) {
        if (replica[r].tokens < replica[idle].tokens)
            idle = r;
        if (replica[r].prefix_blocks > replica[holder].prefix_blocks)
            holder = r;
    }
    bool held = 2 * replica[holder].prefix_blocks >= prompt_blocks && prompt_blocks > 0;
    bool overloaded = replica[holder].requests > 8 + MOST_IMBALANCE * replica[idle].requests;
    return held && !overloaded ? holder : idle;
}
