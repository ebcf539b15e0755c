/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "sim/serving/serving_run.h"

#include "analysis/run.h"
#include "sim/base/digest.h"
#include "sim/serving/event_trace.h"
#include "sim/serving/foresight.h"
#include "sim/serving/plan_reuse.h"
#include "sim/serving/serving_output.h"
#include "sim/serving/timeline.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* What is told while a point runs. */
typedef struct telling {
    kv__output *out;
    kv__timeline timeline;
    kv_event_trace trace;
    bool requests;
} telling;

static double seconds(int64_t ns)
{
    return ns < 0 ? NAN : (double)ns * 1e-9;
}

static kv_err tell_request(void *closure, const kv_request_outcome *outcome, kv_diag *diag)
{
    telling *t = closure;
    kv_event_trace_request(&t->trace, outcome);
    if (!t->requests)
        return KV_OK;
    kv_request_row row = {.request = outcome->number,
                          .arrival_s = seconds(outcome->arrival_ns),
                          .ttft_s = seconds(outcome->ttft_ns),
                          .tpot_s = seconds(outcome->tpot_ns),
                          .e2e_s = seconds(outcome->e2e_ns),
                          .queue_s = seconds(outcome->queue_ns),
                          .cached_tokens = outcome->cached_tokens,
                          .blended_tokens = outcome->blended_tokens,
                          .preemptions = outcome->preemptions,
                          .status = kv_request_status_names[outcome->status]};
    return kv__output_put(t->out, KV__OUTPUT_REQUEST, &row, diag);
}

static kv_err tell_sample(void *closure, const kv_serving_sample *sample, kv_diag *diag)
{
    return kv__timeline_add(&((telling *)closure)->timeline, sample, diag);
}

static kv_err tell_span(void *closure, const kv_serving_span *span, kv_diag *diag)
{
    kv_event_trace_span(&((telling *)closure)->trace, span);
    return KV_OK;
}

static kv_err tell_pause(void *closure, const kv_serving_pause *pause, kv_diag *diag)
{
    kv_event_trace_pause(&((telling *)closure)->trace, pause);
    return KV_OK;
}

/* unit: seconds per unit of the samples. */
static kv_latency_row latency(kv_samples *samples, double mean_unit, double unit)
{
    return (kv_latency_row){.mean = kv_samples_mean(samples) * mean_unit,
                            .p50 = kv_samples_quantile(samples, 0.5) * unit,
                            .p90 = kv_samples_quantile(samples, 0.9) * unit,
                            .p95 = kv_samples_quantile(samples, 0.95) * unit,
                            .p99 = kv_samples_quantile(samples, 0.99) * unit};
}

static double per(double value, double of)
{
    return of > 0 ? value / of : NAN;
}

static kv_serving_row row_of(const kv_serving_point *point, kv_serving_result *r, int64_t skipped)
{
    double duration =
        r->end_ns > r->first_arrival_ns ? seconds(r->end_ns - r->first_arrival_ns) : 0;
    double fine = ldexp(1e-9, -KV_FINE_BITS);
    return (kv_serving_row){
        .policy = point->policy,
        .params = point->params,
        .label = point->label,
        .keep = point->keep_fraction,
        .settings = point->settings_json,
        .chunk_tokens = point->chunk_tokens,
        .requests = r->requests,
        .completed = r->completed,
        .rejected = r->rejected_long + r->rejected_large,
        .rejected_too_long = r->rejected_long,
        .rejected_too_large = r->rejected_large,
        .skipped = skipped,
        .preemptions = r->preemptions,
        .recomputed_tokens = r->recomputed_tokens,
        .prompt_tokens = r->prompt_tokens,
        .blended_tokens = r->blended_tokens,
        .blend_recomputed_tokens = r->blend_recomputed_tokens,
        .output_tokens = r->output_tokens,
        .steps = r->steps,
        .duration_s = duration,
        .throughput_tok_s = per((double)r->output_tokens, duration),
        .throughput_req_s = per((double)r->completed, duration),
        .ttft = latency(&r->ttft, 1e-9, 1e-9),
        .tpot = latency(&r->tpot, 1e-9, 1e-9),
        .itl = latency(&r->itl, fine, 1e-9),
        .e2e = latency(&r->e2e, 1e-9, 1e-9),
        .queue = latency(&r->queue, 1e-9, 1e-9),
        .goodput = per((double)r->good_requests, duration),
        .prefix_hit_ratio =
            per((double)(r->cached_tokens + r->loaded_tokens), (double)r->prompt_tokens),
        .kv_capacity_bytes = point->capacity_bytes,
        .kv_peak_bytes = (double)r->peak_bytes,
        .kv_ideal_peak_bytes = (double)r->ideal_peak_bytes,
        .gpu_bytes_seconds = r->byte_seconds,
        .ideal_bytes_seconds = r->ideal_byte_seconds,
        .kv_read_bytes = r->read_bytes,
        .running_peak = r->peak_running,
        .running_mean = per(r->running_seconds, duration),
        .gpu_busy = per(seconds(r->busy_ns), duration * point->settings.replicas),
        .cost = point->cost_per_hour >= 0 ? point->cost_per_hour * duration / 3600 : NAN,
        .evictions = r->evictions};
}

/* Writes what the tiers below the GPU did; adds up what is of the point. */
static kv_err put_tiers(kv__output *out, const kv_serving_point *point, const kv_serving_result *r,
                        kv_serving_row *row, kv_diag *diag)
{
    const kv_serving_settings *s = &point->settings;
    double block = kv_serving_cached_bytes(s);
    double stored = kv_serving_page_bytes(s) / s->block_tokens;
    kv_err err = KV_OK;
    row->gpu_hit_tokens = r->cached_tokens;
    row->gpu_blended_tokens = r->blended_tokens;
    for (int t = 0; t < s->tiers && err == KV_OK; t++) {
        const kv_tier_result *did = &r->tier[t];
        kv_tier_row tier = {
            .tier = s->tier[t].name,
            .capacity_bytes = (double)(s->tier[t].capacity_blocks * s->replicas) * block,
            .peak_bytes = (double)did->peak_blocks * block,
            .mean_bytes = per(did->block_seconds * block, row->duration_s),
            .bytes_in = (double)did->blocks_in * block + (double)did->entries_in * stored,
            .bytes_out =
                (double)did->blocks_out * block + (double)did->entries_out * s->entry_bytes,
            .busy_s = seconds(did->busy_ns),
            .hits = did->hit_tokens,
            .evictions = did->evictions};
        row->loaded_bytes += tier.bytes_out;
        row->gpu_blended_tokens -= did->blended_tokens;
        tier.blended_tokens = did->blended_tokens;
        if (strcmp(tier.tier, "cpu") == 0)
            row->cpu_bytes_seconds = did->block_seconds * block;
        err = kv__output_put(out, KV__OUTPUT_TIER, &tier, diag);
    }
    return err;
}

/* --- One point --------------------------------------------------------------------- */

enum { WARNINGS = 4 };

/* A point on its way: the output borrows texts of it. */
typedef struct task {
    int number;
    kv_serving_point point;
    kv__output out;
    char warning[WARNINGS][2048]; /* rows passed over, steps outside of a table, a timeline that was
                                     made coarser, heads divided unevenly; "": none */
    kv_diag diag;
    kv_err err;
    bool over;
} task;

static void note_uneven_heads(const kv_serving_point *point, char *out, size_t bytes)
{
    long long devices = point->config.tensor_parallel, heads = point->model->attention.heads;
    if (heads % devices != 0)
        snprintf(out, bytes,
                 "tensor_parallel %lld does not divide the %lld query heads of %s: servers refuse "
                 "that; here its work is divided evenly, and KV heads per device are rounded up",
                 devices, heads, point->model->name);
}

static void note_warnings(task *k, const kv_request_reader *reader)
{
    const kv_diag *first = kv_request_first_skip(reader);
    if (first != NULL)
        kv_diag_format(first, k->warning[0], sizeof k->warning[0]);
    snprintf(k->warning[1], sizeof k->warning[1], "%s", kv_step_time_warning(k->point.time));
    note_uneven_heads(&k->point, k->warning[3], sizeof k->warning[3]);
}

static void tell_warnings(const task *k, const kv_serving_run_options *options)
{
    for (int w = 0; w < WARNINGS && options->warn != NULL; w++)
        if (*k->warning[w] != '\0')
            options->warn(options->warn_closure, k->warning[w]);
}

/* Reads the trace once more before the run, for policies that look ahead. */
static kv_err foresee(kv_serving_point *point, kv_diag *diag)
{
    kv_serving_settings *settings = &point->settings;
    kv_request_reader *reader;
    if (!kv_foresight_needed(settings))
        return KV_OK;
    kv_err err = kv_request_open(&point->requests, &reader, diag);
    if (err != KV_OK)
        return err;
    kv_serving_source source = kv_serving_reader(reader);
    bool by_turn = kv_request_spec_waits(&point->requests);
    err = kv_foresight_read(settings, &source, by_turn, &settings->foresight, diag);
    kv_request_close(reader);
    return err;
}

static kv_err no_requests(const kv_request_reader *reader, const kv_request_spec *spec,
                          kv_diag *diag)
{
    char first[1024] = "";
    if (kv_request_first_skip(reader) != NULL)
        kv_diag_format(kv_request_first_skip(reader), first, sizeof first);
    return kv_fail(diag, KV_ERR_INPUT, &(kv_mark){spec->path, 0, 0}, "holds no requests%s%s",
                   *first != '\0' ? ", all rows are malformed, the first: " : "", first);
}

static kv_err simulate(task *k, telling *t, const kv_serving_run_options *options)
{
    kv_request_reader *reader;
    kv_serving_result result = {0};
    kv_serving_point *point = &k->point;
    kv_err err = foresee(point, &k->diag);
    if (err == KV_OK)
        err = kv_request_open(&point->requests, &reader, &k->diag);
    if (err != KV_OK)
        return err;
    kv_serving_source source = kv_serving_reader(reader);
    kv_serving_listener listener = {.closure = t, .request = tell_request, .sample = tell_sample};
    if (t->trace.file != NULL) {
        listener.span = tell_span;
        listener.pause = tell_pause;
    }
    point->settings.stepwise = options->stepwise;
    err = kv_serving_run(&point->settings, point->time, kv__entries_per_token(point->model),
                         &source, &listener, &result, &k->diag);
    if (err == KV_OK && result.requests == 0)
        err = no_requests(reader, &point->requests, &k->diag);
    if (err == KV_OK) {
        note_warnings(k, reader);
        kv__timeline_warning(&t->timeline, &point->settings, k->warning[2], sizeof k->warning[2]);
        err = kv__timeline_write(&t->timeline, &point->settings, &k->out, &k->diag);
    }
    if (err == KV_OK) {
        kv_serving_row row = row_of(point, &result, kv_request_get_counts(reader)->skipped);
        err = put_tiers(&k->out, point, &result, &row, &k->diag);
        if (err == KV_OK)
            err = kv__output_put(&k->out, KV__OUTPUT_END, &row, &k->diag);
    }
    kv_serving_result_fini(&result);
    kv_request_close(reader);
    return err;
}

static kv_err note_arrival(void *closure, const kv_request_outcome *outcome, kv_diag *diag)
{
    int64_t *last = closure;
    (void)diag;
    *last = outcome->arrival_ns > *last ? outcome->arrival_ns : *last;
    return KV_OK;
}

kv_err kv_serving_probe(const kv_serving_point *point, const kv_serving_source *source,
                        kv_serving_row *row, int64_t *last_arrival_ns, kv_diag *diag)
{
    int64_t last = 0;
    kv_serving_result result = {0};
    kv_serving_listener listener = {.closure = &last, .request = note_arrival};
    kv_err err = kv_serving_run(&point->settings, point->time, kv__entries_per_token(point->model),
                                source, &listener, &result, diag);
    if (err == KV_OK)
        *row = row_of(point, &result, 0);
    if (err == KV_OK && last_arrival_ns != NULL)
        *last_arrival_ns = last;
    kv_serving_result_fini(&result);
    return err;
}

/* Runs a point whose output is open. */
static void run_task(const kv_serving_plan *plan, task *k, const kv_serving_run_options *options)
{
    k->err = kv_serving_plan_point(plan, k->number, &k->point, &k->diag);
    if (k->err != KV_OK)
        return;
    telling t = {.out = &k->out, .requests = k->point.config.request_results};
    if (k->number == 0 && options->trace_events != NULL)
        k->err = kv_event_trace_open(&t.trace, options->trace_events,
                                     k->point.config.trace_events.start_ns,
                                     k->point.config.trace_events.duration_ns, &k->diag);
    if (k->err == KV_OK)
        k->err = simulate(k, &t, options);
    if (k->err == KV_ERR_INPUT || k->err == KV_ERR_UNSUPPORTED) {
        kv_mark mark = kv_node_mark(plan->map);
        (void)kv_fail_at(&k->diag, &mark);
    }
    kv__timeline_fini(&t.timeline);
    kv_err closed = kv_event_trace_close(&t.trace, &k->diag);
    k->err = k->err == KV_OK ? closed : k->err;
}

static void task_fini(task *k)
{
    kv_serving_point_fini(&k->point);
    if (k->out.held != NULL)
        fclose(k->out.held);
    *k = (task){0};
}

/* --- All points -------------------------------------------------------------------- */

/* Threads that run points; who called writes what they say, one point after the other. A thread is
 * at most `room` points ahead of what is written. */
typedef struct crew {
    const kv_serving_plan *plan;
    const kv_serving_run_options *options;
    kv_serving_rows *rows;
    const int *number; /* [count] of the points to run, ascending */
    int count, room;
    task *task; /* [room] point i stands at i % room */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int next, written; /* guarded by lock, as is `over` of the tasks */
    bool stop;
} crew;

/* The place of the next point to run, or -1. */
static int take(crew *c)
{
    pthread_mutex_lock(&c->lock);
    while (!c->stop && c->next < c->count && c->next >= c->written + c->room)
        pthread_cond_wait(&c->changed, &c->lock);
    int taken = c->stop || c->next >= c->count ? -1 : c->next++;
    pthread_mutex_unlock(&c->lock);
    return taken;
}

static void *work(void *closure)
{
    crew *c = closure;
    for (int i; (i = take(c)) >= 0;) {
        task *k = &c->task[i % c->room];
        k->number = c->number[i];
        k->err = kv__output_hold(&k->out, &k->diag);
        if (k->err == KV_OK)
            run_task(c->plan, k, c->options);
        pthread_mutex_lock(&c->lock);
        k->over = true;
        pthread_cond_broadcast(&c->changed);
        pthread_mutex_unlock(&c->lock);
    }
    return NULL;
}

/* Waits for a point and writes it. */
static kv_err write_task(crew *c, int i, kv_diag *diag)
{
    task *k = &c->task[i % c->room];
    pthread_mutex_lock(&c->lock);
    while (!k->over)
        pthread_cond_wait(&c->changed, &c->lock);
    pthread_mutex_unlock(&c->lock);
    kv_err err = k->err;
    if (err != KV_OK)
        *diag = k->diag;
    if (err == KV_OK)
        err = kv_serving_rows_begin(c->rows, k->number, diag);
    if (err == KV_OK)
        err = kv__output_release(&k->out, c->rows, diag);
    if (err == KV_OK)
        tell_warnings(k, c->options);
    task_fini(k);
    return err;
}

static void tell_progress(const crew *c, int i)
{
    if (c->options->progress != NULL)
        c->options->progress(c->options->progress_closure, i + 1, c->count);
}

static kv_err run_with_threads(crew *c, int threads, kv_diag *diag)
{
    pthread_t *thread = calloc((size_t)threads, sizeof *thread);
    c->room = 2 * threads;
    c->task = calloc((size_t)c->room, sizeof *c->task);
    kv_err err = thread != NULL && c->task != NULL ? KV_OK : kv_fail_memory(diag);
    int begun = 0;
    while (err == KV_OK && begun < threads && pthread_create(&thread[begun], NULL, work, c) == 0)
        begun++;
    if (err == KV_OK && begun == 0)
        err = kv_fail(diag, KV_ERR_IO, NULL, "no thread can be started");
    for (int i = 0; i < c->count && err == KV_OK; i++) {
        err = write_task(c, i, diag);
        pthread_mutex_lock(&c->lock);
        c->written++;
        c->stop = err != KV_OK;
        pthread_cond_broadcast(&c->changed);
        pthread_mutex_unlock(&c->lock);
        if (err == KV_OK)
            tell_progress(c, i);
    }
    for (int t = 0; t < begun; t++)
        pthread_join(thread[t], NULL);
    for (int i = 0; c->task != NULL && i < c->room; i++)
        task_fini(&c->task[i]);
    free(c->task);
    free(thread);
    return err;
}

/* One after the other, written while they run: nothing is held. */
static kv_err run_in_turn(crew *c, kv_diag *diag)
{
    kv_err err = KV_OK;
    for (int i = 0; i < c->count && err == KV_OK; i++) {
        task *k = calloc(1, sizeof *k);
        if (k == NULL)
            return kv_fail_memory(diag);
        k->number = c->number[i];
        k->out.rows = c->rows;
        err = kv_serving_rows_begin(c->rows, k->number, diag);
        if (err == KV_OK) {
            run_task(c->plan, k, c->options);
            err = k->err;
            if (err != KV_OK)
                *diag = k->diag;
        }
        if (err == KV_OK) {
            tell_warnings(k, c->options);
            tell_progress(c, i);
        }
        task_fini(k);
        free(k);
    }
    return err;
}

/* The points that the run still lacks. */
static kv_err list_points(crew *c, int *number, kv_diag *diag)
{
    kv_err err = KV_OK;
    for (int i = 0; i < c->plan->combinations && err == KV_OK; i++) {
        bool wants = false;
        err = kv_serving_rows_lacks(c->rows, i, &wants, diag);
        if (err == KV_OK && wants)
            number[c->count++] = i;
    }
    return err;
}

kv_err kv_serving_note_trace(const kv_serving_plan *plan, kv_run *run, kv_diag *diag)
{
    char digest[KV_SHA256_TEXT];
    const char *path = plan->requests.path;
    struct stat file;
    bool one = path != NULL && stat(path, &file) == 0 && S_ISREG(file.st_mode);
    kv_err err = one ? kv__file_sha256(path, digest, diag) : KV_OK;
    return err == KV_OK ? kv_request_trace_put(run, path, plan->requests.format->name,
                                               one ? digest : NULL, diag)
                        : err;
}

/* A block count that was measured with one number format stands for several. */
static void warn_of_formats(const kv_serving_plan *plan, const kv_serving_run_options *options)
{
    const kv_node *dtype = kv_node_find(plan->map, "kv_dtype");
    const kv_node *blocks = kv_node_find(plan->map, "kv_blocks");
    if (options->warn == NULL || dtype == NULL || blocks == NULL ||
        kv_node_get_kind(dtype) != KV_NODE_LIST || kv_node_count(dtype) < 2 ||
        kv_node_get_kind(blocks) == KV_NODE_LIST)
        return;
    options->warn(options->warn_closure,
                  "kv_blocks is the same for every kv_dtype of the list, although smaller numbers "
                  "leave room for more blocks; leave it out to have them computed");
}

static void warn_of_reuse(const kv_serving_plan *plan, const kv_serving_run_options *options)
{
    char text[128];
    const char *idle = kv__reuse_idle(plan);
    if (options->warn == NULL || idle == NULL)
        return;
    snprintf(text, sizeof text, "reuse: %s does nothing, as it is for mode: blend", idle);
    options->warn(options->warn_closure, text);
}

kv_err kv_serving_run_plan(const kv_serving_plan *plan, kv_run *run,
                           const kv_serving_run_options *options, kv_diag *diag)
{
    kv_serving_plan known = *plan; /* borrows all it holds */
    crew c = {.plan = &known, .options = options};
    if (plan->replayed != NULL)
        known.profile = (kv_profile_source){kv__run_results(run), kv_run_id(run)};
    kv_err err = kv_serving_note_trace(plan, run, diag);
    if (err == KV_OK)
        err = kv_serving_rows_open(run, plan->combinations, &c.rows, diag);
    if (err != KV_OK)
        return err;
    warn_of_formats(plan, options);
    warn_of_reuse(plan, options);
    int *number = calloc((size_t)plan->combinations + 1, sizeof *number);
    pthread_mutex_init(&c.lock, NULL);
    pthread_cond_init(&c.changed, NULL);
    c.number = number;
    err = number != NULL ? list_points(&c, number, diag) : kv_fail_memory(diag);
    int threads = options->threads < c.count ? options->threads : c.count;
    if (err == KV_OK)
        err = threads > 1 ? run_with_threads(&c, threads, diag) : run_in_turn(&c, diag);
    if (err == KV_OK)
        err = kv_serving_rows_finish(c.rows, diag);
    pthread_cond_destroy(&c.changed);
    pthread_mutex_destroy(&c.lock);
    kv_serving_rows_close(c.rows);
    free(number);
    return err;
}
