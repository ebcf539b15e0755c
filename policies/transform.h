/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Transforms: how the entries in memory are stored. They change no counts: which entries stay is
 * the retention policy's, and footprints in entries are those of plain eviction.
 *
 * A transform does one or both of two things. One that changes the numbers of entries while nothing
 * leaves is to save bytes by it, which the generic test checks.
 * (a) It changes bytes: `bytes` says how many an entry takes, as a share of a plain one.
 * (b) It changes numbers: keys, values or both of what is present (quantised, pruned, merged with
 *     what leaves). The engine keeps, per lane, layer and KV head, the keys and values as stored,
 *     equal to the recorded ones when a token arrives; `apply` rewrites them after each step, when
 *     the retention policy has dropped what leaves. Rows that attend later read what is stored:
 *     the output is o' = sum of a'(j) v'(j) over what is read, a' the recorded probabilities
 *     renormalised, or softmax(scale q.k'(j)) where the transform changes keys (`changes`). Recall,
 *     evidence and everything that is not an output stay those of the recorded probabilities.
 *
 * Within a step the step's own tokens attend before `apply` sees them, as quantisation and merging
 * happen after prefill's or the step's attention. Several transforms are applied in the order in
 * which the experiment lists them; their shares of bytes multiply.
 *
 * Every slot but `name`, `brief`, `config_bytes` and `params` may be NULL; NULL means the default
 * said beside it. A transform never allocates in `apply` and looks at nothing but what it is shown.
 *
 * A new one is a file in policies/transform/ that ends in KV_TRANSFORM_DEFINE(name) = {...}, and
 * one line in policies/policies.am. The generic tests then run over it. */
#ifndef KVSIM_POLICIES_TRANSFORM_H
#define KVSIM_POLICIES_TRANSFORM_H

#include "policies/retention.h"

/* What `apply` rewrites. */
enum { KV_CHANGES_KEYS = 1, KV_CHANGES_VALUES = 2 };

/* What transforms need beside KV_NEEDS_*. */
enum {
    KV_NEEDS_MODALITY = 256,   /* the dataset modality */
    KV_NEEDS_EVENT_ROWS = 512, /* the last row of every step after which entries may leave */
    KV_NEEDS_FULL = 1024       /* a retention policy that drops nothing */
};

/* The end of a step, as one KV head sees it. Positions are token positions, ascending. Rows of
 * arrays are [head_dim] at position * head_dim. */
typedef struct kv_transform_step {
    const kv_view *view; /* of the layer; rows by kv_view_row, queries by kv_view_query */
    const void *config;
    int kv_head;
    int step_start, step_end; /* the chunk or decode step that just ran; all tokens before step_end
                                 have arrived */
    bool prefill;             /* it belongs to the prompt */
    const int32_t *present;   /* [presents] entries in memory after the eviction */
    int presents;
    const int32_t *dropped; /* [droppeds] entries that this step's eviction dropped */
    int droppeds;
    const float *recorded_key, *recorded_value; /* [N][head_dim] as recorded */
    /* [N][head_dim] of another layer, as recorded, see `partner`; NULL if none */
    const float *partner_key, *partner_value;
    float *key, *value; /* [N][head_dim] as stored. Rows of present entries are to be rewritten;
                           rows of dropped entries hold what was stored of them last, and nobody
                           reads them again after the call. NULL where the recording has none */
    double *state;      /* [state_doubles * N] of this KV head, zeroed at the layer's start; NULL if
                           state_doubles is 0 */
    double *head_state; /* [head_doubles] of this KV head, likewise */
    double *work;       /* work_doubles that a call may use as it likes */
    int32_t *order;     /* N numbers likewise */
} kv_transform_step;

/* What bytes depend on. */
typedef struct kv_transform_size {
    const kv_shape *shape;
    int layer;
    double entries; /* of one KV head of the layer, above 0, after `apply` has seen them */
    bool prefill;   /* the prompt is not yet complete */
} kv_transform_size;

typedef struct kv_transform {
    const char *name;               /* as users write it */
    const char *brief;              /* one line: how entries are stored */
    const char *cite;               /* paper or code it follows */
    const char *stage;              /* generation, compression, retrieval or loading */
    size_t config_bytes;            /* of the configuration struct */
    const kv_param *params;         /* ends with a NULL name; no row has KV_PARAM_BUDGET */
    const kv_preset *presets;       /* NULL: none */
    const kv_condition *conditions; /* settings that others switch off; NULL: none */
    unsigned needs;       /* KV_NEEDS_*: KEYS and VALUES refuse recordings without them; where it
                             changes keys, QUERIES is needed whether named or not */
    unsigned changes;     /* KV_CHANGES_*; 0: bytes only */
    bool evicted;         /* works on what evictions take or leave: beside `full` it does nothing */
    size_t state_doubles; /* kept between calls, per token and KV head; 0: none */
    /* Checks settings against one another. Default: nothing more to check. */
    kv_err (*check)(const void *config, const kv_mark *mark, kv_diag *diag);
    /* Checks settings against what was recorded. Default: they go with every shape. */
    kv_err (*fits)(const void *config, const kv_shape *shape, const kv_mark *mark, kv_diag *diag);
    /* Further needs that depend on the settings. Default: none. */
    unsigned (*needs_of)(const void *config);
    /* Rows of the prompt's end that `apply` reads by kv_view_row. Default: none. */
    long long (*observers)(const void *config);
    /* The other layer whose recorded keys and values `apply` needs (merging across layers), or -1.
     * Default: -1. */
    int (*partner)(const void *config, const kv_shape *shape, int layer);
    /* Doubles of head_state. Default: none. */
    size_t (*head_doubles)(const void *config, const kv_shape *shape);
    /* Doubles of work for an example of N tokens. Default: 4 N. */
    size_t (*work_doubles)(const void *config, const kv_shape *shape, int tokens);
    /* Changes the scores that the retention policy has just given, which rank what leaves: score
     * is [event->scored]. Default: nothing. */
    void (*prior)(const void *config, const kv_event *event, double *score);
    /* Whether these settings change scores at all; where they do, a retention policy whose kept set
     * follows from no ranking is refused. Default: they do where there is a `prior`. */
    bool (*ranks)(const void *config);
    /* Rewrites what is stored. Default: nothing. */
    void (*apply)(const kv_transform_step *step);
    /* Bytes that entries take, as a share of those of plain entries: 1 changes nothing. Entries of
     * the step that runs are plain until it ends; they are not counted. Default: 1. */
    double (*bytes)(const void *config, const kv_transform_size *size);
} kv_transform;

/* The table of all transforms, in the order of policies/policies.am; ends with NULL. */
const kv_transform *const *kv_transform_all(void);

/* The row of a setting `preset`: names are "none", then those of the presets in their order, then
 * NULL. `type` is the configuration struct, which has an int of that name. */
#define KV_TRANSFORM_PRESET(type_of, names)                                                        \
    {                                                                                              \
        .name = "preset", .type = KV_CHOICE, .offset = offsetof(type_of, preset),                  \
        .fallback = "none", .choices = names, .flags = KV_PARAM_SWEEP, .unit = "",                 \
        .help = "other defaults, as a published implementation has them"                           \
    }

#define KV_TRANSFORM_DEFINE(id) const kv_transform kv__transform_##id

#endif
