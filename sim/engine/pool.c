/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "sim/engine/pool.h"

#include <stdalign.h>
#include <stdlib.h>

enum { SLAB_OBJECTS = 64 };

typedef struct slab {
    struct slab *next;
    max_align_t objects[];
} slab;

typedef struct link {
    struct link *next;
} link;

/* Objects stand side by side, each aligned for anything. */
static size_t stride(const kv_pool *pool)
{
    size_t bytes = pool->object_bytes < sizeof(link) ? sizeof(link) : pool->object_bytes;
    size_t align = alignof(max_align_t);
    return (bytes + align - 1) / align * align;
}

void kv_pool_fini(kv_pool *pool)
{
    for (slab *s = pool->slabs, *next; s != NULL; s = next) {
        next = s->next;
        free(s);
    }
    *pool = (kv_pool){.object_bytes = pool->object_bytes};
}

static int grow(kv_pool *pool)
{
    slab *added = calloc(1, sizeof *added + SLAB_OBJECTS * stride(pool));
    if (added == NULL)
        return 0;
    added->next = pool->slabs;
    pool->slabs = added;
    pool->slab_count++;
    for (size_t i = SLAB_OBJECTS; i-- > 0;) {
        link *object = (link *)(void *)((char *)added->objects + i * stride(pool));
        object->next = pool->free_;
        pool->free_ = object;
    }
    return 1;
}

void *kv_pool_take(kv_pool *pool)
{
    if (pool->free_ == NULL && !grow(pool))
        return NULL;
    link *object = pool->free_;
    pool->free_ = object->next;
    object->next = NULL;
    pool->live++;
    return object;
}

void kv_pool_give(kv_pool *pool, void *object)
{
    link *freed = object;
    freed->next = pool->free_;
    pool->free_ = freed;
    pool->live--;
}

void kv_pool_each(const kv_pool *pool, void (*visit)(void *object))
{
    for (slab *s = pool->slabs; s != NULL; s = s->next)
        for (size_t i = 0; i < SLAB_OBJECTS; i++)
            visit((char *)s->objects + i * stride(pool));
}
