/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "tests/serving_reference.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_BLOCKS = 4096, MOST_RUNNING = 512 };

/* A block of memory: who uses it and what it holds. */
typedef struct block {
    uint64_t content; /* 0: nothing that can be found */
    int users;
    int64_t idle_since; /* order in which blocks fell idle; empty ones are 0 */
} block;

typedef struct state {
    reference_request *in;
    int number;
    int32_t computed, generated, blocks, scheduled;
    int32_t published; /* leading blocks that were full once */
    int32_t *block;    /* indices of the blocks it uses */
    bool running, waiting, done;
    int64_t admitted;  /* order of admission */
    int64_t preempted; /* > 0: order of preemption, the last goes first */
    int32_t saved;     /* tokens that lie in the tier */
    int32_t arriving;  /* computed tokens once they are here; 0: nothing is on its way */
    int64_t usable_ns, here_ns;
} state;

typedef struct world {
    const kv_serving_settings *s;
    block block[MOST_BLOCKS];
    int64_t clock;
    state *request;
    int count;
    int64_t now;
    int64_t link_ns;  /* until when the link of the tier is busy */
    int64_t saved;    /* blocks in the tier */
    int64_t clear_ns; /* when the memory of all that was saved is free for others */
} world;

/* Content of block i of a request: named by the trace, or its own. */
static uint64_t content_of(const world *w, const state *r, int32_t i)
{
    int32_t size = w->s->block_tokens, whole = r->in->in.prompt_tokens / size;
    if (i < whole && i < r->in->in.block_count)
        return r->in->in.blocks[i];
    return (uint64_t)(r->number + 1) << 40 | (uint64_t)(i + 1);
}

static bool is_named(const world *w, const state *r, int32_t i)
{
    return i < r->in->in.prompt_tokens / w->s->block_tokens && i < r->in->in.block_count;
}

static int find(const world *w, uint64_t content)
{
    for (int b = 0; b < w->s->kv_blocks; b++)
        if (w->block[b].content == content)
            return b;
    return -1;
}

static int idle_count(const world *w)
{
    int count = 0;
    for (int b = 0; b < w->s->kv_blocks; b++)
        count += w->block[b].users == 0;
    return count;
}

/* The idle block to use next: an empty one, else the one idle for longest. */
static int next_idle(const world *w)
{
    int best = -1;
    for (int b = 0; b < w->s->kv_blocks; b++)
        if (w->block[b].users == 0 &&
            (best < 0 || w->block[b].idle_since < w->block[best].idle_since))
            best = b;
    return best;
}

static void add_block(world *w, state *r)
{
    int b = next_idle(w);
    w->block[b] = (block){.users = 1};
    r->block[r->blocks++] = b;
}

/* As vLLM's cache_full_blocks: what the step being scheduled fills can be found from now on. Where
 * that content can be found already the block is a copy that nobody else finds. */
static void publish(world *w, state *r)
{
    int32_t full = (r->computed + r->scheduled) / w->s->block_tokens;
    for (int32_t i = 0; i < full && i < r->blocks; i++) {
        bool once = r->published <= i && w->block[r->block[i]].content == 0;
        if (once && is_named(w, r, i) && find(w, content_of(w, r, i)) < 0)
            w->block[r->block[i]].content = content_of(w, r, i);
    }
    if (full > r->published)
        r->published = full;
}

static int32_t target(const world *w, int32_t tokens)
{
    return (tokens + w->s->block_tokens - 1) / w->s->block_tokens;
}

static void free_blocks(world *w, state *r, bool keep)
{
    r->published = 0;
    while (r->blocks > 0) {
        int32_t i = --r->blocks;
        block *b = &w->block[r->block[i]];
        b->users--;
        bool own = !is_named(w, r, i);
        bool whole = (i + 1) * w->s->block_tokens <= r->computed;
        bool copy = w->s->prefix_cache && !own && b->content == 0 && whole;
        int found = copy ? find(w, content_of(w, r, i)) : -1;
        if ((own && whole && keep) || (copy && found < 0)) /* a copy is found if it is the last */
            b->content = content_of(w, r, i);
        if (found >= 0)
            w->block[found].idle_since = ++w->clock;
        b->idle_since = b->content == 0 ? 0 : ++w->clock;
    }
}

static int32_t tokens_of(const state *r)
{
    return r->in->in.prompt_tokens + r->generated;
}

/* The running request that was admitted in the n-th place, or NULL. */
static state *running_at(world *w, int place)
{
    state *sorted[MOST_RUNNING];
    int count = 0;
    for (int i = 0; i < w->count; i++)
        if (w->request[i].running) {
            int at = count++;
            for (; at > 0 && sorted[at - 1]->admitted > w->request[i].admitted; at--)
                sorted[at] = sorted[at - 1];
            sorted[at] = &w->request[i];
        }
    return place < count ? sorted[place] : NULL;
}

static int running_count(world *w)
{
    int count = 0;
    for (int i = 0; i < w->count; i++)
        count += w->request[i].running;
    return count;
}

static state *next_waiting(world *w)
{
    state *best = NULL;
    for (int i = 0; i < w->count; i++) {
        state *r = &w->request[i];
        if (r->waiting && (best == NULL || r->preempted > best->preempted))
            best = r;
    }
    return best;
}

static int32_t cap(const world *w, int32_t lacking, int64_t budget)
{
    if (w->s->chunk_tokens > 0 && lacking > w->s->chunk_tokens)
        lacking = w->s->chunk_tokens;
    return lacking < budget ? lacking : (int32_t)budget;
}

/* Sends blocks over the link, after all that was sent before. Returns when they have arrived. */
static int64_t send(world *w, int64_t latency_ns, int64_t blocks, double bandwidth)
{
    double ns = (double)blocks * (double)w->s->block_bytes / bandwidth * 1e9;
    if (w->link_ns < w->now)
        w->link_ns = w->now;
    w->link_ns += latency_ns + (int64_t)ceil(ns);
    return w->link_ns;
}

/* Moves a request to the tier, if that has room for all of it. */
static bool save(world *w, state *r)
{
    int32_t tokens = r->arriving > 0 ? r->arriving : r->computed;
    if (!w->s->swap || tokens == 0 || w->saved + target(w, tokens) > w->s->tier[0].capacity_blocks)
        return false;
    w->saved += target(w, tokens);
    w->clear_ns = send(w, 0, target(w, tokens), w->s->tier[0].write_bandwidth);
    r->saved = tokens;
    return true;
}

/* Brings it back: it has its memory. */
static void bring_back(world *w, state *r)
{
    const kv_tier_settings *tier = &w->s->tier[0];
    double all_ns = target(w, r->saved) * (double)w->s->block_bytes / tier->read_bandwidth * 1e9;
    double rest_ns = all_ns * (1 - 1 / (double)w->s->layers);
    w->saved -= target(w, r->saved);
    r->here_ns = send(w, tier->latency_ns, target(w, r->saved), tier->read_bandwidth);
    r->usable_ns = w->s->overlap ? r->here_ns - (int64_t)rest_ns : r->here_ns;
    r->arriving = r->saved;
    r->saved = 0;
}

static bool schedule_running(world *w, int64_t *budget)
{
    bool preempted = false;
    state *r;
    for (int place = 0; (r = running_at(w, place)) != NULL; place++) {
        if (r->arriving > 0 && r->usable_ns <= w->now) {
            r->computed = r->arriving;
            r->arriving = 0;
        }
        int32_t tokens = r->arriving > 0 ? 0 : cap(w, tokens_of(r) - r->computed, *budget);
        while (r->running && target(w, r->computed + tokens) - r->blocks > idle_count(w)) {
            state *victim = running_at(w, running_count(w) - 1);
            bool saved = save(w, victim);
            free_blocks(w, victim, !saved && w->s->prefix_cache);
            victim->computed = victim->scheduled = victim->arriving = 0;
            victim->running = false;
            victim->waiting = true;
            victim->in->preemptions++;
            victim->preempted = ++w->clock;
            preempted = true;
        }
        if (!r->running)
            break;
        while (r->blocks < target(w, r->computed + tokens))
            add_block(w, r);
        r->scheduled = tokens;
        publish(w, r);
        *budget -= tokens;
    }
    return preempted;
}

static void schedule_waiting(world *w, int64_t budget)
{
    state *r;
    while (budget > 0 && running_count(w) < w->s->max_seqs && (r = next_waiting(w)) != NULL) {
        int32_t hits = 0, idle = 0, most = (tokens_of(r) - 1) / w->s->block_tokens;
        int b;
        for (; hits < most && (b = find(w, content_of(w, r, hits))) >= 0; hits++)
            idle += w->block[b].users == 0;
        int32_t computed = hits * w->s->block_tokens;
        int32_t tokens = r->saved > 0 ? 0 : cap(w, tokens_of(r) - computed, budget);
        int32_t first = r->saved > 0 ? r->saved : computed + tokens;
        int32_t need = w->s->reserve_full_input ? tokens_of(r) : first;
        if (target(w, need) - hits + idle > idle_count(w))
            break;
        for (int32_t i = 0; i < hits; i++) {
            r->block[i] = find(w, content_of(w, r, i));
            w->block[r->block[i]].users++;
            if (!is_named(w, r, i))
                w->block[r->block[i]].content = 0;
        }
        r->blocks = hits;
        r->computed = computed;
        if (r->in->preemptions == 0)
            r->in->cached = computed;
        r->waiting = false;
        r->running = true;
        r->admitted = ++w->clock;
        r->scheduled = tokens;
        while (r->blocks < target(w, first))
            add_block(w, r);
        publish(w, r);
        if (r->saved > 0)
            bring_back(w, r);
        budget -= tokens;
    }
}

static int64_t duration(world *w, const kv_step_time *time, int64_t entries)
{
    kv_step_batch batch = {0};
    for (int i = 0; i < w->count; i++) {
        const state *r = &w->request[i];
        if (!r->running)
            continue;
        batch.tokens += r->scheduled;
        batch.sequences += r->scheduled > 0;
        if (r->scheduled == 1 && r->generated > 0 && r->computed + 1 == tokens_of(r)) {
            int64_t keys = (r->computed + 1) * entries;
            batch.decodes++;
            batch.decode_entries += keys;
            batch.decode_longest = keys > batch.decode_longest ? keys : batch.decode_longest;
        } else {
            batch.prefill_tokens += r->scheduled;
            batch.prefill_square += (double)r->scheduled * r->scheduled;
            batch.prefill_history += (double)r->scheduled * r->computed;
        }
    }
    int64_t fine = kv_step_time_step(time, &batch);
    if (w->clear_ns > w->now)
        fine += (w->clear_ns - w->now) << KV_FINE_BITS;
    for (int i = 0; i < w->count; i++) {
        const state *r = &w->request[i];
        if (r->running && r->scheduled > 0 && (r->here_ns - w->now) * (1 << KV_FINE_BITS) > fine)
            fine = (r->here_ns - w->now) * (1 << KV_FINE_BITS);
    }
    return fine;
}

static int32_t scheduled_tokens(const world *w)
{
    int32_t tokens = 0;
    for (int i = 0; i < w->count; i++)
        tokens += w->request[i].running ? w->request[i].scheduled : 0;
    return tokens;
}

/* When the next of those on their way can be used; INT64_MAX: none is. */
static int64_t next_usable(const world *w)
{
    int64_t next = INT64_MAX;
    for (int i = 0; i < w->count; i++) {
        const state *r = &w->request[i];
        if (r->running && r->arriving > 0 && r->usable_ns < next)
            next = r->usable_ns;
    }
    return next;
}

static void end_step(world *w, int64_t now)
{
    state *r;
    for (int place = 0; (r = running_at(w, place)) != NULL; place++) {
        r->computed += r->scheduled;
        if (r->scheduled > 0 && r->computed == tokens_of(r) &&
            r->generated < r->in->in.output_tokens) {
            if (r->generated++ == 0)
                r->in->first_ns = now;
            r->in->last_ns = now;
        }
        r->scheduled = 0;
    }
    for (int place = 0; (r = running_at(w, place)) != NULL;) {
        if (r->generated == r->in->in.output_tokens && r->computed >= r->in->in.prompt_tokens) {
            r->in->last_ns = now;
            r->running = false;
            r->done = true;
            free_blocks(w, r, false);
        } else {
            place++;
        }
    }
}

static bool fits_at_all(const world *w, const kv_request *request)
{
    int32_t stored = request->prompt_tokens + request->output_tokens - (request->output_tokens > 0);
    return target(w, stored) <= w->s->kv_blocks;
}

void reference_run(const kv_serving_settings *settings, const kv_step_time *time, int64_t entries,
                   reference_request *request, int count)
{
    world *w = calloc(1, sizeof *w);
    w->s = settings;
    w->request = calloc((size_t)count, sizeof *w->request);
    w->count = count;
    int64_t now = 0, fine = 0;
    for (int i = 0; i < count; i++) {
        w->request[i] = (state){.in = &request[i], .number = i};
        w->request[i].block = calloc(MOST_BLOCKS, sizeof(int32_t));
        request[i].rejected = !fits_at_all(w, &request[i].in);
        request[i].first_ns = request[i].last_ns = -1;
    }
    for (int arrived = 0;;) {
        for (; arrived < count && request[arrived].in.arrival_ns <= now; arrived++)
            w->request[arrived].waiting = !request[arrived].rejected;
        int64_t budget = settings->max_batched_tokens;
        w->now = now;
        if (!schedule_running(w, &budget))
            schedule_waiting(w, budget);
        if (running_count(w) == 0 && arrived == count)
            break;
        if (scheduled_tokens(w) == 0) { /* nothing runs, or all wait for what is on its way */
            now = next_usable(w);
            if (arrived < count && request[arrived].in.arrival_ns < now)
                now = request[arrived].in.arrival_ns;
            fine = 0;
            continue;
        }
        fine += duration(w, time, entries);
        now += fine >> KV_FINE_BITS;
        fine &= ((int64_t)1 << KV_FINE_BITS) - 1;
        end_step(w, now);
    }
    for (int i = 0; i < count; i++)
        free(w->request[i].block);
    free(w->request);
    free(w);
}
