/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Step times from shapes and peaks.
 *
 * Each operator takes the greater of its arithmetic over the peak it reaches and its bytes over the
 * bandwidth it reaches; weights are read once per step. Per layer: the matrix products (of a
 * mixture, with the weights of the experts that the step is expected to touch), attention of the
 * chunks, attention of the decodes, the state of a recurrent layer, and two all-reduces. Layers of
 * one kind are computed once. A tensor-parallel group divides arithmetic, weights and cache evenly.
 */
#include "config.h"

#include "models/step_time.h"

#include <math.h>
#include <stdlib.h>

/* Layers that cost the same. */
typedef struct kind {
    int layer; /* the first of them */
    double count;
    double flops;        /* of one token in the matrices */
    double window;       /* keys that a query sees at most; INFINITY: all */
    double chunk_flops;  /* of one token per key, prefilling */
    double decode_flops; /* the same, decoding */
    double key_bytes;    /* of one token's KV in the layer it reads */
    double state_bytes;  /* of one sequence */
    bool mixture;
} kind;

typedef struct roofline {
    const kv_model *model;
    kind *kind;
    int kinds;
    double flops_per_ns, attention_flops_per_ns, bytes_per_ns; /* reached, of the whole group */
    double weight_bytes;                                       /* of one number */
    double layer_overhead_ns;                                  /* all layers together */
    double all_reduce_ns;                                      /* per token */
    double all_reduce_base_ns;                                 /* per step */
    double head_flops, head_bytes;
    double entry_ns; /* of decode attention, per entry that is read */
} roofline;

static kv_err open_roofline(const kv_step_time_config *config, const kv_step_hardware *hardware,
                            void **state, kv_diag *diag);
static void close_roofline(void *state);
static double mixed(const void *state, const kv_step_batch *batch);
static void ramp(const void *state, const kv_step_batch *batch, kv_step_ramp *out);

const kv_step_time_type kv__step_time_roofline = {
    .name = "roofline",
    .open = open_roofline,
    .close = close_roofline,
    .mixed = mixed,
    .ramp = ramp,
};

static bool same_kind(const kv_model_layer *a, const kv_model_layer *b)
{
    return a->mixer == b->mixer && a->mlp == b->mlp && a->window_tokens == b->window_tokens;
}

static kind make_kind(const kv_step_hardware *hardware, int layer)
{
    const kv_model *model = hardware->model;
    const kv_model_layer *l = &model->layer[layer];
    kind k = {.layer = layer, .count = 1, .flops = kv_model_layer_flops(model, layer)};
    k.mixture = l->mlp == KV_MLP_MOE;
    k.state_bytes = kv_model_layer_state_bytes(model, layer);
    k.window = l->window_tokens > 0 ? (double)l->window_tokens : INFINITY;
    if (l->cache_of >= 0) {
        k.chunk_flops = kv_model_layer_attention_flops(model, layer, 1, false);
        k.decode_flops = kv_model_layer_attention_flops(model, layer, 1, true);
        k.key_bytes = kv_model_layer_token_bytes(model, l->cache_of, hardware->format) *
                      kv_model_kv_copies(model, hardware->tensor_parallel);
    }
    return k;
}

static void make_kinds(roofline *r, const kv_step_hardware *hardware)
{
    const kv_model *model = hardware->model;
    for (int l = 0; l < model->layers; l++) {
        int at = 0;
        while (at < r->kinds && !same_kind(&model->layer[r->kind[at].layer], &model->layer[l]))
            at++;
        if (at < r->kinds)
            r->kind[at].count++;
        else
            r->kind[r->kinds++] = make_kind(hardware, l);
    }
}

/* Time per KV entry that decoding reads. Arithmetic and bytes both follow the entries, so one of
 * the two always bounds. */
static double entry_ns(const roofline *r)
{
    double flops = 0, bytes = 0, read = (double)kv__entries_per_token(r->model);
    for (int i = 0; i < r->kinds; i++) {
        flops += r->kind[i].count * r->kind[i].decode_flops;
        bytes += r->kind[i].count * r->kind[i].key_bytes;
    }
    return read > 0 ? fmax(flops / r->flops_per_ns, bytes / r->bytes_per_ns) / read : 0;
}

static kv_err open_roofline(const kv_step_time_config *config, const kv_step_hardware *hardware,
                            void **state, kv_diag *diag)
{
    const kv_model *model = hardware->model;
    roofline *r = calloc(1, sizeof *r);
    kind *kinds = calloc((size_t)model->layers, sizeof *kinds);
    if (r == NULL || kinds == NULL) {
        free(r);
        free(kinds);
        return kv_fail_memory(diag);
    }
    double group = hardware->tensor_parallel;
    double peak = kv_device_flops(hardware->device, (kv_dtype)model->weight_dtype) * 1e-9 * group;
    double bytes = (double)model->hidden_size * kv_dtype_bits((kv_dtype)model->dtype) / 8;
    r->model = model;
    r->kind = kinds;
    r->flops_per_ns = peak * config->compute_efficiency;
    r->attention_flops_per_ns = kv_device_flops(hardware->device, (kv_dtype)model->dtype) * 1e-9 *
                                group * config->attention_efficiency;
    r->bytes_per_ns = hardware->device->bandwidth * 1e-9 * group * config->memory_efficiency;
    r->weight_bytes = kv_dtype_bits((kv_dtype)model->weight_dtype) / 8.0;
    r->layer_overhead_ns = (double)model->layers * (double)config->layer_overhead_ns;
    double layers = (double)model->layers;
    r->all_reduce_base_ns = 2 * layers * kv__all_reduce_ns(hardware, 0);
    r->all_reduce_ns = 2 * layers * kv__all_reduce_ns(hardware, bytes) - r->all_reduce_base_ns;
    r->head_flops = kv_model_head_flops(model);
    r->head_bytes = (double)model->hidden_size * (double)model->vocabulary * r->weight_bytes;
    make_kinds(r, hardware);
    r->entry_ns = entry_ns(r);
    *state = r;
    return KV_OK;
}

static void close_roofline(void *state)
{
    roofline *r = state;
    free(r->kind);
    free(r);
}

static double bound(const roofline *r, double flops, double bytes)
{
    return fmax(flops / r->flops_per_ns, bytes / r->bytes_per_ns);
}

/* All but attention: matrix products, states, output matrix, overheads. */
static double around_attention(const roofline *r, const kv_step_batch *batch)
{
    double tokens = (double)batch->tokens, sequences = (double)batch->sequences;
    double touched = kv__touched_experts(r->model, tokens);
    double ns = r->layer_overhead_ns + r->all_reduce_base_ns + r->all_reduce_ns * tokens +
                bound(r, r->head_flops * sequences, r->head_bytes);
    for (int i = 0; i < r->kinds; i++) {
        const kind *k = &r->kind[i];
        double weights = (double)kv_model_layer_parameters(r->model, k->layer, 1);
        if (k->mixture)
            weights += (touched - 1) * (double)(kv_model_layer_parameters(r->model, k->layer, 2) -
                                                kv_model_layer_parameters(r->model, k->layer, 1));
        ns += k->count * (bound(r, k->flops * tokens, weights * r->weight_bytes) +
                          2 * k->state_bytes * sequences / r->bytes_per_ns);
    }
    return ns;
}

/* Attention of the chunks: a query sees what came before the chunk and, on average, half of it. */
static double chunk_attention(const roofline *r, const kv_step_batch *batch)
{
    double tokens = (double)batch->prefill_tokens, ns = 0;
    double chunk = batch->prefill_square / tokens, history = batch->prefill_history / tokens;
    double keys = history + (chunk + 1) / 2;
    for (int i = 0; i < r->kinds; i++) {
        const kind *k = &r->kind[i];
        double seen = fmin(keys, k->window), read = fmin(history + chunk, k->window + chunk);
        ns += k->count * fmax(k->chunk_flops * seen * tokens / r->attention_flops_per_ns,
                              k->key_bytes * read * tokens / chunk / r->bytes_per_ns);
    }
    return ns;
}

static double mixed(const void *state, const kv_step_batch *batch)
{
    const roofline *r = state;
    return around_attention(r, batch) + chunk_attention(r, batch) +
           r->entry_ns * (double)batch->decode_entries;
}

/* Decode attention is linear in the entries, so the line never ends. */
static void ramp(const void *state, const kv_step_batch *batch, kv_step_ramp *out)
{
    const roofline *r = state;
    kv_fine per_entry = kv__fine(r->entry_ns);
    out->first = kv__fine(around_attention(r, batch)) + per_entry * batch->decode_entries;
    out->slope = per_entry * batch->decode_growth;
    out->steps = INT64_MAX;
}
