/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/retention.h"
#include "policies/retention_params.h"
#include "policies/scoring.h"

#include <math.h>

typedef struct lagkv_config {
    kv_retention_config base;
    long long lag_tokens; /* of a block, which the next one is the reference of */
    bool cross_scoring;   /* blocks compete by score, not by rank within the block */
} lagkv_config;

static const char *const preset_names[] = {"none", "kvpress", NULL};
static const kv_preset presets[] = {
    {"kvpress", "sinks=4 lag=128 evict=postfill rounding=kvpress ratio_arithmetic=true",
     "LagKVPress"},
    {.name = NULL}};

static const kv_param params[] = {
    KV_ROWS_AMOUNT("4"),
    KV_ROW_OF_COUNT(lagkv_config, "lag", lag_tokens, "128", 2, "tokens",
                    "length of a block; the block after it is what it is compared with"),
    KV_ROW_OF_SWITCH(lagkv_config, "cross_scoring", cross_scoring, "false",
                     "whether blocks compete by score and not by rank within the block"),
    KV_ROWS_WHEN("postfill"),
    KV_ROW_PRESET(preset_names),
    KV_ROW_END};

/* Vectors of one KV head, and which of them make a block. */
typedef struct block {
    const float *vector; /* [N][width] */
    int width;
    const int32_t *token; /* [tokens] positions */
    int tokens;
} block;

static const float *vector_of(const block *b, int k)
{
    return b->vector + (size_t)b->token[k] * (size_t)b->width;
}

/* Least and range of each channel over the block. */
static void channel_range(const block *b, double *least, double *range)
{
    for (int d = 0; d < b->width; d++) {
        double low = INFINITY, high = -INFINITY;
        for (int k = 0; k < b->tokens; k++) {
            low = fmin(low, vector_of(b, k)[d]);
            high = fmax(high, vector_of(b, k)[d]);
        }
        least[d] = low;
        range[d] = high - low;
    }
}

/* The spread (unbiased) over channels of one token, normalised by the reference's ranges. A channel
 * that the reference holds constant says nothing. */
static double spread(const float *x, int width, const double *least, const double *range)
{
    double sum = 0, squares = 0;
    int channels = 0;
    for (int d = 0; d < width; d++)
        if (range[d] > 0) {
            sum += (x[d] - least[d]) / range[d];
            channels++;
        }
    for (int d = 0; d < width && channels > 1; d++)
        if (range[d] > 0) {
            double off = (x[d] - least[d]) / range[d] - sum / channels;
            squares += off * off;
        }
    return channels > 1 ? sqrt(squares / (channels - 1)) : 0;
}

/* out[k] += half the softmax within block `b` of its tokens' spreads, with `next` as reference. */
static void add_block_score(const block *b, const block *next, double *anchor, double *spreads,
                            double *out)
{
    double *least = anchor, *range = anchor + b->width, most = -INFINITY, sum = 0;
    channel_range(next, least, range);
    for (int k = 0; k < b->tokens; k++) {
        spreads[k] = spread(vector_of(b, k), b->width, least, range);
        most = fmax(most, spreads[k]);
    }
    for (int k = 0; k < b->tokens; k++)
        sum += exp(spreads[k] - most);
    for (int k = 0; k < b->tokens; k++)
        out[k] += 0.5 * exp(spreads[k] - most) / sum;
}

/* Scores become ranks / n, ascending; of equal ones the lower position ranks higher. */
static void rank_block(const double *score, int n, double *out)
{
    for (int k = 0; k < n; k++) {
        int below = 0;
        for (int j = 0; j < n; j++)
            below += score[j] < score[k] || (score[j] == score[k] && j > k);
        out[k] = (double)below / n;
    }
}

static void score_block(const kv_event *event, int first, double *out)
{
    const lagkv_config *c = event->config;
    const kv_view *view = event->view;
    int lag = (int)c->lag_tokens, width = view->shape->head_dim;
    double *score = view->work, *spreads = score + view->example->total_tokens;
    const float *vectors[] = {kv_layer_keys(view->source, event->kv_head),
                              kv_layer_values(view->source, event->kv_head)};
    for (int k = 0; k < lag; k++)
        score[k] = 0;
    for (int i = 0; i < 2; i++) {
        block own = {vectors[i], width, event->candidate + first, lag};
        block next = {vectors[i], width, event->candidate + first + lag, lag};
        add_block_score(&own, &next, view->anchor, spreads, score);
    }
    if (!c->cross_scoring)
        rank_block(score, lag, out + first);
    for (int k = 0; k < lag && c->cross_scoring; k++)
        out[first + k] = score[k];
}

/* Blocks of `lag` tokens after the sinks, each but the last scored by the one after it; the last
 * block and what is beyond it score 1, above all others. Fewer than two blocks: by position. */
static void score(const kv_event *event, double *out)
{
    const lagkv_config *c = event->config;
    int n = event->candidates, sinks = kv_score_sinks(event), lag = (int)c->lag_tokens;
    bool whole = n - sinks >= 2 * lag;
    for (int k = 0; k < event->scored; k++)
        out[k] = k < sinks || whole ? 1 : (double)(k - sinks) / (n - sinks);
    for (int first = sinks; first + 2 * lag <= n && first + lag <= event->scored; first += lag)
        score_block(event, first, out);
}

/* A token that stands out from what follows it carries information of its own. */
KV_RETENTION_DEFINE(lagkv) = {
    .name = "lagkv",
    .brief = "keeps tokens whose keys and values stand out from the block that follows",
    .cite = "LagKV (Liang et al. 2025, arXiv 2504.04704)",
    .stage = "compression",
    .config_bytes = sizeof(lagkv_config),
    .params = params,
    .presets = presets,
    .needs = KV_NEEDS_KEYS | KV_NEEDS_VALUES,
    .claims = KV_NESTED | KV_COUNTS_FIXED,
    .score = score,
};
