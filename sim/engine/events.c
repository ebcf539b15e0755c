/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "sim/engine/events.h"

#include <assert.h>
#include <stdlib.h>

enum { CHILDREN = 4, FIRST_ROOM = 64 };

void kv_events_fini(kv_events *events)
{
    free(events->entry);
    *events = (kv_events){0};
}

static bool before(const kv_event_entry *a, const kv_event_entry *b)
{
    if (a->time_ns != b->time_ns)
        return a->time_ns < b->time_ns;
    if (a->class_ != b->class_)
        return a->class_ < b->class_;
    return a->sequence < b->sequence;
}

static kv_err make_room(kv_events *events)
{
    if (events->count < events->room)
        return KV_OK;
    size_t room = events->room == 0 ? FIRST_ROOM : 2 * events->room;
    kv_event_entry *entry = realloc(events->entry, room * sizeof *entry);
    if (entry == NULL)
        return KV_ERR_MEMORY;
    events->entry = entry;
    events->room = room;
    return KV_OK;
}

kv_err kv_events_put(kv_events *events, int64_t time_ns, uint32_t class_, uint64_t payload)
{
    assert(time_ns >= events->last_ns);
    kv_err err = make_room(events);
    if (err != KV_OK)
        return err;
    kv_event_entry added = {
        .time_ns = time_ns, .sequence = events->sequence++, .payload = payload, .class_ = class_};
    size_t at = events->count++;
    while (at > 0) {
        size_t parent = (at - 1) / CHILDREN;
        if (!before(&added, &events->entry[parent]))
            break;
        events->entry[at] = events->entry[parent];
        at = parent;
    }
    events->entry[at] = added;
    return KV_OK;
}

const kv_event_entry *kv_events_next(const kv_events *events)
{
    return events->count > 0 ? &events->entry[0] : NULL;
}

/* The child of a node that leaves first, or events->count. */
static size_t first_child(const kv_events *events, size_t node)
{
    size_t first = node * CHILDREN + 1, end = first + CHILDREN;
    if (first >= events->count)
        return events->count;
    if (end > events->count)
        end = events->count;
    for (size_t c = first + 1; c < end; c++)
        if (before(&events->entry[c], &events->entry[first]))
            first = c;
    return first;
}

bool kv_events_take(kv_events *events, kv_event_entry *out)
{
    if (events->count == 0)
        return false;
    *out = events->entry[0];
    events->last_ns = out->time_ns;
    kv_event_entry last = events->entry[--events->count];
    size_t at = 0;
    for (;;) {
        size_t child = first_child(events, at);
        if (child == events->count || !before(&events->entry[child], &last))
            break;
        events->entry[at] = events->entry[child];
        at = child;
    }
    events->entry[at] = last;
    return true;
}
