/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/retention.h"
#include "policies/retention_params.h"
#include "policies/scoring.h"

#include <math.h>
#include <string.h>

typedef enum importance { PROBABILITY, COUNT } importance;
typedef enum selection { TOP, SAMPLE } selection;

typedef struct scissorhands_config {
    kv_retention_config base;
    long long history_rows; /* rows that importance is made of */
    double decay;           /* of a row's weight per row of age */
    double temperature;     /* of the softmax that a sample is drawn by */
    int importance, selection;
    bool accumulate; /* importance adds up from the prompt's end on */
} scissorhands_config;

static const char *const importance_names[] = {
    [PROBABILITY] = "probability", [COUNT] = "count", NULL};
static const char *const selection_names[] = {[TOP] = "top", [SAMPLE] = "sample", NULL};
enum preset { NONE, KVCACHE_FACTORY };
static const char *const preset_names[] = {"none", "kvcache-factory", NULL};
static const kv_preset presets[] = {
    {"kvcache-factory",
     "importance=probability selection=top decay=1 accumulate=true rounding=half_even",
     "its scissorhands module; give it its sink_size, recent_size and history_window"},
    {.name = NULL}};

static const kv_param params[] = {
    KV_ROW_KEEP,
    KV_ROW_BUDGET,
    KV_ROW_WINDOW("32"),
    KV_ROW_WINDOW_IN_BUDGET("true"),
    KV_ROW_SINKS("4"),
    KV_ROW_OF_COUNT(scissorhands_config, "history", history_rows, "64", 1, "rows",
                    "last rows that say how important a key is"),
    KV_ROW_OF_REAL(scissorhands_config, "decay", decay, "1", 0, 1, "",
                   "weight of a row over that of the row after it"),
    KV_ROW_OF_SWITCH(
        scissorhands_config, "accumulate", accumulate, "false",
        "whether importance adds up from the prompt's end on, each row as it was then"),
    KV_ROW_OF_CHOICE(
        scissorhands_config, "importance", importance, "probability", importance_names,
        "sum of probabilities, or the number of rows that give at least an even share"),
    KV_ROW_OF_CHOICE(scissorhands_config, "selection", selection, "top", selection_names,
                     "the most important, or a sample by softmax(importance / temperature)"),
    KV_ROW_OF_REAL(scissorhands_config, "temperature", temperature, "1", 1e-9, INFINITY, "",
                   "of that softmax"),
    KV_ROW_GROUP("mean"),
    KV_ROW_SEED(NULL),
    KV_ROW_EVICT("online"),
    KV_ROW_INTERVAL("512"),
    KV_ROW_SCORE_OVER("present"),
    KV_ROW_ROUNDING("half_up"),
    KV_ROW_PRESET(preset_names),
    KV_ROW_END};

static long long observers(const void *config)
{
    return ((const scissorhands_config *)config)->history_rows;
}

/* The published code lists sinks and recent entries by position and cuts the list at its start. */
static kv_pins pins(const void *config, const kv_quota_query *query, long long total)
{
    const kv_retention_config *c = config;
    return kv_pins_outer(c, query, c->preset == KVCACHE_FACTORY);
}

static kv_err check(const void *config, const kv_mark *mark, kv_diag *diag)
{
    const scissorhands_config *c = config;
    if (c->accumulate && (c->importance == COUNT || c->base.group == KV_GROUP_MAX))
        return kv_fail(diag, KV_ERR_INPUT, mark,
                       "scissorhands: accumulate adds up probabilities of a whole group; expected "
                       "importance: probability, and group: mean or sum");
    return KV_OK;
}

static long long observed_rows(const void *config)
{
    const scissorhands_config *c = config;
    return c->accumulate ? c->history_rows : 0;
}

/* The prompt's last rows count alike; then all that was gets lighter with each token. */
static void observe(const kv_row_event *event, double *state)
{
    const scissorhands_config *c = event->config;
    bool decodes = event->position >= event->view->example->prompt_tokens;
    for (int j = 0; decodes && c->decay != 1 && j < event->position; j++)
        state[j] *= c->decay;
    kv_score_accumulate(event, state);
}

/* Importance for one query head: rows of the history, the older the lighter. */
static void score_head(const kv_event *event, int query_head, double *out)
{
    const scissorhands_config *c = event->config;
    double weight = 1;
    memset(out, 0, (size_t)event->scored * sizeof *out);
    for (int i = event->observer_end - 1; i >= event->observer_first; i--, weight *= c->decay) {
        kv_seen_row row = kv_score_row(event, query_head, i);
        double even = 1.0 / row.visible;
        for (int k = 0; row.at != NULL && k < event->scored && event->candidate[k] <= i; k++) {
            double probability = row.weight * row.at[event->candidate[k]];
            out[k] += weight * (c->importance == COUNT ? probability >= even : probability);
        }
    }
}

static void score(const kv_event *event, double *out)
{
    const scissorhands_config *c = event->config;
    if (c->accumulate && event->chunk_end > event->view->example->prompt_tokens)
        for (int k = 0; k < event->scored; k++)
            out[k] = event->state[event->candidate[k]];
    else
        kv_score_group(event, score_head, out);
    if (c->selection == SAMPLE)
        kv_score_sample(event, c->temperature, out);
}

static const kv_condition conditions[] = {{"temperature", "selection", "sample", false},
                                          {"seed", "selection", "sample", false},
                                          {.setting = NULL}};

/* Keys that mattered to the last queries go on to matter. */
KV_RETENTION_DEFINE(scissorhands) = {
    .name = "scissorhands",
    .brief = "keeps what a history of the last queries attended to, sinks and the most recent",
    .cite = "Scissorhands (Liu et al. 2023, arXiv 2305.17118)",
    .stage = "compression",
    .config_bytes = sizeof(scissorhands_config),
    .params = params,
    .presets = presets,
    .conditions = conditions,
    .needs = KV_NEEDS_OBSERVERS,
    .claims = KV_NESTED | KV_COUNTS_FIXED,
    .state_doubles = 1,
    .check = check,
    .observers = observers,
    .pins = pins,
    .score = score,
    .observe = observe,
    .observed_rows = observed_rows,
};
