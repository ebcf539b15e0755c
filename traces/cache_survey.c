/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "traces/cache_survey.h"

#include <stdlib.h>
#include <string.h>

static bool looks_ahead(const kv_cache_hits *hits)
{
    return (hits->policy->needs & KV_REPLACEMENT_FUTURE) != 0;
}

kv_err kv__cache_survey_init(kv__cache_survey *survey, kv_cache_hits *hits, int caches,
                             uint32_t capacity, kv_diag *diag)
{
    *survey = (kv__cache_survey){.hits = hits, .caches = caches, .capacity = capacity};
    kv_err err = KV_OK;
    for (int c = 0; c < caches && err == KV_OK; c++) {
        survey->keeps = survey->keeps || looks_ahead(&hits[c]);
        if (!looks_ahead(&hits[c]))
            err = kv_block_cache_new(hits[c].policy, NULL, capacity, 0, &survey->cache[c], diag);
    }
    return err;
}

void kv__cache_survey_fini(kv__cache_survey *survey)
{
    for (int c = 0; c < survey->caches; c++)
        kv_block_cache_free(survey->cache[c]);
    kv__uses_fini(&survey->uses);
    free(survey->key);
    free(survey->prompt);
}

static int64_t tokens_of(const kv__cache_survey *survey, const kv__seen_prompt *prompt,
                         int32_t blocks)
{
    int64_t tokens = (int64_t)blocks * survey->block_tokens;
    return tokens < prompt->tokens ? tokens : prompt->tokens;
}

/* The request looks for its prefix, then uses all its blocks. first: number of the first of these
 * uses in the trace; only policies that look ahead are told what comes. */
static kv_err use_prompt(const kv__cache_survey *survey, kv_block_cache *cache, kv_cache_hits *hits,
                         const kv__seen_prompt *prompt, const uint64_t *key, int64_t first)
{
    int32_t found = kv_block_cache_prefix(cache, key, prompt->blocks);
    hits->hit_tokens += tokens_of(survey, prompt, found);
    for (int32_t i = 0; i < prompt->blocks; i++) {
        kv_access access = {.key = key[i],
                            .time = first + i,
                            .next_use = KV_NEVER,
                            .position = i,
                            .prompt_blocks = prompt->blocks};
        if (looks_ahead(hits))
            access.next_use = kv__uses_after(&survey->uses, (size_t)(first + i));
        hits->resident_blocks += kv_block_cache_find(cache, key[i]) != KV_NO_SLOT;
        kv_err err = kv_block_cache_use(cache, &access, NULL, NULL);
        if (err != KV_OK)
            return err;
    }
    return KV_OK;
}

static kv_err grow(void **pointer, size_t *allocated, size_t count, size_t bytes)
{
    if (count <= *allocated)
        return KV_OK;
    void *larger = realloc(*pointer, 2 * count * bytes);
    if (larger == NULL)
        return KV_ERR_MEMORY;
    *pointer = larger;
    *allocated = 2 * count;
    return KV_OK;
}

static kv_err keep(kv__cache_survey *s, const kv__seen_prompt *prompt, const uint64_t *key,
                   kv_diag *diag)
{
    size_t keys = s->uses.count, count = keys + (size_t)prompt->blocks;
    void *key_room = s->key, *prompt_room = s->prompt;
    kv_err err = grow(&key_room, &s->keys_allocated, count, sizeof *s->key);
    s->key = key_room;
    if (err == KV_OK)
        err = grow(&prompt_room, &s->prompts_allocated, s->prompts + 1, sizeof *s->prompt);
    s->prompt = prompt_room;
    if (err != KV_OK)
        return kv_fail_memory(diag);
    memcpy(s->key + keys, key, (size_t)prompt->blocks * sizeof *key);
    s->prompt[s->prompts++] = *prompt;
    for (int32_t i = 0; i < prompt->blocks && err == KV_OK; i++)
        err = kv__uses_add(&s->uses, key[i], diag);
    return err;
}

kv_err kv__cache_survey_add(kv__cache_survey *survey, const kv_request *request, kv_diag *diag)
{
    kv__seen_prompt prompt = {request->prompt_tokens, request->block_count};
    kv_err err = KV_OK;
    survey->block_tokens = request->block_tokens;
    for (int c = 0; c < survey->caches && err == KV_OK; c++)
        if (survey->cache[c] != NULL)
            err = use_prompt(survey, survey->cache[c], &survey->hits[c], &prompt, request->blocks,
                             survey->accesses);
    survey->accesses += request->block_count;
    if (err != KV_OK)
        return kv_fail_memory(diag);
    return survey->keeps ? keep(survey, &prompt, request->blocks, diag) : KV_OK;
}

/* The whole trace once more, now that its end is known. */
static kv_err replay(const kv__cache_survey *survey, kv_cache_hits *hits, kv_diag *diag)
{
    kv_block_cache *cache;
    int64_t first = 0;
    kv_err err = kv_block_cache_new(hits->policy, NULL, survey->capacity, 0, &cache, diag);
    if (err != KV_OK)
        return err;
    for (size_t p = 0; p < survey->prompts && err == KV_OK; p++) {
        err = use_prompt(survey, cache, hits, &survey->prompt[p], survey->key + first, first);
        first += survey->prompt[p].blocks;
    }
    kv_block_cache_free(cache);
    return err == KV_OK ? KV_OK : kv_fail_memory(diag);
}

kv_err kv__cache_survey_end(kv__cache_survey *survey, kv_diag *diag)
{
    kv_err err = KV_OK;
    for (int c = 0; c < survey->caches && err == KV_OK; c++)
        if (survey->cache[c] == NULL)
            err = replay(survey, &survey->hits[c], diag);
    return err;
}
