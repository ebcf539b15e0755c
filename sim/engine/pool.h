/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Pools of objects of one size that never move.
 *
 * An object given back is the next one handed out, so after warm-up nothing is allocated. */
#ifndef KVSIM_SIM_ENGINE_POOL_H
#define KVSIM_SIM_ENGINE_POOL_H

#include "sim/base/diag.h"

#include <stddef.h>

/* Zeroed but for object_bytes is empty and usable. */
typedef struct kv_pool {
    size_t object_bytes; /* of one object; set by the owner */
    void *free_;         /* chain of objects that were given back */
    void *slabs;         /* chain of what was allocated */
    size_t slab_count;   /* allocations so far: constant once warmed up */
    size_t live;         /* objects handed out */
} kv_pool;

/* Frees all objects, handed out or not. */
void kv_pool_fini(kv_pool *pool);
/* An object, its content undefined but for what it held when it was given back: all of it except
 * the first pointer, and zeroed the first time. NULL: no memory. */
void *kv_pool_take(kv_pool *pool);
void kv_pool_give(kv_pool *pool, void *object);

/* Calls visit for every object that was ever handed out, live or not: to free what they own. */
void kv_pool_each(const kv_pool *pool, void (*visit)(void *object));

#endif
