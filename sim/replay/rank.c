/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Ranking by score: least-significant-digit radix sort, stable, so that ties go to the lower index.
 */
#include "config.h"

#include "sim/replay/lane.h"

#include <stdlib.h>
#include <string.h>

enum { DIGITS = 8, RADIX = 256, SMALL = 48 };

typedef struct keyed {
    uint64_t key;
    int32_t index;
} keyed;

struct kv__ranker {
    keyed *from, *to;
    int capacity;
};

kv_err kv__ranker_new(int capacity, kv__ranker **out, kv_diag *diag)
{
    kv__ranker *ranker = calloc(1, sizeof *ranker);
    if (ranker == NULL)
        return kv_fail_memory(diag);
    ranker->capacity = capacity;
    ranker->from = malloc((size_t)(capacity + 1) * sizeof(keyed));
    ranker->to = malloc((size_t)(capacity + 1) * sizeof(keyed));
    if (ranker->from == NULL || ranker->to == NULL) {
        kv__ranker_free(ranker);
        return kv_fail_memory(diag);
    }
    *out = ranker;
    return KV_OK;
}

void kv__ranker_free(kv__ranker *ranker)
{
    if (ranker == NULL)
        return;
    free(ranker->from);
    free(ranker->to);
    free(ranker);
}

/* A key that ascends as the score descends. -0 equals 0; NaN comes last. */
static uint64_t descending_key(double score)
{
    uint64_t bits;
    double value = score + 0.0;
    if (value != value)
        return UINT64_MAX;
    memcpy(&bits, &value, sizeof bits);
    uint64_t ascending = bits >> 63 ? ~bits : bits | (UINT64_C(1) << 63);
    return ~ascending;
}

static void insertion_sort(keyed *item, int n)
{
    for (int i = 1; i < n; i++) {
        keyed moving = item[i];
        int j = i;
        for (; j > 0 && item[j - 1].key > moving.key; j--)
            item[j] = item[j - 1];
        item[j] = moving;
    }
}

/* Sorts ranker->from[0..n); digits that all keys share cost nothing. */
static void radix_sort(kv__ranker *ranker, int n)
{
    int32_t count[DIGITS][RADIX] = {{0}};
    for (int i = 0; i < n; i++)
        for (int d = 0; d < DIGITS; d++)
            count[d][ranker->from[i].key >> (8 * d) & 255]++;
    for (int d = 0; d < DIGITS; d++) {
        if (count[d][ranker->from[0].key >> (8 * d) & 255] == n)
            continue;
        int32_t start[RADIX], sum = 0;
        for (int r = 0; r < RADIX; r++) {
            start[r] = sum;
            sum += count[d][r];
        }
        for (int i = 0; i < n; i++)
            ranker->to[start[ranker->from[i].key >> (8 * d) & 255]++] = ranker->from[i];
        keyed *swap = ranker->from;
        ranker->from = ranker->to;
        ranker->to = swap;
    }
}

void kv__rank(kv__ranker *ranker, const double *score, int n, int32_t *order)
{
    for (int i = 0; i < n; i++)
        ranker->from[i] = (keyed){descending_key(score[i]), i};
    if (n < SMALL)
        insertion_sort(ranker->from, n);
    else
        radix_sort(ranker, n);
    for (int i = 0; i < n; i++)
        order[i] = ranker->from[i].index;
}
