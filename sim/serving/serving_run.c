/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "sim/serving/serving_run.h"

#include "analysis/serving_results.h"
#include "sim/serving/event_trace.h"

#include <math.h>
#include <string.h>

/* What is told while a point runs. */
typedef struct telling {
    kv_serving_rows *rows;
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
                          .preemptions = outcome->preemptions,
                          .status = kv_request_status_names[outcome->status]};
    return kv_serving_rows_request(t->rows, &row, diag);
}

static kv_err tell_sample(void *closure, const kv_serving_sample *sample, kv_diag *diag)
{
    telling *t = closure;
    return kv_serving_rows_sample(t->rows, seconds(sample->time_ns), sample->used_bytes,
                                  sample->running, sample->waiting, diag);
}

static kv_err tell_span(void *closure, const kv_serving_span *span, kv_diag *diag)
{
    kv_event_trace_span(&((telling *)closure)->trace, span);
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
        .gpu_bytes_seconds = r->byte_seconds,
        .gpu_busy = per(seconds(r->busy_ns), duration * point->settings.replicas),
        .cost = point->cost_per_hour >= 0 ? point->cost_per_hour * duration / 3600 : NAN,
        .evictions = r->evictions};
}

/* Writes what the tiers below the GPU did; adds up what is of the point. */
static kv_err put_tiers(kv_serving_rows *rows, const kv_serving_point *point,
                        const kv_serving_result *r, kv_serving_row *row, kv_diag *diag)
{
    const kv_serving_settings *s = &point->settings;
    double block = (double)s->block_bytes;
    kv_err err = KV_OK;
    row->gpu_hit_tokens = r->cached_tokens;
    for (int t = 0; t < s->tiers && err == KV_OK; t++) {
        const kv_tier_result *did = &r->tier[t];
        kv_tier_row tier = {.tier = s->tier[t].name,
                            .capacity_bytes =
                                (double)(s->tier[t].capacity_blocks * s->replicas) * block,
                            .peak_bytes = (double)did->peak_blocks * block,
                            .mean_bytes = per(did->block_seconds * block, row->duration_s),
                            .bytes_in = (double)did->blocks_in * block,
                            .bytes_out = (double)did->blocks_out * block,
                            .busy_s = seconds(did->busy_ns),
                            .hits = did->hit_tokens,
                            .evictions = did->evictions};
        row->loaded_bytes += tier.bytes_out;
        if (strcmp(tier.tier, "cpu") == 0)
            row->cpu_bytes_seconds = did->block_seconds * block;
        err = kv_serving_rows_tier(rows, &tier, diag);
    }
    return err;
}

static void warn(const kv_serving_run_options *options, const char *text)
{
    if (options->warn != NULL && *text != '\0')
        options->warn(options->warn_closure, text);
}

static void warn_of_skips(const kv_serving_run_options *options, const kv_request_reader *reader)
{
    const kv_diag *first = kv_request_first_skip(reader);
    char text[2048];
    if (first == NULL)
        return;
    kv_diag_format(first, text, sizeof text);
    warn(options, text);
}

static kv_err simulate(const kv_serving_plan *plan, kv_serving_point *point, telling *t,
                       const kv_serving_run_options *options, kv_diag *diag)
{
    kv_request_reader *reader;
    kv_serving_result result = {0};
    kv_err err = kv_request_open(&plan->requests, &reader, diag);
    if (err != KV_OK)
        return err;
    kv_serving_source source = kv_serving_reader(reader);
    kv_serving_listener listener = {t, tell_request, tell_sample, t->trace.file ? tell_span : NULL};
    point->settings.stepwise = options->stepwise;
    err = kv_serving_run(&point->settings, point->time, kv__entries_per_token(point->model),
                         &source, &listener, &result, diag);
    if (err == KV_OK) {
        const kv_request_counts *counts = kv_request_get_counts(reader);
        kv_serving_row row = row_of(point, &result, counts->skipped);
        warn_of_skips(options, reader);
        warn(options, kv_step_time_warning(point->time));
        err = put_tiers(t->rows, point, &result, &row, diag);
        if (err == KV_OK)
            err = kv_serving_rows_end(t->rows, &row, diag);
    }
    kv_serving_result_fini(&result);
    kv_request_close(reader);
    return err;
}

static kv_err run_point(const kv_serving_plan *plan, int number, kv_serving_rows *rows,
                        const kv_serving_run_options *options, kv_diag *diag)
{
    kv_serving_point point;
    kv_err err = kv_serving_plan_point(plan, number, &point, diag);
    if (err != KV_OK)
        return err;
    telling t = {.rows = rows, .requests = point.config.request_results};
    if (number == 0 && options->trace_events != NULL)
        err =
            kv_event_trace_open(&t.trace, options->trace_events, point.config.trace_events.start_ns,
                                point.config.trace_events.duration_ns, diag);
    if (err == KV_OK)
        err = kv_serving_rows_begin(rows, number, diag);
    if (err == KV_OK)
        err = simulate(plan, &point, &t, options, diag);
    kv_err closed = kv_event_trace_close(&t.trace, diag);
    kv_serving_point_fini(&point);
    return err == KV_OK ? closed : err;
}

kv_err kv_serving_run_plan(const kv_serving_plan *plan, kv_run *run,
                           const kv_serving_run_options *options, kv_diag *diag)
{
    kv_serving_rows *rows;
    kv_err err = kv_serving_rows_open(run, &rows, diag);
    if (err != KV_OK)
        return err;
    for (int number = 0; number < plan->combinations && err == KV_OK; number++) {
        bool has = false;
        err = kv_serving_rows_has(rows, number, &has, diag);
        if (err == KV_OK && !has)
            err = run_point(plan, number, rows, options, diag);
        if (err == KV_OK && options->progress != NULL)
            options->progress(options->progress_closure, number + 1, plan->combinations);
    }
    kv_serving_rows_close(rows);
    return err;
}
