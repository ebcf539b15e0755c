/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/replacement/ghost.h"

static kv_err init(void *state, const kv_replacement_env *env, kv_diag *diag);
static void hit(void *state, uint32_t slot, const kv_access *access);
static uint32_t victim(void *state, const kv_access *incoming);

typedef struct two_q_config {
    double in;  /* share of the capacity for newcomers */
    double out; /* names remembered, as a share of the capacity */
} two_q_config;

typedef struct two_q {
    kv__ghosted base;
    uint32_t in_blocks;
} two_q;

static const kv_param params[] = {
    {.name = "in",
     .type = KV_REAL,
     .offset = offsetof(two_q_config, in),
     .fallback = "0.25",
     .min = 0.001,
     .max = 0.999,
     .unit = "fraction",
     .help = "share of the capacity that newcomers go through (Kin)"},
    {.name = "out",
     .type = KV_REAL,
     .offset = offsetof(two_q_config, out),
     .fallback = "0.5",
     .min = 0,
     .max = 100,
     .unit = "fraction",
     .help = "names of evicted newcomers that are remembered, as a share of the capacity (Kout)"},
    {.name = NULL}};

/* Newcomers wait in a FIFO queue (A1in); what is asked for again after it left from there (A1out)
 * goes to an LRU queue (Am). A hit among the newcomers moves nothing. */
KV_REPLACEMENT_DEFINE(2q) = {
    .name = "2q",
    .brief = "newcomers wait in a queue of their own; only what comes back joins the LRU queue",
    .cite = "Johnson and Shasha, 2Q: a low overhead high performance buffer management replacement "
            "algorithm, VLDB 1994",
    .config_bytes = sizeof(two_q_config),
    .params = params,
    .state_bytes = sizeof(two_q),
    KV__GHOST_POLICY,
    .init = init,
    .hit = hit,
    .victim = victim,
};

static kv_err init(void *state, const kv_replacement_env *env, kv_diag *diag)
{
    two_q *s = state;
    const two_q_config *config = env->config;
    double out = config->out * env->capacity_blocks;
    s->in_blocks = (uint32_t)(config->in * env->capacity_blocks);
    if (env->capacity_blocks == UINT32_MAX)
        out = 0;
    kv__history_init(&s->base.ghosts, out < UINT32_MAX ? (uint32_t)out : UINT32_MAX);
    return kv__queue_policy_init(state, env, diag);
}

static void hit(void *state, uint32_t slot, const kv_access *access)
{
    if (kv__link_of(state, slot)->queue == KV__MAIN)
        kv__queue_move(state, KV__MAIN, slot);
}

static uint32_t victim(void *state, const kv_access *incoming)
{
    two_q *s = state;
    int first =
        s->base.queues.queue[KV__NEWCOMERS].length > s->in_blocks ? KV__NEWCOMERS : KV__MAIN;
    uint32_t slot = kv__queue_oldest(&s->base.queues, first);
    return slot != KV_NO_SLOT ? slot
                              : kv__queue_oldest(&s->base.queues,
                                                 first == KV__NEWCOMERS ? KV__MAIN : KV__NEWCOMERS);
}
