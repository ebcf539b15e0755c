/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/retention.h"
#include "policies/retention_params.h"
#include "policies/scoring.h"

#include <string.h>

typedef struct finch_config {
    kv_retention_config base;
    bool normalize; /* a row counts as often as there are keys before it */
} finch_config;

static const char *const preset_names[] = {"none", "kvpress", NULL};
static const kv_preset presets[] = {
    {"kvpress", "normalize=true rounding=kvpress ratio_arithmetic=true", "FinchPress"},
    {.name = NULL}};

static const kv_param params[] = {
    KV_ROW_KEEP,
    KV_ROW_BUDGET,
    KV_ROW_SINKS("0"),
    KV_ROW_OF_SWITCH(finch_config, "normalize", normalize, "true",
                     "whether a row is multiplied by the number of keys before it"),
    KV_ROW_GROUP("mean"),
    KV_ROW_EVICT("postfill"),
    KV_ROW_INTERVAL("512"),
    KV_ROW_SCORE_OVER("present"),
    KV_ROW_ROUNDING("half_up"),
    KV_ROW_RATIO_ARITHMETIC("false"),
    KV_ROW_PRESET(preset_names),
    KV_ROW_END};

/* The question is what asks; a prompt without one is asked by its last token. */
static long long observers_of(const void *config, const kv_example *example)
{
    int question = kv_example_question_tokens(example);
    return question > 0 ? question : 1;
}

static kv_pins pins(const void *config, const kv_quota_query *query, long long total)
{
    const kv_retention_config *c = config;
    int question = query->pin_window ? query->question_tokens : 0;
    return (kv_pins){.first = (int)c->sinks_tokens, .last = question};
}

/* Mean over the question's rows; a row that sees more keys gives each of them less, which the
 * number of its earlier keys makes up for. */
static void score_head(const kv_event *event, int query_head, double *out)
{
    const finch_config *c = event->config;
    int rows = event->observer_end - event->observer_first;
    memset(out, 0, (size_t)event->scored * sizeof *out);
    for (int i = event->observer_first; i < event->observer_end; i++) {
        kv_seen_row row = kv_score_row(event, query_head, i);
        double weight = row.weight * (c->normalize ? row.visible - 1 : 1) / rows;
        for (int k = 0; row.at != NULL && k < event->scored && event->candidate[k] <= i; k++)
            out[k] += weight * row.at[event->candidate[k]];
    }
}

static void score(const kv_event *event, double *out)
{
    kv_score_group(event, score_head, out);
}

/* The prompt's question says what of its context matters. */
KV_RETENTION_DEFINE(finch) = {
    .name = "finch",
    .brief = "keeps what the prompt's question attends to, and the question",
    .cite = "FINCH (Corallo and Papotti 2024, TACL 12, arXiv 2408.00167)",
    .stage = "compression",
    .config_bytes = sizeof(finch_config),
    .params = params,
    .presets = presets,
    .needs = KV_NEEDS_OBSERVERS,
    .claims = KV_NESTED | KV_COUNTS_FIXED,
    .observers_of = observers_of,
    .pins = pins,
    .score = score,
};
