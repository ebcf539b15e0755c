/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "models/catalogue.h"
#include "models/model.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Bounds of sizes. Products of three of them fit 63 bits; real models stay far below. */
enum { MAX_LAYERS = 1024, MAX_WIDTH = 1 << 18, MAX_INNER = 1 << 20, MAX_HEADS = 1 << 12 };
enum { MAX_DIM = 1 << 13, MAX_EXPERTS = 1 << 14, MAX_VOCABULARY = 1 << 27, MAX_KINDS = 64 };
static const double MAX_PARAMETERS = 1e15;

#define ROW(of, key, row_type, field, text, low, high, names, row_flags, what, words)              \
    {                                                                                              \
        .name = key, .type = row_type, .offset = offsetof(of, field), .fallback = text,            \
        .min = low, .max = high, .choices = names, .flags = row_flags, .unit = what, .help = words \
    }
/* A size that must be given, one that has a default (NULL: absent, 0), a switch, a dtype. */
#define SIZE(of, key, field, high, what, words)                                                    \
    ROW(of, key, KV_INT, field, NULL, 1, high, NULL, KV_PARAM_REQUIRED, what, words)
#define SIZE_OR(of, key, field, text, low, high, what, words)                                      \
    ROW(of, key, KV_INT, field, text, low, high, NULL, 0, what, words)
#define SWITCH(of, key, field, words)                                                              \
    ROW(of, key, KV_BOOL, field, "false", 0, 0, NULL, 0, "", words)
#define CHOICE(of, key, field, text, names, words)                                                 \
    ROW(of, key, KV_CHOICE, field, text, 0, 0, names, 0, "", words)
#define END                                                                                        \
    {                                                                                              \
        .name = NULL                                                                               \
    }

static const kv_param model_rows[] = {
    ROW(kv_model, "name", KV_TEXT, name, NULL, 0, 0, NULL, KV_PARAM_REQUIRED, "",
        "what the model is called"),
    ROW(kv_model, "brief", KV_TEXT, brief, NULL, 0, 0, NULL, 0, "", "one line about the model"),
    SIZE(kv_model, "layers", layers, MAX_LAYERS, "layers", "layers of the model"),
    SIZE(kv_model, "hidden_size", hidden_size, MAX_WIDTH, "numbers",
         "width of the residual stream"),
    SIZE(kv_model, "vocabulary", vocabulary, MAX_VOCABULARY, "tokens", "tokens it knows"),
    SIZE_OR(kv_model, "max_context", max_context, NULL, 1, INT32_MAX, "tokens",
            "longest sequence it was made for"),
    SIZE_OR(kv_model, "norms_per_layer", norms_per_layer, "2", 0, 16, "",
            "norm vectors of hidden_size in a layer"),
    SIZE_OR(kv_model, "published_parameters", published_parameters, NULL, 1, 1e15, "",
            "parameters that its makers state, to compare with"),
    SWITCH(kv_model, "tied_embeddings", tied_embeddings,
           "whether the input and the output matrix are one"),
    CHOICE(kv_model, "dtype", dtype, "bf16", kv_dtype_names, "of activations and cache"),
    END};

/* Absent: as dtype. */
typedef struct weight_choice {
    int dtype;
} weight_choice;
static const kv_param weight_rows[] = {
    CHOICE(weight_choice, "weight_dtype", dtype, NULL, kv_dtype_names, "of the weights"), END};

static const kv_param attention_rows[] = {
    SIZE(kv_model_attention, "heads", heads, MAX_HEADS, "heads", "query heads"),
    SIZE_OR(kv_model_attention, "kv_heads", kv_heads, NULL, 1, MAX_HEADS, "heads",
            "KV heads; as heads unless given"),
    SIZE(kv_model_attention, "head_dim", head_dim, MAX_DIM, "numbers",
         "of queries and keys; latent attention: without the rotary part"),
    SIZE_OR(kv_model_attention, "value_dim", value_dim, NULL, 1, MAX_DIM, "numbers",
            "of values; as head_dim unless given"),
    SIZE_OR(kv_model_attention, "rope_dim", rope_dim, NULL, 1, MAX_DIM, "numbers",
            "latent attention: rotary key that all heads share"),
    SIZE_OR(kv_model_attention, "query_rank", query_rank, NULL, 1, MAX_WIDTH, "numbers",
            "latent attention: rank of the query projection"),
    SIZE_OR(kv_model_attention, "kv_rank", kv_rank, NULL, 1, MAX_WIDTH, "numbers",
            "latent attention: cached numbers per token beside rope_dim"),
    SWITCH(kv_model_attention, "qk_norm", qk_norm, "whether queries and keys are normalised"),
    END};

static const kv_param mlp_rows[] = {SIZE(kv_model_mlp, "intermediate_size", intermediate_size,
                                         MAX_INNER, "numbers", "width inside the MLP"),
                                    END};

static const kv_param moe_rows[] = {
    SIZE(kv_model_moe, "experts", experts, MAX_EXPERTS, "experts", "routed experts of a layer"),
    SIZE(kv_model_moe, "experts_per_token", experts_per_token, MAX_EXPERTS, "experts",
         "routed experts that a token visits"),
    SIZE_OR(kv_model_moe, "shared_experts", shared_experts, "0", 0, MAX_EXPERTS, "experts",
            "experts that every token visits"),
    SIZE(kv_model_moe, "intermediate_size", intermediate_size, MAX_INNER, "numbers",
         "width inside one expert"),
    SWITCH(kv_model_moe, "router_bias", router_bias, "whether the router has a bias per expert"),
    END};

static const kv_param mamba_rows[] = {
    SIZE(kv_model_mamba, "inner_size", inner_size, MAX_INNER, "numbers", "channels"),
    SIZE(kv_model_mamba, "state_size", state_size, MAX_DIM, "numbers", "state per channel"),
    SIZE(kv_model_mamba, "convolution", convolution, MAX_DIM, "tokens", "kernel"),
    SIZE(kv_model_mamba, "step_rank", step_rank, MAX_WIDTH, "numbers",
         "rank of the step-size projection"),
    SWITCH(kv_model_mamba, "inner_norms", inner_norms,
           "whether step size and matrices are normalised"),
    CHOICE(kv_model_mamba, "state_dtype", state_dtype, "fp32", kv_dtype_names, "of the state"),
    END};

static const kv_param gla_rows[] = {
    SIZE(kv_model_gla, "heads", heads, MAX_HEADS, "heads", "heads"),
    SIZE(kv_model_gla, "key_dim", key_dim, MAX_DIM, "numbers", "of one head"),
    SIZE(kv_model_gla, "value_dim", value_dim, MAX_DIM, "numbers", "of one head"),
    SIZE(kv_model_gla, "gate_rank", gate_rank, MAX_WIDTH, "numbers", "rank of the decay"),
    CHOICE(kv_model_gla, "state_dtype", state_dtype, "fp32", kv_dtype_names, "of the state"),
    END};

/* One sort of layer, as the mapping `kinds` describes it. */
typedef struct kind {
    int mixer;               /* kv_mixer */
    int mlp;                 /* index into mlp_names */
    long long window_tokens; /* 0: none */
    char *shares;            /* the kind whose cache it reads; NULL: its own */
} kind;

static const char *const mixer_names[] = {
    [KV_MIXER_ATTENTION] = "attention", [KV_MIXER_MAMBA] = "mamba", [KV_MIXER_GLA] = "gla", NULL};
enum { MLP_AUTO = KV_MLP_NONE + 1 };
static const char *const mlp_names[] = {[KV_MLP_DENSE] = "dense",
                                        [KV_MLP_MOE] = "moe",
                                        [KV_MLP_NONE] = "none",
                                        [MLP_AUTO] = "auto",
                                        NULL};

static const kv_param kind_rows[] = {
    CHOICE(kind, "mixer", mixer, "attention", mixer_names, "how the layer mixes tokens"),
    CHOICE(kind, "mlp", mlp, "auto", mlp_names,
           "what follows the mixer; auto: a mixture if the model has one"),
    SIZE_OR(kind, "window", window_tokens, NULL, 1, INT32_MAX, "tokens",
            "keys that a query sees, its own included"),
    ROW(kind, "shares", KV_TEXT, shares, NULL, 0, 0, NULL, 0, "",
        "it reads the cache of the nearest earlier layer of that kind"),
    END};

/* --- Blocks of settings ------------------------------------------------------------ */

/* Fills one block of the description from its mapping, if it is there. */
static kv_err parse_block(const kv_param *rows, void *block, const kv_node *map, kv_diag *diag)
{
    if (map == NULL)
        return KV_OK;
    kv_err err = kv_params_default(rows, block, diag);
    return err == KV_OK ? kv_params_parse(rows, block, map, NULL, diag) : err;
}

/* Every block has a size that is at least 1 once the block was given. */
static kv_err parse_blocks(const kv_node *root, kv_model *m, kv_diag *diag)
{
    const struct {
        const char *key;
        const kv_param *rows;
        void *block;
    } blocks[] = {{"attention", attention_rows, &m->attention},
                  {"mlp", mlp_rows, &m->mlp},
                  {"moe", moe_rows, &m->moe},
                  {"mamba", mamba_rows, &m->mamba},
                  {"gla", gla_rows, &m->gla}};
    kv_err err = KV_OK;
    for (size_t i = 0; err == KV_OK && i < sizeof blocks / sizeof *blocks; i++)
        err = parse_block(blocks[i].rows, blocks[i].block, kv_node_find(root, blocks[i].key), diag);
    return err;
}

static kv_err finish_attention(const kv_node *root, kv_model *m, kv_diag *diag)
{
    kv_model_attention *a = &m->attention;
    const kv_node *node = kv_node_find(root, "attention");
    kv_mark mark = kv_node_mark(node != NULL ? node : root);
    if (node == NULL)
        return kv_fail(diag, KV_ERR_INPUT, &mark,
                       "attention is missing; a model without attention layers gives that of the "
                       "transformer it is compared with");
    if ((a->kv_rank > 0) != (a->rope_dim > 0))
        return kv_fail(diag, KV_ERR_INPUT, &mark,
                       "latent attention needs both kv_rank and rope_dim; other attention has "
                       "neither");
    if (a->kv_heads == 0)
        a->kv_heads = a->heads;
    if (a->value_dim == 0)
        a->value_dim = a->head_dim;
    if (a->heads % a->kv_heads != 0)
        return kv_fail(diag, KV_ERR_INPUT, &mark,
                       "%lld heads cannot share %lld kv_heads evenly; expected a divisor of heads",
                       a->heads, a->kv_heads);
    return KV_OK;
}

static kv_err parse_weight_dtype(const kv_node *root, kv_model *m, kv_diag *diag)
{
    const kv_node *node = kv_node_find(root, "weight_dtype");
    weight_choice choice = {.dtype = m->dtype};
    kv_err err = node == NULL ? KV_OK : kv_param_parse(weight_rows, &choice, node, diag);
    m->weight_dtype = choice.dtype;
    return err;
}

/* --- Layers ------------------------------------------------------------------------ */

/* The kinds of a description while its layers are laid out. */
typedef struct layout {
    kv_model *model;
    const kv_node *kinds; /* NULL: one kind without a name */
    int count;
    kind kind[MAX_KINDS];
    int last[MAX_KINDS]; /* the latest layer of each kind; -1: none yet */
    int layers;          /* laid out so far */
} layout;

static int find_kind(const layout *o, const char *name)
{
    for (int i = 0; o->kinds != NULL && i < o->count; i++)
        if (strcmp(kv_node_key(o->kinds, i), name) == 0)
            return i;
    return -1;
}

static kv_err fail_kind(const layout *o, const char *name, const kv_mark *mark, kv_diag *diag)
{
    const char *names[MAX_KINDS];
    for (int i = 0; o->kinds != NULL && i < o->count; i++)
        names[i] = kv_node_key(o->kinds, i);
    const char *near = kv_nearest(name, names, o->kinds != NULL ? o->count : 0);
    return kv_fail(diag, KV_ERR_INPUT, mark, "there is no kind '%s' under kinds%s%s%s", name,
                   near ? ", did you mean '" : "", near ? near : "", near ? "'?" : "");
}

/* A kind needs the block that describes its mixer and its MLP. */
static kv_err check_kind(const layout *o, kind *k, const kv_mark *mark, kv_diag *diag)
{
    const kv_model *m = o->model;
    const char *missing = NULL;
    if (k->mlp == MLP_AUTO)
        k->mlp = m->moe.experts > 0 ? KV_MLP_MOE : KV_MLP_DENSE;
    if (k->mlp == KV_MLP_DENSE && m->mlp.intermediate_size == 0)
        missing = "mlp";
    if (k->mlp == KV_MLP_MOE && m->moe.experts == 0)
        missing = "moe";
    if (k->mixer == KV_MIXER_MAMBA && m->mamba.inner_size == 0)
        missing = "mamba";
    if (k->mixer == KV_MIXER_GLA && m->gla.heads == 0)
        missing = "gla";
    if (missing != NULL)
        return kv_fail(diag, KV_ERR_INPUT, mark, "%s is missing: a layer of the model has it",
                       missing);
    if (k->mixer != KV_MIXER_ATTENTION && (k->shares != NULL || k->window_tokens > 0))
        return kv_fail(diag, KV_ERR_INPUT, mark,
                       "only a kind with mixer: attention takes window and shares");
    return KV_OK;
}

static kv_err check_shares(const layout *o, const kind *k, const kv_mark *mark, kv_diag *diag)
{
    if (k->shares == NULL)
        return KV_OK;
    int owner = find_kind(o, k->shares);
    if (owner < 0)
        return fail_kind(o, k->shares, mark, diag);
    const kind *other = &o->kind[owner];
    if (other->mixer != KV_MIXER_ATTENTION || other->shares != NULL)
        return kv_fail(diag, KV_ERR_INPUT, mark,
                       "shares names '%s', which has no cache of its own; expected a kind with "
                       "attention that does not itself share",
                       k->shares);
    return KV_OK;
}

static kv_err parse_kinds(layout *o, const kv_node *root, kv_diag *diag)
{
    o->kinds = kv_node_find(root, "kinds");
    kv_mark mark = kv_node_mark(o->kinds != NULL ? o->kinds : root);
    if (o->kinds == NULL) {
        o->count = 1;
        kv_err err = kv_params_default(kind_rows, &o->kind[0], diag);
        return err == KV_OK ? check_kind(o, &o->kind[0], &mark, diag) : err;
    }
    int count = kv_node_get_kind(o->kinds) == KV_NODE_MAP ? kv_node_count(o->kinds) : 0;
    if (count < 1 || count > MAX_KINDS)
        return kv_fail(diag, KV_ERR_INPUT, &mark, "expected a mapping of 1 to %d kinds of layers",
                       MAX_KINDS);
    kv_err err = KV_OK;
    for (int i = 0; err == KV_OK && i < count; i++) {
        mark = kv_node_key_mark(o->kinds, i);
        err = parse_block(kind_rows, &o->kind[i], kv_node_at(o->kinds, i), diag);
        o->count = i + 1;
        if (err == KV_OK)
            err = check_kind(o, &o->kind[i], &mark, diag);
    }
    for (int i = 0; err == KV_OK && i < count; i++) {
        mark = kv_node_key_mark(o->kinds, i);
        err = check_shares(o, &o->kind[i], &mark, diag);
    }
    return err;
}

static kv_err append_layer(layout *o, int which, const kv_mark *mark, kv_diag *diag)
{
    const kind *k = &o->kind[which];
    int layer = o->layers++;
    kv_model_layer *l = &o->model->layer[layer];
    l->mixer = (kv_mixer)k->mixer;
    l->mlp = (kv_mlp_kind)k->mlp;
    l->window_tokens = k->window_tokens;
    l->cache_of = k->mixer == KV_MIXER_ATTENTION ? layer : -1;
    o->last[which] = layer;
    if (k->shares == NULL)
        return KV_OK;
    l->cache_of = o->last[find_kind(o, k->shares)];
    if (l->cache_of < 0)
        return kv_fail(diag, KV_ERR_INPUT, mark,
                       "layer %d shares the cache of a '%s' layer, but none comes before it", layer,
                       k->shares);
    return KV_OK;
}

/* Appends the layers that a list of kind names stands for; `most` bounds them. */
static kv_err append_list(layout *o, const kv_node *list, long long most, kv_diag *diag)
{
    kv_err err = KV_OK;
    for (int i = 0; err == KV_OK && i < kv_node_count(list) && o->layers < most; i++) {
        const kv_node *item = kv_node_at(list, i);
        kv_mark mark = kv_node_mark(item);
        const char *name =
            kv_node_get_kind(item) == KV_NODE_SCALAR ? kv_node_text(item, NULL) : NULL;
        if (name == NULL)
            return kv_fail(diag, KV_ERR_INPUT, &mark, "expected the name of a kind");
        int which = find_kind(o, name);
        err = which < 0 ? fail_kind(o, name, &mark, diag) : append_layer(o, which, &mark, diag);
    }
    return err;
}

/* The list of that name; NULL if it is absent. */
static kv_err find_list(const kv_node *root, const char *key, const kv_node **out, kv_diag *diag)
{
    *out = kv_node_find(root, key);
    if (*out == NULL || (kv_node_get_kind(*out) == KV_NODE_LIST && kv_node_count(*out) > 0))
        return KV_OK;
    kv_mark mark = kv_node_mark(*out);
    return kv_fail(diag, KV_ERR_INPUT, &mark, "expected a list of kinds of layers");
}

/* prefix once, then pattern over and over, until all layers are there. */
static kv_err lay_out(layout *o, const kv_node *root, kv_diag *diag)
{
    const kv_node *prefix, *pattern;
    long long layers = o->model->layers;
    kv_mark mark = kv_node_mark(root);
    kv_err err = find_list(root, "prefix", &prefix, diag);
    if (err == KV_OK)
        err = find_list(root, "pattern", &pattern, diag);
    if (err != KV_OK)
        return err;
    if (o->kinds == NULL && (prefix != NULL || pattern != NULL))
        return kv_fail(diag, KV_ERR_INPUT, &mark, "prefix and pattern need kinds");
    if (o->kinds != NULL && pattern == NULL)
        return kv_fail(diag, KV_ERR_INPUT, &mark, "kinds need pattern, the order they stand in");
    if (prefix != NULL && kv_node_count(prefix) > layers)
        return kv_fail(diag, KV_ERR_INPUT, &mark, "prefix has %d layers, the model only %lld",
                       kv_node_count(prefix), layers);
    if (prefix != NULL)
        err = append_list(o, prefix, layers, diag);
    while (err == KV_OK && o->layers < layers)
        err = pattern != NULL ? append_list(o, pattern, layers, diag)
                              : append_layer(o, 0, &mark, diag);
    return err;
}

static kv_err parse_layers(const kv_node *root, kv_model *m, kv_diag *diag)
{
    layout o = {.model = m};
    for (int i = 0; i < MAX_KINDS; i++)
        o.last[i] = -1;
    m->layer = calloc((size_t)m->layers, sizeof *m->layer);
    if (m->layer == NULL)
        return kv_fail_memory(diag);
    kv_err err = parse_kinds(&o, root, diag);
    if (err == KV_OK)
        err = lay_out(&o, root, diag);
    for (int i = 0; i < MAX_KINDS; i++)
        kv_params_fini(kind_rows, &o.kind[i]);
    return err;
}

/* --- The whole --------------------------------------------------------------------- */

static kv_err check_size(const kv_node *root, const kv_model *m, kv_diag *diag)
{
    kv_mark mark = kv_node_mark(root);
    if (m->moe.experts_per_token > m->moe.experts)
        return kv_fail(diag, KV_ERR_INPUT, &mark,
                       "experts_per_token is %lld, above the %lld experts",
                       m->moe.experts_per_token, m->moe.experts);
    double sum = 0;
    for (int l = 0; l < m->layers; l++)
        sum += (double)kv_model_layer_parameters(m, l, m->moe.experts);
    if (sum > MAX_PARAMETERS)
        return kv_fail(diag, KV_ERR_INPUT, &mark,
                       "the model would have %.3g parameters; expected at most %.0e", sum,
                       MAX_PARAMETERS);
    return KV_OK;
}

static kv_err parse_into(const kv_node *root, kv_model *m, kv_diag *diag)
{
    static const char *const also[] = {"attention", "mlp",    "moe",     "mamba",        "gla",
                                       "kinds",     "prefix", "pattern", "weight_dtype", NULL};
    kv_err err = kv_params_default(model_rows, m, diag);
    if (err == KV_OK)
        err = kv_params_parse(model_rows, m, root, also, diag);
    if (err == KV_OK)
        err = parse_weight_dtype(root, m, diag);
    if (err == KV_OK)
        err = parse_blocks(root, m, diag);
    if (err == KV_OK)
        err = finish_attention(root, m, diag);
    if (err == KV_OK)
        err = parse_layers(root, m, diag);
    if (err == KV_OK)
        err = check_size(root, m, diag);
    return err;
}

kv_err kv_model_parse(const kv_node *node, kv_model **out, kv_diag *diag)
{
    kv_model *m = calloc(1, sizeof *m);
    if (m == NULL)
        return kv_fail_memory(diag);
    kv_err err = parse_into(node, m, diag);
    if (err == KV_OK)
        *out = m;
    else
        kv_model_free(m);
    return err;
}

kv_err kv_model_get(const kv_node *node, kv_model **out, kv_diag *diag)
{
    const kv_node *description;
    kv_document *owned;
    kv_err err = kv_catalogue_node(KV_SHELF_MODELS, node, &description, &owned, diag);
    if (err == KV_OK)
        err = kv_model_parse(description, out, diag);
    kv_document_free(owned);
    return err;
}

kv_err kv_model_find(const char *text, kv_model **out, kv_diag *diag)
{
    kv_document *document = NULL;
    kv_err err = kv_catalogue_read(KV_SHELF_MODELS, text, NULL, &document, diag);
    if (err == KV_OK)
        err = kv_model_parse(kv_document_root(document), out, diag);
    kv_document_free(document);
    return err;
}

void kv_model_free(kv_model *model)
{
    if (model == NULL)
        return;
    kv_params_fini(model_rows, model);
    free(model->layer);
    free(model);
}
