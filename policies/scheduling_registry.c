/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/scheduling.h"

#include <stddef.h>
#include <string.h>

#define KV_QUEUE_ORDER(id) extern const kv_queue_order kv__queue_order_##id;
#define KV_ROUTING(id) extern const kv_routing kv__routing_##id;
#include "policies/scheduling_registry.inc"
#undef KV_QUEUE_ORDER
#undef KV_ROUTING

static const kv_queue_order *const orders[] = {
#define KV_QUEUE_ORDER(id) &kv__queue_order_##id,
#define KV_ROUTING(id)
#include "policies/scheduling_registry.inc"
#undef KV_QUEUE_ORDER
#undef KV_ROUTING
    NULL};

static const kv_routing *const routings[] = {
#define KV_QUEUE_ORDER(id)
#define KV_ROUTING(id) &kv__routing_##id,
#include "policies/scheduling_registry.inc"
#undef KV_QUEUE_ORDER
#undef KV_ROUTING
    NULL};

const kv_queue_order *const *kv_queue_order_all(void)
{
    return orders;
}

const kv_queue_order *kv_queue_order_find(const char *name)
{
    for (const kv_queue_order *const *o = orders; *o != NULL; o++)
        if (strcmp((*o)->name, name) == 0)
            return *o;
    return NULL;
}

const kv_routing *const *kv_routing_all(void)
{
    return routings;
}

const kv_routing *kv_routing_find(const char *name)
{
    for (const kv_routing *const *r = routings; *r != NULL; r++)
        if (strcmp((*r)->name, name) == 0)
            return *r;
    return NULL;
}
