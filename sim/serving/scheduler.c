/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* The scheduler: what runs in the next step. See "Scheduler" in docs/serving.md. */
#include "config.h"

#include "sim/serving/blend.h"
#include "sim/serving/replica.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>

kv_err kv__replica_init(kv__replica *replica, kv__server *server, int index)
{
    const kv_serving_settings *s = server->settings;
    *replica = (kv__replica){.server = server, .index = index};
    int64_t pages = s->keep != NULL ? s->keep->block_pages : 1;
    replica->memory = (kv__memory){.capacity = s->kv_blocks * pages,
                                   .block_pages = s->keep != NULL ? s->keep->named_pages : 1,
                                   .block_tokens = s->block_tokens,
                                   .own_names = s->keep == NULL,
                                   .foresight = s->foresight};
    if (s->blend)
        replica->memory.contents = &replica->contents;
    replica->running = calloc((size_t)s->max_seqs, sizeof *replica->running);
    if (replica->running == NULL)
        return kv_fail_memory(server->diag);
    replica->wake_ns = INT64_MAX;
    if (!s->prefix_cache)
        return KV_OK;
    kv_err err = kv__tiers_init(replica);
    if (err != KV_OK)
        return err;
    replica->memory.idle_order = s->replacement == kv_replacement_find("lru");
    int64_t blocks = replica->memory.capacity / replica->memory.block_pages;
    return kv_block_cache_new(s->replacement, s->replacement_config,
                              (uint32_t)(blocks < UINT32_MAX ? blocks : UINT32_MAX - 1),
                              s->seed + (uint64_t)index, &replica->memory.cache, server->diag);
}

void kv__replica_fini(kv__replica *replica)
{
    kv__tiers_fini(replica);
    kv__contents_fini(&replica->contents);
    free(replica->running);
    kv_block_cache_free(replica->memory.cache);
}

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

void kv__replica_enqueue(kv__replica *replica, kv__live *live)
{
    kv__line_append(&replica->waiting, live);
    replica->stirred = true;
    replica->pending_tokens += live->prompt_tokens + live->output_tokens;
}

/* Tokens that a request with so many computed wants to compute in a step with so much budget left.
 */
static int32_t wanted(const kv__replica *replica, const kv__live *live, int32_t computed,
                      int32_t lacking, int64_t budget)
{
    const kv_serving_settings *s = replica->server->settings;
    if (kv__blend_end(live) > 0)
        return kv__blend_most(s, live, computed, lacking,
                              s->chunk_tokens > 0 ? least(s->chunk_tokens, budget) : budget);
    int64_t tokens = s->chunk_tokens > 0 && lacking > s->chunk_tokens ? s->chunk_tokens : lacking;
    int64_t limit = s->keep != NULL ? kv__keep_limit(s->keep, live, computed) : INT32_MAX;
    tokens = tokens < limit ? tokens : limit;
    return (int32_t)(tokens < budget ? tokens : budget);
}

/* Pages that a request lacks to compute so many tokens more. */
static int64_t lacks(const kv__replica *replica, const kv__live *live, int32_t tokens)
{
    const kv_keep *keep = replica->server->settings->keep;
    return keep != NULL ? kv__keep_lacks(keep, live, tokens)
                        : kv__memory_lacks(&replica->memory, live, live->computed_tokens + tokens) -
                              kv__blend_reserved(live);
}

/* Whether there is room for so many pages, and in the home tier for what leaves the device. */
static bool has_room(const kv__replica *replica, const kv__live *live, int32_t tokens,
                     int64_t pages)
{
    const kv_serving_settings *s = replica->server->settings;
    if (pages > 0 && pages > kv__memory_available(&replica->memory))
        return false;
    return !kv_serving_has_home(s) ||
           kv__keep_away_after(s->keep, live, tokens) - live->away <= kv__home_available(replica);
}

/* Gives it that room; it must be available. */
static kv_err grow(kv__replica *replica, kv__live *live, int32_t tokens)
{
    const kv_keep *keep = replica->server->settings->keep;
    if (kv_serving_has_home(replica->server->settings))
        kv__home_take(replica, live, tokens);
    return keep != NULL ? kv__keep_grow(keep, &replica->memory, live, tokens)
                        : kv__memory_grow(&replica->memory, live, live->computed_tokens + tokens);
}

/* Its first `computed` tokens are in memory, from a cache. */
static void set_computed(kv__replica *replica, kv__live *live, int32_t computed)
{
    const kv_keep *keep = replica->server->settings->keep;
    live->computed_tokens = computed;
    if (keep != NULL)
        kv__keep_start(keep, live, computed);
}

/* Takes the memory of the last running request away and sends it to the front of the queue. */
static kv_err preempt_last(kv__replica *replica)
{
    kv__live *victim = replica->running[--replica->running_count];
    const kv_keep *keep = replica->server->settings->keep;
    kv__foresee(replica->server, victim, false);
    bool swapped = kv__swap_out(replica, victim);
    kv_err err = kv__memory_release(&replica->memory, victim, keep == NULL && !swapped);
    replica->pending_tokens += victim->computed_tokens;
    victim->computed_tokens = 0;
    victim->kept_at = victim->kept_until = 0;
    victim->moved = false;
    if (keep != NULL)
        victim->most_pages = kv__keep_most(keep, victim, kv__live_tokens(victim),
                                           &replica->server->probe, &victim->most_away);
    kv__home_give(replica, victim);
    kv__links_forget(replica, victim);
    victim->scheduled = 0;
    kv__blend_reset(&replica->memory, victim);
    victim->load_to = 0;
    victim->preemptions++;
    victim->preempted_ns = replica->time_ns;
    replica->server->result->preemptions++;
    kv__line_prepend(&replica->resumed, victim);
    return err;
}

/* Has the replica go on when something arrives. */
static void wake_at(kv__replica *replica, int64_t time_ns)
{
    replica->wake_ns = least(time_ns, replica->wake_ns);
}

/* Tokens that a request lacks behind its prefix: all, or those before the first that a tier sends.
 */
static int32_t lacks_behind(kv__replica *replica, const kv__live *live)
{
    int32_t wait = kv__blend_wait(live);
    if (wait == INT32_MAX || live->ready_ns <= replica->time_ns)
        return kv__live_tokens(live) - live->computed_tokens;
    if (!kv__blend_waits(replica->server->settings, live))
        return wait - live->computed_tokens;
    wake_at(replica, live->ready_ns);
    return 0;
}

/* Tokens that a running request lacks before it has to wait for others to arrive. What has arrived
 * counts as computed. */
static int32_t lacking(kv__replica *replica, kv__live *live)
{
    if (live->load_to == 0 && live->blend == NULL) /* as a rule */
        return kv__live_tokens(live) - live->computed_tokens;
    if (live->load_to == 0)
        return lacks_behind(replica, live);
    if (live->computed_tokens < live->load_from)
        return live->load_from - live->computed_tokens;
    if (live->ready_ns > replica->time_ns) {
        wake_at(replica, live->ready_ns);
        return 0;
    }
    replica->pending_tokens -= live->load_to - live->computed_tokens;
    set_computed(replica, live, live->load_to);
    live->load_to = 0;
    return lacks_behind(replica, live);
}

/* Tokens that count as computed of what it computes in the step under way. */
static int64_t cost_of(const kv__replica *replica, const kv__live *live)
{
    if (live->blend == NULL)
        return live->scheduled;
    return kv__blend_cost(replica->server->settings, live, live->computed_tokens,
                          live->computed_tokens + live->scheduled);
}

/* The running requests catch up. Returns the budget that is left. */
static kv_err run_running(kv__replica *replica, int64_t *budget, bool *preempted)
{
    for (int32_t i = 0; i < replica->running_count; i++) {
        kv__live *live = replica->running[i];
        int32_t lack = lacking(replica, live);
        int32_t tokens = wanted(replica, live, live->computed_tokens, lack, *budget);
        int64_t pages = lacks(replica, live, tokens);
        while (!has_room(replica, live, tokens, pages)) {
            bool itself = replica->running[replica->running_count - 1] == live;
            live->computes_all = live->computes_all || replica->running_count == 1;
            kv_err err = preempt_last(replica);
            *preempted = true;
            if (err != KV_OK || itself)
                return err;
        }
        bool reserved = kv__blend_reserved(live) > 0;
        bool grows = pages > 0 || reserved || replica->server->settings->keep != NULL ||
                     live->filed < live->named;
        if (reserved)
            kv__blend_unreserve(&replica->memory, live, tokens);
        live->scheduled = tokens;
        kv_err err = grows ? grow(replica, live, tokens) : KV_OK;
        if (err != KV_OK)
            return err;
        *budget -= cost_of(replica, live);
    }
    return KV_OK;
}

static kv_waiting view_of(const kv__replica *replica, const kv__live *live)
{
    const kv_queue_order *order = replica->server->settings->order;
    return (kv_waiting){
        .number = live->number,
        .prompt_tokens = live->prompt_tokens,
        .priority = live->tenant,
        .prefix_blocks = order->wants_prefix ? kv__memory_look(&replica->memory, live).blocks : 0};
}

/* Who stands before the one that goes next in the waiting line; NULL: it is the first. */
static kv__live *before_next(const kv__replica *replica)
{
    const kv_queue_order *order = replica->server->settings->order;
    if (order->before == NULL || replica->waiting.first == NULL)
        return NULL;
    kv__live *best_before = NULL, *previous = replica->waiting.first;
    kv_waiting best = view_of(replica, previous);
    for (kv__live *live = previous->next; live != NULL; previous = live, live = live->next) {
        kv_waiting view = view_of(replica, live);
        if (order->before(&view, &best)) {
            best = view;
            best_before = previous;
        }
    }
    return best_before;
}

/* What admitting a request would do. */
typedef struct entry {
    kv__hit hit;
    int32_t load_from, load_to; /* blocks; equal: nothing is loaded */
    int32_t tokens;             /* computed in this step */
    int32_t room;               /* tokens that it holds memory for */
} entry;

/* The same for a request that was swapped out: all that is not in the cache is brought back. */
static entry plan_return(const kv__replica *replica, const kv__live *live, kv__hit hit,
                         int64_t budget)
{
    const kv_serving_settings *s = replica->server->settings;
    int32_t size = s->block_tokens, computed = hit.blocks * size, all = kv__live_tokens(live);
    entry e = {.hit = hit, .load_from = hit.blocks, .load_to = hit.blocks};
    if (live->swapped_tokens > computed)
        e.load_to = (live->swapped_tokens + size - 1) / size;
    else
        e.tokens = wanted(replica, live, computed, all - computed, budget);
    e.room = e.load_to > e.load_from ? live->swapped_tokens : computed + e.tokens;
    e.room = s->reserve_full_input ? all : e.room;
    return e;
}

/* Whether the home tier has room for a waiting request: for all of its input, or its first step. */
static bool fits_home(const kv__replica *replica, const kv__live *live, const entry *e)
{
    const kv_serving_settings *s = replica->server->settings;
    if (!kv_serving_has_home(s))
        return true;
    int64_t away = kv__keep_away_after(s->keep, &replica->server->probe, e->tokens);
    if (s->reserve_full_input && live->most_away > away)
        away = live->most_away;
    return away <= kv__home_available(replica);
}

/* Pages that a waiting request takes from what is available if it is admitted. */
static int64_t takes(const kv__replica *replica, const kv__live *live, const entry *e)
{
    const kv_serving_settings *s = replica->server->settings;
    int64_t found = e->hit.blocks - e->hit.idle;
    if (s->keep == NULL)
        return (e->room + s->block_tokens - 1) / s->block_tokens - found;
    kv__live *probe = &replica->server->probe;
    probe->prompt_tokens = live->prompt_tokens;
    probe->named = live->named;
    probe->moved = false;
    probe->held = 0;
    probe->pages = 0;
    int32_t computed = e->hit.blocks * s->block_tokens;
    kv__keep_start(s->keep, probe, computed);
    int32_t room = e->load_from < e->load_to ? e->load_to * s->block_tokens : computed + e->tokens;
    int64_t pages = kv__keep_lacks(s->keep, probe, room - computed);
    if (s->reserve_full_input && live->most_pages > pages)
        pages = live->most_pages;
    return pages - found * s->keep->named_pages;
}

/* Fills in what is computed in this step, and for how many tokens memory is held. */
static void plan_step(const kv__replica *replica, const kv__live *live, int64_t budget, entry *e)
{
    const kv_serving_settings *s = replica->server->settings;
    int32_t all = kv__live_tokens(live), computed = e->hit.blocks * s->block_tokens;
    bool loads = e->load_from < e->load_to;
    int32_t end = loads ? e->load_from * s->block_tokens : all;
    end = (int32_t)least(end, kv__blend_wait(live));
    e->tokens = wanted(replica, live, computed, end - computed, budget);
    e->room = loads ? e->load_to * s->block_tokens : computed + e->tokens;
    if (e->room < kv__blend_end(live) * s->block_tokens)
        e->room = kv__blend_end(live) * s->block_tokens;
    e->room = s->reserve_full_input ? all : e->room;
}

static entry plan_entry(kv__replica *replica, kv__live *live, int64_t budget)
{
    const kv_serving_settings *s = replica->server->settings;
    entry e = {.hit = kv__memory_look(&replica->memory, live)};
    int32_t more = kv__tiers_look(replica, live, e.hit.blocks);
    if (live->swapped_tokens > 0)
        return plan_return(replica, live, e.hit, budget);
    e.load_to = e.hit.blocks + more;
    e.load_from = more > 0 ? kv__load_split(replica, live, e.hit.blocks, more) : e.load_to;
    kv_err err = kv__blend_plan(replica, live, e.load_to);
    replica->failed = replica->failed == KV_OK ? err : replica->failed;
    plan_step(replica, live, budget, &e);
    /* What is loaded at once may take more than what is computed chunk by chunk, as a policy or a
     * window lets go of nothing meanwhile. What never fits is computed. */
    if (more > 0 && s->keep != NULL &&
        (live->computes_all || takes(replica, live, &e) > s->kv_blocks * s->keep->block_pages)) {
        e.load_from = e.load_to = e.hit.blocks;
        plan_step(replica, live, budget, &e);
    }
    return e;
}

/* Gives it the memory that the entry says and begins to load. What is loaded is chosen before, as
 * blocks that go down for its memory may drop it from a tier, and sent behind them; the step under
 * way need not wait for memory that is for what is loaded alone. */
static kv_err grow_and_load(kv__replica *replica, kv__live *live, const entry *e)
{
    int32_t size = replica->memory.block_tokens, swapped = live->swapped_tokens;
    int32_t end = live->computed_tokens + e->tokens;
    int64_t copied_ns = replica->copied_ns;
    replica->group++;
    bool loads = e->load_from < e->load_to, waits = kv__blend_wait(live) < INT32_MAX;
    int32_t blocks[KV_MOST_TIERS] = {0};
    kv_err err = KV_OK;
    if (loads) {
        live->load_from = e->load_from * size;
        live->load_to = swapped > 0 ? swapped : e->load_to * size;
        end = live->load_to > end ? live->load_to : end;
    }
    if (loads && swapped == 0)
        err = kv__tiers_choose(replica, live, e->load_from, e->load_to, blocks);
    if (err == KV_OK)
        err = kv__blend_choose(replica, live);
    if (err == KV_OK)
        err = grow(replica, live, end - live->computed_tokens);
    if (err != KV_OK)
        return err;
    kv__blend_reserve(replica, live);
    kv__blend_add(live, blocks);
    if (swapped > 0)
        kv__swap_in(replica, live, e->hit.blocks);
    else if (loads || waits)
        kv__tiers_send(replica, live, blocks);
    if ((loads || waits) && e->tokens == 0) {
        kv__links_release(replica, copied_ns);
        wake_at(replica, live->ready_ns);
    }
    return KV_OK;
}

static kv_err tell_pause(const kv__replica *replica, const kv__live *live)
{
    const kv_serving_listener *listener = replica->server->listener;
    if (live->preemptions == 0 || listener == NULL || listener->pause == NULL)
        return KV_OK;
    kv_serving_pause pause = {live->number, replica->index, live->preempted_ns, replica->time_ns};
    return listener->pause(listener->closure, &pause, replica->server->diag);
}

static kv_err admit(kv__replica *replica, kv__live *live, const entry *e)
{
    int32_t size = replica->memory.block_tokens, loaded = (e->load_to - e->load_from) * size;
    kv__foresee(replica->server, live, true);
    kv_err err = kv__memory_claim(&replica->memory, live, e->hit);
    if (err != KV_OK)
        return err;
    set_computed(replica, live, e->hit.blocks * size);
    replica->pending_tokens -= live->computed_tokens;
    if (live->preemptions == 0) {
        live->cached_tokens = live->computed_tokens + loaded;
        live->admitted_ns = replica->time_ns;
    } else if (live->swapped_tokens == 0) {
        replica->server->result->recomputed_tokens +=
            kv__live_tokens(live) - live->computed_tokens - loaded -
            kv__blend_saved(replica->server->settings, live);
    }
    live->scheduled = e->tokens;
    replica->running[replica->running_count++] = live;
    err = tell_pause(replica, live);
    return err == KV_OK ? grow_and_load(replica, live, e) : err;
}

/* Admits waiting requests until one does not fit. */
static kv_err run_waiting(kv__replica *replica, int64_t budget)
{
    const kv_serving_settings *s = replica->server->settings;
    while (budget > 0 && replica->running_count < s->max_seqs) {
        kv__line *line = replica->resumed.count > 0 ? &replica->resumed : &replica->waiting;
        if (line->count == 0)
            break;
        kv__live *before = line == &replica->waiting ? before_next(replica) : NULL;
        kv__live *live = before != NULL ? before->next : line->first;
        entry e = plan_entry(replica, live, budget);
        if (takes(replica, live, &e) > kv__memory_available(&replica->memory) ||
            !fits_home(replica, live, &e)) /* of the probe that takes() has filled in */
            break;
        kv__line_remove(line, before);
        kv_err err = admit(replica, live, &e);
        if (err != KV_OK)
            return err;
        budget -= cost_of(replica, live);
    }
    return KV_OK;
}

/* Adds what a request that computes one token of its answer reads. */
static void describe_decode(const kv__replica *replica, const kv__live *live, kv__plan *plan,
                            int64_t *longest_growth)
{
    const kv_keep *keep = replica->server->settings->keep;
    int64_t entries = replica->server->entries;
    kv_step_batch *batch = &plan->batch;
    int64_t keys = keep != NULL ? kv__keep_read(keep, live, 1)
                                : (int64_t)(live->computed_tokens + 1) * entries;
    int64_t growth = keep != NULL ? live->read_growth : entries;
    batch->decodes++;
    batch->decode_entries += keys;
    batch->decode_growth += growth;
    if (keys > batch->decode_longest ||
        (keys == batch->decode_longest && growth > *longest_growth)) {
        batch->decode_longest = keys;
        *longest_growth = growth;
    }
}

/* Adds what a request that computes a chunk does. */
static void describe_chunk(const kv__replica *replica, const kv__live *live, kv__plan *plan)
{
    const kv_keep *keep = replica->server->settings->keep;
    int32_t from = live->computed_tokens, to = from + live->scheduled;
    int64_t cost = cost_of(replica, live);
    double tokens = (double)cost;
    double history = keep != NULL ? kv__keep_history(keep, live, live->scheduled)
                                  : kv__blend_history(replica->server->settings, live, from, to);
    assert(cost > 0 || from == to);
    plan->batch.prefill_tokens += cost;
    plan->batch.prefill_square += tokens * tokens;
    plan->batch.prefill_history += tokens * history;
    plan->chunk_reads += keep != NULL
                             ? kv__keep_read(keep, live, live->scheduled)
                             : (live->computed_tokens + live->scheduled) * replica->server->entries;
}

/* Entries beside blocks of the cache; those are whole and counted once, by the cache. */
static int64_t stored_by(const kv__replica *replica, const kv__live *live)
{
    const kv_serving_settings *s = replica->server->settings;
    if (s->keep != NULL)
        return kv__keep_stored(s->keep, live, live->scheduled);
    int64_t own = live->computed_tokens + live->scheduled - (int64_t)live->shared * s->block_tokens;
    return own > 0 ? own : 0;
}

/* What the batch costs, and whether it only decodes. */
static void describe(const kv__replica *replica, kv__plan *plan, int64_t time_ns)
{
    const kv__memory *memory = &replica->memory;
    const kv_keep *keep = replica->server->settings->keep;
    kv_step_batch *batch = &plan->batch;
    *batch = (kv_step_batch){0};
    plan->decode_only = plan->even = true;
    plan->away = replica->away;
    if (memory->cache != NULL)
        plan->stored =
            kv_block_cache_pinned(memory->cache) * memory->block_pages * memory->block_tokens;
    for (int32_t i = 0; i < replica->running_count; i++) {
        const kv__live *live = replica->running[i];
        bool decodes = live->scheduled == 1 && live->generated_tokens > 0 &&
                       live->computed_tokens + 1 == kv__live_tokens(live);
        plan->decode_only = plan->decode_only && decodes;
        plan->even = plan->even && live->last_token_ns == time_ns;
        batch->tokens += cost_of(replica, live);
        batch->sequences += live->scheduled > 0;
        plan->stored += stored_by(replica, live);
        plan->stored_growth += keep != NULL ? live->stored_growth : 1;
        if (kv_serving_has_home(replica->server->settings))
            kv__home_describe(replica, live, decodes, plan);
        if (decodes)
            describe_decode(replica, live, plan, &batch->longest_growth);
        else
            describe_chunk(replica, live, plan);
    }
}

/* Pages that the running requests take for steps 2..steps of a plan that only decodes. */
static int64_t growth_pages(const kv__replica *replica, int64_t steps)
{
    const kv_keep *keep = replica->server->settings->keep;
    int64_t size = replica->memory.block_tokens, pages = 0;
    for (int32_t i = 0; i < replica->running_count; i++) {
        const kv__live *live = replica->running[i];
        int64_t more = live->computed_tokens + steps - live->held * size;
        if (keep != NULL)
            pages += kv__keep_growth(keep, live, steps);
        else if (more > 0 && more <= INT32_MAX) /* division of 32 bits takes half the time */
            pages += ((uint32_t)more + (uint32_t)size - 1) / (uint32_t)size;
        else
            pages += more > 0 ? (more + size - 1) / size : -(-more / size);
    }
    return pages;
}

/* The greatest number in 1..most for which holds() is true; it is for 1 and, once false, stays so.
 */
static int64_t greatest(int64_t most, bool (*holds)(const kv__replica *, int64_t),
                        const kv__replica *replica)
{
    int64_t low = 1;
    if (holds(replica, most)) /* as a rule */
        return most;
    while (low < most) {
        int64_t middle = low + (most - low + 1) / 2;
        if (holds(replica, middle))
            low = middle;
        else
            most = middle - 1;
    }
    return low;
}

static bool fits(const kv__replica *replica, int64_t steps)
{
    /* What a tier is given must be given when it happens, so no jump goes over an eviction. Nor
     * where blocks are of many pages: a waiting request that loses one needs less at once than the
     * running ones took. */
    const kv_serving_settings *s = replica->server->settings;
    bool pages = s->keep != NULL && replica->waiting.count + replica->resumed.count > 0;
    bool ahead = s->foresight != NULL; /* what comes next may change elsewhere meanwhile */
    if (kv_serving_has_home(s) && replica->plan.away_growth * (steps - 1) > kv__home_empty(replica))
        return steps == 1;
    int64_t free_ = s->tiers > 0 || pages || ahead ? kv__memory_empty(&replica->memory)
                                                   : kv__memory_available(&replica->memory);
    return growth_pages(replica, steps) <= free_;
}

/* The last of so many steps begins before the next request arrives. */
static bool begins_in_time(const kv__replica *replica, int64_t steps)
{
    const kv__plan *plan = &replica->plan;
    __int128 fine = plan->start_fine + kv_step_ramp_time(&plan->ramp, steps - 1);
    return plan->start_ns + (fine >> KV_FINE_BITS) < replica->server->next_arrival;
}

/* True if blocks that leave the cache while the batch decodes could let a waiting request in:
 * another one would be first in line, or, where only the first chunk must fit, the loss of the
 * first block of a prompt frees the rest of it. The latter does not happen to lru, which evicts
 * from the end. The same goes for mere time, where what is loaded depends on how busy a link is
 * and with it what must fit. */
static bool waiting_may_enter(const kv__replica *replica)
{
    const kv_serving_settings *s = replica->server->settings;
    if (replica->waiting.count + replica->resumed.count == 0 || !s->prefix_cache)
        return false;
    bool weighs = s->tiers > 0 && (s->load == KV_LOAD_AUTO || s->load == KV_LOAD_BOTH_ENDS);
    return s->order->wants_prefix ||
           (!s->reserve_full_input && (weighs || s->blend || !replica->memory.idle_order));
}

/* Steps until a request changes how it grows, or another than the longest reads most. */
static int64_t steps_alike(const kv__replica *replica, const kv__live *live)
{
    const kv_step_batch *batch = &replica->plan.batch;
    int64_t steps = live->kept_until - live->computed_tokens;
    if (live->read_growth > batch->longest_growth) {
        int64_t behind =
            batch->decode_longest - kv__keep_read(replica->server->settings->keep, live, 1);
        int64_t catches = behind / (live->read_growth - batch->longest_growth) + 1;
        steps = catches < steps ? catches : steps;
    }
    return steps;
}

/* How many steps of a batch that only decodes pass before anything about it changes. What does not
 * fit now will not fit before one of them ends: blocks are only taken, and a waiting request whose
 * cached blocks are evicted needs them instead. A step that preempted admits no one, the next may.
 */
static int64_t plan_steps(const kv__replica *replica, bool preempted)
{
    const kv__plan *plan = &replica->plan;
    const kv_serving_settings *s = replica->server->settings;
    if (!plan->decode_only || !plan->even || s->stepwise || preempted || waiting_may_enter(replica))
        return 1;
    int64_t steps = plan->ramp.steps;
    for (int32_t i = 0; i < replica->running_count; i++) {
        const kv__live *live = replica->running[i];
        int64_t left = live->output_tokens - live->generated_tokens;
        steps = left < steps ? left : steps;
        int64_t alike = s->keep != NULL ? steps_alike(replica, live) : steps;
        steps = alike < steps ? alike : steps;
    }
    steps = greatest(steps, fits, replica);
    return greatest(steps, begins_in_time, replica);
}

/* Sets when the plan is over. What is past the end of time fails the run. */
static kv_err set_end(kv__replica *replica)
{
    kv__plan *plan = &replica->plan;
    __int128 fine = plan->start_fine + kv_step_ramp_time(&plan->ramp, plan->ramp.steps);
    __int128 end_ns = plan->start_ns + (fine >> KV_FINE_BITS);
    plan->end_ns = end_ns < INT64_MAX ? (int64_t)end_ns : INT64_MAX - 1;
    if (end_ns < INT64_MAX)
        return KV_OK;
    return kv_fail(
        replica->server->diag, KV_ERR_INPUT, NULL,
        "a step that begins at %.9g s lasts %.9g s and ends later than nanoseconds of 63 "
        "bits can say (292 years)",
        (double)plan->start_ns * 1e-9, ldexp((double)fine * 1e-9, -KV_FINE_BITS));
}

/* Nanoseconds as fine time. */
static kv_fine fine_of(int64_t ns)
{
    return (kv_fine)ns << KV_FINE_BITS;
}

/* Fine time of a first step that takes `first` alone. It does not begin before the memory that it
 * writes to is copied, and is not over before what it reads has arrived: layers are computed as
 * they come. */
static kv_fine with_waits(kv__replica *replica, const kv__plan *plan, kv_fine first)
{
    int64_t arrival_ns = 0, copied_ns = kv__links_copied_ns(replica);
    int64_t start_ns = plan->start_ns + plan->waited_ns; /* what is fetched waits for copies, too */
    first = kv__home_wait(replica, plan, first);
    if (copied_ns > start_ns)
        first += fine_of(copied_ns - start_ns);
    for (int32_t i = 0; i < replica->running_count; i++) {
        const kv__live *live = replica->running[i];
        bool reads = live->scheduled > 0 && live->load_to == 0;
        if (reads && live->loaded_ns > arrival_ns && kv__blend_reads(live))
            arrival_ns = live->loaded_ns;
    }
    if (arrival_ns > plan->start_ns && fine_of(arrival_ns - plan->start_ns) > first)
        first = fine_of(arrival_ns - plan->start_ns);
    return first;
}

static void wait_for_links(kv__replica *replica, kv__plan *plan)
{
    plan->alone_first = plan->ramp.first;
    kv_fine first = with_waits(replica, plan, plan->alone_first);
    if (first > plan->ramp.first)
        plan->ramp = (kv_step_ramp){first, 0, 1};
}

void kv__replica_set_wake(kv__replica *replica)
{
    replica->wake_ns = INT64_MAX;
    for (int32_t i = 0; i < replica->running_count; i++) {
        const kv__live *live = replica->running[i];
        bool waits = live->load_to > 0 ? live->computed_tokens >= live->load_from
                                       : kv__blend_waits(replica->server->settings, live) &&
                                             live->ready_ns > replica->time_ns;
        if (waits && live->scheduled == 0)
            replica->wake_ns = least(live->ready_ns, replica->wake_ns);
    }
}

void kv__replica_rewait(kv__replica *replica, int64_t time_ns)
{
    kv__plan *plan = &replica->plan;
    kv_err err = kv__replica_advance(replica, time_ns);
    if (err != KV_OK)
        replica->failed = err;
    if (!plan->active)
        kv__replica_set_wake(replica);
    if (!plan->active || plan->done > 0 || plan->begun > 1)
        return;
    kv_fine first = with_waits(replica, plan, plan->alone_first);
    if (first > plan->ramp.first) {
        plan->ramp = (kv_step_ramp){first, 0, 1};
        err = set_end(replica);
        replica->failed = err == KV_OK ? replica->failed : err;
    }
}

kv_err kv__replica_schedule(kv__replica *replica, int64_t time_ns)
{
    kv__server *server = replica->server;
    kv__plan *plan = &replica->plan;
    int64_t budget = server->settings->max_batched_tokens;
    bool preempted = false;
    assert(!plan->active);
    replica->time_ns = time_ns;
    replica->wake_ns = INT64_MAX;
    replica->stirred = false;
    for (int32_t i = 0; i < replica->running_count; i++)
        replica->running[i]->scheduled = 0;
    kv_err err = run_running(replica, &budget, &preempted);
    /* When the only one that ran had to give up its memory, nothing else would begin a step. */
    if (err == KV_OK && (!preempted || replica->running_count == 0))
        err = run_waiting(replica, budget);
    err = err == KV_OK ? replica->failed : err;
    if (err != KV_OK || replica->running_count == 0) {
        kv__links_settle(replica);
        return err;
    }
    int64_t fine = replica->now_ns == time_ns ? replica->now_fine : 0;
    *plan = (kv__plan){.active = true, .start_ns = time_ns, .start_fine = fine, .begun = 1};
    describe(replica, plan, time_ns);
    plan->active = plan->batch.tokens > 0;
    if (!plan->active) { /* all wait for what is being loaded */
        kv__links_settle(replica);
        return KV_OK;
    }
    if (plan->decode_only)
        kv_step_time_ramp(server->time, &plan->batch, &plan->ramp);
    else
        plan->ramp = (kv_step_ramp){kv_step_time_step(server->time, &plan->batch), 0, 1};
    if (kv_serving_has_home(server->settings))
        kv__home_carry(replica, plan);
    if (server->settings->tiers > 0) {
        kv__links_settle(replica);
        wait_for_links(replica, plan);
    }
    plan->ramp.steps = plan_steps(replica, preempted);
    kv__replica_note_peak(replica);
    replica->now_ns = time_ns;
    replica->now_fine = fine;
    return set_end(replica);
}

void kv__replica_cut(kv__replica *replica, int64_t time_ns)
{
    kv__plan *plan = &replica->plan;
    if (plan->active && plan->begun < plan->ramp.steps) {
        plan->ramp.steps = plan->begun;
        kv_err err = set_end(replica);
        replica->failed = err == KV_OK ? replica->failed : err;
    }
}
