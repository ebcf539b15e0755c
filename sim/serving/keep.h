/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* What a request keeps in memory under a retention policy: entries, and the pages they take.
 *
 * KV heads that keep equal counts form a class. How many entries a head of a class retains follows
 * from the request's lengths and the chunk size alone, by the arithmetic of policies/counts.h, so
 * that serving and the replay of attention agree to the entry. A chunk of the policy is chunk_size
 * tokens of the prompt; where the token budget of a step cuts it, the policy waits for its end.
 *
 * A page holds block_size entries of one KV head of one layer. Entries of a head are compacted, so
 * a head that retains n of them takes ceil(n / block_size) pages, and a page is free when all that
 * was in it is gone. Between steps a request also holds the room that its next token needs.
 *
 * While the prompt is computed its named blocks stand whole in the prefix cache, layers without a
 * window only. A policy that evicts then moves what it keeps into pages of the request's own and
 * lets the blocks go; they stay in the cache as blocks that nobody uses.
 *
 * Where a read policy keeps entries in host memory, a head holds its first and last ones on the
 * device and the others in a tier ("away"). They go there when a chunk of the policy ends and,
 * while the answer is generated, one by one as the window moves on; a decode step fetches as many
 * of them as the policy reads, a chunk of a prompt all. Layers with a window stay on the device. */
#ifndef KVSIM_SIM_SERVING_KEEP_H
#define KVSIM_SIM_SERVING_KEEP_H

#include "models/model.h"
#include "policies/counts.h"
#include "policies/read.h"
#include "sim/serving/memory.h"

/* KV heads that keep equal counts. */
typedef struct kv_keep_class {
    int layer, group;      /* as policies/counts.h asks for them: of one of its layers */
    int alike;             /* what its heads have in common; -1: nothing with those of others */
    int64_t heads;         /* KV heads of all its layers: what is stored */
    int64_t reads;         /* the same, each as often as a layer reads it, times the share that is
                              read: what attention reads per entry that a head retains */
    int64_t window_tokens; /* of its layers; KV_COUNTS_UNBOUNDED */
} kv_keep_class;

/* What lies in host memory. Zeroed: nothing does. */
typedef struct kv_keep_away {
    const kv_read *read;   /* whose entries do; NULL: none */
    const void *config;    /* its configuration, borrowed */
    int64_t home_entries;  /* of a head that stay on the device between steps, at most */
    int64_t fetch_entries; /* of the others that a decode step fetches, at most */
} kv_keep_away;

/* A policy on a model, for all requests. */
typedef struct kv_keep {
    kv_counts_rule rule; /* prompt_tokens is each request's own */
    double *profile;     /* rule.profile */
    kv_keep_class *class;
    int classes;
    int64_t chunk_tokens; /* the policy's chunk; 0: the whole prompt */
    int64_t extra_entries;
    double prefill_share;
    int32_t page_tokens;
    int64_t step_tokens; /* most tokens of one step */
    int64_t block_pages; /* pages of a block of page_tokens tokens, all layers */
    int64_t named_pages; /* the same, layers without a window only: a block of the prefix cache */
    int64_t state_pages; /* that a request takes whatever its length: states of recurrent layers */
    bool reuse;          /* the prompt's blocks stay whole until it ends: others may use them */
    kv_keep_away away;
    kv_shape shape;      /* of the model, for away.read */
    int64_t layer_heads; /* KV heads of a layer: what is fetched for one has room on the device */
} kv_keep;

/* What makes it. */
typedef struct kv_keep_spec {
    kv_counts_rule rule; /* policy, config, plan (needed where the policy has `prepare`) and profile
                            are borrowed; shape and lengths are filled in */
    kv_cache_format format;
    long long chunk_tokens; /* 0: whole */
    int32_t page_tokens;
    int64_t step_tokens;
    double read_share;     /* of what is retained, in bytes, that a decode step reads; 1: all */
    double prefill_share;  /* of scores that prefill computes; 1: all */
    int64_t extra_entries; /* room of so many entries that every head takes beside what it retains:
                              what a transform leaves plain */
    kv_keep_away away;
} kv_keep_spec;

/* True where blocks of all layers do not tell what a request holds and reads: a policy that evicts,
 * one that reads less, layers with a window, states. */
bool kv_keep_needed(const kv_model *model, const kv_keep_spec *spec);
kv_err kv_keep_new(const kv_model *model, const kv_keep_spec *spec, kv_keep **out,
                   kv_diag *diag) KV_MUST_USE;
void kv_keep_free(kv_keep *keep);

/* --- One request -------------------------------------------------------------------------------
 */

/* The room that a request needs for what its heads retain; kept by the pool. */
kv_err kv__keep_attach(const kv_keep *keep, kv__live *live, kv_diag *diag) KV_MUST_USE;
/* The request has so many tokens computed, all before the end of its prompt, and all retained. */
void kv__keep_start(const kv_keep *keep, kv__live *live, int32_t computed);
/* Most tokens that one step may compute behind the first `computed`. */
int32_t kv__keep_limit(const kv_keep *keep, const kv__live *live, int32_t computed);
/* Pages beside named blocks while it computes `tokens` behind its computed ones. */
int64_t kv__keep_pages(const kv_keep *keep, const kv__live *live, int32_t tokens);
/* Pages that it lacks for that, named blocks among them. */
int64_t kv__keep_lacks(const kv_keep *keep, const kv__live *live, int32_t tokens);
/* Most pages that it needs at any time until `end` of its tokens are computed, if it finds no
 * block of others; *away_entries (may be NULL): the same of what is away. probe: a request of the
 * caller's with room attached; overwritten. */
int64_t kv__keep_most(const kv_keep *keep, const kv__live *live, int32_t end, kv__live *probe,
                      int64_t *away_entries);
/* Takes what kv__keep_lacks says; it must be available. */
kv_err kv__keep_grow(const kv_keep *keep, kv__memory *memory, kv__live *live,
                     int32_t tokens) KV_MUST_USE;
/* After a step: what the policy evicts leaves, and pages that are free are given back. */
kv_err kv__keep_evict(const kv_keep *keep, kv__memory *memory, kv__live *live) KV_MUST_USE;
/* Pages that a request which decodes holds during the `steps`-th of its next steps, less those of
 * the first. None of them may lie behind kept_until. */
int64_t kv__keep_growth(const kv_keep *keep, const kv__live *live, int64_t steps);
/* Entries that a head of a class retains between steps, on the device and away. */
int64_t kv__keep_retained(const kv_keep *keep, const kv__live *live, int class_);
/* Of a request that decodes: entries' worth of room that a head of a class takes on the device
 * before its next step, and by how many that grows with each, 0 or 1. */
int64_t kv__keep_room(const kv_keep *keep, const kv__live *live, int class_, int64_t *growth);
/* Entries that it holds while it computes `tokens` more, those in named blocks left out; and all
 * that attention reads, named ones included. */
int64_t kv__keep_stored(const kv_keep *keep, const kv__live *live, int32_t tokens);
int64_t kv__keep_read(const kv_keep *keep, const kv__live *live, int32_t tokens);
/* Of all heads: entries that are away when it has computed `tokens` more; those that a step with so
 * many fetches; those that leave the device at its end. */
int64_t kv__keep_away_after(const kv_keep *keep, const kv__live *live, int32_t tokens);
int64_t kv__keep_fetched(const kv_keep *keep, const kv__live *live, int32_t tokens);
int64_t kv__keep_leaving(const kv_keep *keep, const kv__live *live, int32_t tokens);
/* Keys before its chunk of `tokens` that a token of a prompt attends to: mean over the layers
 * without a window, or over all where there is none. Where prefill reads a share of the keys only,
 * so few that they and half the chunk are that share. */
double kv__keep_history(const kv_keep *keep, const kv__live *live, int32_t tokens);

#endif
