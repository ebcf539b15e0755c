/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "sim/serving/foresight.h"

#include "sim/cache/next_use.h"
#include "sim/serving/names.h"

#include <stdlib.h>

struct kv_foresight {
    kv__uses uses;
    uint32_t *start; /* [requests + 1] first use of each request, in order of the first reading */
    size_t requests, allocated;
    bool by_turn;
    kv__map by_identity; /* number of a request in that order, if by_turn */
    uint64_t alone;      /* requests without a session so far */
};

static bool looks_ahead(const kv_replacement *policy)
{
    return policy != NULL && (policy->needs & KV_REPLACEMENT_FUTURE) != 0;
}

bool kv_foresight_needed(const kv_serving_settings *settings)
{
    bool needed = looks_ahead(settings->replacement);
    for (int t = 0; t < settings->tiers; t++)
        needed = needed || looks_ahead(settings->tier[t].replacement);
    return needed && settings->prefix_cache;
}

void kv_foresight_free(kv_foresight *foresight)
{
    if (foresight == NULL)
        return;
    kv__uses_fini(&foresight->uses);
    kv__map_fini(&foresight->by_identity);
    free(foresight->start);
    free(foresight);
}

/* What tells a request from all others in both readings: those without a session come in the same
 * order in both. */
static uint64_t identity_of(kv_foresight *f, const kv_request *request)
{
    if (request->session == KV_NO_SESSION)
        return kv__spread_name(f->alone++ ^ 0x616c6f6e65000000u);
    return kv__spread_name(kv__spread_name(request->session) + (uint64_t)request->turn);
}

/* A second request of the same session and turn stays unknown. */
static kv_err note_request(kv_foresight *f, const kv_request *request, kv_diag *diag)
{
    if (f->requests + 2 > f->allocated) {
        size_t allocated = f->allocated == 0 ? 1024 : 2 * f->allocated;
        uint32_t *start = realloc(f->start, allocated * sizeof *start);
        if (start == NULL)
            return kv_fail_memory(diag);
        f->start = start;
        f->allocated = allocated;
    }
    f->start[f->requests++] = (uint32_t)f->uses.count;
    uint64_t identity = f->by_turn ? identity_of(f, request) : 0;
    bool known = kv__map_get(&f->by_identity, identity) != KV_MAP_ABSENT;
    if (f->by_turn && !known &&
        kv__map_add(&f->by_identity, identity, (uint32_t)f->requests - 1) != KV_OK)
        return kv_fail_memory(diag);
    return KV_OK;
}

static kv_err foresee(kv_foresight *f, const kv_serving_settings *settings,
                      const kv_request *request, kv_diag *diag)
{
    int32_t named = 0;
    kv_err err = kv__named_blocks(settings, request, &named, diag);
    if (err == KV_OK)
        err = note_request(f, request, diag);
    for (int32_t i = 0; i < named && err == KV_OK; i++)
        err = kv__uses_add(&f->uses, kv__block_name(request, settings->block_tokens, i), diag);
    if (err == KV_OK)
        f->start[f->requests] = (uint32_t)f->uses.count;
    return err;
}

kv_err kv_foresight_read(const kv_serving_settings *settings, const kv_serving_source *source,
                         bool by_turn, kv_foresight **out, kv_diag *diag)
{
    kv_foresight *f = calloc(1, sizeof *f);
    if (f == NULL)
        return kv_fail_memory(diag);
    f->by_turn = by_turn;
    kv_err err = KV_OK;
    while (err == KV_OK) {
        kv_request request;
        err = source->next(source->closure, &request, diag);
        if (err == KV_OK)
            err = foresee(f, settings, &request, diag);
        if (err == KV_OK && source->completed != NULL)
            source->completed(source->closure, request.session, request.turn, request.arrival_ns);
    }
    f->alone = 0;
    err = err == KV_END ? kv__uses_rewind(&f->uses, diag) : err;
    if (err != KV_OK) {
        kv_foresight_free(f);
        return err;
    }
    *out = f;
    return KV_OK;
}

int64_t kv__foresight_of(kv_foresight *foresight, const kv_request *request)
{
    size_t number = (size_t)request->number;
    if (foresight->by_turn)
        number = kv__map_get(&foresight->by_identity, identity_of(foresight, request));
    return number < foresight->requests ? (int64_t)foresight->start[number] : -1;
}

int64_t kv__foresight_next(kv_foresight *foresight, uint64_t key)
{
    return foresight != NULL ? kv__uses_next(&foresight->uses, key) : KV_NEVER;
}

void kv__foresight_make(kv_foresight *foresight, const kv__live *live, bool made)
{
    for (int32_t i = 0; i < live->named && live->first_use >= 0; i++)
        kv__uses_make(&foresight->uses, (size_t)live->first_use + (size_t)i, live->key[i], made);
}
