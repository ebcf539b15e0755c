/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Exact top-k: what a read policy would choose that knew the attention beforehand. */
#include "config.h"

#include "policies/read.h"
#include "policies/read_params.h"

typedef struct topk {
    double share;          /* of what is present, 0..1; < 0 if `read` is given */
    long long read_tokens; /* entries; 0 if `share` is given */
} topk;

static const kv_param params[] = {KV_READ_SHARE(topk, share, NULL),
                                  KV_READ_COUNT(topk, "read", read_tokens, NULL, 1, "tokens",
                                                "entries that each row reads; or give share"),
                                  {.name = NULL}};

static kv_err check(const void *config, const kv_mark *mark, kv_diag *diag)
{
    const topk *c = config;
    if ((c->share >= 0) != (c->read_tokens > 0))
        return KV_OK;
    return kv_fail(diag, KV_ERR_INPUT, mark,
                   "topk: say once how much is read, share or read, or how much is kept, keep or "
                   "budget");
}

static int select_best(const kv_read_row *row, int32_t *chosen)
{
    const topk *c = row->config;
    int n = row->presents;
    int k = c->read_tokens > 0 ? (int)(c->read_tokens < n ? c->read_tokens : n)
                               : kv_read_share(c->share, n);
    for (int i = 0; i < n; i++) {
        row->work[row->present[i]] = row->row[row->present[i]];
        chosen[i] = row->present[i];
    }
    k = kv_read_best(row->work, chosen, n, k > 0 ? k : 1);
    kv_read_sort(chosen, k);
    return k;
}

KV_READ_DEFINE(topk) = {
    .name = "topk",
    .brief = "with read or share: reads the entries of highest attention, the oracle of reading",
    .cite = "the upper bound that sparse attention is measured against: exact top-k per row",
    .stage = "loading",
    .oracle = true,
    .config_bytes = sizeof(topk),
    .params = params,
    .phases = KV_READS_PREFILL | KV_READS_DECODE,
    .check = check,
    .select = select_best,
};
