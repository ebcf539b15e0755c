/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Exact top-k of the attention to come: what a retention policy would keep that saw the future. */
#include "config.h"

#include "policies/retention.h"
#include "policies/retention_params.h"
#include "policies/scoring.h"

#include <string.h>

static const kv_param params[] = {KV_ROWS_PLAIN_SCORE("postfill"), KV_ROW_END};

/* What each key will receive from the rows that are still to predict answers. */
static void score(const kv_event *event, double *out)
{
    const kv_example *example = event->view->example;
    const kv_shape *shape = event->view->shape;
    int heads = shape->heads / shape->kv_heads;
    memset(out, 0, (size_t)event->scored * sizeof *out);
    for (int t = 0; t < example->turns; t++) {
        int row = example->turn[t].answer_start - 1;
        for (row = row < event->chunk_end ? event->chunk_end : row;
             row < example->turn[t].answer_end - 1; row++)
            for (int g = 0; g < heads; g++) {
                const float *at = kv_view_row(event->view, event->kv_head * heads + g, row);
                for (int k = 0; at != NULL && k < event->scored; k++)
                    out[k] += at[event->candidate[k]];
            }
    }
}

/* A bound, not something to deploy: it looks at the queries that are yet to come. */
KV_RETENTION_DEFINE(topk) = {
    .name = "topk",
    .brief = "with keep or budget: keeps what the answers will attend to, the oracle of retention",
    .cite = "exact top-k as the bound of what any choice of entries can recall",
    .stage = "compression",
    .oracle = true,
    .config_bytes = sizeof(kv_retention_config),
    .params = params,
    .claims = KV_NESTED | KV_COUNTS_FIXED,
    .score = score,
};
