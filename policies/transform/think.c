/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* ThinK: channels of keys that matter least for the queries at the prompt's end are not stored. */
#include "config.h"

#include "policies/retention_params.h"
#include "policies/transform/quantise.h"

#include <math.h>
#include <string.h>

typedef struct think_config {
    double ratio;        /* share of a key's channels that is pruned */
    long long recent;    /* newest entries that keep all channels */
    long long observers; /* queries at the prompt's end that choose the channels */
    int scored;          /* whose keys count when channels are chosen */
    int preset;
} think_config;

typedef enum scored { OLD, ALL } scored;

static const char *const scored_names[] = {[OLD] = "old", [ALL] = "all", NULL};
static const char *const preset_names[] = {"none", "kvpress", "kvcache-factory", NULL};
static const kv_preset presets[] = {
    {"kvpress", "observers=32 recent=0 scored=all", "ThinKPress, which zeroes where this frees"},
    {"kvcache-factory", "observers=32 recent=32 scored=all ratio=0.4",
     "update_think; put snapkv beside it"},
    {.name = NULL}};

static const kv_param params[] = {
    KV_ROW_OF_REAL(think_config, "ratio", ratio, "0.4", 0, 1, "fraction",
                   "channels of each key that are not stored"),
    KV_ROW_OF_COUNT(think_config, "recent", recent, "32", 0, "tokens",
                    "newest entries that keep all channels; 0 prunes them too"),
    KV_ROW_OF_COUNT(think_config, "observers", observers, "32", 1, "rows",
                    "queries at the prompt's end that choose the channels"),
    KV_ROW_OF_CHOICE(think_config, "scored", scored, "old", scored_names,
                     "keys that choose the channels: those before the recent ones, or all"),
    KV_TRANSFORM_PRESET(think_config, preset_names),
    KV_ROW_END};

static int pruned_of(const think_config *config, int width)
{
    return (int)(config->ratio * width);
}

/* score[d] += the sum of squares of channel d over the observing queries of the group. */
static void add_queries(const kv_transform_step *step, const think_config *config, double *score)
{
    const kv_shape *shape = step->view->shape;
    int group = shape->heads / shape->kv_heads, prompt = step->view->example->prompt_tokens;
    int first = prompt > config->observers ? prompt - (int)config->observers : 0;
    for (int g = 0; g < group; g++)
        for (int p = first; p < prompt; p++) {
            const float *query = kv_view_query(step->view, step->kv_head * group + g, p);
            for (int d = 0; d < shape->head_dim; d++)
                score[d] += (double)query[d] * query[d];
        }
}

/* Entries before the recent window, or all if so asked or where there are no others. */
static int scored_entries(const kv_transform_step *step, const think_config *config)
{
    int old = step->presents > config->recent ? step->presents - (int)config->recent : 0;
    return old > 0 && config->scored == OLD ? old : step->presents;
}

/* Marks the channels to prune: least energy of queries times energy of keys, the higher channel
 * first among equals. state[0..width): 1 pruned; state[width]: chosen. */
static void choose(const kv_transform_step *step, const think_config *config)
{
    int width = step->view->shape->head_dim;
    double *queries = step->work, *keys = step->work + width, *pruned = step->head_state;
    memset(step->work, 0, 2 * (size_t)width * sizeof *step->work);
    add_queries(step, config, queries);
    for (int i = scored_entries(step, config) - 1; i >= 0; i--)
        for (int d = 0; d < width; d++) {
            double x = step->key[(size_t)step->present[i] * (size_t)width + (size_t)d];
            keys[d] += x * x;
        }
    for (int n = pruned_of(config, width); n > 0; n--) {
        int least = -1;
        for (int d = 0; d < width; d++)
            if (!(pruned[d] > 0) &&
                (least < 0 || queries[d] * keys[d] <= queries[least] * keys[least]))
                least = d;
        pruned[least] = 1;
    }
    pruned[width] = 1;
}

static void apply(const kv_transform_step *step)
{
    const think_config *config = step->config;
    int width = step->view->shape->head_dim;
    if (step->step_end < step->view->example->prompt_tokens)
        return;
    if (step->head_state[width] == 0)
        choose(step, config);
    int old = kv_stored_pending(step, 1);
    for (int i = 0; i < old && step->presents - config->recent > 0; i++) {
        int token = step->order[i];
        if (config->recent > 0 && token >= step->present[step->presents - config->recent])
            break;
        float *key = step->key + (size_t)token * (size_t)width;
        for (int d = 0; d < width; d++)
            key[d] = step->head_state[d] > 0 ? 0 : key[d];
        kv_stored_mark(step, token, 1);
    }
}

static size_t head_doubles(const void *config, const kv_shape *shape)
{
    return (size_t)shape->head_dim + 1;
}

static size_t work_doubles(const void *config, const kv_shape *shape, int tokens)
{
    return 2 * (size_t)shape->head_dim;
}

static long long observers(const void *config)
{
    return ((const think_config *)config)->observers;
}

static double bytes(const void *opaque, const kv_transform_size *size)
{
    const think_config *config = opaque;
    int width = size->shape->head_dim;
    double old = size->prefill ? 0 : fmax(0, size->entries - (double)config->recent);
    return 1 - old / size->entries * pruned_of(config, width) / width / 2;
}

KV_TRANSFORM_DEFINE(think) = {
    .name = "think",
    .brief = "prunes the channels of keys that the prompt's last queries use least",
    .cite = "ThinK (Xu et al. 2024, arXiv 2407.21018)",
    .stage = "compression",
    .config_bytes = sizeof(think_config),
    .params = params,
    .presets = presets,
    .needs = KV_NEEDS_KEYS | KV_NEEDS_VALUES | KV_NEEDS_QUERIES,
    .changes = KV_CHANGES_KEYS,
    .state_doubles = 1,
    .observers = observers,
    .head_doubles = head_doubles,
    .work_doubles = work_doubles,
    .apply = apply,
    .bytes = bytes,
};
