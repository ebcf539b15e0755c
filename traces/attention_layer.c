/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* One layer of one example in memory.
 *
 * Rows come from one of four places, chosen when a layer is loaded: floats in memory or in the
 * mapped file, handed out as they are; halves, widened into the caller's scratch when asked for;
 * floats at odd addresses of a mapped file, copied there; or computed from q and k. */
#include "config.h"

#include "sim/base/kernels.h"
#include "traces/attention_private.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct kv_layer {
    kv_attention *attention;
    const kv_shape *shape;
    const kv_example *example;
    kv__array array[KV__ARRAYS];
    kv__slab rows; /* of probs, or of q */
    kv__slab keys, values, queries;
    int number;                             /* of the layer that is current; below 0: none */
    unsigned want;                          /* of it */
    bool has_keys, has_values, has_queries; /* of it, in memory */
    kv__buffer extra[KV_EXTRAS];            /* [heads][N] of those that were wanted of it */
    int32_t *slot;                          /* [rows] see kv__selection */
    kv__softmax *softmax;                   /* NULL until rows are computed */
    const float *(*row)(kv_layer *layer, int head, int r, float *scratch);
    long long bytes_read;
};

/* --- Where rows come from --------------------------------------------------------------------- */

static const float *row_in_place(kv_layer *layer, int head, int r, float *scratch)
{
    return kv__slab_row(&layer->rows, head, r);
}

static const float *row_widened(kv_layer *layer, int head, int r, float *scratch)
{
    kv__kernels()->widen(scratch, kv__slab_row(&layer->rows, head, r),
                         (size_t)layer->example->query_pos[r] + 1);
    return scratch;
}

static const float *row_copied(kv_layer *layer, int head, int r, float *scratch)
{
    size_t count = (size_t)layer->example->query_pos[r] + 1;
    return memcpy(scratch, kv__slab_row(&layer->rows, head, r), count * sizeof *scratch);
}

static const float *row_computed(kv_layer *layer, int head, int r, float *scratch)
{
    return kv__softmax_row(layer->softmax, head, r, scratch);
}

const float *kv_layer_row(kv_layer *layer, int head, int r, float *scratch)
{
    return layer->row(layer, head, r, scratch);
}

/* Rows are asked for by position, head after head, so that each begins where the processor sees no
 * stream yet. Its neighbour, to be asked for when all heads had their turn, is fetched meanwhile.
 */
const float *kv_layer_row_checked(kv_layer *layer, int head, int r, float *scratch,
                                  kv_row_check *check)
{
    const kv_kernels *kernels = kv__kernels();
    size_t keys = (size_t)layer->example->query_pos[r] + 1;
    if (layer->row == row_widened) {
        const unsigned char *row = kv__slab_row(&layer->rows, head, r);
        const void *next = row + (size_t)layer->rows.width * layer->rows.element;
        check->sum = kernels->widen_row(scratch, row, keys, next, &check->signs);
        return scratch;
    }
    const float *row = layer->row(layer, head, r, scratch);
    check->sum = kernels->rough_sum(row, keys, &check->signs);
    return row;
}

/* --- Opening ---------------------------------------------------------------------------------- */

kv_err kv_layer_new(kv_attention *attention, int example, kv_layer **out, kv_diag *diag)
{
    kv_layer *layer = calloc(1, sizeof *layer);
    if (layer == NULL)
        return kv_fail_memory(diag);
    layer->attention = attention;
    layer->number = -1;
    layer->shape = &attention->shape;
    layer->example = &attention->example[example];
    for (int id = 0; id < KV__ARRAYS; id++) /* nothing to close, should the next step fail */
        layer->array[id].dataset.id = H5I_INVALID_HID;
    layer->slot = calloc((size_t)layer->example->rows + 1, sizeof *layer->slot);
    kv__h5_guard guard;
    kv__h5_enter(&guard);
    kv_err err = layer->slot != NULL
                     ? kv__arrays_open(attention, layer->example, layer->array, diag)
                     : kv_fail_memory(diag);
    kv__h5_leave(&guard);
    if (err == KV_OK)
        *out = layer;
    else
        kv_layer_free(layer);
    return err;
}

void kv_layer_free(kv_layer *layer)
{
    if (layer == NULL)
        return;
    kv__h5_guard guard;
    kv__h5_enter(&guard);
    for (int id = 0; id < KV__ARRAYS; id++)
        kv__array_close(&layer->array[id]);
    kv__h5_leave(&guard);
    kv__slab_free(&layer->rows);
    kv__slab_free(&layer->keys);
    kv__slab_free(&layer->values);
    kv__slab_free(&layer->queries);
    for (int id = 0; id < KV_EXTRAS; id++)
        kv__buffer_free(&layer->extra[id]);
    kv__softmax_free(layer->softmax);
    free(layer->slot);
    free(layer);
}

/* --- Loading ---------------------------------------------------------------------------------- */

static void count_read(kv_layer *layer, long long numbers, kv__array_id id)
{
    layer->bytes_read += numbers * layer->array[id].element;
}

/* A key or value that is not finite would end in measures that are not numbers. */
static kv_err check_tokens(const kv_layer *layer, const kv__array *array, int number,
                           const kv__slab *slab, kv_diag *diag)
{
    const kv_mark mark = {.path = layer->attention->path};
    for (int h = 0; h < array->heads; h++)
        for (int t = 0; t < array->rows; t++) {
            bool signs;
            const float *vector = kv__slab_row(slab, h, t);
            if (isfinite(kv__kernels()->rough_sum(vector, (size_t)array->width, &signs)))
                continue;
            for (int d = 0; d < array->width; d++) /* finite numbers may add up to what is not */
                if (!isfinite(vector[d]))
                    return kv_fail(diag, KV_ERR_INPUT, &mark,
                                   "%s[layer %d, head %d, token %d, dimension %d]: is not finite",
                                   array->dataset.name, number, h, t, d);
        }
    return KV_OK;
}

static kv_err load_tokens(kv_layer *layer, kv__array_id id, int number, kv__slab *slab, bool *has,
                          kv_diag *diag)
{
    kv__array *array = &layer->array[id];
    if (*has || array->dataset.id < 0)
        return KV_OK;
    const kv__selection all = {.kept = array->rows, .widen = true};
    kv_err err = kv__slab_load(slab, array, number, &all, diag);
    if (err == KV_OK)
        err = check_tokens(layer, array, number, slab, diag);
    *has = err == KV_OK;
    return err;
}

static kv_err load_probs(kv_layer *layer, int number, const uint8_t *wanted, kv_diag *diag)
{
    const kv_example *e = layer->example;
    int kept = 0;
    long long numbers = 0;
    for (int r = 0; r < e->rows; r++) {
        bool take = wanted == NULL || wanted[r];
        layer->slot[r] = take ? kept++ : -1;
        numbers += take ? e->query_pos[r] + 1 : 0;
    }
    /* Halves stay halves: widening a row when it is asked for, into the cache, is faster than
     * reading its floats from memory. */
    const kv__selection selection = {layer->slot, kept, e->query_pos, false};
    kv_err err = kv__slab_load(&layer->rows, &layer->array[KV__PROBS], number, &selection, diag);
    bool aligned = (uintptr_t)layer->rows.data % sizeof(float) == 0;
    layer->row = layer->rows.element == KV__F16 ? row_widened : aligned ? row_in_place : row_copied;
    if (err == KV_OK)
        count_read(layer, numbers * layer->shape->heads, KV__PROBS);
    return err;
}

/* Queries of all rows that are computed together with a wanted one. */
static kv_err load_queries(kv_layer *layer, int number, const uint8_t *wanted, kv_diag *diag)
{
    const kv_example *e = layer->example;
    int kept = 0;
    for (int r = 0; r < e->rows; r++)
        layer->slot[r] = kv__softmax_wants(wanted, kv__softmax_block(e, r)) ? kept++ : -1;
    const kv__selection selection = {layer->slot, kept, NULL, false};
    count_read(layer, (long long)kept * layer->shape->heads * layer->shape->head_dim, KV__Q);
    return kv__slab_load(&layer->rows, &layer->array[KV__Q], number, &selection, diag);
}

static kv_err load_computed(kv_layer *layer, int number, const uint8_t *wanted, kv_diag *diag)
{
    const kv__array *k = &layer->array[KV__K];
    kv_err err = load_tokens(layer, KV__K, number, &layer->keys, &layer->has_keys, diag);
    if (err == KV_OK)
        err = load_queries(layer, number, wanted, diag);
    if (err == KV_OK && layer->softmax == NULL)
        err = kv__softmax_new(layer->shape, layer->example, &layer->softmax, diag);
    if (err != KV_OK)
        return err;
    count_read(layer, (long long)k->heads * k->rows * k->width, KV__K);
    const kv__softmax_input input = {layer->shape, layer->example, &layer->rows,
                                     kv__slab_row(&layer->keys, 0, 0), wanted};
    layer->row = row_computed;
    return kv__softmax_start(layer->softmax, &input, diag);
}

static kv_err load_rows(kv_layer *layer, int number, const uint8_t *wanted, kv_diag *diag)
{
    const kv_example *e = layer->example;
    if (e->has_probs)
        return load_probs(layer, number, wanted, diag);
    if (e->has_q && e->has_k)
        return load_computed(layer, number, wanted, diag);
    const kv_mark mark = {.path = layer->attention->path};
    return kv_fail(diag, KV_ERR_UNSUPPORTED, &mark,
                   "/examples/%s: has neither 'probs' nor both 'q' and 'k', so no attention rows; "
                   "record one of them (docs/trace-format.md)",
                   e->name);
}

kv_err kv_layer_load(kv_layer *layer, int number, unsigned want, const uint8_t *wanted,
                     kv_diag *diag)
{
    if (number != layer->number)
        layer->has_keys = layer->has_values = layer->has_queries = false;
    layer->number = number;
    layer->want = want;
    kv_err err = KV_OK;
    if (want & KV_WANT_KEYS)
        err = load_tokens(layer, KV__K, number, &layer->keys, &layer->has_keys, diag);
    if (err == KV_OK && (want & KV_WANT_VALUES))
        err = load_tokens(layer, KV__V, number, &layer->values, &layer->has_values, diag);
    if (err == KV_OK && (want & KV_WANT_QUERIES))
        err = load_tokens(layer, KV__Q, number, &layer->queries, &layer->has_queries, diag);
    for (int id = 0; id < KV_EXTRAS && err == KV_OK; id++)
        if ((want & KV_WANT_EXTRA << id) && layer->example->has_extra[id])
            err = kv__extra_load(layer->attention, layer->example, (kv_extra)id, number,
                                 &layer->extra[id], diag);
    if (err == KV_OK && (want & KV_WANT_ROWS))
        err = load_rows(layer, number, wanted, diag);
    return err;
}

const float *kv_layer_keys(const kv_layer *layer, int kv_head)
{
    bool has = layer->has_keys && (layer->want & KV_WANT_KEYS);
    return has ? kv__slab_row(&layer->keys, kv_head, 0) : NULL;
}

const float *kv_layer_values(const kv_layer *layer, int kv_head)
{
    bool has = layer->has_values && (layer->want & KV_WANT_VALUES);
    return has ? kv__slab_row(&layer->values, kv_head, 0) : NULL;
}

const float *kv_layer_query(const kv_layer *layer, int head, int r)
{
    bool has = layer->has_queries && (layer->want & KV_WANT_QUERIES);
    return has ? kv__slab_row(&layer->queries, head, r) : NULL;
}

const float *kv_layer_extra(const kv_layer *layer, kv_extra id, int head)
{
    bool has = layer->example->has_extra[id] && (layer->want & KV_WANT_EXTRA << id);
    const float *numbers = layer->extra[id].data;
    return has ? numbers + (size_t)head * (size_t)layer->example->total_tokens : NULL;
}

const kv_rope *kv_layer_rope(const kv_layer *layer)
{
    return &layer->attention->rope;
}

long long kv_layer_bytes_read(const kv_layer *layer)
{
    return layer->bytes_read;
}
