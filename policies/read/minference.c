/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Sparse prefill: vertical lines and diagonals, or blocks, estimated per head; or whichever of them
 * serves the head best. */
#include "config.h"

#include "policies/read.h"
#include "policies/read_params.h"

#include <string.h>

/* As published: the first columns and the nearest diagonals always belong to the pattern. */
enum { FIRST_COLUMNS = 30, NEAREST_DIAGONALS = 100 };
typedef enum pattern { VERTICAL_SLASH, BLOCK, SEARCH } pattern;
enum { BY_BLOCKS = 2 }; /* mark of distance 0 of a head that a search gave blocks */

typedef struct minference {
    int pattern;
    long long vertical_lines, slash_lines, last_tokens, block_tokens, blocks;
} minference;

static const char *const names_pattern[] = {
    [VERTICAL_SLASH] = "vertical_slash", [BLOCK] = "block", [SEARCH] = "search", NULL};
static const kv_param params[] = {
    {.name = "pattern",
     .type = KV_CHOICE,
     .offset = offsetof(minference, pattern),
     .fallback = "vertical_slash",
     .choices = names_pattern,
     .flags = KV_PARAM_SWEEP,
     .unit = "",
     .help =
         "shape of what the heads read; search: for each head the shape that covers most of the "
         "attention of the last rows, at equal cost"},
    KV_READ_COUNT(minference, "vertical", vertical_lines, "1000", 0, "tokens",
                  "columns that every row reads"),
    KV_READ_COUNT(minference, "slash", slash_lines, "6096", 1, "tokens",
                  "diagonals: distances at which every row reads"),
    KV_READ_COUNT(minference, "last", last_tokens, "64", 1, "tokens",
                  "last rows of the prompt that columns and diagonals are estimated from"),
    KV_READ_COUNT(minference, "block", block_tokens, "64", 1, "tokens",
                  "under pattern: block or search, tokens of a block of queries and of keys"),
    KV_READ_COUNT(minference, "blocks", blocks, "100", 1, "blocks",
                  "under pattern: block, blocks of keys that a block of queries reads"),
    {.name = NULL}};

static unsigned needs_of(const void *config)
{
    const minference *c = config;
    if (c->pattern == VERTICAL_SLASH)
        return 0;
    /* a block of queries is represented by its mean: all of them, or it is another block's */
    return KV_NEEDS_KEYS | KV_NEEDS_QUERIES | KV_NEEDS_EVERY_ROW;
}

static long long observers(const void *config)
{
    const minference *c = config;
    return c->pattern == BLOCK ? 0 : c->last_tokens;
}

/* --- Lines ------------------------------------------------------------------------- */

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

/* The rows that are looked at: first .. prompt-1. */
static int first_row(const kv_read_study *study)
{
    const minference *c = study->config;
    int prompt = study->view->example->prompt_tokens;
    return c->last_tokens < prompt ? prompt - (int)c->last_tokens : 0;
}

/* Attention of those rows by column, and by distance behind it: [N] each. */
static void sum_lines(const kv_read_study *study, double *column, double *distance)
{
    int n = study->view->example->total_tokens, prompt = study->view->example->prompt_tokens;
    memset(column, 0, (size_t)n * sizeof *column);
    memset(distance, 0, (size_t)n * sizeof *distance);
    for (int i = first_row(study); i < prompt; i++) {
        const float *row = kv_view_row(study->view, study->query_head, i);
        for (int j = 0; row != NULL && j <= i; j++) {
            column[j] += row[j];
            distance[i - j] += row[j];
        }
    }
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

/* --- Blocks ------------------------------------------------------------------------ */

/* A block of queries, and room to rank the blocks of keys up to its own. */
typedef struct block_row {
    const kv_view *view;
    int query_head;
    const float *key;       /* [N][head_dim] */
    const int32_t *present; /* [presents] keys that are there, ascending; NULL: all */
    int presents;
    int own, filled; /* the block; tokens of the prefill it belongs to */
    long long size, count;
    double *mean;    /* [head_dim] */
    double *score;   /* [own + 1] */
    int32_t *order;  /* [own + 1] */
    uint8_t *marked; /* [own + 1] what it reads */
} block_row;

static int end_of_block(const block_row *b, int block)
{
    long long end = (block + 1) * b->size;
    return end < b->filled ? (int)end : b->filled;
}

/* The mean query of the block. */
static void mean_query(const block_row *b)
{
    int width = b->view->shape->head_dim, count = 0;
    memset(b->mean, 0, (size_t)width * sizeof *b->mean);
    for (int i = (int)(b->own * b->size); i < end_of_block(b, b->own); i++) {
        const float *query = kv_view_query(b->view, b->query_head, i);
        count += query != NULL;
        for (int d = 0; query != NULL && d < width; d++)
            b->mean[d] += query[d];
    }
    for (int d = 0; d < width; d++)
        b->mean[d] /= count;
}

/* Index of the first present key at `position` or behind it. */
static int find_present(const block_row *b, int position)
{
    int low = 0, high = b->presents;
    while (low < high) {
        int middle = (low + high) / 2;
        if (b->present[middle] < position)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The dot product of the mean query with the mean key of what is left of a block; the least where
 * that is nothing. */
static double block_score(const block_row *b, int block)
{
    int width = b->view->shape->head_dim, first = (int)(block * b->size);
    int end = end_of_block(b, block);
    if (b->present != NULL) {
        first = find_present(b, first);
        end = find_present(b, end);
    }
    double sum = 0;
    for (int i = first; i < end; i++) {
        size_t j = (size_t)(b->present != NULL ? b->present[i] : i);
        for (int d = 0; d < width; d++)
            sum += b->mean[d] * b->key[j * (size_t)width + (size_t)d];
    }
    return end > first ? sum / (end - first) : -INFINITY;
}

static void mark_blocks(const block_row *b)
{
    mean_query(b);
    for (int block = 0; block <= b->own; block++) {
        b->order[block] = block;
        b->score[block] = block == b->own ? INFINITY : block_score(b, block);
        b->marked[block] = 0;
    }
    int best = kv_read_best(b->score, b->order, b->own + 1,
                            b->count <= b->own ? (int)b->count : b->own + 1);
    for (int k = 0; k < best; k++)
        b->marked[b->order[k]] = 1;
}

static int select_blocks(const kv_read_row *row, long long count, int32_t *chosen)
{
    const minference *c = row->config;
    int own = (int)(row->position / c->block_tokens), n = 0;
    double *score = row->work + row->view->shape->head_dim;
    block_row b = {.view = row->view,
                   .query_head = row->query_head,
                   .key = row->key,
                   .present = row->present,
                   .presents = row->presents,
                   .own = own,
                   .filled = kv_read_prefill_end(row),
                   .size = c->block_tokens,
                   .count = count,
                   .mean = row->work,
                   .score = score,
                   .order = row->order,
                   .marked = (uint8_t *)(score + own + 1)};
    mark_blocks(&b);
    for (int i = 0; i < row->presents; i++)
        if (b.marked[row->present[i] / b.size])
            chosen[n++] = row->present[i];
    return n;
}

/* --- Search ------------------------------------------------------------------------ */

/* Lines of one shape: the first columns and nearest distances, or the best of either. */
typedef struct candidate {
    bool best;
    long long vertical, slash;
} candidate;

/* What a row reads at most, whatever the shape: the cost that candidates share. */
static long long lines_of(const minference *c)
{
    return c->vertical_lines + c->slash_lines;
}

/* Blocks of keys at that cost. */
static long long blocks_of(const minference *c)
{
    return lines_of(c) > c->block_tokens ? lines_of(c) / c->block_tokens : 1;
}

static double covered_by_lines(const kv_read_study *study, const uint8_t *mark)
{
    int n = study->view->example->total_tokens, prompt = study->view->example->prompt_tokens;
    double covered = 0;
    for (int i = first_row(study); i < prompt; i++) {
        const float *row = kv_view_row(study->view, study->query_head, i);
        for (int j = 0; row != NULL && j <= i; j++)
            covered += mark[j] || mark[n + i - j] ? row[j] : 0;
    }
    return covered;
}

/* work: 2 N doubles. */
static double covered_by_blocks(const kv_read_study *study, double *work)
{
    const minference *c = study->config;
    const kv_view *view = study->view;
    int n = view->example->total_tokens, prompt = view->example->prompt_tokens;
    block_row b = {.view = view,
                   .query_head = study->query_head,
                   .key = kv_layer_keys(view->source, study->kv_head),
                   .own = -1,
                   .filled = prompt,
                   .size = c->block_tokens,
                   .count = blocks_of(c),
                   .mean = view->anchor,
                   .score = work,
                   .order = (int32_t *)(void *)(work + n),
                   .marked = (uint8_t *)((int32_t *)(void *)(work + n) + n)};
    double covered = 0;
    for (int i = first_row(study); i < prompt; i++) {
        if ((int)(i / b.size) != b.own) {
            b.own = (int)(i / b.size);
            mark_blocks(&b);
        }
        const float *row = kv_view_row(view, study->query_head, i);
        for (int j = 0; row != NULL && j <= i; j++)
            covered += b.marked[j / b.size] ? row[j] : 0;
    }
    return covered;
}

/* Marks a candidate's lines. sums: [2 N] by column and distance; work: 2 N doubles. */
static void mark_candidate(const kv_read_study *study, const candidate *lines, const double *sums,
                           double *work, uint8_t *out)
{
    int n = study->view->example->total_tokens;
    double *column = work;
    int32_t *index = (int32_t *)(void *)(work + n);
    memset(column, 0, (size_t)n * sizeof *column);
    memset(out, 0, 2 * (size_t)n);
    if (lines->best)
        memcpy(column, sums, (size_t)n * sizeof *column);
    mark_best(column, index, study->view->example->prompt_tokens, lines->vertical,
              lines->best ? FIRST_COLUMNS : 0, out);
    memset(column, 0, (size_t)n * sizeof *column);
    if (lines->best)
        memcpy(column, sums + n, (size_t)n * sizeof *column);
    mark_best(column, index, study->view->example->prompt_tokens, lines->slash,
              lines->best ? NEAREST_DIAGONALS : 0, out + n);
    out[n] = 1; /* a row always reads itself */
}

/* Tries the shapes in the order of the published search; of equal ones the first stays. */
static void study_search(const kv_read_study *study, uint8_t *out)
{
    const minference *c = study->config;
    int n = study->view->example->total_tokens;
    long long all = lines_of(c), eighth = all / 8;
    const candidate tried[] = {{false, c->vertical_lines, c->slash_lines},
                               {true, c->vertical_lines, c->slash_lines},
                               {true, eighth, all - eighth},
                               {true, all / 2, all - all / 2},
                               {true, all - eighth, eighth > 0 ? eighth : 1}};
    double *sums = study->work, *work = sums + 2 * (size_t)n, most = -1;
    int best = 0;
    sum_lines(study, sums, sums + n);
    for (size_t i = 0; i < sizeof tried / sizeof *tried; i++) {
        mark_candidate(study, &tried[i], sums, work, out);
        double covered = covered_by_lines(study, out);
        if (covered > most) {
            most = covered;
            best = (int)i;
        }
    }
    bool blocks = covered_by_blocks(study, work) > most;
    mark_candidate(study, &tried[best], sums, work, out);
    out[n] = blocks ? BY_BLOCKS : 1;
}

/* --- The policy -------------------------------------------------------------------- */

/* out: a mark for each column, then one for each distance. */
static void study_pattern(const kv_read_study *study, uint8_t *out)
{
    const minference *c = study->config;
    int n = study->view->example->total_tokens;
    double *sums = study->work;
    const candidate asked = {true, c->vertical_lines, c->slash_lines};
    if (c->pattern == SEARCH)
        study_search(study, out);
    if (c->pattern != VERTICAL_SLASH)
        return;
    sum_lines(study, sums, sums + n);
    mark_candidate(study, &asked, sums, sums + 2 * (size_t)n, out);
}

static int select_pattern(const kv_read_row *row, int32_t *chosen)
{
    const minference *c = row->config;
    if (c->pattern == BLOCK)
        return select_blocks(row, c->blocks, chosen);
    if (row->study[row->view->example->total_tokens] == BY_BLOCKS)
        return select_blocks(row, blocks_of(c), chosen);
    return select_lines(row, chosen);
}

static const kv_condition conditions[] = {
    {"block", "pattern", "vertical_slash", true}, {"blocks", "pattern", "block", false},
    {"vertical", "pattern", "block", true},       {"slash", "pattern", "block", true},
    {"last", "pattern", "block", true},           {.setting = NULL}};

KV_READ_DEFINE(minference) = {
    .name = "minference",
    .brief = "prefill rows read columns and diagonals, or blocks; decode reads everything",
    .cite = "MInference 1.0 (Jiang et al. 2024, arXiv 2407.02490)",
    .stage = "generation",
    .config_bytes = sizeof(minference),
    .params = params,
    .conditions = conditions,
    .phases = KV_READS_PREFILL,
    .study_bytes = 2,
    .needs_of = needs_of,
    .observers = observers,
    .study = study_pattern,
    .select = select_pattern,
};
