/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/retention.h"
#include "policies/retention_params.h"
#include "policies/scorer.h"
#include "policies/scoring.h"

#include <math.h>
#include <string.h>

typedef struct chunkkv_config {
    kv_padded_config padded;
    long long chunk_tokens; /* length of the chunks that stay or leave */
} chunkkv_config;

static const char *const preset_names[] = {"none", "kvpress", NULL};
static const kv_preset presets[] = {
    {"kvpress",
     "chunk=20 window=64 kernel=5 pooling=avg group=mean group_when=after rounding=kvpress "
     "ratio_arithmetic=true evict=postfill",
     "ChunkKVPress over SnapKVPress"},
    {.name = NULL}};

static const kv_param params[] = {
    KV_ROWS_PADDED_SCORE,
    KV_ROW_OF_COUNT(chunkkv_config, "chunk", chunk_tokens, "20", 1, "tokens",
                    "length of the chunks that stay or leave as a whole"),
    KV_ROW_PRESET(preset_names), KV_ROW_END};

/* Tokens of the chunks that stay, as if all were whole; at least one chunk. Prompts shorter than a
 * chunk go token by token. */
static long long quota(const void *config, const kv_quota_query *query)
{
    const chunkkv_config *c = config;
    long long n = query->own_chunk ? query->candidates : query->prompt_tokens;
    long long length = c->chunk_tokens, chunks = (n + length - 1) / length;
    if (n < length)
        return kv_quota_uniform(&c->padded.base, query);
    long long stay = kv_quota_share(&c->padded.base, (double)chunks,
                                    floor((double)c->padded.base.budget_tokens / (double)length));
    long long tokens = (stay > 1 ? stay : 1) * length;
    return tokens < query->candidates ? tokens : query->candidates;
}

/* A token is worth what its chunk is on average; the last chunk may be short. */
static void score(const kv_event *event, double *out)
{
    int length = (int)((const chunkkv_config *)event->config)->chunk_tokens;
    int n = event->candidates;
    if (n < length) {
        kv_scorer_score_padded(event, out);
        return;
    }
    kv_scorer_sum_padded(event, out);
    for (int first = 0; first < n; first += length) {
        int end = first + length < n ? first + length : n;
        double sum = 0;
        for (int k = first; k < end; k++)
            sum += out[k];
        for (int k = first; k < end; k++)
            out[k] = sum / (end - first);
    }
}

/* The best chunks, as many as the quota names whole ones: the short one counts as one, too. Equal
 * chunks rank one after the other, so that a chunk's tokens always follow each other. */
static long long resize(const void *config, const kv_event *event, const double *score,
                        const int32_t *order, int ranked, long long quota_entries)
{
    long long length = ((const chunkkv_config *)config)->chunk_tokens;
    long long chunks = (quota_entries + length - 1) / length, tokens = 0;
    if (event->candidates < length)
        return quota_entries;
    for (long long last = -1; tokens < ranked; tokens++) {
        if (order[tokens] / length != last && chunks-- == 0)
            break;
        last = order[tokens] / length;
    }
    return tokens;
}

/* Neighbouring tokens belong together: whole chunks stay, the same ones in all heads. */
KV_RETENTION_DEFINE(chunkkv) = {
    .name = "chunkkv",
    .brief = "as snapkv, in whole chunks of tokens that are the same in all heads of a layer",
    .cite = "ChunkKV (Liu et al. 2025, arXiv 2502.00299)",
    .stage = "compression",
    .config_bytes = sizeof(chunkkv_config),
    .params = params,
    .presets = presets,
    .needs = KV_NEEDS_OBSERVERS,
    .claims = KV_NESTED,
    .nested = kv_scorer_ignores_budget,
    .observers = kv_padded_observers,
    .quota = quota,
    .pins = kv_pins_none, /* the window is safe by its score */
    .score = score,
    .resize = resize,
};
