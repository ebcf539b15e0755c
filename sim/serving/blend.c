/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "sim/serving/blend.h"
#include "sim/serving/names.h"

#include <assert.h>
#include <stdlib.h>

enum { NOT_REUSED = KV_MOST_TIERS, MILLION = 1000000 };

/* --- Contents ---------------------------------------------------------------------- */

static kv_err have_room(kv__blend *b, int32_t blocks, kv_diag *diag)
{
    if (blocks <= b->room && b->before != NULL)
        return KV_OK;
    free(b->content);
    free(b->source);
    free(b->level);
    free(b->before);
    size_t count = (size_t)blocks;
    b->content = calloc(count + 1, sizeof *b->content);
    b->source = calloc(count + 1, sizeof *b->source);
    b->level = calloc(count + 1, sizeof *b->level);
    b->before = calloc(count + 1, sizeof *b->before);
    b->room = blocks;
    bool made = b->content != NULL && b->source != NULL && b->level != NULL && b->before != NULL;
    return made ? KV_OK : kv_fail_memory(diag);
}

kv_err kv__blend_attach(const kv__server *server, kv__live *live, const kv_request *request)
{
    if (live->blend == NULL)
        live->blend = calloc(1, sizeof *live->blend);
    kv__blend *b = live->blend;
    if (b == NULL)
        return kv_fail_memory(server->diag);
    if (live->named > 0 && request->contents == NULL)
        return kv_fail(server->diag, KV_ERR_INPUT, NULL,
                       "reuse.mode: blend needs to know what blocks hold, but the names of the "
                       "trace tell all tokens from the beginning of the prompt; if they name "
                       "contents say `requests: {hashes: content}`");
    kv_err err = have_room(b, live->named, server->diag);
    if (err != KV_OK)
        return err;
    b->named = live->named;
    b->tokens = b->recomputed_tokens = 0;
    for (int t = 0; t < KV_MOST_TIERS; t++)
        b->hit_tokens[t] = 0;
    for (int32_t i = 0; i < live->named; i++)
        b->content[i] = kv__block_content(request, server->settings->block_tokens, i);
    b->reserved = 0;
    kv__blend_reset(NULL, live);
    return KV_OK;
}

void kv__blend_free(kv__live *live)
{
    if (live->blend == NULL)
        return;
    free(live->blend->content);
    free(live->blend->source);
    free(live->blend->level);
    free(live->blend->before);
    free(live->blend);
}

void kv__blend_reset(kv__memory *memory, kv__live *live)
{
    kv__blend *b = live->blend;
    if (b == NULL)
        return;
    if (b->reserved > 0)
        kv__memory_give(memory, b->reserved);
    b->reserved = 0;
    for (int32_t i = 0; i <= b->named; i++)
        b->before[i] = 0;
    b->end = 0;
    b->wait_tokens = INT32_MAX;
}

static bool is_resident(void *closure, uint64_t key)
{
    return kv__tiers_holder(closure, key) != KV_MOST_TIERS;
}

kv_err kv__blend_tidy(kv__replica *replica)
{
    return kv__contents_tidy(&replica->contents, is_resident, replica);
}

bool kv__blend_spare(const kv__replica *replica, uint64_t key)
{
    const kv__contents *all = &replica->contents;
    uint32_t place = kv__map_get(&all->by_key, key);
    if (place == KV_MAP_ABSENT)
        return false;
    const kv__content_block *block = kv__contents_newest(all, all->block[place].content);
    for (; block != NULL; block = kv__contents_older(all, block))
        for (int t = 0; t < replica->server->settings->tiers && block->key != key; t++)
            if (kv_block_cache_find(replica->tier[t].cache, block->key) != KV_NO_SLOT)
                return true;
    return false;
}

/* The block that holds a content closest to the GPU, the newest of several. */
static int find_source(const kv__replica *replica, uint64_t content, uint64_t *source)
{
    int best = NOT_REUSED;
    const kv__content_block *block = kv__contents_newest(&replica->contents, content);
    for (; block != NULL && best >= 0; block = kv__contents_older(&replica->contents, block)) {
        int level = kv__tiers_holder(replica, block->key);
        if (level < best) {
            best = level;
            *source = block->key;
        }
    }
    return best;
}

/* --- What counts as computed ------------------------------------------------------- */

/* Tokens that are reused before a token. */
static int64_t reused_before(const kv__blend *b, int32_t size, int32_t token)
{
    int32_t block = token / size;
    if (block >= b->named)
        return (int64_t)b->before[b->named] * size;
    int32_t part = b->before[block + 1] > b->before[block] ? token % size : 0;
    return (int64_t)b->before[block] * size + part;
}

/* The first layers compute all of n reused tokens, the others their share; rounded up. */
static int64_t recomputed(const kv_serving_settings *s, int64_t n)
{
    int64_t all = s->layers * MILLION;
    int64_t share =
        s->full_layers * MILLION + (s->layers - s->full_layers) * s->recompute_millionths;
    return (int64_t)(((__int128)n * share + all - 1) / all);
}

static int64_t cost_before(const kv_serving_settings *s, const kv__blend *b, int32_t token)
{
    int64_t reused = reused_before(b, s->block_tokens, token);
    return token - reused + recomputed(s, reused);
}

int64_t kv__blend_cost(const kv_serving_settings *settings, const kv__live *live, int32_t from,
                       int32_t to)
{
    const kv__blend *b = live->blend;
    if (b == NULL || b->end == 0)
        return to - from;
    return cost_before(settings, b, to) - cost_before(settings, b, from);
}

int32_t kv__blend_most(const kv_serving_settings *settings, const kv__live *live, int32_t from,
                       int32_t tokens, int64_t limit)
{
    if (kv__blend_end(live) == 0)
        return (int32_t)(tokens < limit ? tokens : limit);
    if (limit == 0 || kv__blend_cost(settings, live, from, from + tokens) == 0)
        return 0; /* tokens that count as none go along with what comes behind */
    int32_t low = 0, most = tokens;
    while (low < most) {
        int32_t middle = low + (most - low + 1) / 2;
        if (kv__blend_cost(settings, live, from, from + middle) <= limit)
            low = middle;
        else
            most = middle - 1;
    }
    return low;
}

int64_t kv__blend_saved(const kv_serving_settings *settings, const kv__live *live)
{
    const kv__blend *b = live->blend;
    if (b == NULL)
        return 0;
    int64_t reused = (int64_t)b->before[b->named] * settings->block_tokens;
    return reused - recomputed(settings, reused);
}

bool kv__blend_waits(const kv_serving_settings *settings, const kv__live *live)
{
    int32_t wait = kv__blend_wait(live);
    if (wait == INT32_MAX || live->load_to > 0)
        return false;
    return live->computed_tokens >= wait ||
           kv__blend_cost(settings, live, live->computed_tokens, wait) == 0;
}

/* Twice the pairs of query and key of all tokens in from..to - 1, and of the reused ones. */
static void pairs_of(const kv__blend *b, int32_t size, int32_t from, int32_t to, double *all,
                     double *reused)
{
    *all = (double)(to - from) * ((double)from + to);
    *reused = 0;
    for (int32_t i = from / size; i < b->named && i * size < to; i++) {
        double first = i * size > from ? i * size : from;
        double last = (i + 1) * size < to ? (i + 1) * size : to;
        if (b->before[i + 1] > b->before[i])
            *reused += (last - first) * (first + last);
    }
}

double kv__blend_history(const kv_serving_settings *settings, const kv__live *live, int32_t from,
                         int32_t to)
{
    const kv__blend *b = live->blend;
    int32_t size = settings->block_tokens;
    if (b == NULL || b->end == 0)
        return from;
    int64_t cost = kv__blend_cost(settings, live, from, to);
    int64_t reused = reused_before(b, size, to) - reused_before(b, size, from);
    int64_t fresh = to - from - reused;
    if (cost == to - from)
        return from;
    double all, of_reused;
    pairs_of(b, size, from, to, &all, &of_reused);
    double share = reused > 0 ? (double)(cost - fresh) / (double)reused : 0;
    double pairs = all - of_reused + share * of_reused, queries = (double)cost;
    double history = (pairs / queries - queries) / 2;
    return history > 0 ? history : 0;
}

/* --- Admission --------------------------------------------------------------------- */

/* Counts what is reused up to each block, with or without what tiers have to send; how many blocks
 * each has. */
static void count_reused(kv__blend *b, int32_t size, bool tiers, int32_t blocks[KV_MOST_TIERS])
{
    b->end = 0;
    b->wait_tokens = INT32_MAX;
    for (int t = 0; t < KV_MOST_TIERS; t++)
        blocks[t] = 0;
    for (int32_t i = 0; i < b->named; i++) {
        bool sent = b->level[i] >= 0 && b->level[i] != NOT_REUSED;
        bool reused = b->level[i] < 0 || (sent && tiers);
        b->before[i + 1] = b->before[i] + reused;
        if (reused)
            b->end = i + 1;
        if (!reused || !sent)
            continue;
        blocks[b->level[i]]++;
        if (b->wait_tokens == INT32_MAX)
            b->wait_tokens = i * size;
    }
}

/* Nanoseconds that the rest of the request takes with nothing else in the step. */
static int64_t compute_ns(const kv__replica *replica, const kv__live *live, int32_t from)
{
    const kv_serving_settings *s = replica->server->settings;
    int32_t to = kv__live_tokens(live);
    int64_t cost = kv__blend_cost(s, live, from, to);
    kv_step_batch batch = {.tokens = cost,
                           .sequences = 1,
                           .prefill_tokens = cost,
                           .prefill_square = (double)cost * (double)cost,
                           .prefill_history = (double)cost * kv__blend_history(s, live, from, to)};
    return kv_step_time_step(replica->server->time, &batch) >> KV_FINE_BITS;
}

/* Where the contents of blocks from..to - 1 lie; the others are not reused. */
static void find_sources(const kv__replica *replica, kv__blend *b, int32_t from, int32_t to)
{
    for (int32_t i = 0; i < b->named; i++)
        b->level[i] = i < from || i >= to
                          ? NOT_REUSED
                          : (int8_t)find_source(replica, b->content[i], &b->source[i]);
}

/* What tiers would have to send is left to be computed. */
static void keep_off_tiers(kv__blend *b)
{
    for (int32_t i = 0; i < b->named; i++)
        b->level[i] = b->level[i] >= 0 ? NOT_REUSED : b->level[i];
}

/* True if the request is estimated to be computed sooner where tiers send what they have. */
static bool worth_loading(kv__replica *replica, const kv__live *live, int32_t from)
{
    int64_t ready_ns, loaded_ns;
    kv__blend *b = live->blend;
    int32_t blocks[KV_MOST_TIERS], size = replica->memory.block_tokens;
    count_reused(b, size, false, blocks);
    int64_t without_ns = compute_ns(replica, live, from * size);
    count_reused(b, size, true, blocks);
    int64_t with_ns = compute_ns(replica, live, from * size);
    kv__tiers_expect_blocks(replica, blocks, &ready_ns, &loaded_ns);
    return ready_ns + with_ns < without_ns && loaded_ns < without_ns;
}

kv_err kv__blend_plan(kv__replica *replica, kv__live *live, int32_t prefix)
{
    int load = replica->server->settings->load;
    int32_t blocks[KV_MOST_TIERS];
    kv__blend *b = live->blend;
    if (b == NULL)
        return KV_OK;
    kv_err err = kv__blend_tidy(replica);
    find_sources(replica, b, prefix, kv__memory_reusable(&replica->memory, live));
    count_reused(b, replica->memory.block_tokens, true, blocks);
    bool sent = b->wait_tokens != INT32_MAX;
    if (sent && (load == KV_LOAD_NEVER ||
                 (load != KV_LOAD_ALWAYS && !worth_loading(replica, live, prefix)))) {
        keep_off_tiers(b);
        count_reused(b, replica->memory.block_tokens, true, blocks);
    }
    return err;
}

/* Uses a block in the cache that holds it. */
static kv_err use(kv__replica *replica, int level, uint64_t key)
{
    kv_block_cache *cache = level < 0 ? replica->memory.cache : replica->tier[level].cache;
    int64_t *clock = level < 0 ? &replica->memory.clock : &replica->tier[level].clock;
    kv_access access = {.key = key, .time = (*clock)++, .next_use = KV_NEVER};
    assert(kv_block_cache_find(cache, key) != KV_NO_SLOT);
    return kv_block_cache_use(cache, &access, NULL, NULL);
}

kv_err kv__blend_choose(kv__replica *replica, kv__live *live)
{
    const kv_serving_settings *s = replica->server->settings;
    kv__blend *b = live->blend;
    kv_err err = KV_OK;
    if (b == NULL)
        return KV_OK;
    for (int32_t i = b->end; i-- > 0 && err == KV_OK;) { /* tail first, as the GPU frees */
        if (b->level[i] == NOT_REUSED)
            continue;
        err = use(replica, b->level[i], b->source[i]);
        if (live->preemptions == 0 && b->level[i] >= 0)
            b->hit_tokens[b->level[i]] += s->block_tokens;
    }
    if (live->preemptions == 0) {
        b->tokens = b->before[b->named] * s->block_tokens;
        b->recomputed_tokens = b->tokens - (int32_t)kv__blend_saved(s, live);
    }
    return err;
}

void kv__blend_reserve(kv__replica *replica, kv__live *live)
{
    kv__blend *b = live->blend;
    if (b == NULL || b->end <= live->held)
        return;
    b->reserved = b->end - live->held;
    kv__memory_take(&replica->memory, b->reserved);
}

void kv__blend_unreserve(kv__memory *memory, kv__live *live, int32_t tokens)
{
    kv__blend *b = live->blend;
    if (b == NULL || b->reserved == 0)
        return;
    int64_t lacks = kv__memory_lacks(memory, live, live->computed_tokens + tokens);
    int32_t given = lacks < b->reserved ? (int32_t)lacks : b->reserved;
    kv__memory_give(memory, given);
    b->reserved -= given;
}

void kv__blend_add(const kv__live *live, int32_t blocks[KV_MOST_TIERS])
{
    kv__blend *b = live->blend;
    if (kv__blend_wait(live) < INT32_MAX && live->load_to > 0)
        b->wait_tokens = live->load_from;
    for (int32_t i = 0; i < kv__blend_end(live); i++)
        if (b->level[i] >= 0 && b->level[i] != NOT_REUSED)
            blocks[b->level[i]]++;
}

void kv__blend_note(const kv__live *live, kv_serving_result *result)
{
    const kv__blend *b = live->blend;
    if (b == NULL)
        return;
    result->blended_tokens += b->tokens;
    result->blend_recomputed_tokens += b->recomputed_tokens;
    for (int t = 0; t < KV_MOST_TIERS; t++)
        result->tier[t].blended_tokens += b->hit_tokens[t];
}
