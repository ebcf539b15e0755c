/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Two stages: eviction after the prompt, then pages of few channels. */
#include "config.h"

#include "policies/read.h"
#include "policies/read_params.h"

#include <stdio.h>

typedef struct rocketkv {
    double compression;
    long long window_tokens, kernel_tokens;
} rocketkv;

static const kv_param params[] = {
    {.name = "compression",
     .type = KV_REAL,
     .offset = offsetof(rocketkv, compression),
     .fallback = NULL,
     .min = 1,
     .max = INFINITY,
     .flags = KV_PARAM_SWEEP | KV_PARAM_BUDGET | KV_PARAM_REQUIRED,
     .unit = "",
     .help = "stored entries over those that a row reads, both stages together"},
    KV_READ_COUNT(rocketkv, "window", window_tokens, "32", 1, "tokens",
                  "last rows of the prompt that score the first stage"),
    KV_READ_COUNT(rocketkv, "kernel", kernel_tokens, "63", 1, "tokens",
                  "width of the first stage's pooling, odd"),
    {.name = NULL}};

static kv_err check(const void *config, const kv_mark *mark, kv_diag *diag)
{
    const rocketkv *c = config;
    if (c->compression < 1)
        return kv_fail(diag, KV_ERR_INPUT, mark,
                       "rocketkv: say how much it compresses: give compression, at least 1");
    if (c->kernel_tokens % 2 == 1)
        return KV_OK;
    return kv_fail(diag, KV_ERR_INPUT, mark, "rocketkv: kernel is %lld; expected an odd number",
                   c->kernel_tokens);
}

/* The share of the compression, as an exponent, that the first stage takes. */
static double first_stage(const rocketkv *c)
{
    return fmin(0.2 + 0.06 * log2(c->compression), 0.8);
}

/* What each of the two dimensions of the second stage, tokens and channels, is divided by. */
static double second_stage(const rocketkv *c)
{
    return pow(c->compression, (1 - first_stage(c)) / 2);
}

static long long page_tokens(const rocketkv *c)
{
    long long page = llrint(second_stage(c));
    return page > 1 ? page : 1;
}

static void retention(const void *config, char *out, size_t out_bytes)
{
    const rocketkv *c = config;
    snprintf(out, out_bytes, "{snapkv: {keep: %.17g, window: %lld, kernel: %lld}}",
             pow(c->compression, -first_stage(c)), c->window_tokens, c->kernel_tokens);
}

static const float *group_query(const kv_read_row *row, int g)
{
    const kv_shape *shape = row->view->shape;
    int group = shape->heads / shape->kv_heads;
    return kv_view_query(row->view, row->kv_head * group + g, row->position);
}

/* The channels of largest absolute query, summed over the group, into order[0..). */
static int choose_channels(const kv_read_row *row, int32_t *channel)
{
    const rocketkv *c = row->config;
    const kv_shape *shape = row->view->shape;
    int width = shape->head_dim, count = (int)llrint(width / second_stage(c));
    for (int d = 0; d < width; d++) {
        channel[d] = d;
        row->work[d] = 0;
        for (int g = 0; g < shape->heads / shape->kv_heads; g++)
            row->work[d] += fabs((double)group_query(row, g)[d]);
    }
    count = kv_read_best(row->work, channel, width, count > 1 ? count : 1);
    kv_read_sort(channel, count);
    return count;
}

/* The query heads of a group choose together. */
static int select_pages(const kv_read_row *row, int32_t *chosen)
{
    const rocketkv *c = row->config;
    const kv_shape *shape = row->view->shape;
    long long page = page_tokens(c);
    int pages = kv_read_pages(row->presents, page);
    int channels = choose_channels(row, row->channel);
    double wanted = ceil(row->presents / pow(c->compression, 1 - first_stage(c)));
    for (int p = 0; p < pages; p++) {
        row->work[p] = 0;
        for (int g = 0; g < shape->heads / shape->kv_heads; g++)
            row->work[p] +=
                kv_read_page_bound(row, group_query(row, g), p, page, row->channel, channels);
    }
    return kv_read_best_pages(row, row->work, page, (int)ceil(wanted / (double)page), chosen);
}

/* The least and the largest key of each page: two vectors, as much as one entry. They are made of
 * what the first stage keeps. */
static double bounds(const void *config, const kv_read_size *size)
{
    return size->prefill ? 0 : ceil(size->entries / (double)page_tokens(config));
}

/* Of them, one of the two in the chosen channels. */
static double scan(const void *config, const kv_read_size *size)
{
    const rocketkv *c = config;
    double channels = fmax(1, rint(size->shape->head_dim / second_stage(c)));
    return bounds(config, size) * channels / size->shape->head_dim / 2;
}

KV_READ_DEFINE(rocketkv) = {
    .name = "rocketkv",
    .brief = "evicts as snapkv, then decode rows read pages chosen by their largest channels",
    .cite = "RocketKV (Behnam et al. 2025, arXiv 2502.14051)",
    .stage = "loading",
    .config_bytes = sizeof(rocketkv),
    .params = params,
    .phases = KV_READS_DECODE,
    .needs = KV_NEEDS_KEYS | KV_NEEDS_QUERIES,
    .check = check,
    .select = select_pages,
    .metadata = bounds,
    .scan = scan,
    .retention = retention,
};
