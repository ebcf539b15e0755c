/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* After KVQuant: keys per channel with ranges that are known beforehand, values per token, and the
 * outliers of each such vector stored apart, so that they do not widen its range. */
#include "config.h"

#include "policies/transform/quantise.h"

#include <math.h>

typedef struct kvquant_config {
    long long bits;
    double outliers; /* share of each vector that is stored as it is */
    long long sinks; /* first tokens of the sequence, not quantised */
} kvquant_config;

static const kv_param params[] = {{.name = "bits",
                                   .type = KV_INT,
                                   .offset = offsetof(kvquant_config, bits),
                                   .fallback = "3",
                                   .min = 1,
                                   .max = 8,
                                   .flags = KV_PARAM_SWEEP,
                                   .unit = "bits",
                                   .help = "of a quantised number"},
                                  {.name = "outliers",
                                   .type = KV_REAL,
                                   .offset = offsetof(kvquant_config, outliers),
                                   .fallback = "0.01",
                                   .min = 0,
                                   .max = 0.5,
                                   .flags = KV_PARAM_SWEEP,
                                   .unit = "fraction",
                                   .help = "numbers of each vector stored apart in 32 bits, value "
                                           "and index; at least one unless 0"},
                                  {.name = "sinks",
                                   .type = KV_INT,
                                   .offset = offsetof(kvquant_config, sinks),
                                   .fallback = "1",
                                   .min = 0,
                                   .max = INFINITY,
                                   .flags = KV_PARAM_SWEEP,
                                   .unit = "tokens",
                                   .help = "first tokens of the sequence, not quantised"},
                                  {.name = NULL}};

/* Outliers of a vector of n numbers. */
static int outliers_of(const kvquant_config *config, int n)
{
    int count = (int)floor(config->outliers * n + 0.5);
    return config->outliers > 0 && count < 1 ? 1 : count;
}

/* Ranges of the channels of this KV head, from the keys of the prompt behind the sinks (which stay
 * as they are; the published code leaves its first_few_fp16 out of ranges, too): they stand in for
 * the published calibration on other texts. state: low and high of each channel. */
static void calibrate(const kv_transform_step *step, const kvquant_config *config)
{
    int width = step->view->shape->head_dim, prompt = step->view->example->prompt_tokens;
    int first = config->sinks < prompt ? (int)config->sinks : 0, n = prompt - first;
    for (int d = 0; d < width; d++) {
        for (int j = 0; j < n; j++)
            step->work[j] = step->recorded_key[(size_t)(first + j) * (size_t)width + (size_t)d];
        kv_range range = kv_range_least(step->work, n, outliers_of(config, n));
        step->head_state[2 * d] = range.low;
        step->head_state[2 * d + 1] = range.high;
    }
    step->head_state[2 * width] = 1;
}

static void quantise_entry(const kv_transform_step *step, const kvquant_config *config, int token)
{
    int width = step->view->shape->head_dim;
    float *key = step->key + (size_t)token * (size_t)width;
    float *value = step->value + (size_t)token * (size_t)width;
    for (int d = 0; d < width; d++) {
        kv_range channel = {step->head_state[2 * d], step->head_state[2 * d + 1]};
        key[d] = (float)kv_quantise(channel, config->bits, key[d]);
        step->work[d] = value[d];
    }
    kv_range range = kv_range_least(step->work, width, outliers_of(config, width));
    for (int d = 0; d < width; d++)
        value[d] = (float)kv_quantise(range, config->bits, value[d]);
}

static void apply(const kv_transform_step *step)
{
    const kvquant_config *config = step->config;
    if (step->head_state[2 * step->view->shape->head_dim] == 0)
        calibrate(step, config);
    int pending = kv_stored_pending(step, 1);
    for (int i = 0; i < pending; i++) {
        kv_stored_mark(step, step->order[i], 1);
        if (step->order[i] >= config->sinks)
            quantise_entry(step, config, step->order[i]);
    }
}

/* Low and high of each channel, and whether they are known. */
static size_t head_doubles(const void *config, const kv_shape *shape)
{
    return 2 * (size_t)shape->head_dim + 1;
}

static size_t work_doubles(const void *config, const kv_shape *shape, int tokens)
{
    return (size_t)(tokens > shape->head_dim ? tokens : shape->head_dim);
}

static double bytes(const void *opaque, const kv_transform_size *size)
{
    const kvquant_config *config = opaque;
    double n = size->entries, quantised = fmax(0, n - (double)config->sinks);
    int width = size->shape->head_dim;
    double value_rate = (double)outliers_of(config, width) / width;
    double key_bits = (double)config->bits + config->outliers * KV_OUTLIER_BITS;
    double value_bits = kv_quantised_bits(config->bits, width) + value_rate * KV_OUTLIER_BITS;
    return 1 - quantised * (2 * KV_PLAIN_BITS - key_bits - value_bits) / (2 * n * KV_PLAIN_BITS);
}

KV_TRANSFORM_DEFINE(kvquant) = {
    .name = "kvquant",
    .brief = "quantises keys per channel and values per token, outliers stored apart",
    .cite = "after KVQuant (Hooper et al. 2024, arXiv 2401.18079)",
    .stage = "compression",
    .config_bytes = sizeof(kvquant_config),
    .params = params,
    .needs = KV_NEEDS_KEYS | KV_NEEDS_VALUES,
    .changes = KV_CHANGES_KEYS | KV_CHANGES_VALUES,
    .state_doubles = 1,
    .head_doubles = head_doubles,
    .work_doubles = work_doubles,
    .apply = apply,
    .bytes = bytes,
};
