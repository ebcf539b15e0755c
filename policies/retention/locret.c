/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/retention_params.h"

/* Settings beside those that policies share. */
typedef struct locret_config {
    kv_retention_config shared;
    long long local_tokens; /* the end of the prompt, a chunk of its own */
} locret_config;

static const kv_param params[] = {KV_ROW_KEEP,
                                  KV_ROW_BUDGET,
                                  KV_ROW_WINDOW("2500"),
                                  {.name = "local",
                                   .type = KV_INT,
                                   .offset = offsetof(locret_config, local_tokens),
                                   .fallback = "100",
                                   .min = 0,
                                   .max = INFINITY,
                                   .flags = KV_PARAM_SWEEP,
                                   .unit = "tokens",
                                   .help = "last tokens of the prompt, a chunk of their own"},
                                  KV_ROW_WINDOW_IN_BUDGET("false"),
                                  KV_ROW_ROUNDING("half_even"),
                                  KV_ROW_EVICT("chunked"),
                                  KV_ROW_INTERVAL("512"),
                                  KV_ROW_END};

static long long local_tail(const void *config)
{
    return ((const locret_config *)config)->local_tokens;
}

/* Scores come from heads trained for one model, which no recording holds. */
static bool counts_only(const void *config)
{
    return true;
}

/* Chunk by chunk, a share of each chunk and its last entries, the stabilizers. */
KV_RETENTION_DEFINE(locret) = {
    .name = "locret",
    .brief = "keeps a share of each chunk by trained scores, and its last entries (counts only)",
    .cite = "Locret (Huang et al. 2024, arXiv 2410.01805); counts as PruLong's evaluation has them",
    .stage = "compression",
    .config_bytes = sizeof(locret_config),
    .params = params,
    .claims = KV_COUNTS_FIXED,
    .local_tail = local_tail,
    .counts_only = counts_only,
};
