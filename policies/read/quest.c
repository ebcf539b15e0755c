/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Pages by the bound of their keys. */
#include "config.h"

#include "policies/read.h"
#include "policies/read_params.h"

enum { LEAST_PAGES = 3 };

typedef struct quest {
    long long read_tokens, page_tokens, skip_layers;
} quest;

static const kv_param params[] = {KV_READ_COUNT(quest, "read", read_tokens, "1024", 1, "tokens",
                                                "entries that each row reads, in whole pages"),
                                  KV_READ_PAGE(quest, page_tokens, "16"),
                                  KV_READ_COUNT(quest, "skip_layers", skip_layers, "2", 0, "layers",
                                                "lowest layers that read everything"),
                                  {.name = NULL}};

static int select_pages(const kv_read_row *row, int32_t *chosen)
{
    const quest *c = row->config;
    int n = row->presents, pages = kv_read_pages(n, c->page_tokens);
    long long budget = c->read_tokens < n ? c->read_tokens : n, count = budget / c->page_tokens;
    if (row->view->layer < c->skip_layers)
        return kv_read_everything(row, chosen);
    for (int p = 0; p < pages; p++)
        row->work[p] = kv_read_page_bound(row, row->query, p, c->page_tokens, NULL, 0);
    return kv_read_best_pages(row, row->work, c->page_tokens,
                              count > LEAST_PAGES ? (int)count : LEAST_PAGES, chosen);
}

/* The least and the largest key of each page: two vectors, as much as one entry. */
static double bounds(const void *config, const kv_read_size *size)
{
    const quest *c = config;
    return size->layer < c->skip_layers ? 0 : ceil(size->entries / (double)c->page_tokens);
}

KV_READ_DEFINE(quest) = {
    .name = "quest",
    .brief = "decode rows read the pages whose keys could fit the query best",
    .cite = "Quest (Tang et al. 2024, arXiv 2406.10774)",
    .stage = "loading",
    .config_bytes = sizeof(quest),
    .params = params,
    .phases = KV_READS_DECODE,
    .needs = KV_NEEDS_KEYS | KV_NEEDS_QUERIES,
    .select = select_pages,
    .metadata = bounds,
};
