/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* What of a prefix in lower tiers is loaded, and what is computed again.
 *
 * Each choice is judged by when the prompt would be complete if the request were alone: the front
 * in steps of at most a chunk, then, when what is loaded can be used, the rest of the prompt, which
 * no tier has. Computing everything saves the step between the two; loading everything may hide
 * behind that rest. Both ends take whichever is over first, so they are never worse than either. */
#include "config.h"

#include "sim/serving/replica.h"

/* Steps that are looked at one by one; of more, so many evenly spaced ones stand for all. */
enum { MOST_STEPS = 16 };

static int64_t later(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* Fine time of a step that computes a chunk behind `from` tokens. */
static kv_fine step_fine(const kv__replica *replica, double from, double tokens)
{
    kv_step_batch batch = {.tokens = (int64_t)tokens,
                           .sequences = 1,
                           .prefill_tokens = (int64_t)tokens,
                           .prefill_square = tokens * tokens,
                           .prefill_history = tokens * from};
    return kv_step_time_step(replica->server->time, &batch);
}

/* Nanoseconds that computing tokens from..to - 1 takes with nothing else in the steps. */
static int64_t compute_ns(const kv__replica *replica, int64_t from, int64_t to)
{
    const kv_serving_settings *s = replica->server->settings;
    int64_t chunk = s->max_batched_tokens, left = to - from;
    __int128 fine = 0;
    if (s->chunk_tokens > 0 && s->chunk_tokens < chunk)
        chunk = s->chunk_tokens;
    int64_t steps = left / chunk, rest = left % chunk;
    for (int64_t i = 0; i < steps && steps <= MOST_STEPS; i++)
        fine += step_fine(replica, (double)(from + i * chunk), (double)chunk);
    for (int64_t i = 0; i < MOST_STEPS && steps > MOST_STEPS; i++) {
        int64_t at = (2 * i + 1) * steps / (2 * MOST_STEPS);
        fine += step_fine(replica, (double)(from + at * chunk), (double)chunk) * steps / MOST_STEPS;
    }
    if (rest > 0)
        fine += step_fine(replica, (double)(to - rest), (double)rest);
    return (int64_t)(fine >> KV_FINE_BITS);
}

/* Nanoseconds until the prompt would be complete if blocks from split..high - 1 are loaded and
 * those from held..split - 1 computed. *front_ns, *ready_ns: until these are computed, and until
 * computing can go on behind those. */
static int64_t complete_ns(kv__replica *replica, const kv__live *live, int32_t held, int32_t split,
                           int32_t high, int64_t *front_ns, int64_t *ready_ns)
{
    int64_t size = replica->memory.block_tokens, all = kv__live_tokens(live), loaded_ns;
    *front_ns = *ready_ns = 0;
    if (split == high)
        return compute_ns(replica, held * size, all);
    kv__tiers_expect(replica, live, split, high, ready_ns, &loaded_ns);
    *front_ns = compute_ns(replica, held * size, split * size);
    int64_t rest_ns = later(*front_ns, *ready_ns) + compute_ns(replica, high * size, all);
    return later(rest_ns, loaded_ns);
}

int32_t kv__load_split(kv__replica *replica, const kv__live *live, int32_t held, int32_t more)
{
    int mode = replica->server->settings->load;
    int32_t low = held, high = held + more;
    int64_t front_ns, ready_ns;
    if (mode == KV_LOAD_ALWAYS)
        return held;
    while (mode == KV_LOAD_BOTH_ENDS && low < high) { /* the least front that outlasts the load */
        int32_t middle = low + (high - low) / 2;
        complete_ns(replica, live, held, middle, held + more, &front_ns, &ready_ns);
        if (front_ns >= ready_ns)
            high = middle;
        else
            low = middle + 1;
    }
    /* One block less leaves more to load; it may still be over sooner. */
    const int32_t choice[] = {held + more, held, low > held ? low - 1 : held, low};
    int32_t best = held + more;
    int64_t best_ns = INT64_MAX;
    for (int i = 0; i < (mode == KV_LOAD_BOTH_ENDS ? 4 : 2); i++) {
        int64_t ns = complete_ns(replica, live, held, choice[i], held + more, &front_ns, &ready_ns);
        best = ns < best_ns ? choice[i] : best;
        best_ns = ns < best_ns ? ns : best_ns;
    }
    return best;
}
