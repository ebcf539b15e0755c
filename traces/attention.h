/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Recorded attention, format version 1 (HDF5): opening, looking, reading one layer at a time.
 *
 * A file describes examples; see docs/trace-format.md for the attributes and datasets. Opening
 * checks the file's shape in full (never the numbers: that is kv_attention_verify): external and
 * cyclic links, wrong shapes, wrong types and values out of range are refused with a message that
 * names the object. Memory stays bounded by one layer of one example per kv_layer, whatever the
 * size of the file. Several kv_layer of one file may be used from several threads. */
#ifndef KVSIM_TRACES_ATTENTION_H
#define KVSIM_TRACES_ATTENTION_H

#include "sim/base/diag.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

typedef struct kv_attention kv_attention; /* an open file */
typedef struct kv_layer kv_layer;         /* one layer of one example in memory; one per thread */

/* The recorded model. */
typedef struct kv_shape {
    const char *model; /* as the file names it; borrowed from the file */
    int layers;        /* L */
    int heads;         /* Hq, query heads */
    int kv_heads;      /* Hkv; query heads h*g ... h*g+g-1 share KV head h, g = heads / kv_heads */
    int head_dim;      /* D */
    double scale;      /* of q.k before the softmax; 1/sqrt(D) unless the file says otherwise */
} kv_shape;

typedef enum kv_mode { KV_SINGLE, KV_MULTI_TURN, KV_MULTI_REQUEST } kv_mode;

/* Token positions count from 0; ranges are half open. */
typedef struct kv_turn {
    int32_t query_start, answer_start, answer_end;
} kv_turn;

/* Key positions that the answer of a turn depends on. */
typedef struct kv_evidence {
    int32_t turn, start, end;
} kv_evidence;

/* Numbers per token that some policies need, each in a dataset of its own. */
typedef enum kv_extra {
    KV_EXTRA_TOKEN_SCORES,   /* [L,Hkv,N] what a trained model thinks of each entry */
    KV_EXTRA_RECONSTRUCTION, /* [L,Hq,M,N] attention of queries that repeat the context; the most
                                over the M queries is what is used */
    KV_EXTRA_VALUE_OUT,      /* [L,Hq,N] L1 norm of the value times the head's output projection */
    KV_EXTRAS
} kv_extra;

/* The rotary embedding of queries and keys: pair j turns by position * frequency[j]. */
typedef struct kv_rope {
    double *frequency; /* [pairs] radians per position */
    int pairs;         /* 0: not recorded; dimensions 2 * pairs and up are not turned */
    bool interleaved;  /* pair j is dimensions 2j, 2j+1; else j, j+pairs */
} kv_rope;

/* What an example holds, all but the numbers. Everything is borrowed from the open file. */
typedef struct kv_example {
    const char *name;       /* of its group under /examples */
    const char *task;       /* the task it belongs to */
    const char *context_id; /* NULL if none */
    kv_mode mode;
    int context_tokens; /* context_len: tokens before the first question */
    int prompt_tokens;  /* P, tokens before the first answer */
    int total_tokens;   /* N */
    double full_score;  /* the model's score with the full cache, 0..1 */
    int turns, evidences, rows;
    const kv_turn *turn;         /* [turns] */
    const kv_evidence *evidence; /* [evidences], of any turn, in file order */
    const int32_t *query_pos;    /* [rows], ascending: position of each recorded row */
    const uint8_t *modality;     /* [N] 0 text, 1 image; NULL if not recorded */
    const float *prompt_scores;  /* [P] what a prompt compressor thinks of each token; NULL if not
                                    recorded */
    bool has_probs, has_q, has_k, has_v;
    bool has_extra[KV_EXTRAS];
} kv_example;

/* Opens a file for reading and reads everything but the big arrays. */
kv_err kv_attention_open(const char *path, kv_attention **out, kv_diag *diag) KV_MUST_USE;
void kv_attention_close(kv_attention *attention); /* no kv_layer of it may live on */
const char *kv_attention_path(const kv_attention *attention);
const kv_shape *kv_attention_shape(const kv_attention *attention);
/* pairs is 0 where the file does not say. */
const kv_rope *kv_attention_rope(const kv_attention *attention);
/* frequency[j] = theta^(-j/pairs), as the usual base says it. */
void kv_rope_frequencies(double theta, int pairs, double *frequency);
int kv_attention_examples(const kv_attention *attention);
/* Examples in the byte order of their names. */
const kv_example *kv_attention_example(const kv_attention *attention, int index);
/* A digest of the file's identity and content description (64 hex digits, SHA-256 of its bytes). */
kv_err kv_attention_digest(const kv_attention *attention, char out[65], kv_diag *diag) KV_MUST_USE;

/* Index into query_pos of the row recorded for a position, or -1. */
int kv_example_row(const kv_example *example, int position);
/* Tokens of the first question, which ends the prompt; 0 if the prompt has none. */
int kv_example_question_tokens(const kv_example *example);

/* A workspace for the layers of one example. */
kv_err kv_layer_new(kv_attention *attention, int example, kv_layer **out,
                    kv_diag *diag) KV_MUST_USE;
void kv_layer_free(kv_layer *layer);

enum {
    KV_WANT_ROWS = 1,
    KV_WANT_KEYS = 2,
    KV_WANT_VALUES = 4,
    KV_WANT_QUERIES = 8,
    KV_WANT_EXTRA = 16 /* shifted left by a kv_extra */
};

/* Makes layer number `layer` current and reads what is wanted of it; what was current is gone.
 * wanted[r] != 0 marks the rows (index into query_pos) that will be asked for; NULL: all. Rows come
 * from probs where the file has them, else they are computed from q and k, only those wanted. */
kv_err kv_layer_load(kv_layer *layer, int number, unsigned want, const uint8_t *wanted,
                     kv_diag *diag) KV_MUST_USE;

/* The recorded row r of a query head: probabilities of the keys 0..query_pos[r]. Either points into
 * the layer (valid until the next load) or at scratch, which must hold N floats and is filled. */
const float *kv_layer_row(kv_layer *layer, int head, int r, float *scratch);

/* What a row adds up to, in single precision, and whether any of it has its sign bit set: enough to
 * tell a softmax from damage. */
typedef struct kv_row_check {
    float sum;
    bool signs;
} kv_row_check;
/* The same, and checks the row in passing. */
const float *kv_layer_row_checked(kv_layer *layer, int head, int r, float *scratch,
                                  kv_row_check *check);

/* Keys and values of one KV head as float [N][D]; NULL if not wanted or not in the file. */
const float *kv_layer_keys(const kv_layer *layer, int kv_head);
const float *kv_layer_values(const kv_layer *layer, int kv_head);
/* The query of recorded row r of a query head as float [D]; NULL if queries were not wanted or are
 * not in the file. */
const float *kv_layer_query(const kv_layer *layer, int head, int r);

/* The numbers [N] of a head (KV head or query head, as the extra has them); NULL if not wanted or
 * not in the file. */
const float *kv_layer_extra(const kv_layer *layer, kv_extra id, int head);
/* The rotary embedding of the file that the layer is of. */
const kv_rope *kv_layer_rope(const kv_layer *layer);

/* Bytes of recorded scores (or of q and k they were computed from) read so far. */
long long kv_layer_bytes_read(const kv_layer *layer);

/* How one of the big arrays is stored, all examples together. */
typedef struct kv_storage {
    const char *name;    /* probs, q, k or v */
    int examples;        /* that hold it */
    const char *type;    /* f16, f32, mixed; NULL if no example holds it */
    bool mapped;         /* every one is contiguous and native: it is used where it lies */
    double bytes;        /* of the numbers */
    double stored_bytes; /* of the file that they take, compressed */
} kv_storage;

enum { KV_STORAGES = 4 };
/* Describes them all, in the order probs, q, k, v. */
kv_err kv_attention_storage(const kv_attention *attention, kv_storage out[KV_STORAGES],
                            kv_diag *diag) KV_MUST_USE;

/* Reads every number of the file and reports the first offending place as an error: NaN, negative
 * or above 1, not causal, a row that does not sum to 1 within the rounding of its type, query
 * positions that do not ascend, turns and evidence out of range or out of order. progress (may be
 * NULL) is called with the share done, 0..1. */
kv_err kv_attention_verify(kv_attention *attention, void (*progress)(void *, double), void *closure,
                           kv_diag *diag) KV_MUST_USE;

#endif
