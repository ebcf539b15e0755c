/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Sparse prefill: vertical lines and diagonals, or blocks, estimated per head. */
#include "config.h"

#include "policies/read.h"
#include "policies/read_params.h"

#include <string.h>

/* As published: the first columns and the nearest diagonals always belong to the pattern. */
enum { FIRST_COLUMNS = 30, NEAREST_DIAGONALS = 100 };
typedef enum pattern { VERTICAL_SLASH, BLOCK } pattern;

typedef struct minference {
    int pattern;
    long long vertical_lines, slash_lines, last_tokens, block_tokens, blocks;
} minference;

static const char *const names_pattern[] = {
    [VERTICAL_SLASH] = "vertical_slash", [BLOCK] = "block", NULL};
static const kv_param params[] = {
    {.name = "pattern",
     .type = KV_CHOICE,
     .offset = offsetof(minference, pattern),
     .fallback = "vertical_slash",
     .choices = names_pattern,
     .flags = KV_PARAM_SWEEP,
     .unit = "",
     .help = "shape of what the heads read"},
    KV_READ_COUNT(minference, "vertical", vertical_lines, "1000", 0, "tokens",
                  "columns that every row reads"),
    KV_READ_COUNT(minference, "slash", slash_lines, "6096", 1, "tokens",
                  "diagonals: distances at which every row reads"),
    KV_READ_COUNT(minference, "last", last_tokens, "64", 1, "tokens",
                  "last rows of the prompt that columns and diagonals are estimated from"),
    KV_READ_COUNT(minference, "block", block_tokens, "64", 1, "tokens",
                  "under pattern: block, tokens of a block of queries and of keys"),
    KV_READ_COUNT(minference, "blocks", blocks, "100", 1, "blocks",
                  "under pattern: block, blocks of keys that a block of queries reads"),
    {.name = NULL}};

static unsigned needs_of(const void *config)
{
    const minference *c = config;
    return c->pattern == BLOCK ? KV_NEEDS_KEYS | KV_NEEDS_QUERIES : 0;
}

static long long observers(const void *config)
{
    const minference *c = config;
    return c->pattern == BLOCK ? 0 : c->last_tokens;
}

/* Marks the `count` best of n lines; the first `always` of them come before all others. */
static void mark_best(double *sum, int32_t *index, int n, long long count, int always,
                      uint8_t *mark)
{
    for (int i = 0; i < n; i++) {
        index[i] = i;
        if (i < always)
            sum[i] = INFINITY;
    }
    int best = kv_read_best(sum, index, n, count < n ? (int)count : n);
    for (int k = 0; k < best; k++)
        mark[index[k]] = 1;
}

/* out: a mark for each column, then one for each distance. */
static void study_lines(const kv_read_study *study, uint8_t *out)
{
    const minference *c = study->config;
    const kv_example *example = study->view->example;
    int n = example->total_tokens, prompt = example->prompt_tokens;
    double *column = study->work, *distance = column + n;
    int32_t *index = (int32_t *)(void *)(distance + n);
    if (c->pattern == BLOCK)
        return;
    memset(column, 0, 2 * (size_t)n * sizeof *column);
    for (int i = c->last_tokens < prompt ? prompt - (int)c->last_tokens : 0; i < prompt; i++) {
        const float *row = kv_view_row(study->view, study->query_head, i);
        for (int j = 0; row != NULL && j <= i; j++) {
            column[j] += row[j];
            distance[i - j] += row[j];
        }
    }
    mark_best(column, index, prompt, c->vertical_lines, FIRST_COLUMNS, out);
    mark_best(distance, index, prompt, c->slash_lines, NEAREST_DIAGONALS, out + n);
    memset(out + n + prompt, 0, (size_t)(n - prompt));
    out[n] = 1; /* a row always reads itself */
}

static int select_lines(const kv_read_row *row, int32_t *chosen)
{
    const uint8_t *column = row->study, *distance = column + row->view->example->total_tokens;
    int n = 0;
    for (int i = 0; i < row->presents; i++) {
        int j = row->present[i];
        if (column[j] || distance[row->position - j])
            chosen[n++] = j;
    }
    return n;
}

/* The mean query of the row's block, of what the file records of it, into work[0..head_dim). */
static void mean_query(const kv_read_row *row, int first, int end)
{
    int width = row->view->shape->head_dim, count = 0;
    memset(row->work, 0, (size_t)width * sizeof *row->work);
    for (int i = first; i < end; i++) {
        const float *query = kv_view_query(row->view, row->query_head, i);
        count += query != NULL;
        for (int d = 0; query != NULL && d < width; d++)
            row->work[d] += query[d];
    }
    for (int d = 0; d < width; d++)
        row->work[d] /= count;
}

/* The dot product of work[0..head_dim) with the mean key of a block. */
static double block_score(const kv_read_row *row, int first, int end)
{
    int width = row->view->shape->head_dim;
    double sum = 0;
    for (int j = first; j < end; j++)
        for (int d = 0; d < width; d++)
            sum += row->work[d] * row->key[(size_t)j * (size_t)width + d];
    return sum / (end - first);
}

static int select_blocks(const kv_read_row *row, int32_t *chosen)
{
    const minference *c = row->config;
    long long size = c->block_tokens;
    int own = (int)(row->position / size), filled = kv_read_prefill_end(row), n = 0;
    int end = (own + 1) * size < filled ? (int)((own + 1) * size) : filled;
    double *score = row->work + row->view->shape->head_dim;
    uint8_t *marked = (uint8_t *)(score + own + 1);
    mean_query(row, (int)(own * size), end);
    for (int b = 0; b <= own; b++) {
        int last = (int)((b + 1) * size) < filled ? (int)((b + 1) * size) : filled;
        row->order[b] = b;
        score[b] = b == own ? INFINITY : block_score(row, (int)(b * size), last);
        marked[b] = 0;
    }
    int best =
        kv_read_best(score, row->order, own + 1, c->blocks <= own ? (int)c->blocks : own + 1);
    for (int k = 0; k < best; k++)
        marked[row->order[k]] = 1;
    for (int i = 0; i < row->presents; i++)
        if (marked[row->present[i] / size])
            chosen[n++] = row->present[i];
    return n;
}

static int select_pattern(const kv_read_row *row, int32_t *chosen)
{
    const minference *c = row->config;
    return c->pattern == BLOCK ? select_blocks(row, chosen) : select_lines(row, chosen);
}

KV_READ_DEFINE(minference) = {
    .name = "minference",
    .brief = "prefill rows read columns and diagonals, or blocks; decode reads everything",
    .cite = "MInference 1.0 (Jiang et al. 2024, arXiv 2407.02490)",
    .stage = "generation",
    .config_bytes = sizeof(minference),
    .params = params,
    .phases = KV_READS_PREFILL,
    .study_bytes = 2,
    .needs_of = needs_of,
    .observers = observers,
    .study = study_lines,
    .select = select_pattern,
};
