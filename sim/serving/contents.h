/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Which blocks hold a content: the same tokens, wherever in a prompt they stand.
 *
 * The caches know blocks by names that tell all tokens up to their end. This index goes from the
 * name of a content to the blocks that were made of it. Blocks that have left every cache stay
 * listed until the index is tidied, so who asks looks whether they are resident. */
#ifndef KVSIM_SIM_SERVING_CONTENTS_H
#define KVSIM_SIM_SERVING_CONTENTS_H

#include "sim/base/map.h"

#include <stdbool.h>

/* One block. */
typedef struct kv__content_block {
    uint64_t key;          /* its name in the caches */
    uint64_t content;      /* what it holds */
    uint32_t older, newer; /* of the same content; KV_MAP_ABSENT: none */
} kv__content_block;

/* Zeroed is empty. */
typedef struct kv__contents {
    kv__content_block *block; /* [room] in order of time; void: a newer one has its name */
    uint32_t count, room;
    uint32_t tidy_at;   /* count at which it is worth to look for what has left */
    kv__map by_key;     /* place in block */
    kv__map by_content; /* the newest one's */
} kv__contents;

void kv__contents_fini(kv__contents *contents);
/* A block of that content became resident on the GPU: it is the newest now, so that the order does
 * not depend on when the index is tidied. */
kv_err kv__contents_add(kv__contents *contents, uint64_t key, uint64_t content) KV_MUST_USE;
/* The newest block of a content, or NULL; and the one before it. */
const kv__content_block *kv__contents_newest(const kv__contents *contents, uint64_t content);
const kv__content_block *kv__contents_older(const kv__contents *contents,
                                            const kv__content_block *block);
/* Drops blocks that are not resident, if there may be more of them than of others. */
kv_err kv__contents_tidy(kv__contents *contents, bool (*resident)(void *closure, uint64_t key),
                         void *closure) KV_MUST_USE;

#endif
