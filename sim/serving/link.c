/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "sim/serving/link.h"

#include <stdlib.h>

void kv__link_fini(kv__link *link)
{
    free(link->active);
    free(link->left);
    *link = (kv__link){0};
}

static int64_t least_left(const kv__link *link)
{
    int64_t least = INT64_MAX;
    for (int i = 0; i < link->count; i++)
        least = link->active[i].left_ns < least ? link->active[i].left_ns : least;
    return least;
}

/* All transfers go on by so much each; those that are over leave. */
static void serve(kv__link *link, int64_t each_ns, int64_t remainder_ns)
{
    int kept = 0;
    for (int i = 0; i < link->count; i++) {
        link->active[i].left_ns -= each_ns + (i < remainder_ns);
        if (link->active[i].left_ns > 0)
            link->active[kept++] = link->active[i];
    }
    link->count = kept;
}

static void bring_up_to_date(kv__link *link, int64_t now_ns)
{
    while (link->count > 0) {
        int64_t least = least_left(link), passed = now_ns - link->at_ns;
        if (least > passed / link->count) {
            serve(link, passed / link->count, passed % link->count);
            break;
        }
        link->at_ns += least * link->count;
        serve(link, least, 0);
    }
    link->at_ns = now_ns;
}

static bool make_room(kv__link *link)
{
    int room = link->room > 0 ? 2 * link->room : 16;
    if (link->count < link->room)
        return true;
    kv__transfer *active = realloc(link->active, (size_t)room * sizeof *active);
    link->active = active != NULL ? active : link->active;
    int64_t *left = realloc(link->left, (size_t)room * sizeof *left);
    link->left = left != NULL ? left : link->left;
    if (active == NULL || left == NULL)
        return false;
    link->room = room;
    return true;
}

uint64_t kv__link_begin(kv__link *link, int64_t now_ns, const kv__transfer *transfer)
{
    bring_up_to_date(link, now_ns);
    if (!make_room(link))
        return 0;
    kv__transfer *t = &link->active[link->count++];
    *t = *transfer;
    t->id = ++link->made;
    t->begin_ns = now_ns;
    t->left_ns = t->left_ns > 0 ? t->left_ns : 1;
    link->dirty = link->news = true;
    return t->id;
}

void kv__link_add(kv__link *link, kv__transfer *transfer, int64_t more_ns)
{
    transfer->left_ns += more_ns;
    link->dirty = link->news = true;
}

kv__transfer *kv__link_find(const kv__link *link, uint64_t id)
{
    for (int i = link->count; i-- > 0;)
        if (link->active[i].id == id)
            return &link->active[i];
    return NULL;
}

static int by_size(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* When each transfer has gone on by so much: those that have less left are over by then. left:
 * ascending; before: sums of those that come before in it. */
static int64_t time_of(const kv__link *link, int64_t served_ns)
{
    int low = 0, high = link->count;
    while (low < high) {
        int middle = low + (high - low) / 2;
        if (link->left[middle] <= served_ns)
            low = middle + 1;
        else
            high = middle;
    }
    int64_t time = link->at_ns + (link->count - low) * served_ns;
    for (int i = 0; i < low; i++)
        time += link->left[i];
    return time;
}

void kv__link_expect(kv__link *link)
{
    if (!link->dirty)
        return;
    link->dirty = false;
    for (int i = 0; i < link->count; i++)
        link->left[i] = link->active[i].left_ns;
    qsort(link->left, (size_t)link->count, sizeof *link->left, by_size);
    for (int i = 0; i < link->count; i++) {
        kv__transfer *t = &link->active[i];
        t->end_ns = time_of(link, t->left_ns);
        if (t->left_ns > t->rest_ns)
            t->ready_ns = time_of(link, t->left_ns - t->rest_ns);
        else if (t->ready_ns > link->at_ns)
            t->ready_ns = link->at_ns;
    }
}

bool kv__link_busy(kv__link *link, int64_t now_ns)
{
    kv__link_expect(link);
    for (int i = 0; i < link->count; i++)
        if (link->active[i].end_ns > now_ns)
            return true;
    return false;
}

/* By how much each transfer goes on until then. */
static int64_t served_by(const kv__link *link, int64_t now_ns)
{
    int64_t served = 0, passed = now_ns - link->at_ns;
    for (;;) {
        int64_t least = INT64_MAX;
        int active = 0;
        for (int i = 0; i < link->count; i++) {
            int64_t left = link->active[i].left_ns;
            active += left > served;
            least = left > served && left < least ? left : least;
        }
        if (active == 0 || passed / active < least - served)
            return active > 0 ? served + passed / active : served;
        passed -= (least - served) * active;
        served = least;
    }
}

int64_t kv__link_estimate(const kv__link *link, int64_t now_ns, int64_t work_ns)
{
    int64_t served = served_by(link, now_ns), end = now_ns + work_ns;
    for (int i = 0; i < link->count; i++) {
        int64_t left = link->active[i].left_ns - served;
        left = left < work_ns ? left : work_ns;
        end += left > 0 ? left : 0;
    }
    return end;
}
