/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* The queue of what happens next.
 *
 * Time is int64 nanoseconds. Events leave in the total order (time, class, sequence): what happens
 * at the same instant happens by class, what is of the same class in the order it was put in. So a
 * run never depends on the shape of the heap. Nothing is allocated once the queue has been as long
 * as it gets. */
#ifndef KVSIM_SIM_ENGINE_EVENTS_H
#define KVSIM_SIM_ENGINE_EVENTS_H

#include "sim/base/diag.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One event. What class and payload mean is the owner's business. */
typedef struct kv_event_entry {
    int64_t time_ns;
    uint64_t sequence; /* number of the event among all that were put in */
    uint64_t payload;
    uint32_t class_;
} kv_event_entry;

/* Zeroed is empty and usable. */
typedef struct kv_events {
    kv_event_entry *entry; /* a heap of four children per node, the root at 0 */
    size_t count;
    size_t room;
    uint64_t sequence; /* of the next event */
    int64_t last_ns;   /* of the last event taken: nothing earlier may come */
} kv_events;

void kv_events_fini(kv_events *events);
/* Puts an event in. One that lies before the last event taken is a bug of the caller. */
kv_err kv_events_put(kv_events *events, int64_t time_ns, uint32_t class_,
                     uint64_t payload) KV_MUST_USE;
/* The next event, or NULL; lent until the queue changes. */
const kv_event_entry *kv_events_next(const kv_events *events);
/* Takes the next event out; false if there is none. */
bool kv_events_take(kv_events *events, kv_event_entry *out);

#endif
