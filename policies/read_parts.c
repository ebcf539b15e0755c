/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/read.h"

#include <math.h>
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

int kv_read_share(double share, int n)
{
    double product = share * n, whole = rint(product);
    return (int)(fabs(product - whole) <= 1e-9 * n ? whole : ceil(product));
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

int kv_read_prefill_end(const kv_read_row *row)
{
    const kv_example *example = row->view->example;
    for (int t = 0; t < example->turns; t++)
        if (row->position >= example->prompt_tokens &&
            row->position < example->turn[t].answer_start)
            return example->turn[t].answer_start;
    return example->prompt_tokens;
}

int kv_read_ends(const kv_read_row *row, long long sinks, long long local, int32_t *chosen)
{
    int n = 0;
    long long first = row->position - (local > 1 ? local : 1) + 1;
    for (int i = 0; i < row->presents; i++)
        if (row->present[i] < sinks || row->present[i] >= first)
            chosen[n++] = row->present[i];
    return n;
}

int kv_read_pages(int entries, long long page)
{
    return (int)((entries + page - 1) / page);
}

double kv_read_page_bound(const kv_read_row *row, const float *query, int page,
                          long long page_tokens, const int32_t *channel, int channels)
{
    int width = row->view->shape->head_dim, first = page * (int)page_tokens;
    int end = first + (int)page_tokens < row->presents ? first + (int)page_tokens : row->presents;
    double sum = 0;
    for (int c = 0; c < (channel ? channels : width); c++) {
        int d = channel ? channel[c] : c;
        double most = -INFINITY;
        for (int i = first; i < end; i++)
            most = fmax(most, (double)query[d] * row->key[(size_t)row->present[i] * width + d]);
        sum += most;
    }
    return sum;
}

int kv_read_best_pages(const kv_read_row *row, double *score, long long page_tokens, int count,
                       int32_t *chosen)
{
    int pages = kv_read_pages(row->presents, page_tokens), n = 0;
    for (int p = 0; p < pages; p++)
        row->order[p] = p;
    count = kv_read_best(score, row->order, pages, count);
    kv_read_sort(row->order, count);
    for (int k = 0; k < count; k++)
        for (int i = row->order[k] * (int)page_tokens, end = i + (int)page_tokens;
             i < end && i < row->presents; i++)
            chosen[n++] = row->present[i];
    return n;
}
