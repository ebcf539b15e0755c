/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* The big arrays: opening and checking them, and bringing one layer of them into memory.
 *
 * Numbers that lie in the file as they would in memory are mapped. All others are read in pieces
 * that cover whole HDF5 chunks, so that each chunk is read and decompressed once; where a chunk
 * spans several layers, it is kept for the next one. */
#include "config.h"

#include "sim/base/kernels.h"
#include "traces/attention_private.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static const size_t piece_bytes = (size_t)4 << 20;   /* read at once, if chunks are smaller */
static const size_t cache_bytes = (size_t)256 << 20; /* most for chunks that span layers */
static const long long layer_bytes = 1LL << 46;      /* beyond this a size is a mistake */

/* --- Opening ---------------------------------------------------------------------------------- */

const char *const kv__array_names[KV__ARRAYS] = {"probs", "q", "k", "v"};

static void shape_of(const kv_shape *s, const kv_example *e, kv__array_id id, long long extents[4])
{
    bool is_row = id == KV__PROBS || id == KV__Q;
    extents[0] = s->layers;
    extents[1] = is_row ? s->heads : s->kv_heads;
    extents[2] = is_row ? e->rows : e->total_tokens;
    extents[3] = id == KV__PROBS ? e->total_tokens : s->head_dim;
}

/* IEEE binary16 or binary32, and nothing else of that size. */
static bool is_ieee(hid_t type, kv__element *element)
{
    size_t sign, exponent, exponent_bits, mantissa, mantissa_bits, bias = H5Tget_ebias(type);
    size_t bytes = H5Tget_size(type);
    *element = bytes == KV__F16 ? KV__F16 : KV__F32;
    if (H5Tget_fields(type, &sign, &exponent, &exponent_bits, &mantissa, &mantissa_bits) < 0)
        return false;
    if (mantissa != 0 || H5Tget_norm(type) != H5T_NORM_IMPLIED)
        return false;
    if (bytes == KV__F16)
        return sign == 15 && exponent == 10 && exponent_bits == 5 && bias == 15;
    return bytes == KV__F32 && sign == 31 && exponent == 23 && exponent_bits == 8 && bias == 127;
}

static kv_err check_type(kv__array *array, bool *native, kv_diag *diag)
{
    hid_t type = H5Dget_type(array->dataset.id);
    H5T_order_t order = H5Tget_order(type);
    bool known = is_ieee(type, &array->element) && (order == H5T_ORDER_LE || order == H5T_ORDER_BE);
    *native = order == H5Tget_order(H5T_NATIVE_FLOAT);
    H5Tclose(type);
    if (known)
        return KV_OK;
    return kv__h5_wrong(&array->dataset, diag,
                        "must hold IEEE floating-point numbers of 16 or 32 bits (numpy float16 or "
                        "float32)");
}

/* Finds where the numbers lie in the file, if they lie there as in memory. */
static kv_err find_offset(const kv_attention *attention, kv__array *array, long long total_bytes,
                          kv_diag *diag)
{
    haddr_t offset = H5Dget_offset(array->dataset.id);
    if (offset == HADDR_UNDEF || attention->fd < 0 ||
        H5Dget_storage_size(array->dataset.id) != (hsize_t)total_bytes)
        return KV_OK;
    if (offset > (haddr_t)attention->file_bytes ||
        (long long)offset > attention->file_bytes - total_bytes)
        return kv__h5_wrong(&array->dataset, diag, "reaches beyond the end of the file");
    array->fd = attention->fd;
    array->offset = (long long)offset;
    return KV_OK;
}

static int least(long long a, long long b)
{
    return (int)(a < b ? a : b);
}

/* Chooses pieces of whole chunks, and more of them at once where chunks are small. */
static void choose_pieces(kv__array *array, const hsize_t chunk[4])
{
    array->block_heads = least((long long)chunk[1], array->heads);
    array->block_rows = least((long long)chunk[2], array->rows);
    size_t row_bytes = (size_t)array->width * array->element;
    size_t bytes = row_bytes * (size_t)array->block_heads * (size_t)array->block_rows;
    if (bytes < piece_bytes) {
        long long rows = (long long)(piece_bytes / bytes) * array->block_rows;
        bytes = bytes / (size_t)array->block_rows;
        array->block_rows = least(rows, array->rows);
        bytes *= (size_t)array->block_rows;
    }
    if (bytes < piece_bytes)
        array->block_heads =
            least((long long)(piece_bytes / bytes) * array->block_heads, array->heads);
}

/* A dataset access list whose chunk cache keeps the chunks that the next layer shares. */
static hid_t cache_for(const kv__array *array, const hsize_t chunk[4])
{
    hid_t access = H5Pcreate(H5P_DATASET_ACCESS);
    if (access < 0 || chunk[0] <= 1)
        return access;
    double count = (double)((array->heads + chunk[1] - 1) / chunk[1]) *
                   (double)((array->rows + chunk[2] - 1) / chunk[2]) *
                   (double)((array->width + chunk[3] - 1) / chunk[3]);
    double bytes = (double)chunk[0] * (double)chunk[1] * (double)chunk[2] * (double)chunk[3] *
                   array->element * count;
    size_t room = bytes < (double)cache_bytes ? (size_t)bytes : cache_bytes;
    size_t slots = count < 1e6 ? (size_t)count * 10 + 1 : 10000001;
    H5Pset_chunk_cache(access, slots, room, H5D_CHUNK_CACHE_W0_DEFAULT);
    return access;
}

/* A dataset that HDF5 has to unpack is opened again with a cache that suits it. */
static kv_err reopen(const kv__h5 *group, const char *name, kv__array *array,
                     const hsize_t chunk[4], kv_diag *diag)
{
    if (chunk[0] <= 1)
        return KV_OK;
    kv__h5_close(&array->dataset);
    hid_t access = cache_for(array, chunk);
    kv_err err = kv__h5_open_child(group, name, H5I_DATASET, true, access, &array->dataset, diag);
    H5Pclose(access);
    return err;
}

/* Once type and shape are known to be right: how is the array to be read? */
static kv_err plan_reading(const kv_attention *attention, const kv__h5 *group, kv__array *array,
                           const char *name, bool native, kv_diag *diag)
{
    hsize_t chunk[4] = {1, 1, 1, 1};
    kv_err err = KV_OK;
    hid_t creation = H5Dget_create_plist(array->dataset.id);
    H5D_layout_t layout = H5Pget_layout(creation);
    if (layout == H5D_CHUNKED) {
        H5Pget_chunk(creation, 4, chunk);
        err = kv__chunks_new(array, creation, !native, &array->chunks, diag);
    }
    H5Pclose(creation);
    choose_pieces(array, chunk);
    long long bytes = (long long)array->heads * array->rows * array->width * array->element *
                      attention->shape.layers;
    if (err == KV_OK && layout == H5D_CONTIGUOUS && native)
        err = find_offset(attention, array, bytes, diag);
    if (err == KV_OK && layout == H5D_CHUNKED && array->chunks == NULL)
        err = reopen(group, name, array, chunk, diag);
    if (attention->trial && array->chunks != NULL)
        kv__chunks_visit(array, attention->shape.layers);
    return err;
}

static kv_err check_array(const kv_attention *attention, const kv_example *example, kv__array_id id,
                          kv__array *array, bool *native, kv_diag *diag)
{
    long long extents[4];
    shape_of(&attention->shape, example, id, extents);
    kv_err err = kv__h5_check_dataset(&array->dataset, H5T_FLOAT, 4, extents, NULL, diag);
    if (err == KV_OK)
        err = check_type(array, native, diag);
    if (err != KV_OK)
        return err;
    array->heads = (int)extents[1];
    array->rows = (int)extents[2];
    array->width = (int)extents[3];
    double bytes = (double)array->heads * array->rows * array->width * array->element;
    if (bytes > (double)layer_bytes)
        return kv__h5_wrong(&array->dataset, diag, "has %g bytes in each layer, more than %lld",
                            bytes, layer_bytes);
    return KV_OK;
}

kv_err kv__array_open(const kv_attention *attention, const kv_example *example, const kv__h5 *group,
                      kv__array_id id, kv__array *out, kv_diag *diag)
{
    const char *name = kv__array_names[id];
    bool native = false;
    *out = (kv__array){.offset = -1, .fd = -1};
    kv_err err =
        kv__h5_open_child(group, name, H5I_DATASET, false, H5P_DEFAULT, &out->dataset, diag);
    if (err != KV_OK || out->dataset.id < 0)
        return err;
    err = check_array(attention, example, id, out, &native, diag);
    if (err == KV_OK && out->rows > 0)
        err = plan_reading(attention, group, out, name, native, diag);
    if (err != KV_OK)
        kv__array_close(out);
    return err;
}

void kv__array_close(kv__array *array)
{
    kv__h5_close(&array->dataset);
    kv__chunks_free(array->chunks);
    array->chunks = NULL;
}

kv_err kv__arrays_open(const kv_attention *attention, const kv_example *example,
                       kv__array out[KV__ARRAYS], kv_diag *diag)
{
    kv__h5 group;
    for (int id = 0; id < KV__ARRAYS; id++)
        out[id] = (kv__array){.dataset.id = H5I_INVALID_HID};
    kv_err err = kv__example_open_group(attention, example, &group, diag);
    for (int id = 0; id < KV__ARRAYS && err == KV_OK; id++)
        err = kv__array_open(attention, example, &group, (kv__array_id)id, &out[id], diag);
    kv__h5_close(&group);
    return err;
}

/* --- Memory ----------------------------------------------------------------------------------- */

kv_err kv__buffer_reserve(kv__buffer *buffer, size_t count, size_t size, kv_diag *diag)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes))
        return kv_fail_memory(diag);
    if (bytes <= buffer->bytes)
        return KV_OK;
    kv__buffer_free(buffer);
    /* A cache line, so that rows start on one where their length allows. */
    if (posix_memalign(&buffer->data, 64, bytes) != 0) {
        buffer->data = NULL;
        return kv_fail_memory(diag);
    }
    buffer->bytes = bytes;
    return KV_OK;
}

void kv__buffer_free(kv__buffer *buffer)
{
    free(buffer->data);
    *buffer = (kv__buffer){0};
}

/* --- Slabs ------------------------------------------------------------------------------------ */

static void unmap(kv__slab *slab)
{
    if (slab->map != NULL)
        munmap(slab->map, slab->map_bytes);
    slab->map = NULL;
    slab->data = NULL;
}

/* Maps one layer; falls back to HDF5, by leaving slab->map NULL, where the system will not map. */
static void map_layer(kv__slab *slab, const kv__array *array, int layer)
{
    long long page = sysconf(_SC_PAGESIZE);
    long long bytes = (long long)array->heads * array->rows * array->width * array->element;
    long long start = array->offset + layer * bytes, aligned = start / page * page;
    size_t map_bytes = (size_t)(start - aligned + bytes);
    void *map = mmap(NULL, map_bytes, PROT_READ, MAP_PRIVATE, array->fd, (off_t)aligned);
    if (map == MAP_FAILED)
        return;
    slab->map = map;
    slab->map_bytes = map_bytes;
    slab->data = (const unsigned char *)map + (start - aligned);
}

/* Where the rows that a selection wants are to go. */
typedef struct target {
    kv__array *array;
    const kv__selection *selection;
    unsigned char *out;
} target;

/* Copies the wanted ones of rows [first, end) of one head; `from` is row `first`. */
static void take_rows(const target *t, int head, int first, int end, const unsigned char *from)
{
    const kv__array *array = t->array;
    const kv__selection *s = t->selection;
    const kv_kernels *kernels = kv__kernels();
    size_t width = (size_t)array->width, row_bytes = width * array->element;
    size_t out_bytes = width * (s->widen ? sizeof(float) : (size_t)array->element);
    for (int r = first; r < end; r++, from += row_bytes) {
        int slot = s->slot != NULL ? s->slot[r] : r;
        if (slot < 0)
            continue;
        size_t count = s->last != NULL ? (size_t)s->last[r] + 1 : width;
        unsigned char *out = t->out + ((size_t)head * (size_t)s->kept + (size_t)slot) * out_bytes;
        if (s->widen && array->element == KV__F16)
            kernels->widen((float *)(void *)out, from, count);
        else
            memcpy(out, from, count * array->element);
    }
}

/* Leaves it all to HDF5: contiguous numbers in the other byte order, and filters it has plugins
 * for. */
static kv_err read_by_hdf5(const kv__array *array, int layer, const kv__piece *p, void *out,
                           kv_diag *diag)
{
    kv__h5_guard guard;
    kv__h5_enter(&guard);
    hsize_t start[4] = {(hsize_t)layer, (hsize_t)p->head, (hsize_t)p->row, 0};
    hsize_t count[4] = {1, (hsize_t)p->heads, (hsize_t)p->rows, (hsize_t)array->width};
    hid_t type = H5Tcopy(array->dataset.id); /* that of the file, but in this machine's order */
    H5Tset_order(type, H5Tget_order(H5T_NATIVE_FLOAT));
    hid_t space = H5Dget_space(array->dataset.id);
    hid_t memory = H5Screate_simple(4, count, NULL);
    herr_t status = H5Sselect_hyperslab(space, H5S_SELECT_SET, start, NULL, count, NULL);
    if (status >= 0)
        status = H5Dread(array->dataset.id, type, memory, space, H5P_DEFAULT, out);
    kv_err err = status >= 0 ? KV_OK : kv__h5_failed(&array->dataset, diag, "cannot be read");
    H5Sclose(memory);
    H5Sclose(space);
    H5Tclose(type);
    kv__h5_leave(&guard);
    return err;
}

static kv_err read_piece(kv__array *array, int layer, const kv__piece *p, void *out, kv_diag *diag)
{
    if (array->chunks != NULL)
        return kv__chunks_read(array, layer, p, out, diag);
    return read_by_hdf5(array, layer, p, out, diag);
}

static bool wants_any(const kv__selection *selection, const kv__piece *p)
{
    if (selection->slot == NULL)
        return true;
    for (int r = p->row; r < p->row + p->rows; r++)
        if (selection->slot[r] >= 0)
            return true;
    return false;
}

static kv_err read_layer(kv__slab *slab, const target *t, int layer, kv_diag *diag)
{
    kv__array *a = t->array;
    size_t row_bytes = (size_t)a->width * a->element;
    kv_err err = kv__buffer_reserve(&slab->piece, (size_t)a->block_heads * (size_t)a->block_rows,
                                    row_bytes, diag);
    for (int head = 0; head < a->heads; head += a->block_heads)
        for (int row = 0; row < a->rows && err == KV_OK; row += a->block_rows) {
            const kv__piece p = {head, least(a->block_heads, a->heads - head), row,
                                 least(a->block_rows, a->rows - row)};
            if (!wants_any(t->selection, &p))
                continue;
            err = read_piece(a, layer, &p, slab->piece.data, diag);
            const unsigned char *from = slab->piece.data;
            for (int h = 0; h < p.heads && err == KV_OK; h++, from += (size_t)p.rows * row_bytes)
                take_rows(t, head + h, row, row + p.rows, from);
        }
    return err;
}

kv_err kv__slab_load(kv__slab *slab, kv__array *array, int layer, const kv__selection *selection,
                     kv_diag *diag)
{
    unmap(slab);
    slab->width = array->width;
    slab->element = array->element;
    slab->slot = NULL;
    slab->kept = array->rows;
    if (array->offset >= 0)
        map_layer(slab, array, layer);
    bool as_is = !selection->widen ||
                 (array->element == KV__F32 && (uintptr_t)slab->data % sizeof(float) == 0);
    if (slab->map != NULL && as_is)
        return KV_OK;
    if (selection->widen)
        slab->element = KV__F32;
    kv_err err = kv__buffer_reserve(&slab->own, (size_t)array->heads * (size_t)selection->kept,
                                    (size_t)array->width * slab->element, diag);
    if (err != KV_OK)
        return err;
    const target t = {array, selection, slab->own.data};
    if (slab->map == NULL)
        err = read_layer(slab, &t, layer, diag);
    size_t head_bytes = (size_t)array->rows * (size_t)array->width * array->element;
    for (int head = 0; head < array->heads && slab->map != NULL; head++)
        take_rows(&t, head, 0, array->rows, slab->data + (size_t)head * head_bytes);
    unmap(slab);
    slab->slot = selection->slot;
    slab->kept = selection->kept;
    slab->data = slab->own.data;
    return err;
}

void kv__slab_free(kv__slab *slab)
{
    unmap(slab);
    kv__buffer_free(&slab->own);
    kv__buffer_free(&slab->piece);
}

const void *kv__slab_row(const kv__slab *slab, int head, int r)
{
    size_t slot = slab->slot != NULL ? (size_t)slab->slot[r] : (size_t)r;
    return slab->data +
           ((size_t)head * (size_t)slab->kept + slot) * (size_t)slab->width * slab->element;
}
