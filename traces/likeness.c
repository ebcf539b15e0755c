/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "traces/likeness.h"

#include "sim/base/map.h"

#include <stdlib.h>

#include <gsl/gsl_rstat.h>

typedef struct learning {
    kv__likeness *out;
    gsl_rng *rng;
    gsl_rstat_workspace *gaps;
    kv__map last_named; /* of a block: the request that named it last, counted modulo 2^32 - 1 */
    int64_t last_ns;
} learning;

void kv__likeness_fini(kv__likeness *likeness)
{
    free(likeness->like);
    *likeness = (kv__likeness){0};
}

static uint32_t short_number(int64_t number)
{
    return (uint32_t)(number % UINT32_MAX);
}

/* How much of the prompt was named before, and how long ago. */
static void look_back(learning *l, const kv_request *r, kv__like *like)
{
    uint32_t *named, *deepest = NULL;
    while (like->shared_blocks < r->block_count &&
           (named = kv__map_find(&l->last_named, r->blocks[like->shared_blocks])) != NULL) {
        deepest = named;
        like->shared_blocks++;
    }
    uint32_t now = short_number(r->number);
    if (deepest != NULL)
        like->distance = now >= *deepest ? now - *deepest : now + (UINT32_MAX - *deepest);
}

static kv_err name_blocks(learning *l, const kv_request *r)
{
    for (int32_t i = 0; i < r->block_count; i++) {
        uint32_t *named = kv__map_find(&l->last_named, r->blocks[i]);
        if (named != NULL) {
            *named = short_number(r->number);
            continue;
        }
        kv_err err = kv__map_add(&l->last_named, r->blocks[i], short_number(r->number));
        if (err != KV_OK)
            return err;
    }
    return KV_OK;
}

/* Keeps the first ones, then each with the chance that leaves all equally likely (algorithm R). */
static void keep(learning *l, const kv__like *like, int64_t number)
{
    kv__likeness *out = l->out;
    if (out->count < KV_LIKENESS_MOST) {
        out->like[out->count++] = *like;
        return;
    }
    double place = gsl_rng_uniform(l->rng) * (double)(number + 1);
    if (place < KV_LIKENESS_MOST)
        out->like[(int32_t)place] = *like;
}

static kv_err learn(learning *l, const kv_request *r)
{
    kv__like like = {.prompt_tokens = r->prompt_tokens,
                     .output_tokens = r->output_tokens,
                     .named_blocks = r->block_count};
    if (r->number > 0)
        gsl_rstat_add((double)(r->arrival_ns - l->last_ns) / 1e9, l->gaps);
    l->last_ns = r->arrival_ns;
    if (r->block_count > 0)
        l->out->block_tokens = r->block_tokens;
    look_back(l, r, &like);
    keep(l, &like, r->number);
    l->out->requests++;
    return name_blocks(l, r);
}

static kv_err learn_all(learning *l, kv_request_reader *reader, kv_diag *diag)
{
    kv_request request;
    kv_err err;
    while ((err = kv_request_next(reader, &request, diag)) == KV_OK) {
        if (learn(l, &request) != KV_OK)
            return kv_fail_memory(diag);
        kv_request_completed(reader, request.session, request.turn, request.arrival_ns);
    }
    if (err == KV_END && l->out->requests == 0)
        return kv_fail(diag, KV_ERR_INPUT, NULL, "a trace without requests is like nothing");
    return err == KV_END ? KV_OK : err;
}

kv_err kv__likeness_read(kv_request_reader *reader, gsl_rng *rng, kv__likeness *out, kv_diag *diag)
{
    *out = (kv__likeness){.like = malloc(KV_LIKENESS_MOST * sizeof *out->like)};
    learning l = {.out = out, .rng = rng, .gaps = gsl_rstat_alloc()};
    kv_err err =
        out->like == NULL || l.gaps == NULL ? kv_fail_memory(diag) : learn_all(&l, reader, diag);
    if (err == KV_OK && gsl_rstat_n(l.gaps) >= 2 && gsl_rstat_mean(l.gaps) > 0) {
        out->mean_gap_s = gsl_rstat_mean(l.gaps);
        out->burstiness = gsl_rstat_sd(l.gaps) / out->mean_gap_s;
    }
    kv__map_fini(&l.last_named);
    if (l.gaps != NULL)
        gsl_rstat_free(l.gaps);
    if (err != KV_OK)
        kv__likeness_fini(out);
    return err;
}
