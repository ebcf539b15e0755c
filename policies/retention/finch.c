/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/retention.h"
#include "policies/retention_params.h"
#include "policies/scoring.h"

#include <math.h>
#include <string.h>

typedef struct finch_config {
    kv_retention_config base;
    long long chunk_tokens; /* each so many entries keep their share; 0: all are ranked together */
    bool normalize;         /* a row counts as often as there are keys before it */
} finch_config;

static const char *const preset_names[] = {"none", "kvpress", NULL};
static const kv_preset presets[] = {
    {"kvpress", "normalize=true rounding=kvpress ratio_arithmetic=true", "FinchPress"},
    {.name = NULL}};

static const kv_param params[] = {
    KV_ROW_KEEP,
    KV_ROW_BUDGET,
    KV_ROW_SINKS("0"),
    KV_ROW_OF_COUNT(
        finch_config, "chunk", chunk_tokens, NULL, 1, "tokens",
        "each so many entries keep their share of themselves; all together if not given"),
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

/* Entries that stay of the n of one chunk. */
static long long chunk_share(const finch_config *c, long long n)
{
    long long share = kv_quota_share(&c->base, (double)n, 0);
    return share < n ? share : n;
}

static long long quota(const void *config, const kv_quota_query *query)
{
    const finch_config *c = config;
    long long n = query->candidates, chunk = c->chunk_tokens;
    if (chunk == 0)
        return kv_quota_uniform(config, query);
    return n / chunk * chunk_share(c, chunk) + (n % chunk > 0 ? chunk_share(c, n % chunk) : 0);
}

/* In chunks the question is what scores highest, and stays as far as its chunk has room. */
static kv_pins pins(const void *config, const kv_quota_query *query, long long total)
{
    const kv_retention_config *c = config;
    bool whole = ((const finch_config *)config)->chunk_tokens == 0;
    int question = whole && query->pin_window ? query->question_tokens : 0;
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

/* The best of each chunk rank before all others, in which sinks and the question come first. */
static void score(const kv_event *event, double *out)
{
    const finch_config *c = event->config;
    int n = event->scored, chunk = (int)(c->chunk_tokens < n ? c->chunk_tokens : n);
    kv_score_group(event, score_head, out);
    if (c->chunk_tokens == 0)
        return;
    double best = 0;
    for (int k = 0; k < n; k++)
        best = fmax(best, out[k]);
    for (int k = 0; k < n; k++)
        if (event->candidate[k] < c->base.sinks_tokens ||
            event->candidate[k] >= event->observer_first)
            out[k] = best + 1;
    for (int first = 0; first < n; first += chunk) {
        int size = first + chunk < n ? chunk : n - first;
        kv_score_pin_best(out + first, size, chunk_share(c, size), event->view->work);
    }
}

/* Each `keep` marks entries of its own as the best of their chunks. */
static bool nested(const void *config)
{
    return ((const finch_config *)config)->chunk_tokens == 0;
}

static kv_err check(const void *config, const kv_mark *mark, kv_diag *diag)
{
    const finch_config *c = config;
    if (c->chunk_tokens > 0 && c->base.keep < 0)
        return kv_fail(diag, KV_ERR_INPUT, mark,
                       "finch: each chunk keeps a share of itself; expected keep, not budget, "
                       "beside chunk");
    return KV_OK;
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
    .check = check,
    .quota = quota,
    .pins = pins,
    .nested = nested,
    .score = score,
};
