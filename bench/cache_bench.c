/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Speed of the block cache: uses of blocks per second through each replacement policy on one core,
 * and of the readers: requests per second.
 *
 *     bench/cache_bench [TRACE [FORMAT]]
 *
 * Without a trace, one is made up: 200,000 requests of sessions that share contexts. The trace is
 * read once, timed, then once straight through an LRU cache, and its blocks are kept; then each
 * policy replays them at four capacities. A use is what the serving replay does per block: find it,
 * and touch it or bring it in and evict another. */
#include "config.h"

#include "sim/base/map.h"
#include "sim/cache/block_cache.h"
#include "traces/request.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

typedef struct uses {
    kv_access *access; /* [count] */
    size_t count, allocated;
} uses;

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static kv_err keep(uses *u, const kv_request *request)
{
    for (int32_t i = 0; i < request->block_count; i++) {
        if (u->count == u->allocated) {
            u->allocated = u->allocated == 0 ? 1 << 16 : 2 * u->allocated;
            u->access = realloc(u->access, u->allocated * sizeof *u->access);
            if (u->access == NULL)
                return KV_ERR_MEMORY;
        }
        u->access[u->count] = (kv_access){.key = request->blocks[i],
                                          .time = (int64_t)u->count,
                                          .next_use = KV_NEVER,
                                          .position = i,
                                          .prompt_blocks = request->block_count};
        u->count++;
    }
    return KV_OK;
}

/* Reads the trace from beginning to end; u NULL: only to see how long that takes. */
static kv_err read_once(const kv_request_spec *spec, uses *u, int64_t *requests, kv_diag *diag)
{
    kv_request_reader *reader = NULL;
    kv_request request;
    kv_err err = kv_request_open(spec, &reader, diag);
    while (err == KV_OK && (err = kv_request_next(reader, &request, diag)) == KV_OK) {
        err = u != NULL ? keep(u, &request) : KV_OK;
        ++*requests;
    }
    kv_request_close(reader);
    return err == KV_END ? KV_OK : err;
}

/* From the file through the reader into an LRU cache, all at once. */
static kv_err read_through(const kv_request_spec *spec, uint32_t capacity, kv_diag *diag)
{
    kv_block_cache *cache = NULL;
    kv_request_reader *reader = NULL;
    kv_request request;
    int64_t used = 0;
    double began = seconds();
    kv_err err = kv_block_cache_new(kv_replacement_find("lru"), NULL, capacity, 1, &cache, diag);
    if (err == KV_OK)
        err = kv_request_open(spec, &reader, diag);
    while (err == KV_OK && (err = kv_request_next(reader, &request, diag)) == KV_OK)
        for (int32_t i = 0; i < request.block_count && err == KV_OK; i++) {
            kv_access access = {
                .key = request.blocks[i], .time = used++, .next_use = KV_NEVER, .position = i};
            err = kv_block_cache_use(cache, &access, NULL, NULL);
        }
    kv_request_close(reader);
    kv_block_cache_free(cache);
    if (err == KV_END)
        printf("read and used, lru of %u blocks: %.1f million blocks/s\n", capacity,
               (double)used / (seconds() - began) / 1e6);
    return err == KV_END ? KV_OK : err;
}

static kv_err read_trace(const char *path, const char *format, uses *u, kv_diag *diag)
{
    static const char *const made_up[][2] = {
        {"requests", "200000"}, {"turns", "4"}, {"contexts", "50"}, {"session_rate", "5"}};
    kv_request_spec spec = {0};
    int64_t requests = 0, ignored = 0;
    kv_err err = kv_request_spec_init(&spec, path, format, diag);
    for (int i = 0; err == KV_OK && path == NULL && i < 4; i++)
        err = kv_request_spec_set(&spec, made_up[i][0], made_up[i][1], NULL, diag);
    double began = seconds();
    if (err == KV_OK)
        err = read_once(&spec, NULL, &requests, diag);
    double took = seconds() - began;
    if (err == KV_OK)
        err = read_once(&spec, u, &ignored, diag);
    if (err == KV_OK)
        printf("read %lld requests, %zu blocks: %.0f requests/s, %.1f million blocks/s\n",
               (long long)requests, u->count, (double)requests / took,
               (double)u->count / took / 1e6);
    if (err == KV_OK)
        err = read_through(&spec, 10000, diag);
    kv_request_spec_fini(&spec);
    return err;
}

/* When each block is used next, from the end to the beginning. */
static kv_err foresee(uses *u)
{
    kv__map next = {0};
    kv_err err = KV_OK;
    for (size_t i = u->count; err == KV_OK && i-- > 0;) {
        uint32_t *at = kv__map_find(&next, u->access[i].key);
        u->access[i].next_use = at == NULL ? KV_NEVER : (int64_t)*at;
        if (at != NULL)
            *at = (uint32_t)i;
        else
            err = kv__map_add(&next, u->access[i].key, (uint32_t)i);
    }
    kv__map_fini(&next);
    return err;
}

/* Replays until half a second has passed, over again on the warm cache if the trace is short. */
static kv_err time_policy(const kv_replacement *policy, uint32_t capacity, const uses *u,
                          kv_diag *diag)
{
    kv_block_cache *cache;
    kv_err err = kv_block_cache_new(policy, NULL, capacity, 1, &cache, diag);
    if (err != KV_OK)
        return err;
    size_t used = 0, hits = 0;
    double began = seconds(), took = 0;
    for (int round = 0; err == KV_OK && took < 0.5; round++) {
        for (size_t i = 0; err == KV_OK && i < u->count; i++) {
            hits += round == 0 && kv_block_cache_find(cache, u->access[i].key) != KV_NO_SLOT;
            err = kv_block_cache_use(cache, &u->access[i], NULL, NULL);
        }
        used += u->count;
        took = seconds() - began;
    }
    printf("%-14s %9u %10.4f %10.1f\n", policy->name, capacity, (double)hits / (double)u->count,
           (double)used / took / 1e6);
    kv_block_cache_free(cache);
    return err;
}

int main(int argc, char **argv)
{
    static const uint32_t capacities[] = {1000, 10000, 50000, 500000};
    kv_diag diag = {0};
    uses u = {0};
    const char *path = argc > 1 ? argv[1] : NULL;
    kv_err err = read_trace(path, argc > 2 ? argv[2] : path == NULL ? "synth" : NULL, &u, &diag);
    if (err == KV_OK)
        err = foresee(&u);
    printf("%-14s %9s %10s %10s\n", "policy", "blocks", "block hits", "Muses/s");
    for (int c = 0; c < 4; c++)
        for (const kv_replacement *const *p = kv_replacement_all(); err == KV_OK && *p; p++)
            err = time_policy(*p, capacities[c], &u, &diag);
    free(u.access);
    if (err != KV_OK) {
        char words[2048];
        kv_diag_format(&diag, words, sizeof words);
        fprintf(stderr, "cache_bench: %s\n", words);
    }
    return err == KV_OK ? 0 : 1;
}
