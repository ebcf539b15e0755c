/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* A request while it is in the server, and a queue of them. */
#ifndef KVSIM_SIM_SERVING_LIVE_H
#define KVSIM_SIM_SERVING_LIVE_H

#include "policies/replacement.h"
#include "sim/serving/tier.h"
#include "traces/request.h"

#include <stdbool.h>

/* What one class of KV heads retains, see keep.h. */
typedef struct kv__kept {
    int32_t entries; /* of each head, when kept_at tokens were computed */
    int32_t growth;  /* by each further token up to kept_until: 0 or 1 */
} kv__kept;

typedef struct kv_foresight kv_foresight; /* see foresight.h */
typedef struct kv__blend kv__blend;       /* see blend.h */

/* A request from arrival to completion. Tokens count from the beginning of its prompt. */
typedef struct kv__live {
    struct kv__live *next; /* in the queue it stands in; first, as kv_pool asks */
    /* What every step looks at, together. */
    int32_t prompt_tokens, output_tokens;
    int32_t generated_tokens;
    int32_t computed_tokens;    /* whose KV is in its blocks */
    int32_t scheduled;          /* tokens it computes in the step under way */
    int32_t held;               /* blocks it holds, those of the names first */
    int32_t named;              /* whole blocks of the prompt that have a name */
    int32_t filed;              /* leading blocks that were full: they got their names or stay its
                                   own copies */
    int32_t shared;             /* blocks of the cache that it uses: those that have a slot */
    int32_t load_from, load_to; /* tokens that are being loaded; load_to 0: none are */
    kv__blend *blend; /* what it reuses behind its prefix; kept by the pool, may be NULL */
    int64_t first_token_ns, last_token_ns;
    int64_t ready_ns;  /* when computing may go on behind what is being loaded */
    int64_t loaded_ns; /* when all of that has arrived */
    uint64_t *key;     /* [key_room] names of the prompt's whole blocks; kept by the pool */
    uint32_t *slot;    /* [key_room] cache slots of those it holds; KV_NO_SLOT: its own copy */
    /* What only admission and completion look at. */
    int32_t key_room;
    int32_t cached_tokens; /* of the prompt, found in any tier when it was admitted first */
    int32_t hit_tokens[KV_MOST_TIERS]; /* of these, loaded from lower tiers; the rest: on the GPU */
    int32_t preemptions;
    int32_t turn;
    int32_t tenant;
    uint64_t session;
    int64_t number;
    int64_t first_use; /* of its named blocks, see foresight.h; -1: not known */
    int64_t arrival_ns, admitted_ns;
    int64_t preempted_ns; /* when it last lost its memory */
    int64_t tier_ready_ns[KV_MOST_TIERS], tier_loaded_ns[KV_MOST_TIERS]; /* those of each tier */
    int64_t floor_ns;       /* not before: when its memory is free */
    bool computes_all;      /* what was loaded for it once left no room to go on: not again */
    int32_t swapped_tokens; /* computed, and moved to the first tier; 0: none */
    /* Under a retention policy (keep.h); `held` then counts named blocks only. */
    kv__kept *kept;                     /* [classes]; kept by the pool */
    int32_t kept_at, kept_until;        /* computed tokens; at kept_until it evicts */
    bool moved;                         /* it left its named blocks for pages of its own */
    int64_t pages;                      /* beside named blocks */
    int64_t most_pages;                 /* while the tokens it has by now are computed */
    int64_t most_away;                  /* the same, entries in host memory */
    int64_t away;                       /* entries that it has room for there */
    int64_t stored_growth, read_growth; /* entries per decode step, see keep.h */
    int64_t away_growth, fetch_growth;
} kv__live;

/* Requests in line. Zeroed is empty. */
typedef struct kv__line {
    kv__live *first, *last;
    int64_t count;
} kv__line;

static inline void kv__line_append(kv__line *line, kv__live *live)
{
    live->next = NULL;
    if (line->last != NULL)
        line->last->next = live;
    else
        line->first = live;
    line->last = live;
    line->count++;
}

static inline void kv__line_prepend(kv__line *line, kv__live *live)
{
    live->next = line->first;
    line->first = live;
    if (line->last == NULL)
        line->last = live;
    line->count++;
}

/* Takes out the one that stands behind `before`; NULL: the first. */
static inline kv__live *kv__line_remove(kv__line *line, kv__live *before)
{
    kv__live *live = before != NULL ? before->next : line->first;
    if (before != NULL)
        before->next = live->next;
    else
        line->first = live->next;
    if (line->last == live)
        line->last = before;
    line->count--;
    return live;
}

/* Tokens that the request has by now: they are to be computed. */
static inline int32_t kv__live_tokens(const kv__live *live)
{
    return live->prompt_tokens + live->generated_tokens;
}

#endif
