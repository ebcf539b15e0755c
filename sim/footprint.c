/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/counts.h"
#include "sim/footprint.h"

#include <stdint.h>
#include <stdlib.h>

/* What counts need to know of each layer; the caller frees it. */
static kv_counts_layer *layers_of(const kv_model *model)
{
    kv_counts_layer *layer = calloc((size_t)model->layers, sizeof *layer);
    for (int l = 0; layer != NULL && l < model->layers; l++)
        layer[l] = (kv_counts_layer){.caches = model->layer[l].cache_of == l,
                                     .window_tokens = model->layer[l].window_tokens};
    return layer;
}

/* A constant state counts as as many entries as it has bytes of them, at every step. */
static kv_footprint weigh(const kv_footprint_case *c, const kv_counts_sum *sum)
{
    double tokens = (double)(c->prompt_tokens + c->generated_tokens);
    double heads = (double)(c->model->layers * kv_model_kv_heads(c->model));
    double entry = kv_model_entry_bytes(c->model, c->format);
    double state = kv_model_state_bytes(c->model);
    double steps = sum->entry_steps + tokens * state / entry;
    double peak = sum->peak_entries + state / entry;
    return (kv_footprint){
        .footprint = steps / (heads * (tokens * (tokens + 1) / 2)),
        .peak = peak / (heads * tokens),
        .peak_bytes = sum->peak_entries * entry + state,
        .byte_steps = sum->entry_steps * entry + tokens * state,
    };
}

/* --- Transforms: bytes of an entry depend on how many there are, so steps are summed one by one
 * ---
 */

enum { MOST_STEPS = 1 << 24 };

/* One sequence under transforms. at_step: bytes at the end of each chunk and decode step. */
typedef struct weighing {
    const kv_footprint_case *c;
    const kv_counts_rule *rule;
    kv_shape shape;
    double area, *at_step;
    int layer, group, step;
    long long cap; /* entries that the layer's window lets a query find */
} weighing;

/* Entries that are stored, in plain ones. */
static double stored(const weighing *w, long long entries, bool prefill)
{
    kv_transform_size size = {&w->shape, w->layer, (double)entries, prefill};
    double share = 1;
    for (int i = 0; i < w->c->parts && entries > 0; i++) {
        const kv_part *part = &w->c->part[i];
        if (part->method.transform->bytes != NULL)
            share *= part->method.transform->bytes(part->config, &size);
    }
    return share * (double)entries;
}

/* One chunk or decode step of n tokens that finds `past` entries. */
static void weigh_step(weighing *w, long long past, long long n, bool prefill)
{
    double heads = kv_counts_group_heads(w->rule, w->group);
    double held = stored(w, past < w->cap ? past : w->cap, prefill);
    w->area += heads * ((double)n * held + (double)n * (double)(n + 1) / 2);
    w->at_step[w->step++] += heads * (held + (double)n);
}

static long long retained_after(const weighing *w, kv_block_kind kind, long long past, long long n)
{
    long long kept = kv_counts_after(w->rule, w->layer, w->group, kind, past, n);
    return kept < w->cap ? kept : w->cap;
}

static void weigh_group(weighing *w)
{
    long long prompt = w->c->prompt_tokens, past = 0, n;
    long long interval = kv_counts_decode_interval(w->rule), left = w->c->generated_tokens;
    w->step = 0;
    for (long long start = 0; start < prompt; start += n) {
        n = kv_counts_chunk_end(w->rule, w->c->chunk_tokens, start) - start;
        weigh_step(w, past, n, true);
        kv_block_kind kind = start + n < prompt ? KV_BLOCK_PROMPT : KV_BLOCK_PROMPT_END;
        past = retained_after(w, kind, past, n);
    }
    for (; left > 0; left -= n) {
        n = interval > 0 && interval < left ? interval : left;
        for (long long i = 0; i < n; i++)
            weigh_step(w, past + i, 1, false);
        past = retained_after(w, KV_BLOCK_DECODE, past, n);
    }
}

static long long count_steps(const kv_footprint_case *c, const kv_counts_rule *rule)
{
    long long steps = c->generated_tokens;
    for (long long start = 0; start < c->prompt_tokens && steps <= MOST_STEPS; steps++)
        start = kv_counts_chunk_end(rule, c->chunk_tokens, start);
    return steps;
}

/* Rewrites peak_bytes and byte_steps. */
static kv_err weigh_parts(const kv_footprint_case *c, const kv_counts_rule *rule,
                          const kv_counts_layer *layer, kv_footprint *out, kv_diag *diag)
{
    const kv_model *model = c->model;
    long long steps = count_steps(c, rule);
    if (model->attention.kv_rank > 0)
        return kv_fail(diag, KV_ERR_UNSUPPORTED, NULL,
                       "%s transforms keys and values, but %s caches latent vectors",
                       c->part[0].method.name, model->name);
    if (steps > MOST_STEPS)
        return kv_fail(diag, KV_ERR_INPUT, NULL,
                       "expected at most %d chunks and decode steps with a transform; give larger "
                       "chunks",
                       MOST_STEPS);
    weighing w = {.c = c,
                  .rule = rule,
                  .shape = {.model = model->name,
                            .layers = (int)model->layers,
                            .heads = (int)model->attention.heads,
                            .kv_heads = kv_model_kv_heads(model),
                            .head_dim = (int)model->attention.head_dim}};
    w.at_step = calloc((size_t)steps, sizeof *w.at_step);
    if (w.at_step == NULL)
        return kv_fail_memory(diag);
    for (w.layer = 0; w.layer < model->layers; w.layer++) {
        long long window = layer[w.layer].window_tokens;
        w.cap = window > 0 ? window - 1 : INT64_MAX;
        for (w.group = 0; layer[w.layer].caches && w.group < kv_counts_groups(rule); w.group++)
            weigh_group(&w);
    }
    double tokens = (double)(c->prompt_tokens + c->generated_tokens), peak = 0;
    double entry = kv_model_entry_bytes(model, c->format), state = kv_model_state_bytes(model);
    for (long long s = 0; s < steps; s++)
        peak = w.at_step[s] > peak ? w.at_step[s] : peak;
    free(w.at_step);
    out->peak_bytes = peak * entry + state;
    out->byte_steps = w.area * entry + tokens * state;
    return KV_OK;
}

kv_err kv_footprint_compute(const kv_footprint_case *c, kv_footprint *out, kv_diag *diag)
{
    if (c->prompt_tokens < 1 || c->generated_tokens < 0 ||
        c->prompt_tokens > INT32_MAX - c->generated_tokens)
        return kv_fail(diag, KV_ERR_INPUT, NULL,
                       "expected a prompt of at least 1 token and at most %d tokens in all",
                       INT32_MAX);
    kv_counts_layer *layer = layers_of(c->model);
    if (layer == NULL)
        return kv_fail_memory(diag);
    kv_counts_rule rule = {.policy = c->policy,
                           .config = c->config,
                           .plan = c->plan,
                           .layers = (int)c->model->layers,
                           .kv_heads = kv_model_kv_heads(c->model),
                           .prompt_tokens = c->prompt_tokens,
                           .published = c->published};
    kv_counts_sum sum;
    kv_err err = kv_counts_replay(&rule, layer, c->chunk_tokens, c->generated_tokens, &sum, diag);
    if (err == KV_OK)
        *out = weigh(c, &sum);
    if (err == KV_OK && c->parts > 0)
        err = weigh_parts(c, &rule, layer, out, diag);
    free(layer);
    return err;
}
