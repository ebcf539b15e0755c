/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "models/model.h"

const char *const kv_dtype_names[] = {
    [KV_DTYPE_FP32] = "fp32", [KV_DTYPE_BF16] = "bf16", [KV_DTYPE_FP16] = "fp16",
    [KV_DTYPE_FP8] = "fp8",   [KV_DTYPE_INT8] = "int8", [KV_DTYPE_FP4] = "fp4",
    [KV_DTYPE_INT4] = "int4", [KV_DTYPE_INT2] = "int2", [KV_DTYPES] = NULL};

int kv_dtype_bits(kv_dtype dtype)
{
    static const int bits[KV_DTYPES] = {32, 16, 16, 8, 8, 4, 4, 2};
    return bits[dtype];
}

static bool is_latent(const kv_model *m)
{
    return m->attention.kv_rank > 0;
}

static const kv_model_layer *layer_of(const kv_model *m, int layer)
{
    return &m->layer[layer];
}

static bool owns_cache(const kv_model *m, int layer)
{
    return layer_of(m, layer)->cache_of == layer;
}

/* --- Parameters -------------------------------------------------------------------- */

/* Parameters of a part of a layer: weights of matrices, each met once per token, and the rest. */
typedef struct weights {
    long long matrix;
    long long vector;
} weights;

static weights attention_weights(const kv_model *m, bool own_cache)
{
    const kv_model_attention *a = &m->attention;
    long long d = m->hidden_size, kv = own_cache ? a->kv_heads * (a->head_dim + a->value_dim) : 0;
    weights w = {d * a->heads * (a->head_dim + a->value_dim) + d * kv,
                 a->qk_norm ? 2 * a->head_dim : 0};
    return w;
}

/* Low-rank projections: down to the rank, a norm there, and up to all heads. */
static weights latent_weights(const kv_model *m)
{
    const kv_model_attention *a = &m->attention;
    long long d = m->hidden_size, query = a->heads * (a->head_dim + a->rope_dim);
    weights w = {0, a->kv_rank + a->query_rank};
    w.matrix += a->query_rank > 0 ? a->query_rank * (d + query) : d * query;
    w.matrix += d * (a->kv_rank + a->rope_dim);
    w.matrix += a->kv_rank * a->heads * (a->head_dim + a->value_dim);
    w.matrix += a->heads * a->value_dim * d;
    return w;
}

static weights mamba_weights(const kv_model *m)
{
    const kv_model_mamba *s = &m->mamba;
    long long d = m->hidden_size, inner = s->inner_size, mixed = s->step_rank + 2 * s->state_size;
    weights w = {3 * d * inner + inner * mixed + s->step_rank * inner,
                 inner * (s->convolution + s->state_size + 3) + (s->inner_norms ? mixed : 0)};
    return w;
}

static weights gla_weights(const kv_model *m)
{
    const kv_model_gla *s = &m->gla;
    long long d = m->hidden_size, keys = s->heads * s->key_dim, values = s->heads * s->value_dim;
    weights w = {d * (2 * keys + 3 * values) + s->gate_rank * (d + keys), keys + s->value_dim};
    return w;
}

static weights mixer_weights(const kv_model *m, int layer)
{
    switch (layer_of(m, layer)->mixer) {
    case KV_MIXER_MAMBA:
        return mamba_weights(m);
    case KV_MIXER_GLA:
        return gla_weights(m);
    case KV_MIXER_ATTENTION:
        break;
    }
    return is_latent(m) ? latent_weights(m) : attention_weights(m, owns_cache(m, layer));
}

static weights mlp_weights(const kv_model *m, int layer, long long experts)
{
    const kv_model_moe *e = &m->moe;
    weights w = {0, 0};
    switch (layer_of(m, layer)->mlp) {
    case KV_MLP_DENSE:
        w.matrix = 3 * m->hidden_size * m->mlp.intermediate_size;
        break;
    case KV_MLP_MOE:
        w.matrix = m->hidden_size * e->experts +
                   (experts + e->shared_experts) * 3 * m->hidden_size * e->intermediate_size;
        w.vector = e->router_bias ? e->experts : 0;
        break;
    case KV_MLP_NONE:
        break;
    }
    return w;
}

static weights layer_weights(const kv_model *m, int layer, long long experts)
{
    weights mixer = mixer_weights(m, layer), mlp = mlp_weights(m, layer, experts);
    long long norms = layer_of(m, layer)->mlp == KV_MLP_NONE ? 1 : m->norms_per_layer;
    weights w = {mixer.matrix + mlp.matrix, mixer.vector + mlp.vector + norms * m->hidden_size};
    return w;
}

long long kv_model_layer_parameters(const kv_model *model, int layer, long long experts)
{
    weights w = layer_weights(model, layer, experts);
    return w.matrix + w.vector;
}

static long long parameters(const kv_model *m, long long experts)
{
    long long sum = (m->tied_embeddings ? 1 : 2) * m->vocabulary * m->hidden_size + m->hidden_size;
    for (int l = 0; l < m->layers; l++)
        sum += kv_model_layer_parameters(m, l, experts);
    return sum;
}

long long kv_model_parameters(const kv_model *model)
{
    return parameters(model, model->moe.experts);
}

long long kv_model_active_parameters(const kv_model *model)
{
    return parameters(model, model->moe.experts_per_token);
}

double kv_model_weight_bytes(const kv_model *model)
{
    return (double)kv_model_parameters(model) * kv_dtype_bits((kv_dtype)model->weight_dtype) / 8;
}

/* --- Cache and state --------------------------------------------------------------- */

kv_cache_format kv_model_cache_format(const kv_model *model)
{
    kv_cache_format format = {.dtype = model->dtype};
    return format;
}

int kv_model_kv_heads(const kv_model *model)
{
    return is_latent(model) ? 1 : (int)model->attention.kv_heads;
}

double kv_model_kv_copies(const kv_model *model, int devices)
{
    int heads = kv_model_kv_heads(model);
    return (double)((heads + devices - 1) / devices) * devices / heads;
}

double kv_model_entry_bytes(const kv_model *model, kv_cache_format format)
{
    const kv_model_attention *a = &model->attention;
    long long numbers = is_latent(model) ? a->kv_rank + a->rope_dim : a->head_dim + a->value_dim;
    double bits = kv_dtype_bits((kv_dtype)format.dtype);
    if (format.group > 0)
        bits += 32.0 / (double)format.group;
    return (double)numbers * bits / 8;
}

double kv_model_layer_token_bytes(const kv_model *model, int layer, kv_cache_format format)
{
    return owns_cache(model, layer) ? kv_model_kv_heads(model) * kv_model_entry_bytes(model, format)
                                    : 0;
}

double kv_model_token_bytes(const kv_model *model, kv_cache_format format)
{
    double sum = 0;
    for (int l = 0; l < model->layers; l++)
        sum += kv_model_layer_token_bytes(model, l, format);
    return sum;
}

double kv_model_layer_state_bytes(const kv_model *model, int layer)
{
    const kv_model_mamba *s = &model->mamba;
    const kv_model_gla *g = &model->gla;
    switch (layer_of(model, layer)->mixer) {
    case KV_MIXER_MAMBA: /* the scan's state, and the inputs that the convolution still needs */
        return (double)s->inner_size *
               ((double)s->state_size * kv_dtype_bits((kv_dtype)s->state_dtype) +
                (double)(s->convolution - 1) * kv_dtype_bits((kv_dtype)model->dtype)) /
               8;
    case KV_MIXER_GLA:
        return (double)(g->heads * g->key_dim * g->value_dim) *
               kv_dtype_bits((kv_dtype)g->state_dtype) / 8;
    case KV_MIXER_ATTENTION:
        break;
    }
    return 0;
}

double kv_model_state_bytes(const kv_model *model)
{
    double sum = 0;
    for (int l = 0; l < model->layers; l++)
        sum += kv_model_layer_state_bytes(model, l);
    return sum;
}

double kv_model_sequence_bytes(const kv_model *model, kv_cache_format format, long long tokens)
{
    double sum = kv_model_state_bytes(model);
    for (int l = 0; l < model->layers; l++) {
        long long window = layer_of(model, l)->window_tokens;
        long long held = window > 0 && window < tokens ? window : tokens;
        long long exact = held < format.residual_tokens ? held : format.residual_tokens;
        sum += (double)(held - exact) * kv_model_layer_token_bytes(model, l, format) +
               (double)exact * kv_model_layer_token_bytes(model, l, kv_model_cache_format(model));
    }
    return sum;
}

/* --- FLOPs ------------------------------------------------------------------------- */

/* Per state number and token: Mamba discretises the step and the input, decays, adds, and reads
 * out; gated linear attention decays, multiplies key and value, adds, and reads out. */
enum { MAMBA_STATE_FLOPS = 6, GLA_STATE_FLOPS = 5 };

static double state_flops(const kv_model *m, int layer)
{
    switch (layer_of(m, layer)->mixer) {
    case KV_MIXER_MAMBA:
        return (double)m->mamba.inner_size *
               (double)(MAMBA_STATE_FLOPS * m->mamba.state_size + 2 * m->mamba.convolution);
    case KV_MIXER_GLA:
        return (double)(GLA_STATE_FLOPS * m->gla.heads * m->gla.key_dim * m->gla.value_dim);
    case KV_MIXER_ATTENTION:
        break;
    }
    return 0;
}

double kv_model_layer_flops(const kv_model *model, int layer)
{
    weights w = layer_weights(model, layer, model->moe.experts_per_token);
    return 2.0 * (double)w.matrix + state_flops(model, layer);
}

double kv_model_layer_attention_flops(const kv_model *model, int layer, double keys, bool decode)
{
    const kv_model_attention *a = &model->attention;
    const kv_model_layer *l = layer_of(model, layer);
    if (l->mixer != KV_MIXER_ATTENTION)
        return 0;
    if (l->window_tokens > 0 && keys > (double)l->window_tokens)
        keys = (double)l->window_tokens;
    long long per_key = a->head_dim + a->value_dim;
    if (is_latent(model))
        per_key = decode ? 2 * a->kv_rank + a->rope_dim : per_key + a->rope_dim;
    return 2.0 * (double)(a->heads * per_key) * keys;
}

double kv_model_head_flops(const kv_model *model)
{
    return 2.0 * (double)(model->vocabulary * model->hidden_size);
}

double kv_model_token_flops(const kv_model *model, double keys, bool decode)
{
    double sum = 0;
    for (int l = 0; l < model->layers; l++)
        sum +=
            kv_model_layer_flops(model, l) + kv_model_layer_attention_flops(model, l, keys, decode);
    return sum;
}
