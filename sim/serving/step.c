/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* What steps do: tokens computed, answers given, blocks taken, requests completed. */
#include "config.h"

#include "sim/serving/blend.h"
#include "sim/serving/replica.h"

/* Fine time of the first `steps` steps of the plan. */
static __int128 plan_time(const kv__plan *plan, int64_t steps)
{
    return kv_step_ramp_time(&plan->ramp, steps);
}

/* When the first `steps` steps are over. */
static int64_t plan_end(const kv__plan *plan, int64_t steps)
{
    return plan->start_ns + (int64_t)((plan->start_fine + plan_time(plan, steps)) >> KV_FINE_BITS);
}

/* How many of the first `most` steps are over at a time. */
static int64_t steps_over(const kv__plan *plan, int64_t time_ns)
{
    int64_t low = plan->done, most = plan->ramp.steps;
    if (plan->end_ns <= time_ns)
        return most;
    while (low < most) {
        int64_t middle = low + (most - low + 1) / 2;
        if (plan_end(plan, middle) <= time_ns)
            low = middle;
        else
            most = middle - 1;
    }
    return low;
}

void kv__replica_note_peak(kv__replica *replica)
{
    int64_t used = kv__memory_used(&replica->memory);
    if (used > replica->peak_pages)
        replica->peak_pages = used;
    if (replica->running_count > replica->peak_running)
        replica->peak_running = replica->running_count;
}

/* --- Completion -------------------------------------------------------------------- */

static bool is_good(const kv_serving_settings *s, const kv_request_outcome *outcome)
{
    return (s->goodput_ttft_ns == 0 || outcome->ttft_ns <= s->goodput_ttft_ns) &&
           (s->goodput_tpot_ns == 0 || outcome->tpot_ns <= s->goodput_tpot_ns) &&
           (s->goodput_e2e_ns == 0 || outcome->e2e_ns <= s->goodput_e2e_ns);
}

static kv_err note_latencies(kv_serving_result *result, const kv_request_outcome *outcome)
{
    kv_err err = kv_samples_add(&result->e2e, outcome->e2e_ns);
    if (err == KV_OK)
        err = kv_samples_add(&result->queue, outcome->queue_ns);
    if (err == KV_OK && outcome->ttft_ns >= 0)
        err = kv_samples_add(&result->ttft, outcome->ttft_ns);
    if (err == KV_OK && outcome->tpot_ns >= 0)
        err = kv_samples_add(&result->tpot, outcome->tpot_ns);
    return err;
}

static void note_hits(kv_serving_result *result, const kv__live *live)
{
    int64_t loaded = 0;
    for (int t = 0; t < KV_MOST_TIERS; t++) {
        result->tier[t].hit_tokens += live->hit_tokens[t];
        loaded += live->hit_tokens[t];
    }
    result->loaded_tokens += loaded;
    result->cached_tokens += live->cached_tokens - loaded;
    kv__blend_note(live, result);
}

static kv_err complete(kv__replica *replica, kv__live *live, int64_t time_ns)
{
    kv__server *server = replica->server;
    kv_serving_result *result = server->result;
    int32_t answers = live->generated_tokens;
    kv_request_outcome outcome = {
        .number = live->number,
        .arrival_ns = live->arrival_ns,
        .queue_ns = live->admitted_ns - live->arrival_ns,
        .ttft_ns = answers > 0 ? live->first_token_ns - live->arrival_ns : -1,
        .tpot_ns = answers > 1 ? (time_ns - live->first_token_ns) / (answers - 1) : -1,
        .e2e_ns = time_ns - live->arrival_ns,
        .prompt_tokens = live->prompt_tokens,
        .output_tokens = live->output_tokens,
        .cached_tokens = live->cached_tokens,
        .blended_tokens = live->blend != NULL ? live->blend->tokens : 0,
        .preemptions = live->preemptions,
        .replica = replica->index,
        .status = KV_REQUEST_COMPLETED};
    result->completed++;
    result->prompt_tokens += live->prompt_tokens;
    result->output_tokens += answers;
    note_hits(result, live);
    result->good_requests += is_good(server->settings, &outcome);
    replica->pending_tokens -= live->prompt_tokens + live->output_tokens - live->computed_tokens;
    kv__home_give(replica, live);
    kv_err err = kv__memory_release(&replica->memory, live, false);
    if (err == KV_OK && note_latencies(result, &outcome) != KV_OK)
        err = kv_fail_memory(server->diag);
    if (err == KV_OK && server->listener != NULL && server->listener->request != NULL)
        err = server->listener->request(server->listener->closure, &outcome, server->diag);
    if (server->source->completed != NULL && live->session != KV_NO_SESSION)
        server->source->completed(server->source->closure, live->session, live->turn, time_ns);
    kv_pool_give(&server->pool, live);
    return err;
}

/* Completes and takes out the running requests that have all their answer. */
static kv_err complete_finished(kv__replica *replica, int64_t time_ns)
{
    int32_t kept = 0;
    kv_err err = KV_OK;
    for (int32_t i = 0; i < replica->running_count; i++) {
        kv__live *live = replica->running[i];
        bool finished = live->generated_tokens == live->output_tokens &&
                        live->computed_tokens >= live->prompt_tokens;
        if (finished && err == KV_OK)
            err = complete(replica, live, time_ns);
        else
            replica->running[kept++] = live;
    }
    replica->running_count = kept;
    return err;
}

/* --- One step of any kind ---------------------------------------------------------- */

static kv_err note_gap(kv_serving_result *result, int64_t gap_ns)
{
    return kv_samples_add_ramp(&result->itl, (__int128)gap_ns << KV_FINE_BITS, 0, 1, KV_FINE_BITS,
                               1);
}

/* What a request has computed is in memory; a policy evicts. */
static kv_err add_computed(kv__replica *replica, kv__live *live, int32_t tokens)
{
    const kv_keep *keep = replica->server->settings->keep;
    live->computed_tokens += tokens;
    return keep != NULL && tokens > 0 ? kv__keep_evict(keep, &replica->memory, live) : KV_OK;
}

/* A token comes out of every request that has caught up. */
static kv_err give_tokens(kv__replica *replica, int64_t time_ns)
{
    kv_err err = KV_OK;
    for (int32_t i = 0; i < replica->running_count && err == KV_OK; i++) {
        kv__live *live = replica->running[i];
        err = add_computed(replica, live, live->scheduled);
        replica->pending_tokens -= live->scheduled;
        if (live->scheduled == 0 || live->computed_tokens < kv__live_tokens(live) ||
            live->generated_tokens == live->output_tokens)
            continue;
        if (live->generated_tokens++ == 0)
            live->first_token_ns = time_ns;
        else if (err == KV_OK)
            err = note_gap(replica->server->result, time_ns - live->last_token_ns);
        live->last_token_ns = time_ns;
    }
    return err == KV_ERR_MEMORY ? kv_fail_memory(replica->server->diag) : err;
}

/* --- Many steps that only decode --------------------------------------------------- */

/* What a plan's pages are counted by. */
typedef struct taking {
    int64_t from, to; /* steps whose begin takes pages: from + 1 .. to, from now on */
    int64_t until;    /* step of the plan at whose end the account is drawn up */
    __int128 end;     /* fine time from the plan's beginning to then */
    int64_t taken;
    unsigned __int128 held; /* fine time that what was taken is held until then */
} taking;

/* Pages of `heads` equal heads with `past` entries: step j adds entry past + j, which opens a page
 * if past + j - 1 is a multiple of the page. */
static int64_t take_pages(const kv__replica *replica, int64_t past, int64_t heads, taking *t)
{
    const kv__plan *plan = &replica->plan;
    int64_t size = replica->memory.block_tokens, opened = 0;
    int64_t over = past <= INT32_MAX ? (uint32_t)past % (uint32_t)size : past % size;
    int64_t j = over > 0 ? size - over + 1 : 1;
    j += j <= t->from ? (t->from - j) / size * size + size : 0;
    for (; j <= t->to; j += size, opened++)
        if (plan->done + j <= t->until)
            t->held += (unsigned __int128)heads *
                       (unsigned __int128)(t->end - plan_time(plan, plan->done + j - 1));
    t->taken += heads * opened;
    return opened;
}

static void take_all(kv__replica *replica, taking *t)
{
    const kv_keep *keep = replica->server->settings->keep;
    for (int32_t i = 0; i < replica->running_count; i++) {
        kv__live *live = replica->running[i];
        if (keep == NULL)
            live->held += (int32_t)take_pages(replica, live->computed_tokens, 1, t);
        for (int c = 0; keep != NULL && c < keep->classes; c++) {
            int64_t growth = live->kept[c].growth, room;
            if (growth == 0)
                continue;
            room = kv__keep_room(keep, live, c, &growth);
            if (growth > 0)
                live->pages +=
                    keep->class[c].heads * take_pages(replica, room, keep->class[c].heads, t);
        }
    }
}

unsigned __int128 kv__sum_products(__int128 a, __int128 da, __int128 b, __int128 db, int64_t n)
{
    __int128 count = n, pairs = count * (count - 1) / 2;
    __int128 squares = count * (count - 1) * (2 * count - 1) / 6;
    return (unsigned __int128)(count * a * b + pairs * (a * db + b * da) + squares * da * db);
}

/* Adds what is stored and read in `steps` steps from the plan's step `done` on, exactly: sums of
 * products of two lines. */
static void account_entries(kv__replica *replica, int64_t steps)
{
    const kv__plan *plan = &replica->plan;
    const kv_step_batch *batch = &plan->batch;
    __int128 n = steps, stored = plan->stored + (__int128)plan->stored_growth * plan->done;
    __int128 time = plan->ramp.first + plan->ramp.slope * plan->done;
    __int128 pairs = n * (n - 1) / 2;
    replica->stored_fine +=
        kv__sum_products(stored, plan->stored_growth, time, plan->ramp.slope, steps);
    __int128 span = plan_time(plan, plan->done + steps) - plan_time(plan, plan->done);
    replica->running_fine += (unsigned __int128)replica->running_count * (unsigned __int128)span;
    __int128 read =
        plan->chunk_reads + batch->decode_entries + (__int128)batch->decode_growth * plan->done;
    replica->read += (unsigned __int128)(n * read + pairs * batch->decode_growth);
    int64_t last = plan->stored + plan->stored_growth * (plan->done + steps - 1);
    if (steps > 0 && last > replica->peak_stored)
        replica->peak_stored = last;
    if (kv_serving_has_home(replica->server->settings))
        kv__home_account(replica, steps);
}

/* Accounts `steps` steps that are over, and the blocks of the next if `begins`. */
static kv_err decode(kv__replica *replica, int64_t steps, bool begins)
{
    kv__plan *plan = &replica->plan;
    kv_serving_result *result = replica->server->result;
    int64_t until = plan->done + steps, time_ns = plan_end(plan, until);
    int64_t have =
        plan->begun - plan->done; /* 1: the first of the steps holds its blocks already */
    __int128 span = plan_time(plan, until) - plan_time(plan, plan->done);
    taking t = {.from = have, .to = steps + begins, .until = until, .end = plan_time(plan, until)};
    replica->page_fine +=
        (unsigned __int128)kv__memory_used(&replica->memory) * (unsigned __int128)span;
    take_all(replica, &t);
    replica->page_fine += t.held;
    kv__memory_take(&replica->memory, t.taken);
    kv__replica_note_peak(replica);
    account_entries(replica, steps);
    bool home = kv_serving_has_home(replica->server->settings);
    kv_err err = KV_OK;
    for (int32_t i = 0; i < replica->running_count && err == KV_OK; i++) {
        kv__live *live = replica->running[i];
        if (home)
            kv__home_grow(replica, live, t.to - t.from);
        err = add_computed(replica, live, (int32_t)steps);
        live->generated_tokens += (int32_t)steps;
        if (steps > 0)
            live->last_token_ns = time_ns;
    }
    replica->pending_tokens -= steps * replica->running_count;
    if (err != KV_OK)
        return err;
    err = kv_samples_add_ramp(&result->itl, plan->ramp.first + plan->done * plan->ramp.slope,
                              plan->ramp.slope, steps, KV_FINE_BITS, replica->running_count);
    plan->done = until;
    plan->begun = until + begins;
    return err == KV_OK ? KV_OK : kv_fail_memory(replica->server->diag);
}

/* --- Plans ------------------------------------------------------------------------- */

static kv_err tell_span(kv__replica *replica)
{
    kv__server *server = replica->server;
    const kv__plan *plan = &replica->plan;
    if (server->listener == NULL || server->listener->span == NULL)
        return KV_OK;
    kv_serving_span span = {.replica = replica->index,
                            .start_ns = plan->start_ns,
                            .end_ns = plan->end_ns,
                            .steps = plan->ramp.steps,
                            .prefill_tokens = plan->batch.prefill_tokens,
                            .decodes = plan->batch.decodes};
    return server->listener->span(server->listener->closure, &span, server->diag);
}

/* The plan is carried out. */
static kv_err finish(kv__replica *replica)
{
    kv__plan *plan = &replica->plan;
    kv_serving_result *result = replica->server->result;
    __int128 fine = plan->start_fine + plan_time(plan, plan->ramp.steps);
    plan->active = false;
    replica->stirred = true;
    replica->time_ns = plan->end_ns; /* when what is let go leaves */
    replica->now_ns = plan->end_ns;
    replica->now_fine = (int64_t)(fine & (((int64_t)1 << KV_FINE_BITS) - 1));
    kv__home_move(replica);
    result->busy_ns += plan->end_ns - plan->start_ns;
    result->steps += plan->ramp.steps;
    result->jumps++;
    if (plan->end_ns > result->end_ns)
        result->end_ns = plan->end_ns;
    kv_err err = complete_finished(replica, plan->end_ns);
    return err == KV_OK ? tell_span(replica) : err;
}

/* after: all that happens at `time_ns` has happened, so a step that begins then has begun. */
static kv_err advance(kv__replica *replica, int64_t time_ns, bool after)
{
    kv__plan *plan = &replica->plan;
    if (!plan->active)
        return KV_OK;
    int64_t over = steps_over(plan, time_ns);
    bool ends = over == plan->ramp.steps;
    kv_err err = KV_OK;
    if (plan->decode_only && plan->even) {
        bool begins = !ends && (plan->begun > over || plan_end(plan, over) < time_ns + after);
        if (over > plan->done || over + begins > plan->begun)
            err = decode(replica, over - plan->done, begins);
    } else if (ends) {
        replica->page_fine += (unsigned __int128)kv__memory_used(&replica->memory) *
                              (unsigned __int128)plan_time(plan, 1);
        account_entries(replica, 1);
        err = give_tokens(replica, plan->end_ns);
    }
    return err == KV_OK && ends ? finish(replica) : err;
}

kv_err kv__replica_advance(kv__replica *replica, int64_t time_ns)
{
    return advance(replica, time_ns, false);
}

kv_err kv__replica_advance_after(kv__replica *replica, int64_t time_ns)
{
    return advance(replica, time_ns, true);
}
