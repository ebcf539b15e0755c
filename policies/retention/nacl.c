/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/retention.h"
#include "policies/retention_params.h"
#include "policies/scoring.h"

#include <math.h>

typedef struct nacl_config {
    kv_retention_config base;
    double random;           /* share of what the pins leave of the budget that is drawn */
    double temperature;      /* of the softmax that it is drawn by */
    long long random_tokens; /* in place of the share; -1: not given */
} nacl_config;

#define DEFAULT_RANDOM 0.3

enum preset { NONE, KVCACHE_FACTORY };
static const char *const preset_names[] = {"none", "kvcache-factory", NULL};
static const kv_preset presets[] = {
    {"kvcache-factory", "group=mean evict=postfill rounding=half_even",
     "its nacl module; window is its proxy_size, random_tokens its random_budget"},
    {.name = NULL}};

static const kv_param params[] = {
    KV_ROW_KEEP,
    KV_ROW_BUDGET,
    KV_ROW_WINDOW("64"),
    KV_ROW_WINDOW_IN_BUDGET("true"),
    KV_ROW_SINKS("4"),
    KV_ROW_OF_REAL(nacl_config, "random", random, "0.3", 0, 1, "fraction",
                   "share of the budget beside sinks and proxies that is drawn, not ranked"),
    KV_ROW_OF_COUNT(nacl_config, "random_tokens", random_tokens, NULL, 0, "tokens",
                    "in place of random: entries that are drawn"),
    KV_ROW_OF_REAL(nacl_config, "temperature", temperature, "1", 1e-9, INFINITY, "",
                   "the draw is by softmax(score / temperature)"),
    KV_ROW_GROUP("mean"),
    KV_ROW_SEED(NULL),
    KV_ROW_EVICT("postfill"),
    KV_ROW_INTERVAL("512"),
    KV_ROW_SCORE_OVER("chunk"),
    KV_ROW_ROUNDING("half_up"),
    KV_ROW_PRESET(preset_names),
    KV_ROW_END};

/* The published code lists sinks and proxies by position and cuts the list at its start. */
static kv_pins pins(const void *config, const kv_quota_query *query, long long total)
{
    const kv_retention_config *c = config;
    return kv_pins_outer(c, query, c->preset == KVCACHE_FACTORY);
}

/* Of the room beside sinks and proxies. */
static long long drawn_tokens(const nacl_config *c, long long room)
{
    if (c->random_tokens < 0)
        return (long long)floor(c->random * (double)room + 0.5);
    return c->random_tokens < room ? c->random_tokens : room;
}

/* The proxies' attention ranks the most of the budget; the rest is drawn from what remains. */
static void score(const kv_event *event, double *out)
{
    const nacl_config *c = event->config;
    double *scratch = event->view->work;
    int rows = event->observer_end - event->observer_first, sinks = kv_score_sinks(event);
    kv_score_window(event, out);
    for (int k = 0; k < event->scored; k++)
        out[k] *= rows; /* the proxies' sum, which the temperature is for */
    if (sinks < event->scored)
        kv_score_pin_best(out + sinks, event->scored - sinks,
                          event->room - drawn_tokens(c, event->room), scratch);
    kv_score_sample(event, c->temperature, out);
}

static const kv_condition conditions[] = {{"temperature", "random", "0", true},
                                          {"temperature", "random_tokens", "0", true},
                                          {"seed", "random", "0", true},
                                          {"seed", "random_tokens", "0", true},
                                          {.setting = NULL}};

/* random: 0 beside random_tokens is plain: no share, a count. */
static kv_err check(const void *config, const kv_mark *mark, kv_diag *diag)
{
    const nacl_config *c = config;
    if (c->random_tokens < 0 || c->random == DEFAULT_RANDOM || !(c->random > 0))
        return KV_OK;
    return kv_fail(diag, KV_ERR_INPUT, mark,
                   "nacl: random and random_tokens both say how much is drawn; expected one of "
                   "them");
}

/* What the prompt's own end attends to, and a sample against what that misses. */
KV_RETENTION_DEFINE(nacl) = {
    .name = "nacl",
    .brief = "keeps what proxy tokens at the end attend to, and a random sample of the rest",
    .cite = "NACL (Chen et al. 2024, arXiv 2408.03675)",
    .stage = "compression",
    .config_bytes = sizeof(nacl_config),
    .params = params,
    .presets = presets,
    .conditions = conditions,
    .needs = KV_NEEDS_OBSERVERS,
    .claims = KV_COUNTS_FIXED,
    .check = check,
    .pins = pins,
    .score = score,
};
