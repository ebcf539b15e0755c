/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/retention.h"
#include "policies/retention_params.h"
#include "policies/scoring.h"

#include <math.h>
#include <stdlib.h>

typedef enum score_source { UNIFORM, RECORDED } score_source;

typedef struct compression_config {
    kv_retention_config base;
    int scores;
} compression_config;

static const char *const scores_names[] = {[UNIFORM] = "uniform", [RECORDED] = "recorded", NULL};

static const kv_param params[] = {KV_ROW_KEEP,
                                  KV_ROW_BUDGET,
                                  KV_ROW_SINKS("1"),
                                  KV_ROW_OF_CHOICE(compression_config, "scores", scores, "uniform",
                                                   scores_names,
                                                   "uniform: evenly over the prompt; recorded: by "
                                                   "the recording's prompt_scores"),
                                  KV_ROW_ROUNDING("half_up"),
                                  KV_ROW_END};

static unsigned needs_of(const void *config)
{
    return ((const compression_config *)config)->scores == RECORDED ? KV_NEEDS_PROMPT_SCORES : 0;
}

static long long admitted(const void *config, long long prompt_tokens)
{
    const kv_retention_config *c = config;
    long long tokens = kv_quota_share(c, (double)prompt_tokens, (double)c->budget_tokens);
    tokens = tokens > 1 ? tokens : 1;
    return tokens < prompt_tokens ? tokens : prompt_tokens;
}

/* Nothing leaves later. */
static long long quota(const void *config, const kv_quota_query *query)
{
    return query->candidates;
}

/* Chooses `room` of the tokens first..end-1. */
static void choose_evenly(int first, int end, long long room, double *enters)
{
    long long n = end - first;
    for (long long i = 0; i < n; i++)
        enters[first + i] = (i + 1) * room / n > i * room / n;
}

/* The memo is a number per prompt token, above 0 if it enters. */
static kv_err enter(const void *const *config, int budgets, const kv_view *view, void **memo,
                    kv_diag *diag)
{
    const compression_config *c = config[0];
    const kv_example *example = view->example;
    int prompt = example->prompt_tokens, question = kv_example_question_tokens(example);
    long long total = admitted(config[0], prompt);
    int first = (int)(c->base.sinks_tokens < total ? c->base.sinks_tokens : total);
    question = (int)(question < total - first ? question : total - first);
    int end = prompt - question;
    double *enters = calloc(2 * (size_t)prompt, sizeof *enters);
    if (enters == NULL)
        return kv_fail_memory(diag);
    for (int p = 0; p < prompt; p++)
        enters[p] = p < first || p >= end;
    long long room = total - first - question;
    if (c->scores == UNIFORM) {
        choose_evenly(first, end, room, enters);
    } else {
        for (int p = first; p < end; p++)
            enters[p] = example->prompt_scores[p];
        kv_score_pin_best(enters + first, end - first, room, enters + prompt);
        for (int p = first; p < end; p++)
            enters[p] = isinf(enters[p]) ? 1 : 0;
    }
    *memo = enters;
    return KV_OK;
}

static bool admits(const void *memo, int position)
{
    return ((const double *)memo)[position] > 0;
}

/* What never enters costs nothing anywhere. */
KV_RETENTION_DEFINE(prompt_compression) = {
    .name = "prompt_compression",
    .brief = "fewer tokens of the prompt enter the model, evenly or by their recorded scores",
    .cite = "LLMLingua-2 (Pan et al. 2024, arXiv 2403.12968), as SCBench counts it",
    .stage = "generation",
    .config_bytes = sizeof(compression_config),
    .params = params,
    .claims = KV_COUNTS_FIXED,
    .needs_of = needs_of,
    .enter = enter,
    .leave = free,
    .admits = admits,
    .admitted = admitted,
    .quota = quota,
};
