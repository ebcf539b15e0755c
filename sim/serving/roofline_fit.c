/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "sim/serving/step_fit.h"

#include <math.h>

enum { MOST_SHAPES = 256, ROUNDS = 40, SECTIONS = 40, UNKNOWNS = 4 };

static const double least_efficiency = 0.01, most_efficiency = 2; /* searched; above 1: refused */
static const double most_overhead_ns = 200e3;

typedef struct shape {
    kv_fit_kind kind;
    long long tokens, history;
    kv_step_batch batch;
    double target_ns;
} shape;

typedef struct problem {
    const kv_serving_point *point;
    shape shape[MOST_SHAPES];
    int shapes;
    double unknown[UNKNOWNS]; /* logarithms of the efficiencies; overhead per layer */
    kv_diag *diag;
} problem;

/* A chunk of one request, or so many decodes of one length. */
static kv_step_batch batch_of(const problem *p, kv_fit_kind kind, long long tokens,
                              long long history)
{
    int64_t entries = kv__entries_per_token(p->point->model);
    if (kind == KV_FIT_PREFILL)
        return (kv_step_batch){.tokens = tokens,
                               .sequences = 1,
                               .prefill_tokens = tokens,
                               .prefill_square = (double)tokens * (double)tokens,
                               .prefill_history = (double)tokens * (double)history};
    return (kv_step_batch){.tokens = tokens,
                           .sequences = tokens,
                           .decodes = tokens,
                           .decode_entries = tokens * history * entries,
                           .decode_longest = history * entries,
                           .decode_growth = tokens * entries,
                           .longest_growth = entries};
}

static double step_ns(const kv_step_time *time, const kv_step_batch *batch)
{
    return ldexp((double)kv_step_time_step(time, batch), -KV_FINE_BITS);
}

static void add_shape(problem *p, const kv_step_time *time, kv_fit_kind kind, long long tokens,
                      long long history)
{
    if (p->shapes == MOST_SHAPES)
        return;
    shape *s = &p->shape[p->shapes++];
    *s = (shape){.kind = kind, .tokens = tokens, .history = history};
    s->batch = batch_of(p, kind, tokens, history);
    s->target_ns = step_ns(time, &s->batch);
}

/* Powers of two up to what the server does in one step, and up to 8192 keys. */
static void add_shapes(problem *p, const kv_step_time *time)
{
    enum { MOST_KEYS = 8192 };
    const kv_serving_settings *s = &p->point->settings;
    for (long long tokens = 64; tokens <= s->max_batched_tokens && tokens <= MOST_KEYS; tokens *= 2)
        for (long long history = 0; history <= MOST_KEYS; history = history > 0 ? 4 * history : 512)
            add_shape(p, time, KV_FIT_PREFILL, tokens, history);
    for (long long decodes = 1; decodes <= s->max_seqs && decodes <= 256; decodes *= 2)
        for (long long keys = 128; keys <= MOST_KEYS; keys *= 4)
            if ((keys + s->block_tokens) * decodes <= s->kv_blocks * s->block_tokens)
                add_shape(p, time, KV_FIT_DECODE, decodes, keys);
}

static kv_err open_roofline(const problem *p, kv_step_time **out)
{
    const double *x = p->unknown;
    kv_step_time_config config = {.compute_efficiency = exp(x[0]),
                                  .attention_efficiency = exp(x[1]),
                                  .memory_efficiency = exp(x[2]),
                                  .layer_overhead_ns = llround(x[3]),
                                  .step_overhead_ns = p->point->config.step_time.step_overhead_ns};
    return kv_step_time_new(&config, &p->point->hardware, out, p->diag);
}

/* Sum of squared logarithms of roofline over table. */
static kv_err misfit(const problem *p, double *sum)
{
    kv_step_time *time;
    kv_err err = open_roofline(p, &time);
    *sum = 0;
    if (err != KV_OK)
        return err;
    for (int i = 0; i < p->shapes; i++)
        *sum += pow(log(step_ns(time, &p->shape[i].batch) / p->shape[i].target_ns), 2);
    kv_step_time_free(time);
    return KV_OK;
}

/* Golden section over one unknown, the others held. */
static kv_err improve(problem *p, int which, double low, double high)
{
    const double golden = 0.6180339887498949;
    double at[2] = {high - golden * (high - low), low + golden * (high - low)};
    double sum[2] = {0, 0};
    double was = p->unknown[which], best;
    kv_err err = misfit(p, &best);
    for (int i = 0; i < 2 && err == KV_OK; i++) {
        p->unknown[which] = at[i];
        err = misfit(p, &sum[i]);
    }
    for (int s = 0; s < SECTIONS && err == KV_OK; s++) {
        int better = sum[0] <= sum[1] ? 0 : 1;
        if (better == 0)
            high = at[1];
        else
            low = at[0];
        at[1 - better] = at[better];
        sum[1 - better] = sum[better];
        at[better] = better == 0 ? high - golden * (high - low) : low + golden * (high - low);
        p->unknown[which] = at[better];
        err = misfit(p, &sum[better]);
    }
    p->unknown[which] = sum[0] <= sum[1] ? at[0] : at[1];
    if (err == KV_OK && fmin(sum[0], sum[1]) > best) /* the misfit has more than one valley */
        p->unknown[which] = was;
    return err;
}

static kv_err minimise(problem *p)
{
    kv_err err = KV_OK;
    for (int round = 0; round < ROUNDS && err == KV_OK; round++) {
        for (int i = 0; i < UNKNOWNS - 1 && err == KV_OK; i++)
            err = improve(p, i, log(least_efficiency), log(most_efficiency));
        if (err == KV_OK)
            err = improve(p, UNKNOWNS - 1, 0, most_overhead_ns);
    }
    return err;
}

static kv_err refuse_above_one(const problem *p)
{
    static const char *const name[] = {"compute_efficiency", "attention_efficiency",
                                       "memory_efficiency"};
    for (int i = 0; i < UNKNOWNS - 1; i++)
        if (exp(p->unknown[i]) > 1)
            return kv_fail(p->diag, KV_ERR_INPUT, NULL,
                           "the tables in %s are faster than %s can be: %s would have to be %.2f; "
                           "expected tables of that device, model and tensor_parallel",
                           p->point->config.step_time.path, p->point->device->name, name[i],
                           exp(p->unknown[i]));
    return KV_OK;
}

static kv_err note_residuals(const problem *p, kv_roofline_fit *out)
{
    kv_step_time *time;
    kv_err err = open_roofline(p, &time);
    if (err != KV_OK)
        return err;
    for (int i = 0; i < p->shapes; i++) {
        const shape *s = &p->shape[i];
        kv_fit_residual *r = &out->residual[s->kind];
        double error = step_ns(time, &s->batch) / s->target_ns - 1;
        r->rms += error * error;
        r->shapes++;
        if (r->shapes == 1 || fabs(error) > fabs(r->worst)) {
            r->worst = error;
            r->tokens = s->tokens;
            r->history = s->history;
        }
    }
    for (int k = 0; k < KV_FIT_KINDS; k++)
        out->residual[k].rms = sqrt(out->residual[k].rms / fmax(1, out->residual[k].shapes));
    kv_step_time_free(time);
    return KV_OK;
}

kv_err kv_roofline_fit_tables(const kv_serving_point *point, kv_roofline_fit *out, kv_diag *diag)
{
    *out = (kv_roofline_fit){0};
    problem p = {.point = point, .diag = diag, .unknown = {log(0.6), log(0.4), log(0.8), 5e3}};
    if (point->config.step_time.path == NULL)
        return kv_fail(diag, KV_ERR_INPUT, NULL,
                       "a fit of the roofline needs measured kernel times: step_time: {model: "
                       "table, path: FOLDER}");
    add_shapes(&p, point->time);
    out->outside = *kv_step_time_warning(point->time) != '\0';
    kv_err err = minimise(&p);
    if (err == KV_OK)
        err = refuse_above_one(&p);
    if (err == KV_OK)
        err = note_residuals(&p, out);
    out->compute_efficiency = exp(p.unknown[0]);
    out->attention_efficiency = exp(p.unknown[1]);
    out->memory_efficiency = exp(p.unknown[2]);
    out->layer_overhead_ns = p.unknown[3];
    return err;
}
