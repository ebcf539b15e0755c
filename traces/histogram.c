/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "traces/histogram.h"

#include <math.h>
#include <stdlib.h>

void kv__histogram_fini(kv__histogram *histogram)
{
    kv__map_fini(&histogram->by_value);
    free(histogram->cell);
}

static kv_err add_cell(kv__histogram *histogram, int32_t value)
{
    if (histogram->cells == histogram->allocated) {
        uint32_t allocated = histogram->allocated == 0 ? 1024 : 2 * histogram->allocated;
        struct kv__histogram_cell *larger = realloc(histogram->cell, allocated * sizeof *larger);
        if (larger == NULL)
            return KV_ERR_MEMORY;
        histogram->cell = larger;
        histogram->allocated = allocated;
    }
    histogram->cell[histogram->cells].value = value;
    histogram->cell[histogram->cells].count = 0;
    return kv__map_add(&histogram->by_value, (uint32_t)value, histogram->cells++);
}

kv_err kv__histogram_add(kv__histogram *histogram, int32_t value)
{
    uint32_t i = kv__map_get(&histogram->by_value, (uint32_t)value);
    if (i == KV_MAP_ABSENT) {
        i = histogram->cells;
        kv_err err = add_cell(histogram, value);
        if (err != KV_OK)
            return err;
    }
    histogram->cell[i].count++;
    histogram->count++;
    histogram->total += value;
    return KV_OK;
}

static int by_value(const void *a, const void *b)
{
    int32_t x = ((const struct kv__histogram_cell *)a)->value;
    int32_t y = ((const struct kv__histogram_cell *)b)->value;
    return (x > y) - (x < y);
}

void kv__histogram_sort(kv__histogram *histogram)
{
    if (histogram->cells > 0)
        qsort(histogram->cell, histogram->cells, sizeof *histogram->cell, by_value);
    kv__map_fini(&histogram->by_value);
}

int32_t kv__histogram_percentile(const kv__histogram *histogram, double p)
{
    int64_t rank = (int64_t)ceil(p * (double)histogram->count), below = 0;
    for (uint32_t i = 0; i < histogram->cells; i++) {
        below += histogram->cell[i].count;
        if (below >= rank && below > 0)
            return histogram->cell[i].value;
    }
    return 0;
}
