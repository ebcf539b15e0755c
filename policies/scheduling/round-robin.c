/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/scheduling.h"

static int choose(const kv_replica_view *replica, int count, int64_t number, int32_t prompt_blocks);

KV_ROUTING_DEFINE(round_robin) = {
    .name = "round-robin",
    .brief = "one replica after the other",
    .choose = choose,
};

static int choose(const kv_replica_view *replica, int count, int64_t number, int32_t prompt_blocks)
{
    return (int)(number % count);
}
