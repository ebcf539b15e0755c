/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* HDF5 chunks, decompressed here.
 *
 * HDF5 finds and reads the stored bytes; the filters that nearly all files use (deflate, shuffle,
 * Fletcher-32) are undone here, for two reasons. HDF5 1.10 reads beyond its buffer when a chunk of
 * a damaged file unpacks to less than it should, which is checked here; and this work needs no
 * lock, so that threads do it at the same time. Datasets with other filters are left to HDF5. */
#include "config.h"

#include "traces/attention_private.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum { MAX_FILTERS = 8, CHECKSUM_BYTES = 4 };
static const size_t cache_bytes = (size_t)256 << 20; /* most that is kept for the next layer */

struct kv__chunks {
    hsize_t extent[4];
    size_t bytes;                     /* of a chunk, unpacked */
    H5Z_filter_t filter[MAX_FILTERS]; /* in the order of writing */
    int filters;
    bool swap;                /* the file has the other byte order */
    kv__buffer stored, other; /* to unpack from and to, by turns */
    /* Chunks that span layers are kept, unpacked, until a layer beyond them is asked for. */
    int band;             /* layer / extent[0] of those kept; below 0: none */
    unsigned char **kept; /* [count in a band] NULL: not kept */
    size_t count;
    size_t kept_bytes;
};

/* --- Opening ---------------------------------------------------------------------------------- */

static bool is_known(H5Z_filter_t filter)
{
    return filter == H5Z_FILTER_DEFLATE || filter == H5Z_FILTER_SHUFFLE ||
           filter == H5Z_FILTER_FLETCHER32;
}

/* Unwritten chunks are zeros, unless the file asks for another value. */
static bool fills_with_zero(hid_t creation)
{
    H5D_fill_value_t defined;
    double value = 0;
    if (H5Pfill_value_defined(creation, &defined) < 0)
        return false;
    if (defined == H5D_FILL_VALUE_USER_DEFINED)
        H5Pget_fill_value(creation, H5T_NATIVE_DOUBLE, &value);
    return defined != H5D_FILL_VALUE_UNDEFINED && value == 0;
}

static bool find_filters(kv__chunks *c, hid_t creation)
{
    c->filters = H5Pget_nfilters(creation);
    if (c->filters < 0 || c->filters > MAX_FILTERS)
        return false;
    for (int i = 0; i < c->filters; i++) {
        unsigned flags, config;
        size_t parameters = 0;
        c->filter[i] =
            H5Pget_filter2(creation, (unsigned)i, &flags, &parameters, NULL, 0, NULL, &config);
        if (!is_known(c->filter[i]))
            return false;
    }
    unsigned options = 0; /* partial chunks at the edges may be stored without filters */
    return H5Pget_chunk_opts(creation, &options) >= 0 && options == 0 && fills_with_zero(creation);
}

static size_t count_along(int extent, hsize_t chunk)
{
    return ((size_t)extent + (size_t)chunk - 1) / (size_t)chunk;
}

kv_err kv__chunks_new(const kv__array *array, hid_t creation, bool swap, kv__chunks **out,
                      kv_diag *diag)
{
    kv__chunks *c = calloc(1, sizeof *c);
    if (c == NULL)
        return kv_fail_memory(diag);
    c->swap = swap;
    c->band = -1;
    double bytes = array->element;
    bool usable = H5Pget_chunk(creation, 4, c->extent) == 4 && find_filters(c, creation);
    for (int i = 0; i < 4; i++)
        bytes *= (double)c->extent[i];
    if (!usable || bytes > UINT32_MAX) { /* HDF5 allows no larger chunk */
        kv__chunks_free(c);
        return KV_OK;
    }
    c->bytes = (size_t)bytes;
    if (c->extent[0] > 1) {
        c->count = count_along(array->heads, c->extent[1]) *
                   count_along(array->rows, c->extent[2]) * count_along(array->width, c->extent[3]);
        c->kept = calloc(c->count, sizeof *c->kept);
        if (c->kept == NULL) {
            kv__chunks_free(c);
            return kv_fail_memory(diag);
        }
    }
    *out = c;
    return KV_OK;
}

static void drop_kept(kv__chunks *c)
{
    for (size_t i = 0; i < c->count && c->kept_bytes > 0; i++) {
        free(c->kept[i]);
        c->kept[i] = NULL;
    }
    c->kept_bytes = 0;
}

void kv__chunks_free(kv__chunks *c)
{
    if (c == NULL)
        return;
    if (c->kept != NULL)
        drop_kept(c);
    free(c->kept);
    kv__buffer_free(&c->stored);
    kv__buffer_free(&c->other);
    free(c);
}

/* The most that a chunk takes at any stage: deflate and checksums add less to what they get. */
static size_t room_for(const kv__chunks *c)
{
    return c->bytes + c->bytes / 8 + 1024;
}

/* --- Filters ---------------------------------------------------------------------------------- */

/* Each takes bytes[0..n) to out[0..room) and returns how many it made; 0: they are damaged. */

static size_t inflate_all(const unsigned char *bytes, size_t n, unsigned char *out, size_t room)
{
    uLongf made = (uLongf)room;
    return uncompress(out, &made, bytes, (uLong)n) == Z_OK ? (size_t)made : 0;
}

/* The bytes of all numbers' first byte, then of their second ... */
static size_t unshuffle(const unsigned char *bytes, size_t n, unsigned char *out, size_t element)
{
    size_t count = n / element;
    for (size_t b = 0; b < element; b++)
        for (size_t i = 0; i < count; i++)
            out[i * element + b] = bytes[b * count + i];
    memcpy(out + count * element, bytes + count * element, n - count * element);
    return n;
}

/* Fletcher's checksum over big-endian 16-bit words, stored behind them in little-endian order; a
 * last odd byte counts as the high half of a word. */
static size_t check_sum(const unsigned char *bytes, size_t n)
{
    if (n < CHECKSUM_BYTES)
        return 0;
    size_t data = n - CHECKSUM_BYTES;
    uint64_t first = 0, second = 0;
    for (size_t i = 0; i < data; i += 2) {
        first += (uint64_t)bytes[i] << 8 | (i + 1 < data ? bytes[i + 1] : 0u);
        second += first;
        if (i % 65536 == 65534) { /* long before 64 bits overflow */
            first %= 65535;
            second %= 65535;
        }
    }
    const unsigned char *stored = bytes + data;
    uint64_t want_first = stored[0] | (uint64_t)stored[1] << 8;
    uint64_t want_second = stored[2] | (uint64_t)stored[3] << 8;
    /* 0 and 65535 are the same remainder: which of them was stored depends on who summed. */
    return first % 65535 == want_first % 65535 && second % 65535 == want_second % 65535 ? data : 0;
}

/* Undoes the filters of what is in c->stored; the result is in there again. NULL: it worked. */
static const char *unpack(kv__chunks *c, size_t n, uint32_t skipped, size_t element, kv_diag *diag)
{
    if (kv__buffer_reserve(&c->other, 1, room_for(c), diag) != KV_OK)
        return "memory is exhausted";
    for (int i = c->filters - 1; i >= 0; i--) {
        if (skipped >> i & 1)
            continue;
        if (c->filter[i] == H5Z_FILTER_FLETCHER32) {
            n = check_sum(c->stored.data, n);
            if (n == 0)
                return "its Fletcher-32 checksum is wrong";
            continue;
        }
        if (c->filter[i] == H5Z_FILTER_DEFLATE)
            n = inflate_all(c->stored.data, n, c->other.data, c->other.bytes);
        else
            n = n <= c->other.bytes ? unshuffle(c->stored.data, n, c->other.data, element) : 0;
        if (n == 0)
            return "its compressed bytes are damaged";
        const kv__buffer swap = c->stored;
        c->stored = c->other;
        c->other = swap;
    }
    return n == c->bytes ? NULL : "it does not unpack to the size of a chunk";
}

static void swap_bytes(unsigned char *bytes, size_t n, size_t element)
{
    for (size_t i = 0; i + element <= n; i += element)
        for (size_t b = 0; b < element / 2; b++) {
            unsigned char byte = bytes[i + b];
            bytes[i + b] = bytes[i + element - 1 - b];
            bytes[i + element - 1 - b] = byte;
        }
}

/* --- Reading ---------------------------------------------------------------------------------- */

/* Brings the stored bytes of a chunk into c->stored; *n is 0 where it was never written. */
static kv_err read_stored(kv__array *array, const hsize_t at[4], size_t *n, uint32_t *skipped,
                          kv_diag *diag)
{
    kv__chunks *c = array->chunks;
    kv__h5_guard guard;
    hsize_t stored = 0;
    kv__h5_enter(&guard);
    kv_err err = KV_OK;
    if (H5Dget_chunk_storage_size(array->dataset.id, at, &stored) < 0)
        err = kv__h5_failed(&array->dataset, diag, "its chunks cannot be found");
    else if (stored > room_for(c))
        err = kv__h5_wrong(&array->dataset, diag, "has a chunk of %llu bytes that unpacks to %zu",
                           (unsigned long long)stored, c->bytes);
    if (err == KV_OK && stored > 0)
        err = kv__buffer_reserve(&c->stored, 1, room_for(c), diag);
    if (err == KV_OK && stored > 0 &&
        H5Dread_chunk(array->dataset.id, H5P_DEFAULT, at, skipped, c->stored.data) < 0)
        err = kv__h5_failed(&array->dataset, diag, "cannot be read");
    kv__h5_leave(&guard);
    *n = (size_t)stored;
    return err;
}

/* The chunk at `at`, unpacked into c->stored; *out is NULL where it was never written. */
static kv_err unpack_chunk(kv__array *array, const hsize_t at[4], unsigned char **out,
                           kv_diag *diag)
{
    kv__chunks *c = array->chunks;
    size_t n = 0;
    uint32_t skipped = 0;
    *out = NULL;
    kv_err err = read_stored(array, at, &n, &skipped, diag);
    if (err != KV_OK || n == 0)
        return err;
    const char *fault = unpack(c, n, skipped, array->element, diag);
    if (fault != NULL)
        return kv__h5_wrong(&array->dataset, diag,
                            "the chunk at [%llu, %llu, %llu, %llu] cannot be read: %s",
                            (unsigned long long)at[0], (unsigned long long)at[1],
                            (unsigned long long)at[2], (unsigned long long)at[3], fault);
    if (c->swap)
        swap_bytes(c->stored.data, c->bytes, array->element);
    *out = c->stored.data;
    return KV_OK;
}

/* As unpack_chunk, but asks the kept ones first and keeps what the next layer will ask for. */
static kv_err find_chunk(kv__array *array, const hsize_t at[4], unsigned char **out, kv_diag *diag)
{
    kv__chunks *c = array->chunks;
    if (c->extent[0] == 1)
        return unpack_chunk(array, at, out, diag);
    int band = (int)(at[0] / c->extent[0]);
    if (band != c->band)
        drop_kept(c);
    c->band = band;
    size_t index = (size_t)(at[1] / c->extent[1]);
    index = index * count_along(array->rows, c->extent[2]) + (size_t)(at[2] / c->extent[2]);
    index = index * count_along(array->width, c->extent[3]) + (size_t)(at[3] / c->extent[3]);
    *out = c->kept[index];
    if (*out != NULL)
        return KV_OK;
    kv_err err = unpack_chunk(array, at, out, diag);
    if (err != KV_OK || *out == NULL || c->kept_bytes + c->bytes > cache_bytes)
        return err;
    c->kept[index] = malloc(c->bytes);
    if (c->kept[index] != NULL) { /* without it the chunk is unpacked again */
        memcpy(c->kept[index], *out, c->bytes);
        c->kept_bytes += c->bytes;
    }
    return KV_OK;
}

static size_t smaller(hsize_t a, hsize_t b)
{
    return (size_t)(a < b ? a : b);
}

/* Copies one layer of a chunk into the piece that it overlaps; zeros if the chunk is NULL. */
static void take_chunk(const kv__array *array, int layer, const kv__piece *p, const hsize_t at[4],
                       const unsigned char *chunk, unsigned char *out)
{
    const hsize_t *extent = array->chunks->extent;
    size_t element = array->element, width = (size_t)array->width;
    size_t head = (size_t)p->head, first_row = (size_t)p->row, rows = (size_t)p->rows;
    size_t head_end = smaller(at[1] + extent[1], head + (size_t)p->heads);
    size_t row_end = smaller(at[2] + extent[2], first_row + rows);
    size_t columns = smaller(extent[3], width - at[3]);
    for (size_t h = at[1]; h < head_end; h++)
        for (size_t r = at[2]; r < row_end; r++) {
            size_t to = ((h - head) * rows + r - first_row) * width + at[3];
            size_t from = (((size_t)layer - at[0]) * extent[1] + h - at[1]) * extent[2] + r - at[2];
            unsigned char *row = out + to * element;
            if (chunk != NULL)
                memcpy(row, chunk + from * extent[3] * element, columns * element);
            else
                memset(row, 0, columns * element);
        }
}

kv_err kv__chunks_read(kv__array *array, int layer, const kv__piece *p, void *out, kv_diag *diag)
{
    const hsize_t *extent = array->chunks->extent;
    hsize_t at[4] = {(hsize_t)layer / extent[0] * extent[0], 0, 0, 0};
    kv_err err = KV_OK;
    /* Pieces begin where chunks do. */
    for (at[1] = (hsize_t)p->head; at[1] < (hsize_t)(p->head + p->heads); at[1] += extent[1])
        for (at[2] = (hsize_t)p->row; at[2] < (hsize_t)(p->row + p->rows); at[2] += extent[2])
            for (at[3] = 0; at[3] < (hsize_t)array->width && err == KV_OK; at[3] += extent[3]) {
                unsigned char *chunk = NULL;
                err = find_chunk(array, at, &chunk, diag);
                if (err == KV_OK)
                    take_chunk(array, layer, p, at, chunk, out);
            }
    return err;
}

/* --- Trial ------------------------------------------------------------------------------------ */

void kv__chunks_visit(const kv__array *array, int layers)
{
    enum { MOST = 100000 };
    const hsize_t *extent = array->chunks->extent;
    hsize_t at[4], stored;
    int visits = 0;
    for (at[0] = 0; at[0] < (hsize_t)layers; at[0] += extent[0])
        for (at[1] = 0; at[1] < (hsize_t)array->heads; at[1] += extent[1])
            for (at[2] = 0; at[2] < (hsize_t)array->rows; at[2] += extent[2])
                for (at[3] = 0; at[3] < (hsize_t)array->width; at[3] += extent[3])
                    if (visits++ >= MOST ||
                        H5Dget_chunk_storage_size(array->dataset.id, at, &stored) < 0)
                        return;
}
