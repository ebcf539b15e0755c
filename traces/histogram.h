/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Exact counts of whole numbers, in memory bounded by how many differ. */
#ifndef KVSIM_TRACES_HISTOGRAM_H
#define KVSIM_TRACES_HISTOGRAM_H

#include "sim/base/map.h"

/* Zeroed is empty. */
typedef struct kv__histogram {
    kv__map by_value;
    struct kv__histogram_cell {
        int32_t value;
        int64_t count;
    } * cell; /* [cells], in order of appearance until kv__histogram_sort */
    uint32_t cells, allocated;
    int64_t count, total; /* of all values; their sum */
} kv__histogram;

void kv__histogram_fini(kv__histogram *histogram);
kv_err kv__histogram_add(kv__histogram *histogram, int32_t value) KV_MUST_USE;
/* Sorts; nothing may be added afterwards. */
void kv__histogram_sort(kv__histogram *histogram);
/* Of a sorted histogram: the least value that at least the share p (0 .. 1) of all do not exceed; 0
 * if it is empty. p = 0 and p = 1 are the least and the greatest. */
int32_t kv__histogram_percentile(const kv__histogram *histogram, double p);

#endif
