/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/retention_params.h"

/* Settings beside those that policies share. */
typedef struct locret_config {
    kv_retention_config shared;
    long long local_tokens; /* the end of the prompt, a chunk of its own */
    int scores;             /* where they come from */
} locret_config;

enum { SCORES_NONE, SCORES_RECORDED };
static const char *const scores_names[] = {
    [SCORES_NONE] = "none", [SCORES_RECORDED] = "recorded", NULL};

static const kv_param params[] = {KV_ROW_KEEP,
                                  KV_ROW_BUDGET,
                                  KV_ROW_WINDOW("2500"),
                                  {.name = "local",
                                   .type = KV_INT,
                                   .offset = offsetof(locret_config, local_tokens),
                                   .fallback = "100",
                                   .min = 0,
                                   .max = INFINITY,
                                   .flags = KV_PARAM_SWEEP | KV_PARAM_OUTERMOST,
                                   .unit = "tokens",
                                   .help = "last tokens of the prompt, a chunk of their own"},
                                  KV_ROW_OF_CHOICE(locret_config, "scores", scores, "none",
                                                   scores_names,
                                                   "none: counts only; recorded: the recording's "
                                                   "token_scores"),
                                  KV_ROW_WINDOW_IN_BUDGET("false"),
                                  KV_ROW_ROUNDING("half_even"),
                                  KV_ROW_EVICT("chunked"),
                                  KV_ROW_INTERVAL("512"),
                                  KV_ROW_END};

static long long local_tail(const void *config)
{
    return ((const locret_config *)config)->local_tokens;
}

/* Scores come from heads trained for one model: where none are recorded, only counts are known. */
static bool counts_only(const void *config)
{
    return ((const locret_config *)config)->scores == SCORES_NONE;
}

static unsigned needs_of(const void *config)
{
    return counts_only(config) ? 0 : KV_NEEDS_EXTRA << KV_EXTRA_TOKEN_SCORES;
}

static void score(const kv_event *event, double *out)
{
    const float *scores =
        counts_only(event->config)
            ? NULL
            : kv_layer_extra(event->view->source, KV_EXTRA_TOKEN_SCORES, event->kv_head);
    for (int k = 0; k < event->scored; k++)
        out[k] = scores != NULL ? (double)scores[event->candidate[k]] : event->candidate[k];
}

/* Chunk by chunk, a share of each chunk and its last entries, the stabilizers. */
KV_RETENTION_DEFINE(locret) = {
    .name = "locret",
    .brief = "keeps a share of each chunk by trained scores, and its last entries",
    .cite = "Locret (Huang et al. 2024, arXiv 2410.01805); counts as PruLong's evaluation has them",
    .stage = "compression",
    .config_bytes = sizeof(locret_config),
    .params = params,
    .claims = KV_NESTED | KV_COUNTS_FIXED,
    .needs_of = needs_of,
    .score = score,
    .local_tail = local_tail,
    .counts_only = counts_only,
};
