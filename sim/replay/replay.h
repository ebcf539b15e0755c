/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Replay of recorded attention: every point of a sweep over one example in one pass.
 *
 * A point is a policy with its settings and a prefill chunk size. Points that differ only in their
 * budget and whose kept sets are nested share one lane, and so one ranking. Each recorded row is
 * read once per example and serves all lanes. Semantics: docs/replay.md. */
#ifndef KVSIM_SIM_REPLAY_REPLAY_H
#define KVSIM_SIM_REPLAY_REPLAY_H

#include "analysis/measure.h"
#include "policies/counts.h"
#include "policies/method.h"
#include "traces/attention.h"

/* One point of the sweep. */
typedef struct kv_replay_point {
    const kv_retention *policy;
    const void *config;  /* borrowed; checked settings of that policy */
    const kv_part *part; /* [parts] transforms in order, then at most one read policy; borrowed */
    int parts;
    const char *directory;  /* what relative paths in the settings start from; borrowed */
    long long chunk_tokens; /* prefill chunk; 0: the whole prompt */
    kv_mark mark;           /* where the point was asked for; zeroed if nowhere */
} kv_replay_point;

/* What one KV head holds after a step and its eviction, at one point. */
typedef struct kv_replay_watch {
    int point, layer, kv_head;
    int step_start, step_end; /* the step that just ended: tokens step_start .. step_end-1 */
    const int32_t *present;   /* [presents], ascending */
    int presents;
} kv_replay_watch;

/* What one query head reads at a measured row, of points with transforms or a read policy. */
typedef struct kv_replay_read {
    int point, layer, query_head;
    int position;                    /* of the query */
    bool prefill;                    /* the row's phase, see policies/read.h */
    const int32_t *present, *chosen; /* [presents] and [count], ascending */
    int presents, count;
    const float *row; /* [position + 1] recorded probabilities */
} kv_replay_read;

/* What is there when a policy first decides for a whole prompt. */
typedef enum kv_compress_with {
    /* The prompt with its first question: later turns of `multi_turn` find what that left, and so
     * do the other requests of a `multi_request` group, of the context that they share; but for an
     * oracle, which chooses for each request. */
    KV_COMPRESS_WITH_FIRST_QUESTION,
    KV_COMPRESS_WITH_CONTEXT /* the shared context alone; every question comes later */
} kv_compress_with;

/* How a model stores the cache of what was recorded. All zero: plain entries in every layer. */
typedef struct kv_replay_cache {
    double entry_bytes;           /* of one KV entry (key and value); 0: 2 * head_dim * 2 bytes */
    const kv_counts_layer *layer; /* [layers] of the recording: whether it has a cache of its own,
                                     and the window it sees; borrowed. NULL: all store everything */
    bool latent;        /* one entry of a token serves all KV heads, and stays while one keeps it */
    double state_bytes; /* of recurrent layers: in memory at every step, whatever the policy */
    double full_entries; /* entries of a token in a plain cache of every layer of the model, what
                            bytes are a share of; 0: layers * kv_heads */
} kv_replay_cache;

typedef struct kv_replay_options {
    uint64_t seed;          /* of policies that draw random numbers */
    long long page_tokens;  /* page of the head-compacted and page-granular measures */
    kv_replay_cache cache;  /* how entries are stored, before any policy */
    double prefill_token_s; /* seconds that a prompt token's step lasts (1: token steps) */
    double decode_step_s;   /* seconds that a decode step lasts */
    bool analytic;          /* footprint and peak by formula from the lengths alone */
    int compress_with;      /* kv_compress_with */
    bool keep_sets;         /* report what is retained after the last prompt chunk */
    bool keep_profiles;     /* the same for policies whose counts depend on scores, at least */
    void (*watch)(void *closure, const kv_replay_watch *event); /* after every step; NULL: none */
    void (*watch_read)(void *closure, const kv_replay_read *event); /* at each row; NULL: none */
    void *watch_closure;                                            /* of both */
} kv_replay_options;

typedef struct kv_replay kv_replay; /* a sweep prepared for one recorded model shape; immutable */

/* What one KV head holds after the last chunk of what is compressed: the prompt or the context. */
typedef struct kv_retained {
    int32_t *position; /* [count], ascending; owned by the result */
    int count;
} kv_retained;

/* What one example yields. */
typedef struct kv_replay_result {
    int points, turns;
    kv_record *record; /* [points][1 + turns]; slot 0 is all turns together */
    int layers, kv_heads;
    kv_retained *retained; /* [points][layers][kv_heads]; NULL unless keep_sets or keep_profiles;
                              no positions where a point was not asked for */
} kv_replay_result;

/* Groups the points into lanes and loads the policies' plans (head masks) for the shape. */
kv_err kv_replay_new(const kv_replay_point *points, int count, const kv_shape *shape,
                     const kv_replay_options *options, kv_replay **out, kv_diag *diag) KV_MUST_USE;
void kv_replay_free(kv_replay *replay);

/* Refuses an example that lacks what a point needs, naming what is missing and how to record it. */
kv_err kv_replay_check(const kv_replay *replay, const kv_attention *trace, int example,
                       kv_diag *diag) KV_MUST_USE;

/* Replays one example; several threads may do so at once. The result is the caller's
 * (kv_replay_result_fini). */
kv_err kv_replay_example(const kv_replay *replay, kv_attention *trace, int example,
                         kv_replay_result *out, kv_diag *diag) KV_MUST_USE;
void kv_replay_result_fini(kv_replay_result *result);

/* Lanes that the points were grouped into: what a run costs. */
int kv_replay_lanes(const kv_replay *replay);

#endif
