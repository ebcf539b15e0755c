/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Preemption by swap: what a request has computed moves to the first tier, and back when it is
 * admitted again.
 *
 * Its blocks are the request's own there: they are found by nobody else and do not leave for
 * others; of the tier they take room that replaceable blocks then lack. Both ways take time on the
 * tier's link. The step that preempts begins when the copies are made, for it overwrites them. */
#include "config.h"

#include "sim/serving/replica.h"

static int64_t blocks_of(const kv__replica *replica, int32_t tokens)
{
    int32_t size = replica->memory.block_tokens;
    return (tokens + size - 1) / size;
}

bool kv__swap_out(kv__replica *replica, kv__live *live)
{
    const kv_serving_settings *s = replica->server->settings;
    bool arriving = live->load_to > 0 && live->computed_tokens == live->load_from;
    int32_t tokens = arriving ? live->load_to : live->computed_tokens;
    int64_t blocks = blocks_of(replica, tokens);
    kv__tier *tier = &replica->tier[0];
    if (!s->swap || tokens == 0 || tier->swapped + blocks > s->tier[0].capacity_blocks)
        return false;
    kv__tier_account(replica, tier);
    tier->swapped += blocks;
    tier->done.blocks_in += blocks;
    kv__tier_squeeze(replica, 0);
    kv__tier_hold(replica, 0, kv__tier_write(replica, 0, (double)(blocks * s->block_bytes)));
    live->swapped_tokens = tokens;
    return true;
}

void kv__swap_in(kv__replica *replica, kv__live *live, int32_t held)
{
    const kv_serving_settings *s = replica->server->settings;
    kv__tier *tier = &replica->tier[0];
    int64_t all = blocks_of(replica, live->swapped_tokens), blocks = all - held;
    kv__tier_account(replica, tier);
    tier->swapped -= all;
    live->swapped_tokens = 0;
    if (blocks <= 0)
        return;
    double bytes = (double)(blocks * s->block_bytes);
    kv__links_await(replica, live);
    kv__tier_deliver(replica, 0, live, bytes);
    tier->done.blocks_out += blocks;
}
