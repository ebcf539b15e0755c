/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Tiers below the GPU: which blocks they hold, and how long it takes to bring them up.
 *
 * Blocks go down when the level above drops them (write-back) or, into the first tier, when they
 * are made (write-through). What a full tier drops goes to the next. A block that is brought up
 * stays where it was. Every byte takes time on its tier's link, which may be that of a tier above
 * or of other replicas too; transfers share it (link.h) or take turns, and writes delay reads.
 *
 * Memory of the GPU that a block leaves is free when the block has been copied: what takes it, a
 * step or a load, does not begin before. */
#include "config.h"

#include "sim/serving/blend.h"
#include "sim/serving/foresight.h"
#include "sim/serving/replica.h"

#include <math.h>

static const kv_tier_settings *settings_of(const kv__replica *replica, int tier)
{
    return &replica->server->settings->tier[tier];
}

/* Blocks of a tier but those of read policies that keep entries in it. */
static int64_t count_of(const kv__tier *tier)
{
    return tier->swapped + (tier->cache != NULL ? kv_block_cache_count(tier->cache) : 0);
}

int64_t kv__tier_blocks(const kv__replica *replica, int number)
{
    const kv_serving_settings *s = replica->server->settings;
    int64_t block = kv_serving_cached_pages(s) * s->block_tokens;
    int64_t away = number == s->home && replica->away > 0 ? (replica->away + block - 1) / block : 0;
    return count_of(&replica->tier[number]) + away;
}

void kv__tier_account(kv__replica *replica, kv__tier *tier)
{
    int64_t count = count_of(tier);
    tier->block_ns += (double)count * (double)(replica->time_ns - tier->seen_ns);
    tier->seen_ns = replica->time_ns;
}

/* When the link of a tier has carried all it was given. */
static int64_t *link_free(kv__replica *replica, int number)
{
    int link = settings_of(replica, number)->link;
    return settings_of(replica, link)->shared_link ? &replica->server->link_free_ns[link]
                                                   : &replica->tier[link].free_ns;
}

int64_t kv__tier_free_at(const kv__replica *replica, int number)
{
    int link = settings_of(replica, number)->link;
    return settings_of(replica, link)->shared_link ? replica->server->link_free_ns[link]
                                                   : replica->tier[link].free_ns;
}

/* How long a link is busy with a transfer. */
static int64_t busy_for(int64_t latency_ns, double bytes, double bandwidth)
{
    return latency_ns + (int64_t)ceil(bytes / bandwidth * 1e9);
}

void kv__tier_reserve(kv__replica *replica, int number, int64_t until_ns)
{
    int64_t *free_ns = link_free(replica, number);
    *free_ns = until_ns > *free_ns ? until_ns : *free_ns;
}

int64_t kv__tier_carry(kv__replica *replica, int number, int64_t from_ns, int64_t busy_ns)
{
    int64_t *free_ns = link_free(replica, number);
    *free_ns = (*free_ns > from_ns ? *free_ns : from_ns) + busy_ns;
    replica->tier[number].done.busy_ns += busy_ns;
    return *free_ns;
}

kv__link *kv__tier_link(kv__replica *replica, int number)
{
    int link = settings_of(replica, number)->link;
    if (!settings_of(replica, link)->fair)
        return NULL;
    return settings_of(replica, link)->shared_link ? &replica->server->link[link]
                                                   : &replica->tier[link].link;
}

uint64_t kv__tier_write(kv__replica *replica, int number, double bytes)
{
    int64_t busy_ns = busy_for(0, bytes, settings_of(replica, number)->write_bandwidth);
    kv__link *link = kv__tier_link(replica, number);
    if (link == NULL)
        return (uint64_t)kv__tier_carry(replica, number, replica->time_ns, busy_ns);
    replica->tier[number].done.busy_ns += busy_ns;
    kv__transfer *last = link->count > 0 ? &link->active[link->count - 1] : NULL;
    if (last != NULL && last->begin_ns == replica->time_ns && last->owner == replica &&
        last->target == NULL && last->tier == number && last->group == replica->group) {
        kv__link_add(link, last, busy_ns);
        return last->id;
    }
    kv__transfer t = {
        .left_ns = busy_ns, .owner = replica, .tier = number, .group = replica->group};
    return kv__tier_begin(replica, number, &t);
}

uint64_t kv__tier_begin(kv__replica *replica, int number, const kv__transfer *transfer)
{
    uint64_t id = kv__link_begin(kv__tier_link(replica, number), replica->time_ns, transfer);
    if (id == 0)
        replica->failed = KV_ERR_MEMORY;
    return id;
}

void kv__tier_hold(kv__replica *replica, int number, uint64_t copy)
{
    kv__link *link = kv__tier_link(replica, number);
    kv__transfer *transfer = link != NULL ? kv__link_find(link, copy) : NULL;
    if (link == NULL && (int64_t)copy > replica->copied_ns)
        replica->copied_ns = (int64_t)copy;
    if (transfer != NULL)
        transfer->holds = true;
}

int64_t kv__links_copied_ns(kv__replica *replica)
{
    const kv_serving_settings *s = replica->server->settings;
    int64_t copied_ns = replica->copied_ns;
    for (int t = 0; t < s->tiers; t++) {
        kv__link *link = kv__tier_link(replica, t);
        if (link == NULL || s->tier[t].link != t)
            continue;
        kv__link_expect(link);
        for (int i = 0; i < link->count; i++) {
            const kv__transfer *transfer = &link->active[i];
            if (transfer->holds && transfer->owner == replica && transfer->end_ns > copied_ns)
                copied_ns = transfer->end_ns;
        }
    }
    return copied_ns;
}

void kv__links_release(kv__replica *replica, int64_t copied_ns)
{
    replica->copied_ns = copied_ns;
    for (int t = 0; t < replica->server->settings->tiers; t++) {
        kv__link *link = kv__tier_link(replica, t);
        for (int i = 0; link != NULL && i < link->count; i++) {
            kv__transfer *transfer = &link->active[i];
            if (transfer->owner == replica && transfer->begin_ns == replica->time_ns &&
                transfer->group == replica->group)
                transfer->holds = false;
        }
    }
}

void kv__links_await(kv__replica *replica, kv__live *live)
{
    live->ready_ns = live->loaded_ns = live->floor_ns = replica->time_ns;
    for (int t = 0; t < KV_MOST_TIERS; t++)
        live->tier_ready_ns[t] = live->tier_loaded_ns[t] = 0;
}

void kv__links_forget(kv__replica *replica, const kv__live *live)
{
    for (int t = 0; t < replica->server->settings->tiers; t++) {
        kv__link *link = kv__tier_link(replica, t);
        for (int i = 0; link != NULL && i < link->count; i++)
            if (link->active[i].target == live)
                link->active[i].target = NULL;
    }
}

/* Tells a request when what it waits for arrives. */
static void tell(kv__live *live, const kv__transfer *transfer)
{
    live->tier_ready_ns[transfer->tier] = transfer->ready_ns;
    live->tier_loaded_ns[transfer->tier] = transfer->end_ns;
    live->ready_ns = live->loaded_ns = live->floor_ns;
    for (int t = 0; t < KV_MOST_TIERS; t++) {
        if (live->tier_ready_ns[t] > live->ready_ns)
            live->ready_ns = live->tier_ready_ns[t];
        if (live->tier_loaded_ns[t] > live->loaded_ns)
            live->loaded_ns = live->tier_loaded_ns[t];
    }
}

void kv__links_settle(kv__replica *replica)
{
    const kv_serving_settings *s = replica->server->settings;
    bool others = false, any = false;
    for (int t = 0; t < s->tiers; t++) {
        kv__link *link = kv__tier_link(replica, t);
        if (link == NULL || s->tier[t].link != t)
            continue;
        kv__link_expect(link);
        for (int i = 0; i < link->count; i++)
            if (link->active[i].target != NULL)
                tell(link->active[i].target, &link->active[i]);
        any = true;
        others = others || (link->news && s->tier[t].shared_link);
        link->news = false;
    }
    for (int r = 0; others && r < s->replicas; r++)
        if (r != replica->index)
            kv__replica_rewait(&replica->server->replica[r], replica->time_ns);
    if (any)
        kv__replica_set_wake(replica);
}

static void put(kv__replica *replica, int number, uint64_t key);

void kv__tier_squeeze(kv__replica *replica, int number)
{
    kv__tier *tier = &replica->tier[number];
    kv_evicted evicted;
    while (tier->cache != NULL &&
           kv__tier_blocks(replica, number) > settings_of(replica, number)->capacity_blocks &&
           kv_block_cache_evict(tier->cache, NULL, &evicted)) {
        tier->done.evictions++;
        put(replica, number + 1, evicted.key);
    }
    int64_t count = kv__tier_blocks(replica, number);
    tier->done.peak_blocks = count > tier->done.peak_blocks ? count : tier->done.peak_blocks;
}

/* Uses a block of a tier, bringing it in if it is absent; what that drops goes down. The value of a
 * block is what its copy is known by. */
static void put(kv__replica *replica, int number, uint64_t key)
{
    if (number == replica->server->settings->tiers || replica->failed != KV_OK ||
        (replica->server->settings->blend && kv__blend_spare(replica, key)))
        return;
    kv__tier *tier = &replica->tier[number];
    int64_t next = kv__foresight_next(replica->server->settings->foresight, key);
    kv_access access = {.key = key, .time = tier->clock++, .next_use = next};
    bool absent = kv_block_cache_find(tier->cache, key) == KV_NO_SLOT;
    kv_evicted evicted = {0};
    uint32_t slot = KV_NO_SLOT;
    kv__tier_account(replica, tier);
    kv_err err = kv_block_cache_use(tier->cache, &access, &evicted, &slot);
    if (err != KV_OK)
        replica->failed = err == KV_END ? KV_ERR_BUG : err;
    if (absent) {
        uint64_t copy =
            kv__tier_write(replica, number, kv_serving_cached_bytes(replica->server->settings));
        tier->done.blocks_in++;
        if (err == KV_OK)
            *kv_block_cache_value(tier->cache, slot) = copy;
    }
    if (evicted.happened) {
        tier->done.evictions++;
        put(replica, number + 1, evicted.key);
    }
    kv__tier_squeeze(replica, number);
}

static void put_first(void *closure, uint64_t key)
{
    put(closure, 0, key);
}

/* A block leaves the GPU for another, which waits until its copy is made. */
static void leave_gpu(void *closure, uint64_t key)
{
    kv__replica *replica = closure;
    kv_block_cache *cache = replica->tier[0].cache;
    if (!settings_of(replica, 0)->write_through)
        put(replica, 0, key);
    uint32_t slot = kv_block_cache_find(cache, key);
    if (slot != KV_NO_SLOT)
        kv__tier_hold(replica, 0, *kv_block_cache_value(cache, slot));
}

kv_err kv__tiers_init(kv__replica *replica)
{
    const kv_serving_settings *s = replica->server->settings;
    for (int t = 0; t < s->tiers; t++) {
        kv_err err =
            kv_block_cache_new(s->tier[t].replacement, NULL, (uint32_t)s->tier[t].capacity_blocks,
                               s->seed, &replica->tier[t].cache, replica->server->diag);
        if (err != KV_OK)
            return err;
    }
    replica->memory.closure = replica;
    if (s->tiers > 0 && s->tier[0].write_through)
        replica->memory.inserted = put_first;
    if (s->tiers > 0)
        replica->memory.evicted = leave_gpu;
    return KV_OK;
}

void kv__tiers_fini(kv__replica *replica)
{
    for (int t = 0; t < KV_MOST_TIERS; t++) {
        kv_block_cache_free(replica->tier[t].cache);
        kv__link_fini(&replica->tier[t].link);
    }
}

int kv__tiers_holder(const kv__replica *replica, uint64_t key)
{
    if (kv_block_cache_find(replica->memory.cache, key) != KV_NO_SLOT)
        return -1;
    for (int t = 0; t < replica->server->settings->tiers; t++)
        if (kv_block_cache_find(replica->tier[t].cache, key) != KV_NO_SLOT)
            return t;
    return KV_MOST_TIERS;
}

int32_t kv__tiers_look(const kv__replica *replica, const kv__live *live, int32_t held)
{
    const kv_serving_settings *s = replica->server->settings;
    int32_t most = kv__memory_reusable(&replica->memory, live), more = 0;
    if (s->tiers == 0 || !s->prefix_cache || s->load == KV_LOAD_NEVER)
        return 0;
    while (held + more < most &&
           kv__tiers_holder(replica, kv__block_key(live, held + more)) != KV_MOST_TIERS)
        more++;
    return more;
}

/* Blocks from..to - 1 that each tier has to send: what the GPU holds behind a hole is not among
 * them. */
static void blocks_by_tier(const kv__replica *replica, const kv__live *live, int32_t from,
                           int32_t to, int32_t blocks[KV_MOST_TIERS])
{
    for (int t = 0; t < KV_MOST_TIERS; t++)
        blocks[t] = 0;
    for (int32_t i = from; i < to; i++) {
        int t = kv__tiers_holder(replica, kv__block_key(live, i));
        if (t >= 0 && t < KV_MOST_TIERS)
            blocks[t]++;
    }
}

/* How long what is loaded after the first layer takes: computing goes on meanwhile. */
static int64_t overlapped_ns(const kv_serving_settings *s, double bytes, double bandwidth)
{
    return s->overlap ? (int64_t)(bytes / bandwidth * 1e9 * (1 - 1 / (double)s->layers)) : 0;
}

void kv__tiers_expect_blocks(kv__replica *replica, const int32_t blocks[KV_MOST_TIERS],
                             int64_t *ready_ns, int64_t *loaded_ns)
{
    const kv_serving_settings *settings = replica->server->settings;
    int64_t free_ns[KV_MOST_TIERS], now = replica->time_ns;
    int64_t begin = replica->copied_ns > now ? replica->copied_ns : now;
    for (int t = 0; t < settings->tiers; t++)
        free_ns[t] = kv__tier_free_at(replica, t);
    *ready_ns = *loaded_ns = 0;
    for (int t = 0; t < settings->tiers; t++) {
        const kv_tier_settings *s = settings_of(replica, t);
        double bytes = blocks[t] * kv_serving_cached_bytes(settings);
        int64_t *free_at_ns = &free_ns[s->link];
        if (blocks[t] == 0)
            continue;
        *free_at_ns = (*free_at_ns > begin ? *free_at_ns : begin) +
                      busy_for(s->latency_ns, bytes, s->read_bandwidth);
        int64_t rest = overlapped_ns(settings, bytes, s->read_bandwidth);
        int64_t ready = *free_at_ns - rest - now;
        const kv__link *link = kv__tier_link(replica, t);
        if (link != NULL) { /* begins with the others of the link; what they send comes first */
            int64_t work = *free_at_ns - begin;
            *free_at_ns = kv__link_estimate(link, begin, work);
            ready = kv__link_estimate(link, begin, work - rest) - now;
        }
        *ready_ns = ready > *ready_ns ? ready : *ready_ns;
        *loaded_ns = *free_at_ns - now > *loaded_ns ? *free_at_ns - now : *loaded_ns;
    }
}

void kv__tiers_expect(kv__replica *replica, const kv__live *live, int32_t from, int32_t to,
                      int64_t *ready_ns, int64_t *loaded_ns)
{
    int32_t blocks[KV_MOST_TIERS];
    blocks_by_tier(replica, live, from, to, blocks);
    kv__tiers_expect_blocks(replica, blocks, ready_ns, loaded_ns);
}

void kv__tier_deliver(kv__replica *replica, int number, kv__live *live, double bytes)
{
    const kv_serving_settings *settings = replica->server->settings;
    const kv_tier_settings *s = settings_of(replica, number);
    int64_t copied_ns = kv__links_copied_ns(replica);
    int64_t from = copied_ns > replica->time_ns ? copied_ns : replica->time_ns;
    if (kv__tier_link(replica, number) != NULL) {
        kv__transfer t = {.left_ns = busy_for(s->latency_ns, bytes, s->read_bandwidth),
                          .rest_ns = overlapped_ns(settings, bytes, s->read_bandwidth),
                          .owner = replica,
                          .target = live,
                          .tier = number};
        live->floor_ns = from > live->floor_ns ? from : live->floor_ns;
        replica->tier[number].done.busy_ns += t.left_ns;
        kv__tier_begin(replica, number, &t);
        return;
    }
    int64_t end =
        kv__tier_carry(replica, number, from, busy_for(s->latency_ns, bytes, s->read_bandwidth));
    int64_t ready = end - overlapped_ns(settings, bytes, s->read_bandwidth);
    live->tier_ready_ns[number] = ready;
    live->tier_loaded_ns[number] = end;
    live->loaded_ns = end > live->loaded_ns ? end : live->loaded_ns;
    live->ready_ns = ready > live->ready_ns ? ready : live->ready_ns;
}

void kv__tiers_send(kv__replica *replica, kv__live *live, const int32_t blocks[KV_MOST_TIERS])
{
    const kv_serving_settings *settings = replica->server->settings;
    kv__links_await(replica, live);
    for (int t = 0; t < settings->tiers; t++) {
        if (blocks[t] == 0)
            continue;
        kv__tier_deliver(replica, t, live, blocks[t] * kv_serving_cached_bytes(settings));
        replica->tier[t].done.blocks_out += blocks[t];
    }
}

kv_err kv__tiers_choose(kv__replica *replica, kv__live *live, int32_t from, int32_t to,
                        int32_t blocks[KV_MOST_TIERS])
{
    blocks_by_tier(replica, live, from, to, blocks);
    for (int t = 0; t < KV_MOST_TIERS && live->preemptions == 0; t++)
        live->hit_tokens[t] = blocks[t] * replica->memory.block_tokens;
    for (int32_t i = to; i-- > from;) { /* tail first, as the GPU frees */
        int t = kv__tiers_holder(replica, kv__block_key(live, i));
        kv_access access = {.key = kv__block_key(live, i)};
        if (t < 0 || t == KV_MOST_TIERS)
            continue;
        access.time = replica->tier[t].clock++;
        access.next_use = kv__foresight_next(replica->server->settings->foresight, access.key);
        kv_err err = kv_block_cache_use(replica->tier[t].cache, &access, NULL, NULL);
        if (err != KV_OK)
            return err;
    }
    return KV_OK;
}

void kv__tiers_sum(kv__replica *replica, kv_serving_result *result)
{
    for (int t = 0; t < replica->server->settings->tiers; t++) {
        kv__tier *tier = &replica->tier[t];
        kv_tier_result *sum = &result->tier[t];
        replica->time_ns = result->end_ns > replica->time_ns ? result->end_ns : replica->time_ns;
        kv__tier_account(replica, tier);
        sum->peak_blocks += tier->done.peak_blocks;
        sum->blocks_in += tier->done.blocks_in;
        sum->blocks_out += tier->done.blocks_out;
        sum->evictions += tier->done.evictions;
        sum->entries_in += tier->done.entries_in;
        sum->entries_out += tier->done.entries_out;
        sum->busy_ns += tier->done.busy_ns;
        sum->block_seconds += tier->block_ns * 1e-9;
    }
    if (kv_serving_has_home(replica->server->settings))
        kv__home_sum(replica, result);
}
