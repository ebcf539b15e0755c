/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* How many KV entries a retention policy keeps, from lengths alone.
 *
 * The counts of a policy follow from its quota and its schedule. A sequence is a row of blocks: the
 * chunks of the prompt, then the decode steps between two eviction events. A block of n tokens that
 * finds `past` entries is charged T(n) + n*past entry-steps, T(n) = n(n+1)/2, whether it is one
 * chunk or n decode steps, and past + n entries are present at its end, before the eviction that
 * follows it. Equal blocks are summed in closed form, so a sequence costs the number of times its
 * counts change their slope, not the number of its tokens. All arithmetic is exact.
 *
 * The calculator, `footprint_model: analytic` and the serving replay share this file. It is exact
 * for policies that claim KV_COUNTS_FIXED, and for others as far as their quota is. */
#ifndef KVSIM_POLICIES_COUNTS_H
#define KVSIM_POLICIES_COUNTS_H

#include "policies/retention.h"

/* No window: a layer keeps whatever the policy keeps. */
enum { KV_COUNTS_UNBOUNDED = 0 };

/* A policy, and the prompt it meets. */
typedef struct kv_counts_rule {
    const kv_retention *policy;
    const void *config;      /* its configuration */
    const void *plan;        /* what `prepare` made; NULL if none */
    int layers;              /* L of the model */
    int kv_heads;            /* of one layer */
    long long prompt_tokens; /* P */
    bool published;          /* as a paper's evaluation formula counts, see kv_quota_query */
    /* [layers * kv_heads] of policies whose counts depend on scores: what a head keeps on average,
     * over its quota; NULL: the quota is what it keeps. While decoding the quota is that of the
     * prompt, so that an event keeps what the event before it kept. */
    const double *profile;
} kv_counts_rule;

/* A block by where it stands. */
typedef enum kv_block_kind {
    KV_BLOCK_PROMPT,     /* a prompt chunk, not the last one */
    KV_BLOCK_PROMPT_END, /* the last prompt chunk */
    KV_BLOCK_DECODE      /* decode steps up to and with one after which the policy may evict */
} kv_block_kind;

/* The KV heads of a layer fall into groups that keep equal counts: every head is one where the
 * policy has a plan or the rule a profile, two by `head_share`, else one. */
int kv_counts_groups(const kv_counts_rule *rule);
/* KV heads of one group; a real number under `head_share`. They sum to kv_heads. */
double kv_counts_group_heads(const kv_counts_rule *rule, int group);

/* Entries that a KV head of the group retains after a block of `tokens` tokens that found
 * `retained`. */
long long kv_counts_after(const kv_counts_rule *rule, int layer, int group, kv_block_kind kind,
                          long long retained, long long tokens);

/* Decode steps between two eviction events; 0: the policy evicts nothing while decoding. */
long long kv_counts_decode_interval(const kv_counts_rule *rule);

/* Entries that a KV head of the group retains after `steps` more decode steps, when `generated`
 * steps are done and `retained` entries are left. Costs the same however many steps. */
long long kv_counts_decoded(const kv_counts_rule *rule, int layer, int group, long long retained,
                            long long generated, long long steps);

/* Decode steps from here on over which what a KV head of the group retains changes by the same
 * *growth per step, 0 or 1; at least 1, at most `most`. At most `window_tokens` - 1 entries
 * stay between steps (KV_COUNTS_UNBOUNDED: no limit). The event that may follow the last of the
 * steps is not looked at: ask kv_counts_decoded. */
long long kv_counts_decode_line(const kv_counts_rule *rule, int layer, int group,
                                long long window_tokens, long long retained, long long generated,
                                long long most, long long *growth);

/* The end of the prompt chunk that starts at `start`: a multiple of the chunk size, save where the
 * prompt ends or the policy's local tail begins, which is one chunk. chunk_tokens 0 is the whole.
 */
long long kv_counts_chunk_end(const kv_counts_rule *rule, long long chunk_tokens, long long start);

/* One layer of a model, as far as counts go. */
typedef struct kv_counts_layer {
    bool caches;             /* it has KV entries of its own */
    long long window_tokens; /* a query sees so many keys, its own included; KV_COUNTS_UNBOUNDED */
} kv_counts_layer;

/* Sums over all layers and KV heads. */
typedef struct kv_counts_sum {
    double entry_steps;  /* entries in memory summed over steps; a chunk has one step per token */
    double peak_entries; /* most entries in memory at one step */
} kv_counts_sum;

/* Replays the counts of one sequence: P prompt tokens in chunks of chunk_tokens (0: whole), then
 * generated_tokens decode steps. layer is [rule->layers], or NULL where every layer caches all.
 * P + generated_tokens must be within 1..INT32_MAX, so that sums of one head fit 64 bits. */
kv_err kv_counts_replay(const kv_counts_rule *rule, const kv_counts_layer *layer,
                        long long chunk_tokens, long long generated_tokens, kv_counts_sum *out,
                        kv_diag *diag) KV_MUST_USE;

#endif
