/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* What the files attention_*.c share. */
#ifndef KVSIM_TRACES_ATTENTION_PRIVATE_H
#define KVSIM_TRACES_ATTENTION_PRIVATE_H

#include "traces/attention.h"
#include "traces/h5.h"

#include <stddef.h>

/* Bounds far above any recording; within them no size below overflows an int. */
enum {
    KV__MAX_LAYERS = 1 << 16,
    KV__MAX_HEADS = 1 << 16,
    KV__MAX_HEAD_DIM = 1 << 16,
    KV__MAX_TOKENS = 1 << 26
};

struct kv_attention {
    char *path;
    int fd; /* HDF5's own descriptor of the file, for mapping; below 0 if it has none */
    long long file_bytes;
    kv__h5 file;
    kv__h5 group; /* /examples */
    kv_shape shape;
    kv_rope rope;
    char *model;
    bool trial;       /* opened in a child process that may crash, see kv__h5_survives */
    int quantum_bits; /* probs are multiples of 2^-quantum_bits; 0 if they are not rounded so */
    kv_example *example;
    int examples;
};

/* --- attention_example.c: all of one example but its big arrays ------------------------------- */

/* `example` starts zeroed and is for kv__example_fini to free, whatever is returned. */
kv_err kv__example_read(kv_attention *attention, const char *name, kv_example *example,
                        kv_diag *diag) KV_MUST_USE;
void kv__example_fini(kv_example *example);
kv_err kv__example_open_group(const kv_attention *attention, const kv_example *example,
                              kv__h5 *group, kv_diag *diag) KV_MUST_USE;

/* Reads the token ids into *out, for the caller to free, whatever is returned. */
kv_err kv__example_read_tokens(const kv_attention *attention, const kv_example *example,
                               int32_t **out, kv_diag *diag) KV_MUST_USE;

/* Reads the token ids of all examples, as a trial. */
void kv__example_try_tokens(const kv_attention *attention);

/* --- attention_array.c: probs, q, k and v ----------------------------------------------------- */

typedef enum kv__array_id { KV__PROBS, KV__Q, KV__K, KV__V, KV__ARRAYS } kv__array_id;

extern const char *const kv__array_names[KV__ARRAYS];

/* The type of the numbers, in the byte order of this machine once they are in memory. */
typedef enum kv__element { KV__F16 = 2, KV__F32 = 4 } kv__element; /* bytes of one */

/* An open dataset [layers][heads][rows][width]. */
typedef struct kv__array {
    kv__h5 dataset; /* .id below 0: the example has none */
    kv__element element;
    int heads, rows, width;
    int block_heads, block_rows; /* what is read at once, see kv__array_open */
    int fd;                      /* of the file, where the numbers lie in it as in memory */
    long long offset;            /* there; -1: they have to be read */
    struct kv__chunks *chunks;   /* to read them by; NULL: HDF5 does it */
} kv__array;

/* Opens and checks one of the arrays; leaves out->dataset.id below 0 where there is none. */
kv_err kv__array_open(const kv_attention *attention, const kv_example *example, const kv__h5 *group,
                      kv__array_id id, kv__array *out, kv_diag *diag) KV_MUST_USE;
void kv__array_close(kv__array *array);
/* Opens all of an example's arrays; each of them is then for kv__array_close, whatever is returned.
 */
kv_err kv__arrays_open(const kv_attention *attention, const kv_example *example,
                       kv__array out[KV__ARRAYS], kv_diag *diag) KV_MUST_USE;

/* Some heads and rows of one layer, which are read together. */
typedef struct kv__piece {
    int head, heads, row, rows;
} kv__piece;

/* Memory that grows and is used again. */
typedef struct kv__buffer {
    void *data;
    size_t bytes;
} kv__buffer;

/* Makes room for count * size bytes; what was there is gone. */
kv_err kv__buffer_reserve(kv__buffer *buffer, size_t count, size_t size, kv_diag *diag) KV_MUST_USE;
void kv__buffer_free(kv__buffer *buffer);

/* Rows of one layer in memory: row r of a head is at ((head * kept) + slot[r]) * width elements. */
typedef struct kv__slab {
    const unsigned char *data;
    kv__element element;
    int kept; /* rows of each head that are there */
    int width;
    const int32_t *slot; /* where row r is, below 0 if it is not kept; NULL: at r */
    void *map;           /* what data points into, where the file is mapped */
    size_t map_bytes;
    kv__buffer own;   /* what data points into otherwise */
    kv__buffer piece; /* what HDF5 reads into on the way there */
} kv__slab;

/* Which rows of an array are wanted. */
typedef struct kv__selection {
    const int32_t *slot; /* [rows] 0, 1, ... for those wanted in order, below 0 for the others;
                          * NULL: all rows are wanted */
    int kept;            /* how many are wanted */
    const int32_t *last; /* [rows] the last element of each row that matters; NULL: all do */
    bool widen;          /* make floats of them, aligned as such */
} kv__selection;

/* Reads the rows of a layer, or maps them where the file allows; what the slab held is gone. To be
 * called without the lock, which it takes for each piece it reads. */
kv_err kv__slab_load(kv__slab *slab, kv__array *array, int layer, const kv__selection *selection,
                     kv_diag *diag) KV_MUST_USE;
void kv__slab_free(kv__slab *slab);
/* The address of a row that is kept; it need not be aligned. */
const void *kv__slab_row(const kv__slab *slab, int head, int r);

/* --- attention_extra.c: what else there is per token ------------------------------------------ */

int kv__extra_heads(const kv_shape *shape, kv_extra id);
/* Finds out which an example has, and checks them. */
kv_err kv__extras_check(const kv_attention *attention, const kv__h5 *group, kv_example *example,
                        kv_diag *diag) KV_MUST_USE;
/* Reads one layer as floats [heads][N] and checks every number. To be called without the lock. */
kv_err kv__extra_load(const kv_attention *attention, const kv_example *example, kv_extra id,
                      int layer, kv__buffer *out, kv_diag *diag) KV_MUST_USE;
kv_err kv__example_read_prompt_scores(const kv__h5 *group, kv_example *example,
                                      kv_diag *diag) KV_MUST_USE;
/* rope->frequency is for the caller to free, whatever is returned. */
kv_err kv__rope_read(const kv__h5 *file, const kv_shape *shape, kv_rope *rope,
                     kv_diag *diag) KV_MUST_USE;

/* --- attention_chunk.c: HDF5 chunks, decompressed here ---------------------------------------- */

typedef struct kv__chunks kv__chunks;

/* Leaves *out as it is where a chunked dataset's filters are for HDF5 to undo. */
kv_err kv__chunks_new(const kv__array *array, hid_t creation, bool swap, kv__chunks **out,
                      kv_diag *diag) KV_MUST_USE;
void kv__chunks_free(kv__chunks *chunks);
/* Reads all of a piece whose head and row are multiples of the chunk's, as [heads][rows][width] in
 * this machine's byte order. To be called without the lock. */
kv_err kv__chunks_read(kv__array *array, int layer, const kv__piece *piece, void *out,
                       kv_diag *diag) KV_MUST_USE;
/* Looks each chunk up, as a trial of the index that finds them. */
void kv__chunks_visit(const kv__array *array, int layers);

/* --- attention_softmax.c: rows from q and k --------------------------------------------------- */

typedef struct kv__softmax kv__softmax;

/* What rows are computed from; all borrowed. */
typedef struct kv__softmax_input {
    const kv_shape *shape;
    const kv_example *example;
    const kv__slab *q;
    const float *keys;     /* [kv_heads][N][head_dim] */
    const uint8_t *wanted; /* [rows] rows that will be asked for; NULL: all */
} kv__softmax_input;

kv_err kv__softmax_new(const kv_shape *shape, const kv_example *example, kv__softmax **out,
                       kv_diag *diag) KV_MUST_USE;
void kv__softmax_free(kv__softmax *softmax);
/* Forgets all rows and takes new input, which must outlive the use of the rows. */
kv_err kv__softmax_start(kv__softmax *softmax, const kv__softmax_input *input,
                         kv_diag *diag) KV_MUST_USE;
/* A wanted row: its own memory or, where not all rows fit, a copy in scratch. */
const float *kv__softmax_row(kv__softmax *softmax, int head, int r, float *scratch);

/* The rows that are computed together with row r. */
typedef struct kv__block {
    int first, end;
} kv__block;

kv__block kv__softmax_block(const kv_example *example, int r);
/* Is one of them wanted? NULL: all rows are. */
bool kv__softmax_wants(const uint8_t *wanted, kv__block block);

#endif
