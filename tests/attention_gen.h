/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Writes small files of recorded attention for tests. Queries, keys and values are numbers that any
 * of them can be asked for again, so that tests compute what a reader must find without reading. */
#ifndef KVSIM_TESTS_ATTENTION_GEN_H
#define KVSIM_TESTS_ATTENTION_GEN_H

#include <hdf5.h>
#include <stdbool.h>
#include <stdint.h>

enum { GEN_PROBS = 1, GEN_Q = 2, GEN_K = 4, GEN_V = 8 }; /* arrays */
enum {
    GEN_CHUNKED = 1,
    GEN_GZIP = 2,
    GEN_SHUFFLE = 4,
    GEN_FLETCHER = 8,
    GEN_NBIT = 16
}; /* storage */

typedef struct kv_gen {
    int layers, heads, kv_heads, head_dim, tokens, examples;
    unsigned arrays;  /* GEN_PROBS ... */
    unsigned storage; /* GEN_CHUNKED ...; 0: contiguous */
    hsize_t chunk[4]; /* of probs; cut to the shape, and of the others cut to theirs */
    int row_step;     /* every row_step-th position is recorded, and the last */
    bool f32, big_endian;
    bool variable_text;   /* strings of variable length, as h5py writes them */
    int user_block_bytes; /* before the file proper: 0 or 512, 1024 ... */
} kv_gen;

/* A small file with everything in it. */
kv_gen kv_gen_default(void);

/* Writes the file; ends the test if that fails. */
void kv_gen_write(const char *path, const kv_gen *gen);

/* A path in the folder where tests may write; the answer lasts until the next call. */
const char *kv_gen_path(const char *name);

/* Positions that are recorded; returns how many. */
int kv_gen_query_pos(const kv_gen *gen, int32_t *out);

/* The number that the file holds: of array GEN_Q (head: query head, row: token position), GEN_K or
 * GEN_V. It is exact as a half. */
double kv_gen_number(const kv_gen *gen, unsigned array, int example, int layer, int head, int row,
                     int column);

/* The probabilities of keys 0..position for a query, by the definition, in doubles. */
void kv_gen_row(const kv_gen *gen, int example, int layer, int head, int position, double *out);

/* --- Damage: each opens the file at `path`, changes it and closes it --------------- */

/* Replaces an attribute of an object. */
void kv_gen_set_int(const char *path, const char *object, const char *name, long long value);
void kv_gen_set_real(const char *path, const char *object, const char *name, double value);
void kv_gen_set_text(const char *path, const char *object, const char *name, const char *value);
/* Removes an attribute, or what a link leads to. */
void kv_gen_drop_attribute(const char *path, const char *object, const char *name);
void kv_gen_drop(const char *path, const char *object);
/* Writes one number of a dataset of any rank. */
void kv_gen_poke(const char *path, const char *object, const hsize_t *index, double value);

#endif
