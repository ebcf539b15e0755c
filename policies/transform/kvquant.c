/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* After KVQuant: keys per channel with ranges that are known beforehand, values per token, and the
 * outliers of each such vector stored apart, so that they do not widen its range. Levels are fitted
 * to the prompt's numbers, or even. */
#include "config.h"

#include "policies/retention_params.h"
#include "policies/transform/quantise.h"

#include <math.h>

enum { NUQ, UNIFORM };
static const char *const level_names[] = {[NUQ] = "nuq", [UNIFORM] = "uniform", NULL};

/* Numbers that levels are fitted to, about; those of evenly spaced tokens. */
enum { MOST_FITTED = 65536 };

typedef struct kvquant_config {
    long long bits;
    double outliers; /* share of each vector that is stored as it is */
    long long sinks; /* first tokens of the sequence, not quantised */
    int levels;      /* NUQ or UNIFORM */
} kvquant_config;

static const kv_param params[] = {
    KV_ROW_OF(kvquant_config, "bits", KV_INT, bits, "3", 1, 8, NULL, 0, "bits",
              "of a quantised number"),
    KV_ROW_OF_REAL(kvquant_config, "outliers", outliers, "0.01", 0, 0.5, "fraction",
                   "numbers of each vector stored apart in 32 bits, value "
                   "and index; at least one unless 0"),
    KV_ROW_OF_COUNT(kvquant_config, "sinks", sinks, "1", 0, "tokens",
                    "first tokens of the sequence, not quantised"),
    KV_ROW_OF_CHOICE(kvquant_config, "levels", levels, "nuq", level_names,
                     "nuq: where the prompt's numbers lie, by weighted k-means; uniform: evenly "
                     "over a vector's range"),
    KV_ROW_END};

/* Outliers of a vector of n numbers. */
static int outliers_of(const kvquant_config *config, int n)
{
    int count = (int)floor(config->outliers * n + 0.5);
    return config->outliers > 0 && count < 1 ? 1 : count;
}

/* What head_state holds: the range of each channel, whether that is known, and the levels of keys
 * and of values within a range that is put to 0 .. 1. */
typedef struct state {
    kv_range *channel;
    double *known, *key_level, *value_level;
} state;

static state state_of(const kv_transform_step *step)
{
    const kvquant_config *config = step->config;
    size_t width = (size_t)step->view->shape->head_dim, levels = (size_t)1 << config->bits;
    double *known = step->head_state + 2 * width;
    return (state){.channel = (kv_range *)step->head_state,
                   .known = known,
                   .key_level = known + 1,
                   .value_level = known + 1 + levels};
}

/* Ranges of the channels of this KV head, from the keys of the prompt behind the sinks (which stay
 * as they are; the published code leaves its first_few_fp16 out of ranges, too): they stand in for
 * the published calibration on other texts. */
static void find_ranges(const kv_transform_step *step, int first, int n, kv_range *channel)
{
    const kvquant_config *config = step->config;
    int width = step->view->shape->head_dim;
    for (int d = 0; d < width; d++) {
        for (int j = 0; j < n; j++)
            step->work[j] = step->recorded_key[(size_t)(first + j) * (size_t)width + (size_t)d];
        channel[d] = kv_range_least(step->work, n, outliers_of(config, n));
    }
}

/* Adds a number that is no outlier, put to 0 .. 1; an error there is as much larger as the range.
 */
static int add_number(kv_weighted *sample, int n, kv_range range, double x, double weight)
{
    double width = range.high - range.low;
    if (!(width > 0) || x < range.low || x > range.high)
        return n;
    sample[n] = (kv_weighted){.x = (x - range.low) / width, .weight = weight * width * width};
    return n + 1;
}

/* Sum of squares of each channel of the group's queries that are recorded of the prompt: by so much
 * an error of a key counts in what they are multiplied with. 1 where none are. */
static void square_queries(const kv_transform_step *step, double *square)
{
    const kv_shape *shape = step->view->shape;
    const kv_example *example = step->view->example;
    int group = shape->heads / shape->kv_heads, rows = 0;
    while (rows < example->rows && example->query_pos[rows] < example->prompt_tokens)
        rows++;
    for (int d = 0; d < shape->head_dim; d++)
        square[d] = rows == 0;
    for (int r = 0; r < rows; r++)
        for (int g = 0; g < group; g++) {
            const float *query =
                kv_view_query(step->view, step->kv_head * group + g, example->query_pos[r]);
            for (int d = 0; d < shape->head_dim; d++)
                square[d] += (double)query[d] * query[d];
        }
}

static void fit_keys(const kv_transform_step *step, int first, int end, int stride, state s)
{
    const kvquant_config *config = step->config;
    int width = step->view->shape->head_dim, n = 0;
    double *square = step->work;
    kv_weighted *sample = (kv_weighted *)(square + width);
    square_queries(step, square);
    for (int j = first; j < end; j += stride)
        for (int d = 0; d < width; d++)
            n = add_number(sample, n, s.channel[d],
                           step->recorded_key[(size_t)j * (size_t)width + (size_t)d], square[d]);
    if (n > 0)
        kv_levels_fit(sample, n, s.key_level, 1 << config->bits);
}

static void fit_values(const kv_transform_step *step, int first, int end, int stride, state s)
{
    const kvquant_config *config = step->config;
    int width = step->view->shape->head_dim, n = 0;
    double *one = step->work;
    kv_weighted *sample = (kv_weighted *)(one + width);
    for (int j = first; j < end; j += stride) {
        const float *value = step->recorded_value + (size_t)j * (size_t)width;
        for (int d = 0; d < width; d++)
            one[d] = value[d];
        kv_range range = kv_range_least(one, width, outliers_of(config, width));
        for (int d = 0; d < width; d++)
            n = add_number(sample, n, range, value[d], 1);
    }
    if (n > 0)
        kv_levels_fit(sample, n, s.value_level, 1 << config->bits);
}

/* Between two tokens whose numbers levels are fitted to. */
static int fit_stride(int tokens, int width)
{
    long long numbers = (long long)tokens * width;
    return (int)((numbers + MOST_FITTED - 1) / MOST_FITTED);
}

static void calibrate(const kv_transform_step *step)
{
    const kvquant_config *config = step->config;
    int prompt = step->view->example->prompt_tokens;
    int first = config->sinks < prompt ? (int)config->sinks : 0;
    int stride = fit_stride(prompt - first, step->view->shape->head_dim);
    state s = state_of(step);
    find_ranges(step, first, prompt - first, s.channel);
    if (config->levels == NUQ) {
        fit_keys(step, first, prompt, stride, s);
        fit_values(step, first, prompt, stride, s);
    }
    *s.known = 1;
}

/* A number as it is read back, of a vector of that range. */
static float stored(const kvquant_config *config, kv_range range, const double *level, double x)
{
    double width = range.high - range.low;
    if (config->levels == UNIFORM)
        return (float)kv_quantise(range, config->bits, x);
    if (!(width > 0) || x < range.low || x > range.high)
        return (float)x;
    double at = kv_levels_nearest(level, 1 << config->bits, (x - range.low) / width);
    return (float)(range.low + at * width);
}

static void quantise_entry(const kv_transform_step *step, const kvquant_config *config, int token)
{
    int width = step->view->shape->head_dim;
    float *key = step->key + (size_t)token * (size_t)width;
    float *value = step->value + (size_t)token * (size_t)width;
    state s = state_of(step);
    for (int d = 0; d < width; d++) {
        key[d] = stored(config, s.channel[d], s.key_level, key[d]);
        step->work[d] = value[d];
    }
    kv_range range = kv_range_least(step->work, width, outliers_of(config, width));
    for (int d = 0; d < width; d++)
        value[d] = stored(config, range, s.value_level, value[d]);
}

static void apply(const kv_transform_step *step)
{
    const kvquant_config *config = step->config;
    if (*state_of(step).known == 0)
        calibrate(step);
    int pending = kv_stored_pending(step, 1);
    for (int i = 0; i < pending; i++) {
        kv_stored_mark(step, step->order[i], 1);
        if (step->order[i] >= config->sinks)
            quantise_entry(step, config, step->order[i]);
    }
}

static size_t head_doubles(const void *opaque, const kv_shape *shape)
{
    const kvquant_config *config = opaque;
    return 2 * (size_t)shape->head_dim + 1 + ((size_t)2 << config->bits);
}

/* One channel of all tokens, or one value and the numbers that levels are fitted to. */
static size_t work_doubles(const void *config, const kv_shape *shape, int tokens)
{
    int width = shape->head_dim, most = MOST_FITTED / width + 1;
    size_t fitted = (4 * (size_t)(tokens < most ? tokens : most) + 1) * (size_t)width;
    return fitted > (size_t)tokens ? fitted : (size_t)tokens;
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
