/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "sim/attention_cache.h"

#include <stdlib.h>

static int attention_layers(const kv_model *model)
{
    int layers = 0;
    for (int l = 0; l < model->layers; l++)
        layers += model->layer[l].mixer == KV_MIXER_ATTENTION;
    return layers;
}

static bool is_latent(const kv_model *model)
{
    return model->attention.kv_rank > 0;
}

static kv_err check_shape(const kv_model *model, const kv_shape *shape, const char *trace,
                          const kv_mark *mark, kv_diag *diag)
{
    bool layers = shape->layers == model->layers || shape->layers == attention_layers(model);
    bool heads = shape->kv_heads == kv_model_kv_heads(model) ||
                 (is_latent(model) && shape->kv_heads == model->attention.heads);
    if (layers && heads)
        return KV_OK;
    return kv_fail(diag, KV_ERR_INPUT, mark,
                   "model %s has %lld layers (%d of attention) of %d KV heads, but %s was recorded "
                   "with %d of %d; name the recorded model or leave `model` out",
                   model->name, model->layers, attention_layers(model), kv_model_kv_heads(model),
                   trace, shape->layers, shape->kv_heads);
}

/* Whether the layers say more than that each caches everything. */
static bool is_plain(const kv_model *model)
{
    for (int l = 0; l < model->layers; l++)
        if (model->layer[l].cache_of != l || model->layer[l].window_tokens > 0)
            return false;
    return true;
}

kv_err kv_attention_cache_of(const kv_model *model, const kv_shape *shape, const char *trace,
                             const kv_mark *mark, kv_replay_cache *out, kv_diag *diag)
{
    kv_err err = check_shape(model, shape, trace, mark, diag);
    if (err != KV_OK)
        return err;
    *out =
        (kv_replay_cache){.entry_bytes = kv_model_entry_bytes(model, kv_model_cache_format(model)),
                          .latent = is_latent(model) && shape->kv_heads > 1,
                          .state_bytes = kv_model_state_bytes(model),
                          .full_entries = (double)model->layers * kv_model_kv_heads(model)};
    if (is_plain(model))
        return KV_OK;
    kv_counts_layer *layer = calloc((size_t)shape->layers, sizeof *layer);
    if (layer == NULL)
        return kv_fail_memory(diag);
    int recorded = 0;
    for (int l = 0; l < model->layers; l++)
        if (shape->layers == model->layers || model->layer[l].mixer == KV_MIXER_ATTENTION)
            layer[recorded++] = (kv_counts_layer){.caches = model->layer[l].cache_of == l,
                                                  .window_tokens = model->layer[l].window_tokens};
    out->layer = layer;
    return KV_OK;
}
