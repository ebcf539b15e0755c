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
    free(layer);
    if (err == KV_OK)
        *out = weigh(c, &sum);
    return err;
}
