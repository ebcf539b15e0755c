/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/retention.h"
#include "policies/retention_params.h"
#include "policies/scoring.h"

#include <math.h>

/* What a score is made of, in the order of its names. */
enum { OF_KEY, OF_VALUE, OF_MEAN, OF_PRODUCT };

typedef struct curdkv_config {
    kv_retention_config base;
    long long local_tokens; /* entries within which leverages are shares; 0: no shares */
    int leverage;
} curdkv_config;

static const char *const leverage_names[] = {"key", "value", "kv_avg", "kv_product", NULL};
static const char *const preset_names[] = {"none", "kvpress", NULL};
static const kv_preset presets[] = {
    {"kvpress", "sinks=4 evict=postfill rounding=kvpress ratio_arithmetic=true", "CURPress"},
    {.name = NULL}};

static const kv_param params[] = {
    KV_ROWS_AMOUNT("4"),
    KV_ROW_OF_CHOICE(curdkv_config, "leverage", leverage, "kv_product", leverage_names,
                     "what scores: a key's squared length, its value's, their mean or product"),
    KV_ROW_OF_COUNT(curdkv_config, "local", local_tokens, "16", 0, "tokens",
                    "entries within which squared lengths are shares of their sum; 0: no shares"),
    KV_ROWS_WHEN("postfill"),
    KV_ROW_PRESET(preset_names),
    KV_ROW_END};

/* Numbers to shares of their sum; numbers that are all 0 stay so. */
static void share(double *number, int n)
{
    double sum = 0;
    for (int k = 0; k < n; k++)
        sum += number[k];
    for (int k = 0; k < n && sum > 0; k++)
        number[k] /= sum;
}

/* Squared length of the candidates' vectors [N][width], within each `local` of them their share. */
static void square(const kv_event *event, const float *vectors, double *out)
{
    int width = event->view->shape->head_dim, n = event->candidates;
    long long local = ((const curdkv_config *)event->config)->local_tokens;
    for (int k = 0; k < n; k++) {
        double length = kv_score_norm(vectors + (size_t)event->candidate[k] * (size_t)width, width);
        out[k] = length * length;
    }
    for (long long first = 0; local > 0 && first < n; first += local)
        share(out + first, (int)(first + local < n ? local : n - first));
}

static double combine(int leverage, double key, double value)
{
    switch (leverage) {
    case OF_KEY:
        return key;
    case OF_VALUE:
        return value;
    case OF_MEAN:
        return (key + value) / 2;
    default:
        return key * value;
    }
}

/* Shares of the head's sum, by which heads compare where they share a budget. */
static void score(const kv_event *event, double *out)
{
    const kv_view *view = event->view;
    int leverage = ((const curdkv_config *)event->config)->leverage;
    double *key = view->work, *value = key + view->example->total_tokens;
    square(event, kv_layer_keys(view->source, event->kv_head), key);
    square(event, kv_layer_values(view->source, event->kv_head), value);
    for (int k = 0; k < event->candidates; k++)
        key[k] = combine(leverage, key[k], value[k]);
    share(key, event->candidates);
    for (int k = 0; k < event->scored; k++)
        out[k] = key[k];
}

/* Rows of large leverage span most of what the attention's output is made of. */
KV_RETENTION_DEFINE(curdkv) = {
    .name = "curdkv",
    .brief = "keeps keys and values that are long beside their neighbours",
    .cite = "CurDKV (Sengupta et al. 2025, arXiv 2509.15038)",
    .stage = "compression",
    .config_bytes = sizeof(curdkv_config),
    .params = params,
    .presets = presets,
    .needs = KV_NEEDS_KEYS | KV_NEEDS_VALUES,
    .claims = KV_NESTED | KV_COUNTS_FIXED,
    .score = score,
};
