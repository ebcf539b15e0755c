/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* What is stored, in plain entries: counts weighed by what transforms and read policies make of an
 * entry, and by what the model's layers cache at all. */
#include "config.h"

#include "sim/replay/lane.h"

#include <math.h>

bool kv__bytes_differ(const kv__group *group, const kv_replay_cache *cache)
{
    return group->parts > 0 || cache->layer != NULL || cache->latent;
}

double kv__bytes_entry(const kv__stage *stage)
{
    double bytes = stage->replay->options.cache.entry_bytes;
    return bytes > 0 ? bytes : 2.0 * stage->replay->shape.head_dim * 2;
}

/* Positions of an ascending list that are at least `first`. */
static int64_t count_from(const kv__list *list, int first)
{
    int low = 0, high = list->count;
    while (low < high) {
        int middle = low + (high - low) / 2;
        if (list->at[middle] < first)
            low = middle + 1;
        else
            high = middle;
    }
    return list->count - low;
}

/* Entries of a head from position `first` on, present before the current step. */
static int64_t head_past(const kv__lane *lane, const kv__lane_head *head, int budget, int first)
{
    int tail = head->tail_first > first ? head->tail_first : first;
    int64_t past = lane->step_start > tail ? lane->step_start - tail : 0;
    for (int level = 0; level <= budget; level++)
        past += count_from(&head->level[level], first) -
                count_from(&head->level[level], lane->step_start);
    return past;
}

/* Tokens from position `first` on that any head still holds before the current step. */
static int64_t union_past(const kv__lane *lane, int kv_heads, int budget, int first)
{
    int tail = lane->step_start;
    for (int h = 0; h < kv_heads; h++)
        tail = lane->head[h].tail_first < tail ? lane->head[h].tail_first : tail;
    tail = tail > first ? tail : first;
    int64_t past = lane->step_start > tail ? lane->step_start - tail : 0;
    for (int j = first; j < tail && j < lane->step_start; j++) {
        bool held = false;
        for (int h = 0; h < kv_heads && !held; h++)
            held = lane->head[h].level_of[j] <= budget;
        past += held;
    }
    return past;
}

/* Adds what one head, or all heads of a latent cache, store during the current step. */
static void add_head(kv__lane *lane, const kv__stage *stage, int budget, bool prefill, double past,
                     int tokens)
{
    kv__occupancy *o = &lane->occupancy[budget];
    double stored_past = past, held, area = 0;
    if (lane->parts != NULL)
        stored_past *= kv__parts_share(lane->group, stage, past, prefill);
    held = stored_past;
    for (int i = 1; i <= tokens; i++) {
        double entries = stored_past + i, beside = 0, device = 1;
        if (lane->parts != NULL) {
            beside = kv__parts_metadata(lane->group, stage, past + i, prefill);
            device = kv__parts_device_share(lane->group, past + i);
        }
        held = entries + beside;
        area += held;
        o->stored_on_device += entries * device + beside;
    }
    o->stored_at_step[lane->step] += held;
    if (prefill)
        o->stored_prefill += area;
    else
        o->stored_decode += area;
}

void kv__bytes_charge(kv__lane *lane, const kv__stage *stage, int budget, bool prefill,
                      int64_t probes)
{
    const kv_replay_cache *cache = &stage->replay->options.cache;
    const kv_counts_layer *layer = cache->layer ? &cache->layer[stage->view.layer] : NULL;
    int heads = stage->replay->shape.kv_heads, first = 0;
    int tokens = lane->entered + (int)probes;
    if (layer != NULL && !layer->caches)
        return;
    if (layer != NULL && layer->window_tokens > 0 && layer->window_tokens <= lane->step_start)
        first = lane->step_start - (int)layer->window_tokens + 1;
    if (cache->latent) {
        add_head(lane, stage, budget, prefill, (double)union_past(lane, heads, budget, first),
                 tokens);
        return;
    }
    for (int h = 0; h < heads; h++)
        add_head(lane, stage, budget, prefill,
                 (double)head_past(lane, &lane->head[h], budget, first), tokens);
}

void kv__bytes_set(double entry_steps, double on_device, double peak, const kv__stage *stage,
                   kv_record *record)
{
    const kv_replay_cache *cache = &stage->replay->options.cache;
    const kv_shape *shape = &stage->replay->shape;
    double n = stage->example->total_tokens, bytes = kv__bytes_entry(stage);
    double state = cache->state_bytes / bytes;
    double full =
        cache->full_entries > 0 ? cache->full_entries : (double)shape->layers * shape->kv_heads;
    record->value[KV_M_PEAK_BYTES] = (peak + state) * bytes;
    double all = full * n * (n + 1) / 2;
    record->value[KV_M_FOOTPRINT_BYTES] = (entry_steps + n * state) / all;
    record->value[KV_M_FOOTPRINT_DEVICE] = (on_device + n * state) / all;
}

void kv__bytes_finish(const kv__occupancy *o, const kv__stage *stage, kv_record *record)
{
    const kv_replay_options *options = &stage->replay->options;
    const kv_shape *shape = &stage->replay->shape;
    double n = stage->example->total_tokens, prompt = stage->example->prompt_tokens;
    double prefill = (double)o->prefill[KV__IDEAL], decode = (double)o->decode[KV__IDEAL];
    double peak = record->value[KV_M_PEAK] * shape->layers * shape->kv_heads * n;
    double bytes = kv__bytes_entry(stage), state = options->cache.state_bytes;
    double device = prefill + decode;
    if (o->stored_at_step != NULL) {
        prefill = o->stored_prefill;
        decode = o->stored_decode;
        device = o->stored_on_device;
        peak = 0;
        for (int s = 0; s < o->steps; s++)
            peak = fmax(peak, o->stored_at_step[s]);
    }
    kv__bytes_set(prefill + decode, device, peak, stage, record);
    record->value[KV_M_BYTES_SECONDS] =
        (bytes * prefill + prompt * state) * options->prefill_token_s +
        (bytes * decode + (n - prompt) * state) * options->decode_step_s;
}
