/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* KIVI: keys lose bits per channel over groups of tokens, values per token over groups of channels.
 * Outliers of keys sit in few channels, so a group inside one channel has a small range; values
 * have no such channels. The newest entries stay as they are. */
#include "config.h"

#include "policies/retention_params.h"
#include "policies/transform/quantise.h"

#include <math.h>

typedef struct kivi_config {
    long long key_bits, value_bits;
    long long group;    /* numbers that share a scale and a zero */
    long long residual; /* newest entries that are not quantised */
    int preset;
} kivi_config;

static const char *const preset_names[] = {"none", "scbench", NULL};
static const kv_preset presets[] = {
    {"scbench", "group=32 residual=32", "SCBench's settings (Li et al. 2024)"}, {.name = NULL}};

static const kv_param params[] = {
    KV_ROW_OF(kivi_config, "key_bits", KV_INT, key_bits, "2", 1, 8, NULL, 0, "bits",
              "of a quantised number of a key"),
    KV_ROW_OF(kivi_config, "value_bits", KV_INT, value_bits, "2", 1, 8, NULL, 0, "bits",
              "of a quantised number of a value"),
    KV_ROW_QUANTISE_GROUP(kivi_config, "32"),
    KV_ROW_OF(kivi_config, "residual", KV_INT, residual, "128", 2, 65536, NULL, 0, "tokens",
              "newest entries kept as they are; keys leave them in batches of so many"),
    KV_TRANSFORM_PRESET(kivi_config, preset_names),
    KV_ROW_END};

enum { KEY_DONE = 1, VALUE_DONE = 2 };

static const kv_range everything = {-INFINITY, INFINITY};

static kv_err check(const void *opaque, const kv_mark *mark, kv_diag *diag)
{
    const kivi_config *config = opaque;
    if (config->residual % config->group == 0)
        return KV_OK;
    return kv_fail(
        diag, KV_ERR_INPUT, mark,
        "residual %lld is not a multiple of group %lld, so that a batch of keys would not "
        "fill its groups",
        config->residual, config->group);
}

/* One group: x[0..n) onto the levels of its own range. */
static void quantise_group(double *x, int n, long long bits)
{
    kv_range range = kv_range_of(x, n, everything);
    for (int i = 0; i < n; i++)
        x[i] = kv_quantise(range, bits, x[i]);
}

static void quantise_keys(const kv_transform_step *step, const kivi_config *config)
{
    int width = step->view->shape->head_dim, pending = kv_stored_pending(step, KEY_DONE);
    int full = pending - pending % (int)config->residual, group = (int)config->group;
    for (int first = 0; first < full; first += group)
        for (int d = 0; d < width; d++) {
            kv_column_get(step->key, width, d, step->order + first, group, step->work);
            quantise_group(step->work, group, config->key_bits);
            kv_column_put(step->key, width, d, step->order + first, group, step->work);
        }
    for (int i = 0; i < full; i++)
        kv_stored_mark(step, step->order[i], KEY_DONE);
}

static void quantise_value(float *value, int width, const kivi_config *config, double *work)
{
    for (int first = 0; first < width; first += (int)config->group) {
        int n = width - first < config->group ? width - first : (int)config->group;
        for (int d = 0; d < n; d++)
            work[d] = value[first + d];
        quantise_group(work, n, config->value_bits);
        for (int d = 0; d < n; d++)
            value[first + d] = (float)work[d];
    }
}

static void apply(const kv_transform_step *step)
{
    const kivi_config *config = step->config;
    int width = step->view->shape->head_dim;
    quantise_keys(step, config);
    int old = kv_stored_pending(step, VALUE_DONE) - (int)config->residual;
    for (int i = 0; i < old; i++) {
        int token = step->order[i];
        quantise_value(step->value + (size_t)token * (size_t)width, width, config, step->work);
        kv_stored_mark(step, token, VALUE_DONE);
    }
}

/* Scratch: a group, whatever the example's length. */
static size_t work_doubles(const void *config, const kv_shape *shape, int tokens)
{
    return (size_t)((const kivi_config *)config)->group;
}

static double bytes(const void *opaque, const kv_transform_size *size)
{
    const kivi_config *config = opaque;
    double n = size->entries, keys = n - fmod(n, (double)config->residual);
    double values = fmax(0, n - (double)config->residual);
    long long width = size->shape->head_dim;
    double key_bits = kv_quantised_bits(config->key_bits, config->group);
    double value_bits =
        kv_quantised_bits(config->value_bits, width < config->group ? width : config->group);
    double saved = keys * (KV_PLAIN_BITS - key_bits) + values * (KV_PLAIN_BITS - value_bits);
    return 1 - saved / (2 * n * KV_PLAIN_BITS);
}

KV_TRANSFORM_DEFINE(kivi) = {
    .name = "kivi",
    .brief = "quantises keys per channel and values per token, the newest entries aside",
    .cite = "KIVI (Liu et al. 2024, arXiv 2402.02750)",
    .stage = "compression",
    .config_bytes = sizeof(kivi_config),
    .params = params,
    .presets = presets,
    .needs = KV_NEEDS_KEYS | KV_NEEDS_VALUES,
    .changes = KV_CHANGES_KEYS | KV_CHANGES_VALUES,
    .state_doubles = 1,
    .check = check,
    .work_doubles = work_doubles,
    .apply = apply,
    .bytes = bytes,
};
