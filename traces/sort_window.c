/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "traces/sort_window.h"

#include <stdlib.h>
#include <string.h>

typedef struct held {
    kv_request request;
    uint64_t *blocks; /* [allocated] */
    int32_t allocated;
    int64_t place; /* in the file */
} held;

/* heap[0..count) are in order; heap[count..size) are free; the last one taken stays free for a
 * while, at heap[count], so that its blocks can be lent. */
struct kv__sort_window {
    held **heap;
    size_t size, count;
    int64_t added, latest; /* requests added; the greatest place given out */
};

kv_err kv__sort_window_new(size_t requests, kv__sort_window **out, kv_diag *diag)
{
    kv__sort_window *window = calloc(1, sizeof *window);
    if (window == NULL)
        return kv_fail_memory(diag);
    window->size = requests + 1;
    window->latest = -1;
    window->heap = calloc(window->size, sizeof(held *));
    if (window->heap == NULL) {
        free(window);
        return kv_fail_memory(diag);
    }
    *out = window;
    return KV_OK;
}

void kv__sort_window_free(kv__sort_window *window)
{
    if (window == NULL)
        return;
    for (size_t i = 0; i < window->size && window->heap[i] != NULL; i++) {
        free(window->heap[i]->blocks);
        free(window->heap[i]);
    }
    free(window->heap);
    free(window);
}

bool kv__sort_window_full(const kv__sort_window *window)
{
    return window->count == window->size;
}

static bool before(const held *a, const held *b)
{
    return a->request.arrival_ns != b->request.arrival_ns
               ? a->request.arrival_ns < b->request.arrival_ns
               : a->place < b->place;
}

static void swap(held **a, held **b)
{
    held *c = *a;
    *a = *b;
    *b = c;
}

/* Copies the request and its blocks into a free entry. */
static kv_err hold(held *entry, const kv_request *request, kv_diag *diag)
{
    if (request->block_count > entry->allocated) {
        uint64_t *blocks = realloc(entry->blocks, (size_t)request->block_count * sizeof *blocks);
        if (blocks == NULL)
            return kv_fail_memory(diag);
        entry->blocks = blocks;
        entry->allocated = request->block_count;
    }
    if (request->block_count > 0)
        memcpy(entry->blocks, request->blocks,
               (size_t)request->block_count * sizeof *entry->blocks);
    entry->request = *request;
    entry->request.blocks = entry->blocks;
    return KV_OK;
}

kv_err kv__sort_window_add(kv__sort_window *window, const kv_request *request, kv_diag *diag)
{
    held **heap = window->heap;
    size_t i = window->count;
    if (heap[i] == NULL && (heap[i] = calloc(1, sizeof(held))) == NULL)
        return kv_fail_memory(diag);
    kv_err err = hold(heap[i], request, diag);
    if (err != KV_OK)
        return err;
    heap[i]->place = window->added++;
    window->count++;
    for (; i > 0 && before(heap[i], heap[(i - 1) / 2]); i = (i - 1) / 2)
        swap(&heap[i], &heap[(i - 1) / 2]);
    return KV_OK;
}

bool kv__sort_window_take(kv__sort_window *window, kv_request *out, int64_t *reordered)
{
    held **heap = window->heap;
    if (window->count == 0)
        return false;
    const held *first = heap[0];
    swap(&heap[0], &heap[--window->count]);
    for (size_t i = 0;;) {
        size_t child = 2 * i + 1;
        if (child >= window->count)
            break;
        child += child + 1 < window->count && before(heap[child + 1], heap[child]);
        if (!before(heap[child], heap[i]))
            break;
        swap(&heap[child], &heap[i]);
        i = child;
    }
    *reordered += first->place < window->latest;
    window->latest = first->place > window->latest ? first->place : window->latest;
    *out = first->request;
    return true;
}
