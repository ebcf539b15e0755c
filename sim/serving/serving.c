/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* The loop: what happens next among arrivals, steps and samples. */
#include "config.h"

#include "sim/engine/events.h"
#include "sim/serving/blend.h"
#include "sim/serving/foresight.h"
#include "sim/serving/names.h"
#include "sim/serving/replica.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const char *const kv_request_status_names[] = {"completed", "too_long", "too_large", NULL};

enum { CLASS_ARRIVAL };

typedef struct kv__loop {
    kv__server server;
    kv__replica *replica; /* [replicas] */
    kv_replica_view *view;
    kv_events arrivals;             /* requests that were read ahead; payload: kv__live * */
    bool more;                      /* the source may have more */
    int64_t taken;                  /* requests that arrived, to route by */
    int64_t next_sample, sample_ns; /* sample_ns: from one to the next */
    int32_t samples;
} kv__loop;

void kv_serving_result_fini(kv_serving_result *result)
{
    kv_samples_fini(&result->ttft);
    kv_samples_fini(&result->tpot);
    kv_samples_fini(&result->e2e);
    kv_samples_fini(&result->queue);
    kv_samples_fini(&result->itl);
}

/* --- Requests come in -------------------------------------------------------------- */

static kv_err copy_names(kv__loop *loop, kv__live *live, const kv_request *request)
{
    if (live->named > live->key_room) {
        uint64_t *key = realloc(live->key, (size_t)live->named * sizeof *key);
        live->key = key != NULL ? key : live->key;
        uint32_t *slot = realloc(live->slot, (size_t)live->named * sizeof *slot);
        live->slot = slot != NULL ? slot : live->slot;
        if (key == NULL || slot == NULL)
            return kv_fail_memory(loop->server.diag);
        live->key_room = live->named;
    }
    for (int32_t i = 0; i < live->named; i++)
        live->key[i] = kv__block_name(request, loop->server.settings->block_tokens, i);
    return KV_OK;
}

static kv_err take_request(kv__loop *loop, const kv_request *request)
{
    kv__live *live = kv_pool_take(&loop->server.pool);
    if (live == NULL)
        return kv_fail_memory(loop->server.diag);
    *live = (kv__live){.key = live->key,
                       .slot = live->slot,
                       .key_room = live->key_room,
                       .kept = live->kept,
                       .blend = live->blend,
                       .prompt_tokens = request->prompt_tokens,
                       .output_tokens = request->output_tokens,
                       .turn = request->turn,
                       .tenant = request->tenant,
                       .session = request->session,
                       .number = request->number,
                       .first_use = -1,
                       .arrival_ns = request->arrival_ns};
    if (loop->server.settings->foresight != NULL)
        live->first_use = kv__foresight_of(loop->server.settings->foresight, request);
    kv_err err = kv__named_blocks(loop->server.settings, request, &live->named, loop->server.diag);
    if (err == KV_OK && loop->server.settings->keep != NULL)
        err = kv__keep_attach(loop->server.settings->keep, live, loop->server.diag);
    if (err == KV_OK)
        err = copy_names(loop, live, request);
    if (err == KV_OK && loop->server.settings->blend)
        err = kv__blend_attach(&loop->server, live, request);
    if (err == KV_OK && kv_events_put(&loop->arrivals, live->arrival_ns, CLASS_ARRIVAL,
                                      (uint64_t)(uintptr_t)live) != KV_OK)
        err = kv_fail_memory(loop->server.diag);
    return err;
}

/* Reads one request ahead. */
static kv_err read_ahead(kv__loop *loop)
{
    kv_request request;
    kv_err err =
        loop->server.source->next(loop->server.source->closure, &request, loop->server.diag);
    if (err == KV_END) {
        loop->more = false;
        return KV_OK;
    }
    if (err != KV_OK)
        return err;
    if (request.prompt_tokens < 1 || request.output_tokens < 0 ||
        request.arrival_ns < loop->arrivals.last_ns)
        return kv_fail(
            loop->server.diag, KV_ERR_INPUT, NULL,
            "request %lld: prompts have at least 1 token, answers at least 0, and arrivals "
            "may not go back in time",
            (long long)request.number);
    return take_request(loop, &request);
}

static int64_t earliest_arrival(const kv__loop *loop)
{
    const kv_event_entry *next = kv_events_next(&loop->arrivals);
    return next != NULL ? next->time_ns : INT64_MAX;
}

/* Reads all that arrives before what was read ahead: completions may have called for it, one answer
 * for several turns. */
static kv_err read_earlier(kv__loop *loop)
{
    const kv_serving_source *source = loop->server.source;
    kv_err err = KV_OK;
    while (err == KV_OK) {
        int64_t arrival_ns;
        err = source->peek(source->closure, &arrival_ns, loop->server.diag);
        if (err == KV_OK && arrival_ns >= earliest_arrival(loop))
            break;
        if (err == KV_OK)
            err = read_ahead(loop);
    }
    return err == KV_END ? KV_OK : err;
}

/* Knows the next arrival. */
static kv_err look_ahead(kv__loop *loop)
{
    kv_err err = KV_OK;
    if (loop->server.source->peek != NULL)
        err = read_earlier(loop);
    else if (loop->arrivals.count == 0 && loop->more)
        err = read_ahead(loop);
    loop->server.next_arrival = earliest_arrival(loop);
    return err;
}

/* Why a request can never be served, KV_REQUEST_COMPLETED if it can. */
static kv_request_status refusal(kv__server *server, kv__live *live)
{
    const kv_serving_settings *s = server->settings;
    int64_t tokens = (int64_t)live->prompt_tokens + live->output_tokens;
    if (s->max_context_tokens > 0 && tokens > s->max_context_tokens)
        return KV_REQUEST_TOO_LONG;
    int64_t stored = live->output_tokens > 0 ? tokens - 1 : tokens;
    if (s->keep != NULL) {
        int64_t most_away;
        int64_t most = kv__keep_most(s->keep, live, (int32_t)stored, &server->probe, &most_away);
        live->most_pages =
            kv__keep_most(s->keep, live, live->prompt_tokens, &server->probe, &live->most_away);
        return most > s->kv_blocks * s->keep->block_pages || most_away > kv__home_capacity(s)
                   ? KV_REQUEST_TOO_LARGE
                   : KV_REQUEST_COMPLETED;
    }
    if ((stored + s->block_tokens - 1) / s->block_tokens > s->kv_blocks)
        return KV_REQUEST_TOO_LARGE;
    return KV_REQUEST_COMPLETED;
}

static kv_err reject(kv__loop *loop, kv__live *live, kv_request_status status)
{
    kv__server *server = &loop->server;
    kv_request_outcome outcome = {.number = live->number,
                                  .arrival_ns = live->arrival_ns,
                                  .queue_ns = -1,
                                  .ttft_ns = -1,
                                  .tpot_ns = -1,
                                  .e2e_ns = -1,
                                  .prompt_tokens = live->prompt_tokens,
                                  .output_tokens = live->output_tokens,
                                  .replica = -1,
                                  .status = status};
    server->result->rejected_long += status == KV_REQUEST_TOO_LONG;
    server->result->rejected_large += status == KV_REQUEST_TOO_LARGE;
    if (server->source->completed != NULL && live->session != KV_NO_SESSION)
        server->source->completed(server->source->closure, live->session, live->turn,
                                  live->arrival_ns);
    kv__foresee(server, live, true);
    kv_pool_give(&server->pool, live);
    if (server->listener == NULL || server->listener->request == NULL)
        return KV_OK;
    return server->listener->request(server->listener->closure, &outcome, server->diag);
}

/* The replica that a request goes to. */
static kv__replica *route(kv__loop *loop, const kv__live *live)
{
    const kv_serving_settings *s = loop->server.settings;
    for (int r = 0; r < s->replicas; r++) {
        const kv__replica *replica = &loop->replica[r];
        loop->view[r] = (kv_replica_view){
            .requests = replica->running_count + replica->waiting.count + replica->resumed.count,
            .tokens = replica->pending_tokens,
            .prefix_blocks =
                s->routing->wants_prefix ? kv__memory_look(&replica->memory, live).blocks : 0};
    }
    return &loop->replica[s->routing->choose(loop->view, s->replicas, loop->taken, live->named)];
}

static kv_err arrive(kv__loop *loop, const kv_event_entry *event)
{
    kv__live *live = (kv__live *)(uintptr_t)event->payload;
    kv_request_status status = refusal(&loop->server, live);
    loop->server.result->requests++;
    if (loop->server.result->requests == 1)
        loop->server.result->first_arrival_ns = live->arrival_ns;
    if (status != KV_REQUEST_COMPLETED)
        return reject(loop, live, status);
    kv_err err = KV_OK;
    for (int r = 0; r < loop->server.settings->replicas && err == KV_OK; r++)
        err = kv__replica_advance(&loop->replica[r], event->time_ns);
    if (err != KV_OK)
        return err;
    kv__replica *replica = route(loop, live);
    loop->taken++;
    kv__replica_cut(replica, event->time_ns);
    kv__replica_enqueue(replica, live);
    return KV_OK;
}

/* --- The loop ---------------------------------------------------------------------- */

/* Samples stand behind all that happens at their time: steps that end then are over, requests have
 * arrived and the next steps hold their memory. */
static kv_err sample(kv__loop *loop, int64_t time_ns)
{
    const kv__server *server = &loop->server;
    if (loop->samples == KV_MOST_SAMPLES) { /* this one stands on the coarser grid, too */
        loop->sample_ns *= 2;
        loop->samples /= 2;
    }
    kv_serving_sample taken = {.time_ns = time_ns, .interval_ns = loop->sample_ns};
    for (int r = 0; r < server->settings->replicas; r++) {
        kv__replica *replica = &loop->replica[r];
        kv_err err = kv__replica_advance_after(replica, time_ns);
        if (err != KV_OK)
            return err;
        taken.used_bytes += llround((double)kv__memory_used(&replica->memory) *
                                    kv_serving_page_bytes(server->settings));
        for (int t = 0; t < server->settings->tiers; t++)
            taken.tier_bytes[t] += llround((double)kv__tier_blocks(replica, t) *
                                           kv_serving_cached_bytes(server->settings));
        taken.running += replica->running_count;
        taken.waiting += replica->waiting.count + replica->resumed.count;
    }
    loop->next_sample += loop->sample_ns;
    loop->samples++;
    return server->listener->sample(server->listener->closure, &taken, server->diag);
}

/* The replica whose plan ends first, or NULL. */
static kv__replica *first_end(kv__loop *loop)
{
    kv__replica *first = NULL;
    for (int r = 0; r < loop->server.settings->replicas; r++)
        if (loop->replica[r].plan.active &&
            (first == NULL || loop->replica[r].plan.end_ns < first->plan.end_ns))
            first = &loop->replica[r];
    return first;
}

static kv_err schedule_idle(kv__loop *loop, int64_t time_ns)
{
    kv_err err = look_ahead(loop);
    for (int r = 0; r < loop->server.settings->replicas && err == KV_OK; r++) {
        kv__replica *replica = &loop->replica[r];
        bool work =
            replica->running_count > 0 || replica->waiting.count > 0 || replica->resumed.count > 0;
        /* All that run wait for a load: what happens elsewhere, which jumps need not see, is no
         * reason to look again. */
        bool loads = replica->running_count > 0 && !replica->stirred &&
                     replica->wake_ns < INT64_MAX && replica->wake_ns > time_ns;
        if (!replica->plan.active && work && !loads)
            err = kv__replica_schedule(replica, time_ns);
    }
    return err;
}

/* The time of what happens next, INT64_MAX if nothing does. */
static int64_t next_time(kv__loop *loop)
{
    const kv_event_entry *arrival = kv_events_next(&loop->arrivals);
    kv__replica *replica = first_end(loop);
    int64_t next = arrival != NULL ? arrival->time_ns : INT64_MAX;
    for (int r = 0; r < loop->server.settings->replicas; r++)
        if (!loop->replica[r].plan.active && loop->replica[r].wake_ns < next)
            next = loop->replica[r].wake_ns;
    return replica != NULL && replica->plan.end_ns < next ? replica->plan.end_ns : next;
}

/* All that happens at one instant: steps end, requests arrive, replicas schedule. */
static kv_err happen(kv__loop *loop, int64_t time_ns)
{
    kv_err err = KV_OK;
    const kv_serving_settings *s = loop->server.settings;
    for (int r = 0; r < s->replicas && err == KV_OK; r++)
        if (loop->replica[r].plan.active && loop->replica[r].plan.end_ns == time_ns)
            err = kv__replica_advance(&loop->replica[r], time_ns);
    if (err == KV_OK)
        err = look_ahead(loop);
    kv_event_entry event;
    while (err == KV_OK && loop->server.next_arrival == time_ns) {
        kv_events_take(&loop->arrivals, &event);
        err = arrive(loop, &event);
        if (err == KV_OK)
            err = look_ahead(loop);
    }
    return err == KV_OK ? schedule_idle(loop, time_ns) : err;
}

static kv_err run_loop(kv__loop *loop)
{
    const kv_serving_settings *s = loop->server.settings;
    const kv_serving_listener *listener = loop->server.listener;
    bool samples = s->timeline_ns > 0 && listener != NULL && listener->sample != NULL;
    kv_err err = look_ahead(loop);
    loop->next_sample = loop->server.next_arrival;
    loop->sample_ns = s->timeline_ns;
    for (int64_t time_ns; err == KV_OK && (time_ns = next_time(loop)) != INT64_MAX;) {
        while (samples && err == KV_OK && loop->next_sample < time_ns)
            err = sample(loop, loop->next_sample);
        if (err == KV_OK)
            err = happen(loop, time_ns);
    }
    for (int r = 0; r < s->replicas && err == KV_OK; r++)
        err = loop->replica[r].failed;
    return err;
}

static void sum_up(kv__loop *loop)
{
    const kv_serving_settings *s = loop->server.settings;
    kv_serving_result *result = loop->server.result;
    for (int r = 0; r < s->replicas; r++) {
        kv__replica *replica = &loop->replica[r];
        kv__tiers_sum(replica, result);
        double page = kv_serving_page_bytes(s), entry = page / s->block_tokens;
        double fine = ldexp(1e-9, -KV_FINE_BITS);
        result->peak_bytes += llround((double)replica->peak_pages * page);
        result->ideal_peak_bytes += llround((double)replica->peak_stored * entry);
        result->peak_running += replica->peak_running;
        result->evictions += replica->memory.evictions;
        result->byte_seconds += (double)replica->page_fine * fine * page;
        result->ideal_byte_seconds += (double)replica->stored_fine * fine * entry;
        result->running_seconds += (double)replica->running_fine * fine;
        result->read_bytes += (double)replica->read * s->entry_bytes;
    }
}

/* Everyone has gone, so nothing may be in use. */
static kv_err check_empty(const kv__loop *loop)
{
    for (int r = 0; r < loop->server.settings->replicas; r++) {
        const kv__replica *replica = &loop->replica[r];
        int64_t used = kv__memory_used(&replica->memory), swapped = replica->tier[0].swapped;
        if (used != 0 || swapped != 0 || replica->away != 0 || replica->pending_tokens != 0)
            return kv_fail(loop->server.diag, KV_ERR_BUG, NULL,
                           "replica %d still has %lld pages in use, %lld blocks swapped out, %lld "
                           "entries in host memory and %lld tokens to compute after its last "
                           "request",
                           r, (long long)used, (long long)swapped, (long long)replica->away,
                           (long long)replica->pending_tokens);
    }
    return KV_OK;
}

static void free_names(void *object)
{
    kv__live *live = object;
    free(live->key);
    free(live->slot);
    free(live->kept);
    kv__blend_free(live);
}

kv_err kv_serving_run(const kv_serving_settings *settings, const kv_step_time *time,
                      int64_t entries_per_token, const kv_serving_source *source,
                      const kv_serving_listener *listener, kv_serving_result *result, kv_diag *diag)
{
    kv__loop loop = {.server = {.settings = settings,
                                .time = time,
                                .source = source,
                                .listener = listener,
                                .result = result,
                                .diag = diag,
                                .pool = {.object_bytes = sizeof(kv__live)},
                                .entries = entries_per_token},
                     .more = true};
    kv_err err = KV_OK;
    int made = 0;
    loop.replica = calloc((size_t)settings->replicas, sizeof *loop.replica);
    loop.view = calloc((size_t)settings->replicas, sizeof *loop.view);
    if (loop.replica == NULL || loop.view == NULL)
        err = kv_fail_memory(diag);
    if (err == KV_OK && settings->foresight == NULL && kv_foresight_needed(settings))
        err = kv_fail(diag, KV_ERR_UNSUPPORTED, NULL,
                      "replacement belady needs to know the requests to come, which only `kvsim "
                      "run` reads from the trace beforehand: expected another policy here");
    loop.server.replica = loop.replica;
    if (err == KV_OK && settings->keep != NULL)
        err = kv__keep_attach(settings->keep, &loop.server.probe, diag);
    for (; err == KV_OK && made < settings->replicas; made++)
        err = kv__replica_init(&loop.replica[made], &loop.server, made);
    if (err == KV_OK)
        err = run_loop(&loop);
    if (err == KV_OK)
        err = check_empty(&loop);
    if (err == KV_OK)
        sum_up(&loop);
    for (int r = 0; r < made; r++)
        kv__replica_fini(&loop.replica[r]);
    kv_pool_each(&loop.server.pool, free_names);
    kv_pool_fini(&loop.server.pool);
    kv_events_fini(&loop.arrivals);
    for (int t = 0; t < KV_MOST_TIERS; t++)
        kv__link_fini(&loop.server.link[t]);
    free(loop.server.probe.kept);
    free(loop.replica);
    free(loop.view);
    return err == KV_ERR_MEMORY ? kv_fail_memory(diag) : err;
}
