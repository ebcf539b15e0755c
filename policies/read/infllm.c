/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Blocks by representative keys, from host memory. */
#include "config.h"

#include "policies/read.h"
#include "policies/read_params.h"

#include <string.h>

typedef struct infllm {
    long long sinks_tokens, local_tokens, block_tokens, blocks, representatives;
} infllm;

static const kv_param params[] = {
    KV_READ_SINKS(infllm, sinks_tokens, "128"),
    KV_READ_LOCAL(infllm, local_tokens, "4096"),
    KV_READ_COUNT(infllm, "block", block_tokens, "128", 1, "tokens", "tokens of a memory block"),
    KV_READ_COUNT(infllm, "blocks", blocks, "16", 0, "blocks", "blocks that each row reads"),
    KV_READ_COUNT(infllm, "representatives", representatives, "4", 1, "tokens",
                  "keys whose mean stands for a block"),
    {.name = NULL}};

static kv_err check(const void *config, const kv_mark *mark, kv_diag *diag)
{
    const infllm *c = config;
    if (c->representatives <= c->block_tokens)
        return KV_OK;
    return kv_fail(diag, KV_ERR_INPUT, mark,
                   "infllm: representatives is %lld, above the block of %lld; expected at most "
                   "the block",
                   c->representatives, c->block_tokens);
}

/* The attention that each key receives from the `local` queries that follow it in the prompt. */
static void study_received(const kv_read_study *study, uint8_t *out)
{
    const infllm *c = study->config;
    const kv_example *example = study->view->example;
    float *received = (float *)(void *)out;
    double *sum = study->work;
    memset(sum, 0, (size_t)example->total_tokens * sizeof *sum);
    for (int i = 0; i < example->prompt_tokens; i++) {
        const float *row = kv_view_row(study->view, study->query_head, i);
        int first = i - c->local_tokens > 0 ? i - (int)c->local_tokens : 0;
        for (int j = first; row != NULL && j <= i; j++)
            sum[j] += row[j];
    }
    for (int j = 0; j < example->total_tokens; j++)
        received[j] = (float)sum[j];
}

/* The first of the ascending positions that is not below `least`. */
static int lower_bound(const int32_t *position, int n, int least)
{
    int low = 0;
    while (low < n) {
        int middle = low + (n - low) / 2;
        if (position[middle] < least)
            low = middle + 1;
        else
            n = middle;
    }
    return low;
}

/* The dot product of one head's query with the mean of a block's representatives: of what its KV
 * head still holds of the block, as it is stored. 0 if it holds nothing. */
static double head_relevance(const kv_read_row *row, int head, int first, int32_t *index)
{
    const infllm *c = row->config;
    const kv_shape *shape = row->view->shape;
    int tokens = row->view->example->total_tokens, width = shape->head_dim, n = 0;
    const kv_read_head *held = &row->head[head / (shape->heads / shape->kv_heads)];
    const float *received =
        (const float *)(const void *)row->study + (head - row->query_head) * tokens;
    const float *query = kv_view_query(row->view, head, row->position);
    double *score = row->work + tokens, sum = 0;
    for (int i = lower_bound(held->present, held->presents, first);
         i < held->presents && held->present[i] < first + c->block_tokens; i++) {
        index[n++] = held->present[i] - first;
        score[held->present[i] - first] = received[held->present[i]];
    }
    int count = kv_read_best(score, index, n, (int)c->representatives);
    kv_read_sort(index, count);
    for (int r = 0; r < count; r++)
        for (int d = 0; d < width; d++)
            sum += (double)query[d] * held->key[(size_t)(first + index[r]) * (size_t)width + d];
    return count > 0 ? sum / count : 0;
}

/* All heads of the layer choose the same blocks. */
static int select_blocks(const kv_read_row *row, int32_t *chosen)
{
    const infllm *c = row->config;
    int sinks = (int)(c->sinks_tokens < row->position + 1 ? c->sinks_tokens : row->position + 1);
    long long middle = row->position + 1 - sinks - c->local_tokens;
    int blocks = middle > 0 ? (int)(middle / c->block_tokens) : 0, n = 0;
    int32_t *order = row->order, *index = row->order + blocks;
    for (int b = 0; b < blocks; b++) {
        order[b] = b;
        row->work[b] = 0;
        for (int h = 0; h < row->view->shape->heads; h++)
            row->work[b] += head_relevance(row, h, sinks + b * (int)c->block_tokens, index);
    }
    int most = c->blocks < blocks ? (int)c->blocks : blocks;
    kv_read_best(row->work, order, blocks, most);
    kv_read_sort(order, most);
    for (int i = 0, b = 0; i < row->presents; i++) {
        int j = row->present[i], block = (int)((j - sinks) / c->block_tokens);
        while (b < most && j >= sinks && order[b] < block)
            b++;
        if (j < sinks || block >= blocks || (b < most && order[b] == block))
            chosen[n++] = j;
    }
    return n;
}

/* One mean key per block and query head, on the device. */
static double block_keys(const void *config, const kv_read_size *size)
{
    const infllm *c = config;
    double middle = size->entries - (double)c->sinks_tokens - (double)c->local_tokens;
    double blocks = middle > 0 ? floor(middle / (double)c->block_tokens) : 0;
    return blocks * size->shape->heads / size->shape->kv_heads / 2;
}

static kv_read_home home(const void *config)
{
    const infllm *c = config;
    return (kv_read_home){c->sinks_tokens, c->local_tokens};
}

KV_READ_DEFINE(infllm) = {
    .name = "infllm",
    .brief = "decode rows read the first and last entries and whole blocks from host memory",
    .cite = "InfLLM (Xiao et al. 2024, arXiv 2402.04617)",
    .stage = "loading",
    .config_bytes = sizeof(infllm),
    .params = params,
    .phases = KV_READS_DECODE,
    .needs = KV_NEEDS_KEYS | KV_NEEDS_QUERIES | KV_NEEDS_EVERY_ROW,
    .whole_layer = true,
    .study_bytes = sizeof(float),
    .check = check,
    .study = study_received,
    .select = select_blocks,
    .metadata = block_keys,
    .home = home,
};
