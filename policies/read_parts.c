/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/read.h"

#include <stdlib.h>
#include <string.h>

/* Whether a comes before b: higher score, then lower index; NaN last. */
static bool is_before(const double *score, int32_t a, int32_t b)
{
    double x = score[a], y = score[b];
    if (x > y || (y != y && x == x))
        return true;
    if (x < y || (x != x && y == y))
        return false;
    return a < b;
}

static void swap(int32_t *a, int32_t *b)
{
    int32_t kept = *a;
    *a = *b;
    *b = kept;
}

/* Puts the median of first, middle and last at the end: the pivot. */
static void place_pivot(const double *score, int32_t *index, int first, int last)
{
    int middle = first + (last - first) / 2;
    if (is_before(score, index[middle], index[first]))
        swap(&index[middle], &index[first]);
    if (is_before(score, index[last], index[first]))
        swap(&index[last], &index[first]);
    if (is_before(score, index[middle], index[last]))
        swap(&index[middle], &index[last]);
}

int kv_read_best(const double *score, int32_t *index, int n, int k)
{
    int first = 0, last = n - 1;
    if (k >= n)
        return n;
    while (first < last) {
        place_pivot(score, index, first, last);
        int at = first;
        for (int i = first; i < last; i++)
            if (is_before(score, index[i], index[last]))
                swap(&index[i], &index[at++]);
        swap(&index[at], &index[last]);
        if (at == k)
            break;
        if (at < k)
            first = at + 1;
        else
            last = at - 1;
    }
    return k < 0 ? 0 : k;
}

static int ascending(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

void kv_read_sort(int32_t *position, int n)
{
    qsort(position, (size_t)n, sizeof *position, ascending);
}

int kv_read_everything(const kv_read_row *row, int32_t *chosen)
{
    memcpy(chosen, row->present, (size_t)row->presents * sizeof *chosen);
    return row->presents;
}
