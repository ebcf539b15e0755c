/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "sim/base/map.h"
#include "traces/arrivals.h"
#include "traces/likeness.h"
#include "traces/request_format.h"

#include <stdlib.h>
#include <string.h>

static kv_err open(void *state, const kv_request_env *env, kv_diag *diag);
static kv_err next(void *state, kv_request *out, kv_diag *diag);
static void close(void *state);

typedef struct resample_config {
    char *of;
    long long requests;
} resample_config;

/* The latest requests that were made are kept with their blocks, in two rings, so that later ones
 * can share prefixes with them. */
enum { PAST_REQUESTS = 1 << 15, PAST_BLOCKS = 1 << 22 };

typedef struct past_request {
    int64_t first;          /* where its blocks begin, in all blocks ever written */
    int32_t blocks, tokens; /* of its prompt */
} past_request;

typedef struct resample {
    const resample_config *config;
    kv__likeness likeness;
    kv__arrivals arrivals;
    gsl_rng *rng, *gaps;
    int64_t made;       /* requests so far */
    int64_t oldest;     /* the oldest that is kept */
    past_request *past; /* [PAST_REQUESTS], request n at n modulo that */
    uint64_t *block;    /* [PAST_BLOCKS], in the same way */
    int64_t written;    /* blocks so far */
    kv__map
        last_named;   /* of a block in the ring: the request that named it last, modulo 2^32 - 1 */
    uint64_t next_id; /* name of the next new block */
    uint64_t *prompt; /* [prompt_allocated] blocks of the current request */
    int32_t prompt_allocated;
} resample;

static const kv_param params[] = {
    {.name = "of",
     .type = KV_TEXT,
     .offset = offsetof(resample_config, of),
     .help = "format of the trace to resemble; found by looking if it is not given"},
    {.name = "requests",
     .type = KV_INT,
     .offset = offsetof(resample_config, requests),
     .fallback = "0",
     .min = 0,
     .max = 9e15,
     .flags = KV_PARAM_SWEEP,
     .unit = "requests",
     .help = "how many to make; 0: as many as the trace has"},
    {.name = NULL}};

/* Each request takes the lengths of one that was recorded, and shares a prefix of the recorded
 * length with the request that stands as far back as in the recording; its other blocks are new.
 * Gaps are Gamma with the recorded rate and burstiness. */
KV_REQUEST_FORMAT_DEFINE(resample) = {
    .name = "resample",
    .brief = "made up to be like a given trace: its lengths, prefix sharing, rate and burstiness",
    .config_bytes = sizeof(resample_config),
    .params = params,
    .state_bytes = sizeof(resample),
    .takes_many = true,
    .open = open,
    .next = next,
    .close = close,
};

static kv_err learn(resample *s, const kv_request_env *env, kv_diag *diag)
{
    kv_request_spec spec = {0};
    kv_request_reader *reader = NULL;
    kv_err err = kv_request_spec_init(&spec, env->path, s->config->of, diag);
    if (err != KV_OK)
        return err;
    spec.options.arrivals = KV_ARRIVALS_IF_RECORDED;
    spec.options.on_error = env->options->on_error;
    spec.options.unnamed_blocks = env->options->unnamed_blocks;
    err = kv_request_open(&spec, &reader, diag);
    if (err == KV_OK)
        err = kv__likeness_read(reader, s->rng, &s->likeness, diag);
    kv_request_close(reader);
    kv_request_spec_fini(&spec);
    return err;
}

static kv_err open(void *state, const kv_request_env *env, kv_diag *diag)
{
    enum { STREAM_CHOICE = 4, STREAM_GAPS = 5 };
    resample *s = state;
    uint64_t seed = (uint64_t)env->options->seed;
    s->config = env->config;
    s->rng = kv__rng_new(seed, STREAM_CHOICE);
    s->gaps = kv__rng_new(seed, STREAM_GAPS);
    s->past = malloc(PAST_REQUESTS * sizeof *s->past);
    s->block = malloc(PAST_BLOCKS * sizeof *s->block);
    if (s->rng == NULL || s->gaps == NULL || s->past == NULL || s->block == NULL)
        return kv_fail_memory(diag);
    kv_err err = learn(s, env, diag);
    if (err != KV_OK || s->likeness.mean_gap_s == 0)
        return err;
    bool even = s->likeness.burstiness == 0;
    kv__arrivals_config config = {.gaps = even ? KV_GAPS_EVEN : KV_GAPS_GAMMA,
                                  .rate = 1 / s->likeness.mean_gap_s,
                                  .burstiness = s->likeness.burstiness};
    kv__arrivals_init(&s->arrivals, &config, s->gaps);
    return KV_OK;
}

static void close(void *state)
{
    resample *s = state;
    kv__likeness_fini(&s->likeness);
    gsl_rng_free(s->rng);
    gsl_rng_free(s->gaps);
    free(s->past);
    free(s->block);
    kv__map_fini(&s->last_named);
    free(s->prompt);
}

static uint32_t short_number(int64_t number)
{
    return (uint32_t)(number % UINT32_MAX);
}

/* How many blocks can be shared with a past request so that it is the last one to have named the
 * deepest of them, as in the recording; 0 if that depth was used since, or is no longer known. */
static int32_t can_share(const resample *s, int64_t number, const kv__like *like)
{
    const past_request *p = &s->past[number % PAST_REQUESTS];
    int32_t blocks = like->shared_blocks;
    int32_t shared = p->blocks < blocks ? p->blocks : blocks;
    int32_t shorter = p->tokens < like->prompt_tokens ? p->tokens : like->prompt_tokens;
    int32_t whole = shared > 0 ? shorter / s->likeness.block_tokens : 0;
    if (shared > whole && p->tokens != like->prompt_tokens)
        shared = whole; /* a block that ends with the prompt is shared by equal prompts only */
    if (shared == 0)
        return 0;
    uint64_t deepest = s->block[(p->first + shared - 1) % PAST_BLOCKS];
    return kv__map_get(&s->last_named, deepest) == short_number(number) ? shared : 0;
}

/* The request to share with: the one so far back, or one near it. Of those the first that has
 * blocks enough, else the one that has most. -1: there is none. */
static int64_t find_past(const resample *s, const kv__like *like, int32_t *shared)
{
    enum { NEAR = 256 };
    int64_t best = -1, aim = s->made - like->distance;
    aim = aim < s->oldest ? s->oldest : aim;
    *shared = 0;
    for (int64_t i = 0; i < 2 * NEAR && *shared < like->shared_blocks; i++) {
        int64_t number = aim + (i % 2 == 0 ? i / 2 : -(i / 2) - 1);
        if (number < s->oldest || number >= s->made)
            continue;
        int32_t possible = can_share(s, number, like);
        if (possible > *shared) {
            *shared = possible;
            best = number;
        }
    }
    return best;
}

static kv_err have_prompt(resample *s, int32_t blocks)
{
    if (blocks <= s->prompt_allocated)
        return KV_OK;
    uint64_t *larger = realloc(s->prompt, 2 * (size_t)blocks * sizeof *larger);
    if (larger == NULL)
        return KV_ERR_MEMORY;
    s->prompt = larger;
    s->prompt_allocated = 2 * blocks;
    return KV_OK;
}

/* Puts the blocks of the prompt together. */
static void compose(resample *s, const kv__like *like)
{
    int32_t shared = 0;
    int64_t past = like->shared_blocks > 0 ? find_past(s, like, &shared) : -1;
    for (int32_t i = 0; i < shared; i++)
        s->prompt[i] = s->block[(s->past[past % PAST_REQUESTS].first + i) % PAST_BLOCKS];
    for (int32_t i = shared; i < like->named_blocks; i++)
        s->prompt[i] = s->next_id++;
}

/* Lets the oldest request go: blocks that no later one named are forgotten. */
static void forget_oldest(resample *s)
{
    const past_request *p = &s->past[s->oldest % PAST_REQUESTS];
    for (int32_t i = 0; i < p->blocks; i++) {
        uint64_t block = s->block[(p->first + i) % PAST_BLOCKS];
        if (kv__map_get(&s->last_named, block) == short_number(s->oldest))
            kv__map_remove(&s->last_named, block);
    }
    s->oldest++;
}

static kv_err name_block(resample *s, uint64_t block)
{
    uint32_t *named = kv__map_find(&s->last_named, block);
    s->block[s->written++ % PAST_BLOCKS] = block;
    if (named == NULL)
        return kv__map_add(&s->last_named, block, short_number(s->made));
    *named = short_number(s->made);
    return KV_OK;
}

/* Keeps the request that was just made, and as many before it as there is room for. */
static kv_err remember(resample *s, const kv__like *like)
{
    int32_t blocks = like->named_blocks;
    kv_err err = KV_OK;
    blocks = blocks < PAST_BLOCKS ? blocks : PAST_BLOCKS;
    while (s->oldest < s->made &&
           (s->made - s->oldest == PAST_REQUESTS ||
            s->written + blocks - s->past[s->oldest % PAST_REQUESTS].first > PAST_BLOCKS))
        forget_oldest(s);
    s->past[s->made % PAST_REQUESTS] = (past_request){s->written, blocks, like->prompt_tokens};
    for (int32_t i = 0; err == KV_OK && i < blocks; i++)
        err = name_block(s, s->prompt[i]);
    return err;
}

static kv_err next(void *state, kv_request *out, kv_diag *diag)
{
    resample *s = state;
    const kv__likeness *l = &s->likeness;
    if (s->made == (s->config->requests > 0 ? s->config->requests : l->requests))
        return KV_END;
    const kv__like *like = &l->like[gsl_rng_uniform_int(s->rng, (unsigned long)l->count)];
    if (have_prompt(s, like->named_blocks) != KV_OK)
        return kv_fail_memory(diag);
    compose(s, like);
    if (remember(s, like) != KV_OK)
        return kv_fail_memory(diag);
    s->made++;
    *out = kv__request_blank;
    if (l->mean_gap_s > 0)
        out->arrival_ns = kv__arrivals_next(&s->arrivals);
    out->prompt_tokens = like->prompt_tokens;
    out->output_tokens = like->output_tokens;
    out->blocks = like->named_blocks > 0 ? s->prompt : NULL;
    out->block_count = like->named_blocks;
    out->block_tokens = like->named_blocks > 0 ? l->block_tokens : 0;
    return KV_OK;
}
