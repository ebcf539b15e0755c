/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* What is known of the future changes when a request is admitted, wherever that is. */
#include "config.h"

#include "sim/serving/foresight.h"
#include "sim/serving/replica.h"

static bool looks_ahead(const kv_block_cache *cache, const kv_replacement *policy)
{
    return cache != NULL && (policy->needs & KV_REPLACEMENT_FUTURE) != 0;
}

/* To a policy that looks ahead a use says only when the next one is. */
static kv_err tell(kv_block_cache *cache, kv_access access)
{
    if (kv_block_cache_find(cache, access.key) == KV_NO_SLOT)
        return KV_OK;
    return kv_block_cache_use(cache, &access, NULL, NULL);
}

static kv_err tell_replica(kv__replica *replica, kv_access access)
{
    const kv_serving_settings *s = replica->server->settings;
    kv_err err = KV_OK;
    if (looks_ahead(replica->memory.cache, s->replacement)) {
        access.time = replica->memory.clock++;
        err = tell(replica->memory.cache, access);
    }
    for (int t = 0; t < s->tiers && err == KV_OK; t++) {
        access.time = replica->tier[t].clock;
        if (looks_ahead(replica->tier[t].cache, s->tier[t].replacement))
            err = tell(replica->tier[t].cache, access);
    }
    return err;
}

void kv__foresee(kv__server *server, const kv__live *live, bool made)
{
    kv_foresight *foresight = server->settings->foresight;
    if (foresight == NULL)
        return;
    kv__foresight_make(foresight, live, made);
    for (int32_t i = 0; i < live->named; i++) {
        kv_access access = {.key = live->key[i],
                            .next_use = kv__foresight_next(foresight, live->key[i]),
                            .position = i,
                            .prompt_blocks = live->named};
        for (int r = 0; r < server->settings->replicas; r++) {
            kv__replica *replica = &server->replica[r];
            kv_err err = tell_replica(replica, access);
            if (err != KV_OK)
                replica->failed = err;
        }
    }
}
