/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/retention.h"
#include "policies/retention_params.h"
#include "policies/scorer.h"
#include "policies/scoring.h"

#include <math.h>
#include <string.h>

typedef enum value_norm { PROJECTED, VALUE } value_norm;

typedef struct criticalkv_config {
    kv_padded_config padded;
    double first_stage; /* share of the budget that goes by attention alone */
    double epsilon;     /* added to the attention before it is multiplied */
    int norm;
} criticalkv_config;

static const char *const norm_names[] = {[PROJECTED] = "projected", [VALUE] = "value", NULL};
static const char *const preset_names[] = {"none", "kvpress", NULL};
static const kv_preset presets[] = {
    {"kvpress",
     "first_stage=0.5 epsilon=1e-4 norm=projected window=64 kernel=5 pooling=avg group=mean "
     "group_when=after rounding=kvpress ratio_arithmetic=true evict=postfill",
     "CriticalKVPress over SnapKVPress"},
    {.name = NULL}};

static const kv_param params[] = {
    KV_ROWS_PADDED_SCORE,
    KV_ROW_OF_REAL(criticalkv_config, "first_stage", first_stage, "0.5", 0, 1, "fraction",
                   "share of the budget that goes by attention alone"),
    KV_ROW_OF_REAL(criticalkv_config, "epsilon", epsilon, "1e-4", 0, INFINITY, "",
                   "added to the attention before it is multiplied by the value's size"),
    KV_ROW_OF_CHOICE(criticalkv_config, "norm", norm, "projected", norm_names,
                     "L1 norm of the value behind the output projection, or of the value itself"),
    KV_ROW_PRESET(preset_names),
    KV_ROW_END};

static unsigned needs_of(const void *config)
{
    const criticalkv_config *c = config;
    return c->norm == VALUE ? KV_NEEDS_VALUES : KV_NEEDS_EXTRA << KV_EXTRA_VALUE_OUT;
}

/* How much a value can move the output: averaged over the group, whose projections differ. */
static double value_size(const kv_event *event, int32_t position)
{
    const criticalkv_config *c = event->config;
    const kv_shape *shape = event->view->shape;
    int group = shape->heads / shape->kv_heads, width = shape->head_dim;
    double sum = 0;
    if (c->norm == VALUE) {
        const float *value =
            kv_layer_values(event->view->source, event->kv_head) + (size_t)position * (size_t)width;
        for (int d = 0; d < width; d++)
            sum += fabs((double)value[d]);
        return sum;
    }
    for (int g = 0; g < group; g++)
        sum += kv_layer_extra(event->view->source, KV_EXTRA_VALUE_OUT,
                              event->kv_head * group + g)[position];
    return sum / group;
}

static void score(const kv_event *event, double *out)
{
    const criticalkv_config *c = event->config;
    const kv_example *example = event->view->example;
    bool own = c->padded.base.evict == KV_CHUNKED || c->padded.base.evict == KV_PATCHED;
    int n = own ? event->candidates : example->prompt_tokens;
    double *first = event->view->work + 2 * (size_t)example->total_tokens;
    kv_scorer_score_padded(event, out);
    memcpy(first, out, (size_t)event->scored * sizeof *out);
    kv_score_pin_best(first, event->scored,
                      kv_quota_share(&c->padded.base, n * c->first_stage,
                                     floor((double)c->padded.base.budget_tokens * c->first_stage)),
                      first + example->total_tokens);
    for (int k = 0; k < event->scored; k++)
        out[k] = isinf(first[k]) ? first[k]
                                 : (out[k] + c->epsilon) * value_size(event, event->candidate[k]);
}

/* Attention says how much of a value is used, the value's size how much that moves the output. */
KV_RETENTION_DEFINE(criticalkv) = {
    .name = "criticalkv",
    .brief = "as snapkv, half of the budget by attention times the size of the projected value",
    .cite = "CriticalKV (Feng et al. 2025, arXiv 2502.03805)",
    .stage = "compression",
    .config_bytes = sizeof(criticalkv_config),
    .params = params,
    .presets = presets,
    .needs = KV_NEEDS_OBSERVERS,
    .claims = KV_COUNTS_FIXED,
    .needs_of = needs_of,
    .observers = kv_padded_observers,
    .pins = kv_pins_none, /* the window is safe by its score */
    .score = score,
};
