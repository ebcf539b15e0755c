/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Nearest keys from host memory, beside a static part on the device. */
#include "config.h"

#include "policies/read.h"
#include "policies/read_params.h"

#include <string.h>

typedef struct retrieval {
    long long sinks_tokens, local_tokens, read_tokens;
} retrieval;

static const kv_param params[] = {
    KV_READ_SINKS(retrieval, sinks_tokens, "128"),
    KV_READ_LOCAL(retrieval, local_tokens, "512"),
    KV_READ_COUNT(retrieval, "read", read_tokens, "2000", 0, "tokens",
                  "entries that each query head retrieves from host memory"),
    {.name = NULL}};

/* One query's attention ranks keys as their dot products with it do, so that the recorded row
 * stands for an exact index. */
static int select_nearest(const kv_read_row *row, int32_t *chosen)
{
    const retrieval *c = row->config;
    int n = row->presents, first = c->sinks_tokens < n ? (int)c->sinks_tokens : n;
    int last = c->local_tokens < n - first ? n - (int)c->local_tokens : first;
    for (int i = first; i < last; i++) {
        row->order[i - first] = row->present[i];
        row->work[row->present[i]] = row->row[row->present[i]];
    }
    int most = c->read_tokens < n ? (int)c->read_tokens : n;
    int found = kv_read_best(row->work, row->order, last - first, most);
    kv_read_sort(row->order, found);
    memcpy(chosen, row->present, (size_t)first * sizeof *chosen);
    memcpy(chosen + first, row->order, (size_t)found * sizeof *chosen);
    memcpy(chosen + first + found, row->present + last, (size_t)(n - last) * sizeof *chosen);
    return first + found + n - last;
}

static kv_err check(const void *config, const kv_mark *mark, kv_diag *diag)
{
    const retrieval *c = config;
    if (c->sinks_tokens + c->local_tokens + c->read_tokens > 0)
        return KV_OK;
    return kv_fail(diag, KV_ERR_INPUT, mark,
                   "retrieval_attention: nothing would be read; expected sinks, local or read "
                   "above 0");
}

static kv_read_home home(const void *config)
{
    const retrieval *c = config;
    return (kv_read_home){c->sinks_tokens, c->local_tokens};
}

KV_READ_DEFINE(retrieval_attention) = {
    .name = "retrieval_attention",
    .brief = "decode rows read the first and last entries and the nearest keys from host memory",
    .cite = "RetrievalAttention (Liu et al. 2024, arXiv 2409.10516), as SCBench runs it",
    .stage = "loading",
    .config_bytes = sizeof(retrieval),
    .params = params,
    .phases = KV_READS_DECODE,
    .check = check,
    .select = select_nearest,
    .home = home,
};
