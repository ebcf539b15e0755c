/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Sparse prefill: the first tokens and a sliding window. */
#include "config.h"

#include "policies/read.h"
#include "policies/read_params.h"

typedef struct a_shape {
    long long sinks_tokens, local_tokens;
} a_shape;

static const kv_param params[] = {KV_READ_SINKS(a_shape, sinks_tokens, "128"),
                                  KV_READ_LOCAL(a_shape, local_tokens, "3968"),
                                  {.name = NULL}};

static int select_ends(const kv_read_row *row, int32_t *chosen)
{
    const a_shape *c = row->config;
    return kv_read_ends(row, c->sinks_tokens, c->local_tokens, chosen);
}

KV_READ_DEFINE(a_shape) = {
    .name = "a_shape",
    .brief = "prefill rows read the first tokens and a sliding window; decode reads everything",
    .cite = "A-shape of MInference (arXiv 2407.02490), as SCBench (2412.10319) runs it",
    .stage = "generation",
    .config_bytes = sizeof(a_shape),
    .params = params,
    .phases = KV_READS_PREFILL,
    .select = select_ends,
};
