/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Scheduling policies: who of those that wait goes next, and which replica a request goes to.
 *
 * A new queue order or routing is one file in policies/scheduling/ that ends in
 * KV_QUEUE_ORDER_DEFINE(name) or KV_ROUTING_DEFINE(name), and one line in policies/policies.am. */
#ifndef KVSIM_POLICIES_SCHEDULING_H
#define KVSIM_POLICIES_SCHEDULING_H

#include <stdbool.h>
#include <stdint.h>

/* A waiting request, as a queue order sees it. */
typedef struct kv_waiting {
    int64_t number;        /* order of arrival */
    int32_t prompt_tokens; /* to be processed before the first answer token */
    int32_t priority;      /* of its tenant: the number of the tenant, lower goes first */
    int32_t prefix_blocks; /* leading blocks that the GPU holds now; 0 unless wants_prefix */
} kv_waiting;

typedef struct kv_queue_order {
    const char *name;
    const char *brief;
    bool wants_prefix; /* looks at prefix_blocks, which costs a lookup per waiting request */
    /* True if a goes before b. NULL: in order of arrival. */
    bool (*before)(const kv_waiting *a, const kv_waiting *b);
} kv_queue_order;

/* A replica, as a routing sees it. */
typedef struct kv_replica_view {
    int64_t requests; /* running and waiting there */
    int64_t tokens;   /* that these still have to compute or generate */
    int32_t
        prefix_blocks; /* leading blocks of the request that its GPU holds; 0 unless wants_prefix */
} kv_replica_view;

typedef struct kv_routing {
    const char *name;
    const char *brief;
    bool wants_prefix;
    /* The replica for the request of that number (from 0) among replica[0..count). prompt_blocks is
     * how many named blocks its prompt has. */
    int (*choose)(const kv_replica_view *replica, int count, int64_t number, int32_t prompt_blocks);
} kv_routing;

/* The tables, ended by NULL, and the entry of that name or NULL. */
const kv_queue_order *const *kv_queue_order_all(void);
const kv_queue_order *kv_queue_order_find(const char *name);
const kv_routing *const *kv_routing_all(void);
const kv_routing *kv_routing_find(const char *name);

#define KV_QUEUE_ORDER_DEFINE(id) const kv_queue_order kv__queue_order_##id
#define KV_ROUTING_DEFINE(id) const kv_routing kv__routing_##id

#endif
