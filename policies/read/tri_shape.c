/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Sparse prefill: as a-shape, with the last rows dense. */
#include "config.h"

#include "policies/read.h"
#include "policies/read_params.h"

typedef struct tri_shape {
    long long sinks_tokens, local_tokens, last_tokens;
} tri_shape;

static const kv_param params[] = {KV_READ_SINKS(tri_shape, sinks_tokens, "128"),
                                  KV_READ_LOCAL(tri_shape, local_tokens, "3968"),
                                  KV_READ_COUNT(tri_shape, "last", last_tokens, "100", 0, "tokens",
                                                "last rows of a prefill, which read everything"),
                                  {.name = NULL}};

static int select_ends(const kv_read_row *row, int32_t *chosen)
{
    const tri_shape *c = row->config;
    if (row->position >= kv_read_prefill_end(row) - c->last_tokens)
        return kv_read_everything(row, chosen);
    return kv_read_ends(row, c->sinks_tokens, c->local_tokens, chosen);
}

KV_READ_DEFINE(tri_shape) = {
    .name = "tri_shape",
    .brief = "as a_shape, but the last prefill rows read everything",
    .cite = "Tri-shape of SCBench (Li et al. 2024, arXiv 2412.10319)",
    .stage = "generation",
    .config_bytes = sizeof(tri_shape),
    .params = params,
    .phases = KV_READS_PREFILL,
    .select = select_ends,
};
