/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/replacement/ghost.h"

static kv_err init(void *state, const kv_replacement_env *env, kv_diag *diag);
static void hit(void *state, uint32_t slot, const kv_access *access);
static uint32_t victim(void *state, const kv_access *incoming);

enum { MOST_USES = 3, ENOUGH_USES = 2 };

typedef struct s3_fifo_config {
    double small; /* share of the capacity for newcomers */
} s3_fifo_config;

typedef struct s3_fifo {
    kv__ghosted base;
    uint32_t small_blocks, main_blocks;
} s3_fifo;

static const kv_param params[] = {{.name = "small",
                                   .type = KV_REAL,
                                   .offset = offsetof(s3_fifo_config, small),
                                   .fallback = "0.1",
                                   .min = 0.001,
                                   .max = 0.999,
                                   .unit = "fraction",
                                   .help = "share of the capacity that newcomers go through"},
                                  {.name = NULL}};

/* Newcomers go through a small queue; what is used twice there, or comes back soon after it left,
 * goes to the main queue, where use earns another round. Algorithm 1 of the paper; use counts are
 * cleared on the move to the main queue, as its text says. */
KV_REPLACEMENT_DEFINE(s3_fifo) = {
    .name = "s3-fifo",
    .brief = "three queues: a small one weeds out blocks that are used once",
    .cite = "Yang et al., FIFO queues are all you need for cache eviction, SOSP 2023",
    .config_bytes = sizeof(s3_fifo_config),
    .params = params,
    .state_bytes = sizeof(s3_fifo),
    KV__GHOST_POLICY,
    .init = init,
    .hit = hit,
    .victim = victim,
};

static kv_err init(void *state, const kv_replacement_env *env, kv_diag *diag)
{
    s3_fifo *s = state;
    const s3_fifo_config *config = env->config;
    s->small_blocks = (uint32_t)(config->small * env->capacity_blocks);
    if (s->small_blocks == 0)
        s->small_blocks = 1;
    s->main_blocks = env->capacity_blocks - s->small_blocks;
    kv__history_init(&s->base.ghosts, env->capacity_blocks == UINT32_MAX ? 0 : s->main_blocks);
    return kv__queue_policy_init(state, env, diag);
}

static void hit(void *state, uint32_t slot, const kv_access *access)
{
    kv__link *link = kv__link_of(state, slot);
    if (link->mark < MOST_USES)
        link->mark++;
}

static uint32_t victim_of_main(s3_fifo *s)
{
    uint32_t slot;
    while ((slot = kv__queue_oldest(&s->base.queues, KV__MAIN)) != KV_NO_SLOT) {
        kv__link *link = kv__link_of(&s->base.queues, slot);
        if (link->mark == 0)
            return slot;
        link->mark--;
        kv__queue_move(&s->base.queues, KV__MAIN, slot);
    }
    return KV_NO_SLOT;
}

/* Moves what was used enough to the main queue until something else, or the overflow of the main
 * queue, is found. */
static uint32_t victim_of_small(s3_fifo *s)
{
    uint32_t slot;
    while ((slot = kv__queue_oldest(&s->base.queues, KV__NEWCOMERS)) != KV_NO_SLOT) {
        kv__link *link = kv__link_of(&s->base.queues, slot);
        if (link->mark < ENOUGH_USES)
            return slot;
        link->mark = 0;
        kv__queue_move(&s->base.queues, KV__MAIN, slot);
        if (s->base.queues.queue[KV__MAIN].length > s->main_blocks)
            return victim_of_main(s);
    }
    return KV_NO_SLOT;
}

static uint32_t victim(void *state, const kv_access *incoming)
{
    s3_fifo *s = state;
    uint32_t slot = KV_NO_SLOT;
    if (s->base.queues.queue[KV__NEWCOMERS].length < s->small_blocks)
        slot = victim_of_main(s);
    if (slot == KV_NO_SLOT)
        slot = victim_of_small(s);
    /* Where all newcomers were used enough, they are in the main queue now. */
    return slot != KV_NO_SLOT ? slot : victim_of_main(s);
}
