/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Reuse of text that is cached but stands elsewhere, as CacheBlend does it (Yao et al., EuroSys
 * 2025, arXiv 2405.16444): behind a prompt's cached prefix, blocks whose contents are resident
 * under any name are taken, and a share of their tokens is computed again so that they attend to
 * what stands before them now. Internal to sim/serving; docs/serving.md states every rule.
 *
 * A request goes through such tokens as through others, but a run of them counts as fewer computed
 * ones: `kv__blend_cost`. */
#ifndef KVSIM_SIM_SERVING_BLEND_H
#define KVSIM_SIM_SERVING_BLEND_H

#include "sim/serving/replica.h"

/* What a request reuses; kept by the pool with its request. */
struct kv__blend {
    uint64_t *content; /* [room] what its named blocks hold */
    uint64_t *source;  /* [room] name of a block that holds the same, where `level` has one */
    int8_t *level;   /* [room] where that is: -1 the GPU, 0... a tier; KV_MOST_TIERS: not reused */
    int32_t *before; /* [room + 1] reused blocks before each */
    int32_t room;
    int32_t named;       /* of its blocks, as in the request */
    int32_t end;         /* blocks up to the last reused one; 0: none is */
    int32_t reserved;    /* blocks behind those it holds whose memory it has for what is reused */
    int32_t wait_tokens; /* tokens before the first that a tier has to send; INT32_MAX: none has */
    /* Of its first admission. */
    int32_t tokens, recomputed_tokens;
    int32_t hit_tokens[KV_MOST_TIERS]; /* of `tokens`, sent by tiers */
};

/* Gives a request that arrives the contents of its named blocks. */
kv_err kv__blend_attach(const kv__server *server, kv__live *live,
                        const kv_request *request) KV_MUST_USE;
void kv__blend_free(kv__live *live);

/* What a waiting request would reuse behind so many blocks of its prefix. */
kv_err kv__blend_plan(kv__replica *replica, kv__live *live, int32_t prefix) KV_MUST_USE;
/* Nothing: it loses its memory. */
void kv__blend_reset(kv__memory *memory, kv__live *live);
/* Uses what is reused where it lies, and notes it if the request is admitted for the first time. */
kv_err kv__blend_choose(kv__replica *replica, kv__live *live) KV_MUST_USE;
/* Takes memory for it, which must be available, behind the blocks that the request holds. */
void kv__blend_reserve(kv__replica *replica, kv__live *live);
/* Gives back what it needs to hold so many tokens more, so that it can. */
void kv__blend_unreserve(kv__memory *memory, kv__live *live, int32_t tokens);
/* Adds the blocks that tiers have to send of it; they come with those of its prefix, if it has any.
 */
void kv__blend_add(const kv__live *live, int32_t blocks[KV_MOST_TIERS]);
/* Adds what it reused to the result: it is completed. */
void kv__blend_note(const kv__live *live, kv_serving_result *result);
/* Drops what is not resident from the index of contents, now and then. */
kv_err kv__blend_tidy(kv__replica *replica) KV_MUST_USE;
/* True if a tier has a copy of what a block holds under another name: no second one is made. */
bool kv__blend_spare(const kv__replica *replica, uint64_t key);

/* Tokens that count as computed in from..to - 1; and most tokens behind `from`, at most `tokens`,
 * that count as no more than `limit` of them, but as one. */
int64_t kv__blend_cost(const kv_serving_settings *settings, const kv__live *live, int32_t from,
                       int32_t to);
int32_t kv__blend_most(const kv_serving_settings *settings, const kv__live *live, int32_t from,
                       int32_t tokens, int64_t limit);
/* Keys before a chunk of as many tokens as count as computed in from..to - 1, with which it attends
 * to as many pairs as they do. */
double kv__blend_history(const kv_serving_settings *settings, const kv__live *live, int32_t from,
                         int32_t to);
/* True if it has nothing to compute before the first token that a tier has to send. */
bool kv__blend_waits(const kv_serving_settings *settings, const kv__live *live);
/* Tokens of it that need not be computed, all in all. */
int64_t kv__blend_saved(const kv_serving_settings *settings, const kv__live *live);

/* Blocks up to the last one reused: what is reused is copied or sent when the request is admitted,
 * so memory for all of them is held from then on. Others find them when they are computed. */
static inline int32_t kv__blend_end(const kv__live *live)
{
    return live->blend != NULL ? live->blend->end : 0;
}

static inline int64_t kv__blend_reserved(const kv__live *live)
{
    return live->blend != NULL ? live->blend->reserved : 0;
}

/* The name of what one of its named blocks holds. */
static inline uint64_t kv__blend_content(const kv__live *live, int32_t index)
{
    return live->blend->content[index];
}

/* The first token that waits for a tier; INT32_MAX: none does. */
static inline int32_t kv__blend_wait(const kv__live *live)
{
    return live->blend != NULL ? live->blend->wait_tokens : INT32_MAX;
}

/* True unless the step under way stays before what tiers have to send. */
static inline bool kv__blend_reads(const kv__live *live)
{
    int32_t wait = kv__blend_wait(live);
    return wait == INT32_MAX || live->computed_tokens + live->scheduled > wait;
}

#endif
