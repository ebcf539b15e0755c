/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* GEAR: a block of keys or values is outliers, plus few levels for the rest, plus a matrix of low
 * rank for what the levels lose. */
#include "config.h"

#include "policies/retention_params.h"
#include "policies/transform/low_rank.h"
#include "policies/transform/quantise.h"

#include <math.h>
#include <string.h>

typedef struct gear_config {
    long long bits, group;
    double outliers;       /* share of each vector, half of it at each end */
    long long rank;        /* of the prompt's blocks */
    long long decode_rank; /* of the blocks of generated tokens */
    long long buffer;      /* entries that wait to become a block */
} gear_config;

static const kv_param params[] = {
    KV_ROW_OF(gear_config, "bits", KV_INT, bits, "2", 1, 8, NULL, 0, "bits",
              "of a quantised number"),
    KV_ROW_QUANTISE_GROUP(gear_config, "64"),
    KV_ROW_OF_REAL(
        gear_config, "outliers", outliers, "0.02", 0, 0.5, "fraction",
        "numbers of each channel of keys and of each value stored apart in 32 bits, half of "
        "them at each end, rounded down"),
    KV_ROW_OF(gear_config, "rank", KV_INT, rank, "4", 0, 64, NULL, 0, "",
              "of the matrix that repairs a block of the prompt"),
    KV_ROW_OF(gear_config, "decode_rank", KV_INT, decode_rank, "2", 0, 64, NULL, 0, "",
              "of the matrix that repairs a block of generated tokens"),
    KV_ROW_OF(gear_config, "buffer", KV_INT, buffer, "20", 1, 65536, NULL, 0, "tokens",
              "newest entries that wait to become a block"),
    KV_ROW_END};

static kv_err fits(const void *opaque, const kv_shape *shape, const kv_mark *mark, kv_diag *diag)
{
    const gear_config *config = opaque;
    const char *name = config->rank > shape->head_dim ? "rank" : "decode_rank";
    if (config->rank <= shape->head_dim && config->decode_rank <= shape->head_dim)
        return KV_OK;
    return kv_fail(diag, KV_ERR_UNSUPPORTED, mark,
                   "gear: %s is above that of any block, as keys and values of the recording are "
                   "%d wide; expected at most %d",
                   name, shape->head_dim, shape->head_dim);
}

/* Outliers at one end of a vector of n numbers. */
static int outliers_of(const gear_config *config, int n)
{
    return (int)(config->outliers / 2 * n);
}

/* Quantises x[0..n) in groups, outliers of the whole vector aside; sorted holds n doubles. */
static void quantise_vector(const gear_config *config, double *x, int n, double *sorted)
{
    int end = outliers_of(config, n);
    memcpy(sorted, x, (size_t)n * sizeof *x);
    kv_range inner = kv_range_trim(sorted, n, end, end);
    for (int first = 0; first < n; first += (int)config->group) {
        int count = n - first < config->group ? n - first : (int)config->group;
        kv_range range = kv_range_of(x + first, count, inner);
        for (int i = first; i < first + count; i++)
            x[i] = kv_quantise(range, config->bits, x[i]);
    }
}

/* What of a block is being made: rows token[0..n) of keys or values. */
typedef struct block {
    float *numbers; /* [N][width] */
    const int32_t *token;
    int n, width;
    double *lost;   /* [n][width] original less quantised */
    double *vector; /* [max(n, width)] */
    double *sorted; /* likewise */
} block;

static void quantise_columns(const gear_config *config, const block *b)
{
    for (int d = 0; d < b->width; d++) {
        kv_column_get(b->numbers, b->width, d, b->token, b->n, b->vector);
        for (int i = 0; i < b->n; i++)
            b->lost[(size_t)i * (size_t)b->width + (size_t)d] = b->vector[i];
        quantise_vector(config, b->vector, b->n, b->sorted);
        for (int i = 0; i < b->n; i++)
            b->lost[(size_t)i * (size_t)b->width + (size_t)d] -= b->vector[i];
        kv_column_put(b->numbers, b->width, d, b->token, b->n, b->vector);
    }
}

static void quantise_rows(const gear_config *config, const block *b)
{
    for (int i = 0; i < b->n; i++) {
        float *row = b->numbers + (size_t)b->token[i] * (size_t)b->width;
        double *lost = b->lost + (size_t)i * (size_t)b->width;
        for (int d = 0; d < b->width; d++)
            b->vector[d] = lost[d] = row[d];
        quantise_vector(config, b->vector, b->width, b->sorted);
        for (int d = 0; d < b->width; d++) {
            lost[d] -= b->vector[d];
            row[d] = (float)b->vector[d];
        }
    }
}

/* Adds to the block the part of what it lost that has the given rank. */
static void repair(const block *b, int rank, double *work)
{
    kv_low_rank(b->lost, b->n, b->width, rank, work);
    for (int i = 0; i < b->n; i++) {
        float *row = b->numbers + (size_t)b->token[i] * (size_t)b->width;
        for (int d = 0; d < b->width; d++)
            row[d] = (float)(row[d] + b->lost[(size_t)i * (size_t)b->width + (size_t)d]);
    }
}

static void apply(const kv_transform_step *step)
{
    const gear_config *config = step->config;
    int n = kv_stored_pending(step, 1), width = step->view->shape->head_dim;
    if (n < config->buffer)
        return;
    int most = n > width ? n : width,
        rank = (int)(step->prefill ? config->rank : config->decode_rank);
    double *work = step->work + (size_t)n * (size_t)width + 2 * (size_t)most;
    block b = {step->key,  step->order, n,
               width,      step->work,  step->work + (size_t)n * (size_t)width,
               work - most};
    quantise_columns(config, &b);
    repair(&b, rank, work);
    b.numbers = step->value;
    quantise_rows(config, &b);
    repair(&b, rank, work);
    for (int i = 0; i < n; i++)
        kv_stored_mark(step, step->order[i], 1);
}

static size_t work_doubles(const void *config, const kv_shape *shape, int tokens)
{
    int most = tokens > shape->head_dim ? tokens : shape->head_dim;
    return (size_t)tokens * (size_t)shape->head_dim + 2 * (size_t)most +
           kv_low_rank_work(tokens, shape->head_dim);
}

/* As if all that is quantised were one block. */
static double bytes(const void *opaque, const kv_transform_size *size)
{
    const gear_config *config = opaque;
    int width = size->shape->head_dim;
    double n = size->entries, full = n >= (double)config->buffer ? n : 0;
    if (!size->prefill && full > 0)
        full -= fmod(n, (double)config->buffer);
    if (full == 0)
        return 1;
    double key_outliers = 2.0 * outliers_of(config, (int)full) / full;
    double value_outliers = 2.0 * outliers_of(config, width) / width;
    long long value_group = width < config->group ? width : config->group;
    double bits = kv_quantised_bits(config->bits, config->group) +
                  kv_quantised_bits(config->bits, value_group) +
                  KV_OUTLIER_BITS * (key_outliers + value_outliers) +
                  2.0 * KV_PLAIN_BITS * (double)config->rank * (full + width) / (full * width);
    return 1 - full / n * (1 - bits / (2 * KV_PLAIN_BITS));
}

KV_TRANSFORM_DEFINE(gear) = {
    .name = "gear",
    .brief = "quantises, with outliers apart and a matrix of low rank for what is lost",
    .cite = "GEAR (Kang et al. 2024, arXiv 2403.05527)",
    .stage = "compression",
    .config_bytes = sizeof(gear_config),
    .params = params,
    .needs = KV_NEEDS_KEYS | KV_NEEDS_VALUES,
    .changes = KV_CHANGES_KEYS | KV_CHANGES_VALUES,
    .state_doubles = 1,
    .fits = fits,
    .work_doubles = work_doubles,
    .apply = apply,
    .bytes = bytes,
};
