/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Rows of probabilities computed from q and k when they are first asked for.
 *
 * The rows of one KV head's query heads are computed in blocks of BLOCK_ROWS consecutive recorded
 * rows, whichever of them are wanted: the matrix products then always have the same sizes, and a
 * row the same bits. Blocks stay while they fit; on long contexts the least recently used goes. */
#include "config.h"

#include "sim/base/kernels.h"
#include "traces/attention_private.h"

#include <gsl/gsl_cblas.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum {
    BLOCK_ROWS = 16,
    TILE_KEYS = 4096 /* keys in one product; also keeps every index inside BLAS an int */
};
static const size_t pool_bytes = (size_t)256 << 20; /* of all blocks, if each KV head has one */

struct kv__softmax {
    kv__softmax_input input;
    int group;           /* query heads of a KV head */
    int blocks;          /* of one KV head */
    int slots;           /* blocks that there is memory for */
    bool keeps_all;      /* no block has to go before the next start */
    kv__buffer pool;     /* float [slots][group][BLOCK_ROWS][N] */
    kv__buffer packed;   /* float [group][BLOCK_ROWS][head_dim]: the queries of one block */
    int32_t *slot_of;    /* [kv_heads * blocks], below 0: not in memory */
    int32_t *owner;      /* [slots_made] which block is in a slot, below 0: none */
    uint64_t *last_used; /* [slots_made] by the clock below */
    int slots_made;      /* entries of owner and last_used */
    uint64_t clock;
};

#if HAVE_OPENBLAS_SET_NUM_THREADS
void openblas_set_num_threads(int threads);

/* kvsim runs one example per thread; a BLAS that starts threads of its own only gets in the way. */
static void limit_threads(void)
{
    openblas_set_num_threads(1);
}

static void prepare_blas(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, limit_threads);
}
#else
static void prepare_blas(void)
{
}
#endif

kv__block kv__softmax_block(const kv_example *example, int r)
{
    int first = r / BLOCK_ROWS * BLOCK_ROWS, end = first + BLOCK_ROWS;
    return (kv__block){first, end < example->rows ? end : example->rows};
}

bool kv__softmax_wants(const uint8_t *wanted, kv__block block)
{
    for (int r = block.first; r < block.end; r++)
        if (wanted == NULL || wanted[r])
            return true;
    return false;
}

kv_err kv__softmax_new(const kv_shape *shape, const kv_example *example, kv__softmax **out,
                       kv_diag *diag)
{
    prepare_blas();
    kv__softmax *s = calloc(1, sizeof *s);
    if (s == NULL)
        return kv_fail_memory(diag);
    s->group = shape->heads / shape->kv_heads;
    s->blocks = (example->rows + BLOCK_ROWS - 1) / BLOCK_ROWS;
    s->slot_of = calloc((size_t)shape->kv_heads * (size_t)s->blocks, sizeof *s->slot_of);
    if (s->slot_of == NULL) {
        kv__softmax_free(s);
        return kv_fail_memory(diag);
    }
    *out = s;
    return KV_OK;
}

void kv__softmax_free(kv__softmax *s)
{
    if (s == NULL)
        return;
    kv__buffer_free(&s->pool);
    kv__buffer_free(&s->packed);
    free(s->slot_of);
    free(s->owner);
    free(s->last_used);
    free(s);
}

static int wanted_blocks(const kv__softmax_input *input, int blocks)
{
    int count = 0;
    for (int i = 0; i < blocks; i++)
        count +=
            kv__softmax_wants(input->wanted, kv__softmax_block(input->example, i * BLOCK_ROWS));
    return count;
}

static kv_err make_slots(kv__softmax *s, int slots, kv_diag *diag)
{
    if (slots > s->slots_made) {
        free(s->owner);
        free(s->last_used);
        s->owner = calloc((size_t)slots, sizeof *s->owner);
        s->last_used = calloc((size_t)slots, sizeof *s->last_used);
        s->slots_made = s->owner != NULL && s->last_used != NULL ? slots : 0;
        if (s->slots_made == 0)
            return kv_fail_memory(diag);
    }
    s->slots = slots;
    for (int i = 0; i < slots; i++) {
        s->owner[i] = -1;
        s->last_used[i] = 0;
    }
    return KV_OK;
}

kv_err kv__softmax_start(kv__softmax *s, const kv__softmax_input *input, kv_diag *diag)
{
    const kv_shape *shape = input->shape;
    s->input = *input;
    s->clock = 0;
    size_t block_floats = (size_t)s->group * BLOCK_ROWS * (size_t)input->example->total_tokens;
    long long needed = (long long)wanted_blocks(input, s->blocks) * shape->kv_heads;
    long long room = (long long)(pool_bytes / (block_floats * sizeof(float)));
    room = room > shape->kv_heads ? room : shape->kv_heads; /* row by row, heads take turns */
    s->keeps_all = needed <= room;
    kv_err err = make_slots(s, (int)(s->keeps_all ? needed : room), diag);
    if (err == KV_OK)
        err = kv__buffer_reserve(&s->pool, (size_t)s->slots, block_floats * sizeof(float), diag);
    if (err == KV_OK)
        err = kv__buffer_reserve(&s->packed, (size_t)s->group * BLOCK_ROWS,
                                 (size_t)shape->head_dim * sizeof(float), diag);
    for (int i = 0; i < shape->kv_heads * s->blocks; i++)
        s->slot_of[i] = -1;
    return err;
}

/* An empty slot, or the one that was used longest ago, emptied. */
static int free_slot(kv__softmax *s)
{
    int oldest = 0;
    for (int i = 1; i < s->slots; i++)
        if (s->last_used[i] < s->last_used[oldest])
            oldest = i;
    if (s->owner[oldest] >= 0)
        s->slot_of[s->owner[oldest]] = -1;
    return oldest;
}

static void pack_queries(const kv__softmax *s, int kv_head, kv__block block)
{
    const kv_kernels *kernels = kv__kernels();
    size_t dim = (size_t)s->input.shape->head_dim;
    float *out = s->packed.data;
    for (int g = 0; g < s->group; g++)
        for (int r = block.first; r < block.end; r++, out += dim) {
            const void *q = kv__slab_row(s->input.q, kv_head * s->group + g, r);
            if (s->input.q->element == KV__F16)
                kernels->widen(out, q, dim);
            else
                memcpy(out, q, dim * sizeof(float));
        }
}

/* The block's scores: [group][rows][N], of which the keys up to the last query's are written. */
static void compute_block(const kv__softmax *s, int kv_head, kv__block block, float *out)
{
    const kv_shape *shape = s->input.shape;
    const kv_example *example = s->input.example;
    const kv_kernels *kernels = kv__kernels();
    int total = example->total_tokens, dim = shape->head_dim, rows = block.end - block.first;
    int keys = example->query_pos[block.end - 1] + 1;
    const float *key = s->input.keys + (size_t)kv_head * (size_t)total * (size_t)dim;
    pack_queries(s, kv_head, block);
    for (int k = 0; k < keys; k += TILE_KEYS) {
        int tile = keys - k < TILE_KEYS ? keys - k : TILE_KEYS;
        for (int g = 0; g < s->group; g++) {
            size_t row = (size_t)g * (size_t)rows;
            cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, rows, tile, dim,
                        (float)shape->scale, (float *)s->packed.data + row * (size_t)dim, dim,
                        key + (size_t)k * (size_t)dim, dim, 0, out + row * (size_t)total + k,
                        total);
        }
    }
    for (int g = 0; g < s->group; g++)
        for (int r = block.first; r < block.end; r++, out += total)
            if (s->input.wanted == NULL || s->input.wanted[r])
                kernels->softmax(out, (size_t)example->query_pos[r] + 1);
}

const float *kv__softmax_row(kv__softmax *s, int head, int r, float *scratch)
{
    const kv_example *example = s->input.example;
    const kv__block block = kv__softmax_block(example, r);
    int kv_head = head / s->group, id = kv_head * s->blocks + r / BLOCK_ROWS;
    size_t total = (size_t)example->total_tokens;
    size_t block_floats = (size_t)s->group * BLOCK_ROWS * total;
    int slot = s->slot_of[id];
    if (slot < 0) {
        slot = free_slot(s);
        s->owner[slot] = id;
        s->slot_of[id] = slot;
        compute_block(s, kv_head, block, (float *)s->pool.data + (size_t)slot * block_floats);
    }
    s->last_used[slot] = ++s->clock;
    size_t place =
        (size_t)(head % s->group) * (size_t)(block.end - block.first) + (size_t)(r - block.first);
    const float *row = (float *)s->pool.data + (size_t)slot * block_floats + place * total;
    if (s->keeps_all)
        return row;
    return memcpy(scratch, row, ((size_t)example->query_pos[r] + 1) * sizeof *row);
}
