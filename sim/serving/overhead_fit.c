/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "sim/serving/step_fit.h"
#include "traces/field.h"
#include "traces/json_text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_TRIES = 16, GROUPS = 20 };

static const double most_overhead_ns = 100e6;

/* A request as it was measured; times from the first that was queued. */
typedef struct times {
    int64_t arrival_ns, first_ns, last_ns;
    int32_t output_tokens;
    int row; /* in the file */
} times;

/* A measured run and its simulation. */
typedef struct trial {
    const kv_serving_plan *plan;
    const kv_serving_point *point;
    times *measured; /* [count] by arrival */
    int count, room;
    double *e2e_ns; /* [count] simulated last */
    int told;
    kv_diag *diag;
} trial;

/* --- The measured run -------------------------------------------------------------- */

static kv_err read_time(const json_t *row, const char *key, const kv__json_place *place,
                        int64_t *ns, kv_diag *diag)
{
    kv_err err = kv__json_time(row, key, KV_UNIT_S, place, ns, diag);
    if (err == KV_END)
        return kv_fail(diag, KV_ERR_INPUT, &place->mark, "'%s' is missing", key);
    return err;
}

static kv_err read_times(const json_t *row, const kv__json_place *place, times *out, kv_diag *diag)
{
    kv_err err = kv__json_tokens(row, "output_toks", place, &out->output_tokens, diag);
    if (err == KV_OK)
        err = read_time(row, "queued_ts", place, &out->arrival_ns, diag);
    if (err == KV_OK)
        err = read_time(row, "first_token_ts", place, &out->first_ns, diag);
    if (err == KV_OK)
        err = read_time(row, "last_token_ts", place, &out->last_ns, diag);
    if (err == KV_OK && (out->first_ns < out->arrival_ns || out->last_ns < out->first_ns))
        return kv_fail(diag, KV_ERR_INPUT, &place->mark,
                       "expected queued_ts <= first_token_ts <= last_token_ts");
    return err;
}

static kv_err add_times(trial *t, const times *one)
{
    if (t->count == t->room) {
        int room = t->room > 0 ? 2 * t->room : 256;
        times *larger = realloc(t->measured, (size_t)room * sizeof *larger);
        if (larger == NULL)
            return kv_fail_memory(t->diag);
        t->measured = larger;
        t->room = room;
    }
    t->measured[t->count] = *one;
    t->measured[t->count].row = t->count;
    t->count++;
    return KV_OK;
}

static kv_err read_line(trial *t, kv__text *text, const char *line, size_t bytes)
{
    json_t *row;
    times one = {0};
    kv__json_place place = {.mark = kv__text_mark(text)};
    kv_err err = kv__json_parse(line, bytes, &place.mark, &row, t->diag);
    if (err != KV_OK)
        return err;
    err = read_times(row, &place, &one, t->diag);
    json_decref(row);
    return err == KV_OK ? add_times(t, &one) : err;
}

static int by_arrival(const void *left, const void *right)
{
    const times *a = left, *b = right;
    if (a->arrival_ns != b->arrival_ns)
        return a->arrival_ns < b->arrival_ns ? -1 : 1;
    return a->row - b->row;
}

static kv_err read_measured(trial *t)
{
    kv__text *text;
    char *line;
    size_t bytes;
    kv_err err = kv__text_open(t->plan->requests.path, &text, t->diag);
    if (err != KV_OK)
        return err;
    while (err == KV_OK && (err = kv__text_line(text, &line, &bytes, t->diag)) == KV_OK)
        if (bytes > 0)
            err = read_line(t, text, line, bytes);
    kv__text_close(text);
    if (err == KV_END && t->count < GROUPS)
        return kv_fail(t->diag, KV_ERR_INPUT, NULL, "%s: expected at least %d requests, not %d",
                       t->plan->requests.path, GROUPS, t->count);
    if (err != KV_END)
        return err;
    qsort(t->measured, (size_t)t->count, sizeof *t->measured, by_arrival);
    int64_t start = t->measured[0].arrival_ns;
    for (int i = 0; i < t->count; i++) {
        t->measured[i].arrival_ns -= start;
        t->measured[i].first_ns -= start;
        t->measured[i].last_ns -= start;
    }
    t->e2e_ns = calloc((size_t)t->count, sizeof *t->e2e_ns);
    return t->e2e_ns != NULL ? KV_OK : kv_fail_memory(t->diag);
}

static kv_err measured_figures(const trial *t, kv_run_figures *out)
{
    kv_samples ttft = {0}, tpot = {0}, e2e = {0};
    kv_err err = KV_OK;
    for (int i = 0; i < t->count && err == KV_OK; i++) {
        const times *m = &t->measured[i];
        err = kv_samples_add(&ttft, m->first_ns - m->arrival_ns);
        if (err == KV_OK)
            err = kv_samples_add(&e2e, m->last_ns - m->arrival_ns);
        if (err == KV_OK && m->output_tokens > 1)
            err = kv_samples_add(&tpot, (m->last_ns - m->first_ns) / (m->output_tokens - 1));
    }
    *out = (kv_run_figures){
        kv_samples_mean(&ttft), kv_samples_quantile(&ttft, 0.99),
        kv_samples_mean(&tpot), kv_samples_quantile(&tpot, 0.99),
        kv_samples_mean(&e2e),  kv_samples_quantile(&e2e, 0.99),
    };
    kv_samples_fini(&ttft);
    kv_samples_fini(&tpot);
    kv_samples_fini(&e2e);
    return err == KV_OK ? KV_OK : kv_fail_memory(t->diag);
}

/* --- The simulated run ------------------------------------------------------------- */

static kv_err tell(void *closure, const kv_request_outcome *outcome, kv_diag *diag)
{
    trial *t = closure;
    if (outcome->number >= t->count ||
        outcome->arrival_ns != t->measured[outcome->number].arrival_ns)
        return kv_fail(diag, KV_ERR_INPUT, NULL,
                       "request %lld does not arrive when it was measured: expected all requests "
                       "of the file (no limit, speedup 1)",
                       (long long)outcome->number);
    if (outcome->status != KV_REQUEST_COMPLETED)
        return kv_fail(diag, KV_ERR_INPUT, NULL,
                       "request %lld was served, but is rejected here: %s",
                       (long long)outcome->number, kv_request_status_names[outcome->status]);
    t->e2e_ns[outcome->number] = (double)outcome->e2e_ns;
    t->told++;
    return KV_OK;
}

static kv_err replay(trial *t, const kv_step_time *time, kv_run_figures *figures)
{
    kv_request_reader *reader;
    kv_serving_result r = {0};
    kv_serving_listener listener = {.closure = t, .request = tell};
    kv_err err = kv_request_open(&t->point->requests, &reader, t->diag);
    if (err != KV_OK)
        return err;
    kv_serving_source source = kv_serving_reader(reader);
    t->told = 0;
    err = kv_serving_run(&t->point->settings, time, kv__entries_per_token(t->point->model), &source,
                         &listener, &r, t->diag);
    if (err == KV_OK && t->told < t->count)
        err = kv_fail(t->diag, KV_ERR_INPUT, NULL, "only %d of %d measured requests were replayed",
                      t->told, t->count);
    if (err == KV_OK)
        *figures = (kv_run_figures){
            kv_samples_mean(&r.ttft), kv_samples_quantile(&r.ttft, 0.99),
            kv_samples_mean(&r.tpot), kv_samples_quantile(&r.tpot, 0.99),
            kv_samples_mean(&r.e2e),  kv_samples_quantile(&r.e2e, 0.99),
        };
    kv_serving_result_fini(&r);
    kv_request_close(reader);
    return err;
}

/* Replays with a step_overhead. */
static kv_err simulate(trial *t, double overhead_ns, kv_run_figures *figures)
{
    kv_step_time_config config = t->point->config.step_time;
    kv_step_time *time;
    config.step_overhead_ns = llround(overhead_ns);
    kv_err err = kv_step_time_new(&config, &t->point->hardware, &time, t->diag);
    if (err != KV_OK)
        return err;
    err = replay(t, time, figures);
    kv_step_time_free(time);
    return err;
}

/* Half the time of the cheapest step there is, below which an overhead may not go. */
static double least_overhead(const trial *t)
{
    kv_step_time_config config = t->point->config.step_time;
    int64_t entries = kv__entries_per_token(t->point->model);
    kv_step_batch batch = {.tokens = 1, .sequences = 1, .decodes = 1, .decode_entries = entries};
    batch.decode_longest = entries;
    double step = ldexp((double)kv_step_time_step(t->point->time, &batch), -KV_FINE_BITS);
    return -(step - (double)config.step_overhead_ns) / 2;
}

/* --- The fit ----------------------------------------------------------------------- */

/* Secant steps to the overhead at which the mean latency is the measured one. */
static kv_err search(trial *t, kv_overhead_fit *out)
{
    double x = (double)t->point->config.step_time.step_overhead_ns, before = 0, gap_before = 0;
    double low = least_overhead(t), best_gap = INFINITY;
    kv_run_figures figures;
    for (int i = 0; i < MOST_TRIES; i++) {
        kv_err err = simulate(t, x, &figures);
        if (err != KV_OK)
            return err;
        double gap = figures.e2e_mean - out->measured.e2e_mean;
        if (i == 0)
            out->before = figures;
        if (fabs(gap) < best_gap) {
            best_gap = fabs(gap);
            out->overhead_ns = x;
            out->after = figures;
        }
        double slope = i > 0 ? (gap - gap_before) / (x - before) : 0;
        double next = i == 0 ? x - copysign(1e5, gap) : x - gap / slope;
        if (i > 0 && (!isfinite(next) || fabs(next - x) < 100))
            break;
        before = x;
        gap_before = gap;
        x = fmax(low, fmin(most_overhead_ns, next));
        if (x == before)
            break;
    }
    return KV_OK;
}

/* Leaves out one group of neighbours at a time: requests near each other share their fate. The
 * slope of a request's latency over the overhead comes from two more runs. */
static kv_err find_error(trial *t, kv_overhead_fit *out)
{
    const double span_ns = 2e5;
    double *gap = calloc(GROUPS, sizeof *gap), *slope = calloc(GROUPS, sizeof *slope);
    kv_err err = gap != NULL && slope != NULL ? KV_OK : kv_fail_memory(t->diag);
    double gaps = 0, slopes = 0, mean = 0, square = 0;
    for (int side = -1; side <= 1 && err == KV_OK; side++) {
        kv_run_figures ignored;
        err = simulate(t, out->overhead_ns + side * span_ns, &ignored);
        for (int i = 0; i < t->count && err == KV_OK; i++) {
            const times *m = &t->measured[i];
            int group = (int)((int64_t)i * GROUPS / t->count);
            if (side == 0)
                gap[group] += t->e2e_ns[i] - (double)(m->last_ns - m->arrival_ns);
            slope[group] += side * t->e2e_ns[i] / (2 * span_ns);
        }
    }
    for (int g = 0; g < GROUPS && err == KV_OK; g++) {
        gaps += gap[g];
        slopes += slope[g];
    }
    for (int g = 0; g < GROUPS && err == KV_OK; g++)
        mean += -(gaps - gap[g]) / (slopes - slope[g]) / GROUPS;
    for (int g = 0; g < GROUPS && err == KV_OK; g++)
        square += pow(-(gaps - gap[g]) / (slopes - slope[g]) - mean, 2);
    out->error_ns = 1.96 * sqrt(square * (GROUPS - 1) / GROUPS);
    free(gap);
    free(slope);
    return err;
}

kv_err kv_overhead_fit_run(const kv_serving_plan *plan, const kv_serving_point *point,
                           kv_overhead_fit *out, kv_diag *diag)
{
    *out = (kv_overhead_fit){0};
    trial t = {.plan = plan, .point = point, .diag = diag};
    if (strcmp(plan->requests.format->name, "vllm-bench") != 0)
        return kv_fail(diag, KV_ERR_INPUT, NULL,
                       "a fit of step_overhead needs a measured run: requests of format "
                       "vllm-bench, not %s",
                       plan->requests.format->name);
    kv_err err = read_measured(&t);
    if (err == KV_OK)
        err = measured_figures(&t, &out->measured);
    if (err == KV_OK)
        err = search(&t, out);
    if (err == KV_OK)
        err = find_error(&t, out);
    out->requests = t.count;
    free(t.measured);
    free(t.e2e_ns);
    return err;
}
