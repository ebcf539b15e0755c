/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "tests/keep_reference.h"

#include <stdlib.h>

enum { LAYERS = REFERENCE_LAYERS, HEADS = REFERENCE_KV_HEADS };

typedef struct state {
    keep_reference_request *in;
    int32_t computed, generated, scheduled;
    int32_t chunk_start;                 /* of the chunk of its prompt that is under way */
    int64_t kept[LAYERS][HEADS];         /* entries now */
    int64_t before_chunk[LAYERS][HEADS]; /* entries when the chunk began */
    int64_t pages;
    bool running, waiting;
    int64_t admitted, preempted; /* orders */
} state;

typedef struct world {
    const keep_reference *r;
    state *request;
    int count;
    int64_t used, clock;
} world;

static const kv_retention_config *settings_of(const world *w)
{
    return w->r->config;
}

static int64_t up(int64_t n, int64_t size)
{
    return (n + size - 1) / size;
}

static int32_t tokens_of(const state *s)
{
    return s->in->in.prompt_tokens + s->generated;
}

static int64_t stays(const world *w, const state *s, int layer, int head, int64_t candidates,
                     bool own_chunk)
{
    kv_quota_query query = {.layer = layer,
                            .layers = LAYERS,
                            .kv_head = head,
                            .kv_heads = HEADS,
                            .candidates = (int)candidates,
                            .prompt_tokens = s->in->in.prompt_tokens,
                            .own_chunk = own_chunk,
                            .pin_window = true,
                            .plan = w->r->plan};
    int64_t quota = kv_retention_quota(w->r->policy, w->r->config, &query);
    return quota < candidates ? quota : candidates;
}

static int32_t chunk_end(const world *w, const state *s, int32_t start)
{
    int32_t prompt = s->in->in.prompt_tokens, chunk = w->r->settings->chunk_tokens;
    int32_t tail = w->r->policy->local_tail ? (int32_t)w->r->policy->local_tail(w->r->config) : 0;
    if (start >= prompt - tail)
        return prompt;
    return chunk > 0 && start + chunk < prompt - tail ? start + chunk : prompt - tail;
}

/* Does the policy look at everything that is present when so many tokens have been computed? */
static bool evicts_all(const world *w, const state *s, int32_t computed, bool chunk_ends)
{
    int32_t prompt = s->in->in.prompt_tokens;
    int evict = settings_of(w)->evict;
    if (computed > prompt)
        return evict == KV_STEP || evict == KV_ONLINE ||
               (evict == KV_INTERVAL && (computed - prompt) % settings_of(w)->interval_steps == 0);
    if (!chunk_ends)
        return false;
    if (evict == KV_POOL || evict == KV_ONLINE)
        return true;
    return computed == prompt && (evict == KV_POSTFILL || evict == KV_STEP || evict == KV_INTERVAL);
}

/* One token of one request is in memory, in all heads. */
static void add_token(const world *w, state *s)
{
    int32_t computed = ++s->computed, prompt = s->in->in.prompt_tokens;
    bool chunk_ends = computed <= prompt && computed == chunk_end(w, s, s->chunk_start);
    int evict = settings_of(w)->evict;
    for (int l = 0; l < LAYERS; l++)
        for (int h = 0; h < HEADS; h++) {
            s->kept[l][h]++;
            if (evicts_all(w, s, computed, chunk_ends))
                s->kept[l][h] = stays(w, s, l, h, s->kept[l][h], false);
            else if (chunk_ends && (evict == KV_CHUNKED || evict == KV_PATCHED))
                s->kept[l][h] =
                    s->before_chunk[l][h] + stays(w, s, l, h, computed - s->chunk_start, true);
            if (chunk_ends)
                s->before_chunk[l][h] = s->kept[l][h];
        }
    if (chunk_ends)
        s->chunk_start = computed;
}

static int64_t sum(const state *s, int64_t more, int64_t page)
{
    int64_t all = 0;
    for (int l = 0; l < LAYERS; l++)
        for (int h = 0; h < HEADS; h++)
            all += page > 0 ? up(s->kept[l][h] + more, page) : s->kept[l][h] + more;
    return all;
}

static void set_pages(world *w, state *s, int64_t pages)
{
    w->used += pages - s->pages;
    s->pages = pages;
}

static int32_t wanted(const world *w, const state *s, int64_t budget)
{
    const kv_serving_settings *set = w->r->settings;
    int32_t prompt = s->in->in.prompt_tokens, tokens = tokens_of(s) - s->computed, limit = tokens;
    if (s->computed < prompt)
        limit = chunk_end(w, s, s->chunk_start) - s->computed;
    else if (settings_of(w)->evict == KV_STEP || settings_of(w)->evict == KV_ONLINE)
        limit = set->block_tokens;
    else if (settings_of(w)->evict == KV_INTERVAL)
        limit = (int32_t)(settings_of(w)->interval_steps -
                          (s->computed - prompt) % settings_of(w)->interval_steps);
    if (set->chunk_tokens > 0 && limit > set->chunk_tokens)
        limit = set->chunk_tokens;
    tokens = tokens < limit ? tokens : limit;
    return tokens < budget ? tokens : (int32_t)budget;
}

static state *running_after(const world *w, int64_t admitted)
{
    state *best = NULL;
    for (int i = 0; i < w->count; i++) {
        state *s = &w->request[i];
        if (s->running && s->admitted > admitted && (best == NULL || s->admitted < best->admitted))
            best = s;
    }
    return best;
}

static state *last_running(const world *w)
{
    state *last = NULL;
    for (state *s; (s = running_after(w, last != NULL ? last->admitted : 0)) != NULL;)
        last = s;
    return last;
}

static int running_count(const world *w)
{
    int count = 0;
    for (int i = 0; i < w->count; i++)
        count += w->request[i].running;
    return count;
}

static void forget(world *w, state *s)
{
    set_pages(w, s, 0);
    s->computed = s->scheduled = s->chunk_start = 0;
    for (int l = 0; l < LAYERS; l++)
        for (int h = 0; h < HEADS; h++)
            s->kept[l][h] = s->before_chunk[l][h] = 0;
}

static bool schedule_running(world *w, int64_t *budget)
{
    bool preempted = false;
    int64_t after = 0;
    for (state *s; (s = running_after(w, after)) != NULL; after = s->admitted) {
        int32_t tokens = wanted(w, s, *budget);
        int64_t need = sum(s, tokens, w->r->settings->block_tokens);
        while (s->running && need - s->pages > w->r->pages - w->used) {
            state *victim = last_running(w);
            forget(w, victim);
            victim->running = false;
            victim->waiting = true;
            victim->preempted = ++w->clock;
            victim->in->preemptions++;
            preempted = true;
        }
        if (!s->running)
            break;
        if (need > s->pages)
            set_pages(w, s, need);
        s->scheduled = tokens;
        *budget -= tokens;
    }
    return preempted;
}

static state *next_waiting(const world *w)
{
    state *best = NULL;
    for (int i = 0; i < w->count; i++) {
        state *s = &w->request[i];
        if (s->waiting && (best == NULL || s->preempted > best->preempted))
            best = s;
    }
    return best;
}

static void schedule_waiting(world *w, int64_t budget)
{
    state *s;
    while (budget > 0 && running_count(w) < w->r->settings->max_seqs &&
           (s = next_waiting(w)) != NULL) {
        int32_t tokens = wanted(w, s, budget);
        int64_t need = sum(s, tokens, w->r->settings->block_tokens);
        if (need > w->r->pages - w->used)
            break;
        set_pages(w, s, need);
        s->waiting = false;
        s->running = true;
        s->admitted = ++w->clock;
        s->scheduled = tokens;
        budget -= tokens;
    }
}

static int64_t duration(const world *w)
{
    kv_step_batch batch = {0};
    for (int64_t after = 0;;) {
        const state *s = running_after(w, after);
        if (s == NULL)
            break;
        after = s->admitted;
        double n = s->scheduled;
        batch.tokens += s->scheduled;
        batch.sequences += s->scheduled > 0;
        if (s->scheduled == 1 && s->generated > 0 && s->computed + 1 == tokens_of(s)) {
            int64_t keys = sum(s, 1, 0);
            batch.decodes++;
            batch.decode_entries += keys;
            batch.decode_longest = keys > batch.decode_longest ? keys : batch.decode_longest;
        } else {
            batch.prefill_tokens += s->scheduled;
            batch.prefill_square += n * n;
            batch.prefill_history += n * ((double)sum(s, 0, 0) / (LAYERS * HEADS));
        }
    }
    return kv_step_time_step(w->r->time, &batch);
}

static void end_step(world *w, int64_t now)
{
    for (int i = 0; i < w->count; i++) {
        state *s = &w->request[i];
        const kv_request *in = &s->in->in;
        if (!s->running || s->scheduled == 0)
            continue;
        for (int t = 0; t < s->scheduled; t++)
            add_token(w, s);
        int64_t between = sum(s, 1, w->r->settings->block_tokens);
        if (between < s->pages)
            set_pages(w, s, between);
        if (s->computed == tokens_of(s) && s->generated < in->output_tokens) {
            if (s->generated++ == 0)
                s->in->first_ns = now;
            s->in->last_ns = now;
        }
        s->scheduled = 0;
        if (s->generated == in->output_tokens && s->computed >= in->prompt_tokens) {
            s->in->last_ns = now;
            s->running = false;
            forget(w, s);
        }
    }
}

void keep_reference_run(const keep_reference *reference, keep_reference_request *request, int count)
{
    world w = {.r = reference, .count = count};
    int64_t now = 0, fine = 0;
    w.request = calloc((size_t)count, sizeof *w.request);
    for (int i = 0; i < count; i++) {
        w.request[i].in = &request[i];
        request[i].first_ns = request[i].last_ns = -1;
        request[i].preemptions = 0;
    }
    for (int arrived = 0;;) {
        for (; arrived < count && request[arrived].in.arrival_ns <= now; arrived++)
            w.request[arrived].waiting = !request[arrived].skip;
        int64_t budget = reference->settings->max_batched_tokens;
        if (!schedule_running(&w, &budget))
            schedule_waiting(&w, budget);
        if (running_count(&w) == 0) {
            if (arrived == count)
                break;
            now = request[arrived].in.arrival_ns;
            fine = 0;
            continue;
        }
        fine += duration(&w);
        now += fine >> KV_FINE_BITS;
        fine &= ((int64_t)1 << KV_FINE_BITS) - 1;
        end_step(&w, now);
    }
    free(w.request);
}
