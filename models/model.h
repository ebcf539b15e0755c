/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Model architectures: what a layer caches, how large the weights are, how many FLOPs a token
 * costs.
 *
 * A model is a YAML description (models/catalogue/models/NAME.yaml; docs/models.md explains every
 * key). Every number here follows from the shapes in it: nothing is looked up. */
#ifndef KVSIM_MODELS_MODEL_H
#define KVSIM_MODELS_MODEL_H

#include "sim/base/diag.h"
#include "sim/base/yaml.h"

#include <stdbool.h>

/* Number formats of weights, activations and caches. */
typedef enum kv_dtype {
    KV_DTYPE_FP32,
    KV_DTYPE_BF16,
    KV_DTYPE_FP16,
    KV_DTYPE_FP8,
    KV_DTYPE_INT8,
    KV_DTYPE_FP4,
    KV_DTYPE_INT4,
    KV_DTYPE_INT2,
    KV_DTYPES
} kv_dtype;

/* Names in the order of the enum, ended by NULL: choices of a parameter. */
extern const char *const kv_dtype_names[];
/* Bits of one number. */
int kv_dtype_bits(kv_dtype dtype);

/* How a layer mixes tokens. */
typedef enum kv_mixer {
    KV_MIXER_ATTENTION, /* softmax attention over cached keys and values */
    KV_MIXER_MAMBA,     /* selective state space: a constant state */
    KV_MIXER_GLA        /* gated linear attention: a constant matrix per head */
} kv_mixer;

typedef enum kv_mlp_kind { KV_MLP_DENSE, KV_MLP_MOE, KV_MLP_NONE } kv_mlp_kind;

/* Attention of every attention layer. */
typedef struct kv_model_attention {
    long long heads;      /* Hq, query heads */
    long long kv_heads;   /* Hkv; 1 where the cache is one latent vector for all heads */
    long long head_dim;   /* of queries and keys, without the rotary part of latent attention */
    long long value_dim;  /* of values; head_dim unless given */
    long long rope_dim;   /* latent: the rotary key that all heads share; 0: not latent */
    long long query_rank; /* latent: rank of the query projection; 0: full rank */
    long long kv_rank;    /* latent: cached numbers per token beside rope_dim; 0: not latent */
    bool qk_norm;         /* queries and keys are normalised per head */
} kv_model_attention;

/* A gated MLP: three matrices. */
typedef struct kv_model_mlp {
    long long intermediate_size;
} kv_model_mlp;

/* A mixture of gated MLPs. */
typedef struct kv_model_moe {
    long long experts;           /* routed experts of a layer; 0: the model has no mixture */
    long long experts_per_token; /* routed experts that a token visits */
    long long shared_experts;    /* experts that every token visits */
    long long intermediate_size; /* of one expert */
    bool router_bias;            /* the router has a bias per expert */
} kv_model_moe;

/* A Mamba mixer. */
typedef struct kv_model_mamba {
    long long inner_size;  /* channels; 0: the model has none */
    long long state_size;  /* numbers of state per channel */
    long long convolution; /* kernel of the causal convolution */
    long long step_rank;   /* rank of the step-size projection */
    bool inner_norms;      /* step size, input and output matrices are normalised (Jamba) */
    int state_dtype;       /* kv_dtype of the state */
} kv_model_mamba;

/* A gated-linear-attention mixer. */
typedef struct kv_model_gla {
    long long heads;     /* 0: the model has none */
    long long key_dim;   /* of one head */
    long long value_dim; /* of one head */
    long long gate_rank; /* rank of the decay's projection */
    int state_dtype;     /* kv_dtype of the state */
} kv_model_gla;

/* One layer. */
typedef struct kv_model_layer {
    kv_mixer mixer;
    kv_mlp_kind mlp;
    long long window_tokens; /* a query sees so many keys, its own included; 0: all */
    int cache_of; /* whose KV cache it reads: itself or an earlier layer; -1: it has none */
} kv_model_layer;

/* A model. Read only for everyone but the parser. */
typedef struct kv_model {
    char *name;
    char *brief;                    /* one line; may be NULL */
    long long layers;               /* L */
    long long hidden_size;          /* width of the residual stream */
    long long vocabulary;           /* tokens */
    long long max_context;          /* tokens of the longest sequence; 0: not stated */
    long long norms_per_layer;      /* vectors of hidden_size */
    long long published_parameters; /* what its makers state; 0: not stated */
    bool tied_embeddings;           /* input and output matrix are one */
    int dtype;                      /* kv_dtype of activations and, unless told, of the cache */
    int weight_dtype;               /* kv_dtype of the weights */
    kv_model_attention attention;
    kv_model_mlp mlp;
    kv_model_moe moe;
    kv_model_mamba mamba;
    kv_model_gla gla;
    kv_model_layer *layer; /* [layers] */
} kv_model;

/* How KV entries are stored. */
typedef struct kv_cache_format {
    int dtype;                 /* kv_dtype */
    long long group;           /* numbers that share a 16-bit scale and a 16-bit zero; 0: none do */
    long long residual_tokens; /* the newest entries, kept in the model's own dtype */
} kv_cache_format;

/* --- Where models come from -------------------------------------------------------- */

/* Reads a description. */
kv_err kv_model_parse(const kv_node *node, kv_model **out, kv_diag *diag) KV_MUST_USE;
/* What an experiment's `model:` names: a catalogue name, the path of a YAML file (relative to the
 * file that names it), or a mapping that is itself the description. */
kv_err kv_model_get(const kv_node *node, kv_model **out, kv_diag *diag) KV_MUST_USE;
/* The same for text from a command line; flow YAML is an inline mapping. */
kv_err kv_model_find(const char *text, kv_model **out, kv_diag *diag) KV_MUST_USE;
void kv_model_free(kv_model *model);

/* --- Parameters and weights -------------------------------------------------------- */

/* All parameters: embeddings, layers, final norm, output matrix. */
long long kv_model_parameters(const kv_model *model);
/* Those that one token meets: of a mixture only the experts it visits. */
long long kv_model_active_parameters(const kv_model *model);
/* Those of one layer; of a mixture, with `experts` routed experts. */
long long kv_model_layer_parameters(const kv_model *model, int layer, long long experts);
/* Bytes of all weights. */
double kv_model_weight_bytes(const kv_model *model);

/* --- Cache and state --------------------------------------------------------------- */

/* The model's own dtype, not quantised. */
kv_cache_format kv_model_cache_format(const kv_model *model);
/* KV heads as the cache has them: attention.kv_heads, or 1 for latent attention. */
int kv_model_kv_heads(const kv_model *model);
/* How much more the fullest of a group of devices holds of the cache than an equal part of it: KV
 * heads are divided whole, and where there are fewer than devices each device has a copy of one. A
 * latent is one head, so every device has all of it. */
double kv_model_kv_copies(const kv_model *model, int devices);
/* Bytes of one KV entry: the key and value of one token in one KV head of one layer. Quantised:
 * with its share of scales and zeros. */
double kv_model_entry_bytes(const kv_model *model, kv_cache_format format);
/* Bytes that one more token adds to a layer below its window; 0 for a layer without cache of its
 * own. */
double kv_model_layer_token_bytes(const kv_model *model, int layer, kv_cache_format format);
/* The same over all layers: what people call KV bytes per token. */
double kv_model_token_bytes(const kv_model *model, kv_cache_format format);
/* Constant bytes of a recurrent layer's state, 0 for others. */
double kv_model_layer_state_bytes(const kv_model *model, int layer);
double kv_model_state_bytes(const kv_model *model);
/* Bytes of all caches and states of one sequence of `tokens` tokens: windows and the residual of a
 * quantised cache counted. */
double kv_model_sequence_bytes(const kv_model *model, kv_cache_format format, long long tokens);

/* --- FLOPs ------------------------------------------------------------------------- */

/* Multiplications and additions of one token in the matrices of one layer, 2 per weight it meets,
 * and in the state of a recurrent one. */
double kv_model_layer_flops(const kv_model *model, int layer);
/* Of one token that attends to `keys` keys in one layer (less if its window is): scores and
 * weighted values. Latent attention works on the latent vectors while decoding (absorbed
 * projections) and on full keys and values while prefilling. */
double kv_model_layer_attention_flops(const kv_model *model, int layer, double keys, bool decode);
/* Of the output matrix, for one sampled token. */
double kv_model_head_flops(const kv_model *model);
/* Of one token in all layers, attention over `keys` keys included, without the output matrix. */
double kv_model_token_flops(const kv_model *model, double keys, bool decode);

#endif
