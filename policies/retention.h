/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Retention policies: which KV entries of a sequence stay in memory.
 *
 * A policy is scorer x budget x schedule. The engine (sim/replay) owns the schedule: it appends
 * tokens, lets rows attend, and raises an eviction event after a chunk or a step. At an event the
 * policy scores the candidates of each KV head, says how many may stay (quota) and which stay in
 * any case (pins); the engine ranks them, ties going to the lower position, and drops the rest for
 * good. Every slot but `name`, `brief`, `config_bytes` and `params` may be NULL; NULL means the
 * default said beside it. A policy never allocates in these calls, never fails after `check` and
 * `prepare`, and looks at nothing but what the event shows.
 *
 * A new policy is one file in policies/retention/ that ends in KV_RETENTION_DEFINE(name) = {...},
 * and one line in policies/policies.am. The generic tests then run over it. */
#ifndef KVSIM_POLICIES_RETENTION_H
#define KVSIM_POLICIES_RETENTION_H

#include "sim/base/param.h"
#include "traces/attention.h"

#include <stdbool.h>
#include <stdint.h>

/* When entries leave (parameter `evict`). "all" means every entry that is present. */
typedef enum kv_schedule {
    KV_POSTFILL, /* all, once, after the last prompt chunk */
    KV_CHUNKED, /* after each prompt chunk, that chunk's own entries, scored by its own last rows */
    KV_PATCHED, /* as chunked, but scored by the prompt's last rows at their true positions */
    KV_POOL,    /* all, after each prompt chunk, to one total budget */
    KV_STEP,    /* all, after the last prompt chunk and after every decode step */
    KV_INTERVAL, /* all, after the last prompt chunk and after every `interval` decode steps */
    KV_ONLINE    /* all, after each prompt chunk and after every decode step */
} kv_schedule;

/* KV_AS_PRULONG: truncated where entries are chosen, half to even where its footprint formula is
 * asked for, as that project's code and evaluation do. KV_AS_KVPRESS: truncated, but 1 where that
 * would keep nothing. KV_TRUNCATE_PRUNED: the number that leaves is what is truncated. */
typedef enum kv_rounding {
    KV_HALF_UP,
    KV_HALF_EVEN,
    KV_TRUNCATE,
    KV_AS_PRULONG,
    KV_CEIL,
    KV_AS_KVPRESS,
    KV_TRUNCATE_PRUNED
} kv_rounding;
typedef enum kv_pooling { KV_POOL_AVG, KV_POOL_MAX } kv_pooling;
typedef enum kv_group { KV_GROUP_MEAN, KV_GROUP_MAX, KV_GROUP_SUM } kv_group;
typedef enum kv_group_when { KV_GROUP_BEFORE, KV_GROUP_AFTER } kv_group_when;
typedef enum kv_score_over { KV_OVER_CHUNK, KV_OVER_PRESENT } kv_score_over;
typedef enum kv_scope { KV_SCOPE_LAYER, KV_SCOPE_KV_HEAD } kv_scope;
typedef enum kv_anchor { KV_ANCHOR_UNIT, KV_ANCHOR_RAW } kv_anchor;

/* The settings that policies share. A policy lists in its table those it takes; the others stay
 * zero. A policy with settings of its own embeds this struct as its first member. */
typedef struct kv_retention_config {
    double keep;             /* fraction of the prompt kept, 0..1; < 0 if `budget` is given */
    long long budget_tokens; /* entries kept per KV head; 0 if `keep` is given */
    long long window_tokens; /* the last entries, always kept; of snapkv also the rows that score */
    long long sinks_tokens;  /* the first tokens of the sequence, always kept */
    double recent; /* h2o: the last entries, always kept: a count >= 1, or below 1 a fraction
                      of the budget; -1 (not given): half of the budget */
    long long kernel_tokens;  /* pooling kernel, odd */
    long long interval_steps; /* decode steps between two evictions */
    double beta;              /* pyramid: ratio that sets the slope over layers */
    double sparsity;          /* share of heads that stream */
    long long seed;           /* -1 if not given: the experiment's */
    int evict;                /* kv_schedule */
    int pooling;              /* kv_pooling */
    int group;                /* kv_group: how a group's query heads become one score */
    int group_when;           /* kv_group_when: before or after pooling */
    int rounding;             /* kv_rounding of keep * n */
    int score_over;        /* kv_score_over: a row is renormalised over the chunk or all present */
    int scope;             /* kv_scope: one set per layer or per KV head */
    int anchor;            /* kv_anchor */
    int preset;            /* index into the policy's presets + 1; 0: none */
    bool window_in_budget; /* the window counts against the budget */
    bool charge_probes;    /* patched: probe rows are charged as present */
    bool ratio_arithmetic; /* keep*n is n*(1-(1-keep)) in doubles, as kvpress computes it */
    char *heads;           /* path of a head-mask file; NULL if none */
    kv_item scorer; /* of a kv_retention: whose scores count; absent: the policy's own. Its shared
                       settings agree with those here (kv_scorer_settle) */
} kv_retention_config;

/* A policy asks a scorer, which asks another at most: deeper ones are refused where they are read
 * (sim/scorer_spec.h). */
enum { KV_SCORERS_MOST = 2, KV_WORK_DOUBLES = 4 + KV_SCORERS_MOST };

/* What an event shows of the layer it happens in. */
typedef struct kv_view {
    const kv_shape *shape;
    const kv_example *example;
    int layer;
    uint64_t stream;    /* names (seed, trace, example): for policies that draw random numbers */
    kv_layer *source;   /* rows, keys and values; use kv_view_row */
    float *row_scratch; /* N floats for kv_view_row */
    double *work;   /* 4 N doubles that a call may use as it likes, and N for each scorer that it
                       asks (KV_WORK_DOUBLES in all) */
    double *anchor; /* (3 + head_dim) head_dim doubles, likewise */
} kv_view;

/* The recorded row of the query at a token position, or NULL where the file has none. It is the
 * softmax over all keys 0..position with the full cache; restricting it to the entries that are
 * present and renormalising is exact for the same q and k. */
const float *kv_view_row(const kv_view *view, int query_head, int position);

/* The recorded query of a head at a token position, [head_dim]; NULL where the file has none or
 * nobody needs queries (KV_NEEDS_QUERIES). */
const float *kv_view_query(const kv_view *view, int query_head, int position);

/* What a quota depends on: no scores, so that the calculator and the serving replay can ask too. */
typedef struct kv_quota_query {
    int layer, layers;
    int kv_head, kv_heads;
    int candidates;      /* entries that compete, window included */
    int prompt_tokens;   /* P */
    int question_tokens; /* of the first question, which ends the prompt; 0 where it is not known */
    bool own_chunk;      /* the candidates are one chunk's own entries (chunked, patched) */
    bool pin_window;  /* false: the scored candidates include the window (patched, not the last) */
    bool published;   /* the evaluation formula of a paper is wanted, not what its code keeps */
    const void *plan; /* what `prepare` made; NULL if none */
    const void *memo; /* what `enter` made; NULL if none: counts without an example */
} kv_quota_query;

/* One eviction event, as one KV head sees it. Positions are token positions, ascending. */
typedef struct kv_event {
    const kv_view *view;
    const void *config; /* the policy's configuration */
    const void *plan;   /* what `prepare` made; NULL if none */
    const void *memo;   /* what `enter` made; NULL if none */
    int kv_head;
    const int32_t *candidate; /* [candidates] entries that may leave */
    int candidates;
    int scored;             /* the first `scored` candidates want a score; the rest are pinned */
    const int32_t *present; /* [presents] all entries in memory, candidates among them */
    int presents;
    int observer_first;   /* rows observer_first .. observer_end-1 are the observation window */
    int observer_end;     /* (the last rows of the chunk; under `patched` the prompt's last rows) */
    bool observers_probe; /* patched: the window lies, wholly or in part, beyond the chunk */
    bool restrict_to_chunk;     /* renormalise rows over the candidates' chunk, not all present */
    int chunk_start, chunk_end; /* the chunk or step that just ran */
    long long room; /* of the scored candidates that are no sinks so many may stay, at the least
                       budget of the lane: its only one unless the policy is nested */
    const double *state;         /* [state_doubles * N] of this KV head; NULL if none */
    const double *const *states; /* [kv_heads] the same of each; NULL if none */
    const void *scorer_plan;     /* what `prepare` of the scorer made; NULL if none */
    const kv_quota_query *query; /* what its quota was asked with, at the least budget */
    long long quota;             /* and the answer */
} kv_event;

/* Entries that stay in any case. */
typedef struct kv_pins {
    int first;         /* tokens at positions below this */
    int last;          /* the last candidates */
    bool newest_first; /* a budget without room for both keeps the newest of both, not the first
                          tokens first */
} kv_pins;

/* One recorded row, as one KV head sees it, for policies that accumulate. */
typedef struct kv_row_event {
    const kv_view *view;
    const void *config;
    int kv_head;
    int position;        /* of the query */
    const int32_t *kept; /* [kepts] entries that earlier events kept, ascending */
    int kepts;
    int tail_first;          /* the query sees kept and tail_first .. position */
    int group_heads;         /* query heads of this KV head */
    const float *const *row; /* [group_heads] full rows */
    const double *scale;     /* [group_heads] 1 / (sum of the row over what the query sees) */
} kv_row_event;

/* What a policy needs of a recording (needs). */
enum {
    KV_NEEDS_KEYS = 1,
    KV_NEEDS_VALUES = 2,
    KV_NEEDS_OBSERVERS = 4, /* the rows of the observation window */
    KV_NEEDS_EVERY_ROW = 8, /* every row of prompt and, where it evicts there, decode */
    KV_NEEDS_QUERIES = 16,  /* queries of the rows it may look at: the dataset q */
    /* Numbers per token (kv_extra), of each layer: the bit shifted left by the extra. */
    KV_NEEDS_EXTRA = 1 << 16, /* the bits below are the other families', see transform.h */
    KV_NEEDS_PROMPT_SCORES = KV_NEEDS_EXTRA << KV_EXTRAS, /* of the example */
    KV_NEEDS_ROPE = KV_NEEDS_PROMPT_SCORES << 1 /* of the file: rope_theta or rope_frequencies */
};

/* What holds for a policy (claims); the generic tests check it. */
enum {
    KV_NESTED = 1,       /* a larger budget keeps a superset when the scores are the same */
    KV_COUNTS_FIXED = 2, /* counts do not depend on scores: the analytic model is exact */
    KV_LAYERS_ALIKE = 4  /* without a plan, the quota is the same in every layer; so it is for
                            policies that leave it at the default, whether they claim it or not */
};

typedef struct kv_retention {
    const char *name;               /* as users write it */
    const char *brief;              /* one line: what stays */
    const char *cite;               /* paper or code it follows */
    const char *stage;              /* generation, compression, retrieval or loading */
    size_t config_bytes;            /* of the configuration struct */
    const kv_param *params;         /* ends with a NULL name */
    const kv_preset *presets;       /* NULL: none */
    const kv_condition *conditions; /* settings that others switch off; NULL: none */
    bool oracle;     /* it knows what is yet to come: a bound to measure others by, labelled so */
    unsigned needs;  /* KV_NEEDS_* whatever the settings, but for those of `scorer`: of the scores
                        that it takes the place of */
    unsigned claims; /* KV_NESTED ... */
    size_t state_doubles;  /* accumulators per token and KV head; 0: none */
    int least_prompt_rows; /* recorded rows of the prompt, wherever, without which its sums say
                              nothing; a shorter prompt has them all. 0: none */
    const char *file;      /* what attention is not replayed without, in words: "heads, a file with
                              ..."; counts_only says whether it is there. NULL: nothing */
    /* Checks settings against one another, after what kv_retention_check checks for all policies.
     * Default: nothing more to check. */
    kv_err (*check)(const void *config, const kv_mark *mark, kv_diag *diag);
    /* Loads what the settings name (a mask file) for a recorded shape; relative paths start from
     * `directory` ("": the current one). Default: no plan. */
    kv_err (*prepare)(const void *config, const char *directory, const kv_shape *shape, void **plan,
                      kv_diag *diag);
    void (*release)(void *plan);
    /* Looks through an example before it is replayed, where a layer's budget depends on the others:
     * view->source has no layer yet and view->layer may be set as the policy loads them. config is
     * [budgets], all budgets that share the lane. Default: no memo. */
    kv_err (*enter)(const void *const *config, int budgets, const kv_view *view, void **memo,
                    kv_diag *diag);
    void (*leave)(void *memo);
    /* Whether a token of the prompt enters the model at all; others are never charged nor seen.
     * memo is what `enter` made, which such a policy needs. Default: all enter. */
    bool (*admits)(const void *memo, int position);
    /* How many tokens of a prompt enter, where `admits` is given. */
    long long (*admitted)(const void *config, long long prompt_tokens);
    /* Further needs that depend on the settings. Default: none. */
    unsigned (*needs_of)(const void *config);
    /* Rows of the observation window. Default: window_tokens. */
    long long (*observers)(const void *config);
    /* The same where it depends on the example (a question's length). Default: `observers`. */
    long long (*observers_of)(const void *config, const kv_example *example);
    /* Entries that may stay of query->candidates. Default: kv_quota_uniform. */
    long long (*quota)(const void *config, const kv_quota_query *query);
    /* What stays in any case. Default: sinks_tokens first, window_tokens last. */
    kv_pins (*pins)(const void *config, const kv_quota_query *query, long long quota);
    /* Scores event->candidate[0..scored); higher stays. Default: later positions stay. */
    void (*score)(const kv_event *event, double *score);
    /* Entries that stay of event->candidates, pins among them, once they are scored: for policies
     * whose size follows the scores. order[0..ranked) are indices of the scored candidates but the
     * sinks, from best to worst; quota is what `quota` said. Asked at every event, whatever the
     * quota. Default: the quota. */
    long long (*resize)(const void *config, const kv_event *event, const double *score,
                        const int32_t *order, int ranked, long long quota);
    /* Sees every recorded row in order. state is writable here. Default: nothing to accumulate. */
    void (*observe)(const kv_row_event *row, double *state);
    /* The rows that `observe` sees: so many at the prompt's end and those that follow, or none if
     * 0. They are to be within what `needs` asks for. Default: every row, which it then needs. */
    long long (*observed_rows)(const void *config);
    /* Divides a layer's total among its heads, given each head's scored candidates ranked from
     * best to worst. counts[kv_head] holds each head's quota less pins and is rewritten; work
     * holds `heads` doubles of scratch. Default: left as it is. */
    void (*allocate)(const void *config, const kv_quota_query *query, int heads,
                     const double *const *ranked, const int *scored, double *work,
                     long long *counts);
    /* True where the settings do not say which entries stay, only how many: measures of attention
     * are then left out. Default: false. */
    bool (*counts_only)(const void *config);
    /* Withdraws the claim KV_NESTED for some settings. Default: the claim stands. */
    bool (*nested)(const void *config);
    /* Counts only, where there is no plan: the share of a layer's KV heads, a real fraction, whose
     * quotas are those of KV head 0 of two; the others have those of KV head 1. Default: the heads
     * of a layer are alike. */
    double (*head_share)(const void *config);
    /* Counts only, where there is a plan: heads for which it answers the same number have equal
     * quotas, whatever the lengths. Default: every head of every layer has its own. */
    int (*count_class)(const void *plan, int layer, int kv_head);
    /* Tokens at the end of the prompt that form a chunk of their own. Default: 0. */
    long long (*local_tail)(const void *config);
} kv_retention;

/* The table of all policies, in the order of policies/policies.am; ends with NULL. */
const kv_retention *const *kv_retention_all(void);
/* The policy of that name, or NULL. */
const kv_retention *kv_retention_find(const char *name);

/* Checks one configuration: exactly one setting says how much is kept, pins fit into the budget,
 * the kernel is odd, `recent` is a count or a fraction; then the policy's own check. */
kv_err kv_retention_check(const kv_retention *policy, const void *config, const kv_mark *mark,
                          kv_diag *diag) KV_MUST_USE;

/* --- Shared parts that policies are made of (policies/retention_quota.c) -----------------------
 */

/* The fraction `keep` of the entries that compete (of the prompt, where all do), or the budget. */
long long kv_quota_amount(const kv_retention_config *config, const kv_quota_query *query);
/* The default quota: the amount, plus the window unless it is inside the budget, at most all. */
long long kv_quota_uniform(const void *config, const kv_quota_query *query);
/* The default pins, of which a budget without room for them keeps the newest if told so. */
kv_pins kv_pins_outer(const kv_retention_config *config, const kv_quota_query *query,
                      bool newest_first);
/* `pins` of policies whose scores alone say what stays. */
kv_pins kv_pins_none(const void *config, const kv_quota_query *query, long long total);
/* The share `keep` of n, rounded as the settings say; of a budget, as many as fit into it. */
long long kv_quota_share(const kv_retention_config *config, double n, double budget);
/* Observers, quota and pins of any policy: the policy's own slot or the default. */
long long kv_retention_observers(const kv_retention *policy, const void *config,
                                 const kv_example *example);
long long kv_retention_quota(const kv_retention *policy, const void *config,
                             const kv_quota_query *query);
kv_pins kv_retention_pins(const kv_retention *policy, const void *config,
                          const kv_quota_query *query, long long quota);

/* --- Whose scores count (policies/scorer.c) -----------------------------------------------------
 */

/* A policy with its settings. */
typedef struct kv_scorer {
    const kv_retention *policy;
    const void *config;
} kv_scorer;

/* The policy whose scores count in the end: its `state_doubles`, `observe`, `least_prompt_rows`,
 * `file` and, as kv_event.scorer_plan, `prepare` matter. Most are their own. */
kv_scorer kv_retention_scorer(const kv_retention *policy, const void *config);
/* What the policy with these settings needs of a recording, KV_NEEDS_*. */
unsigned kv_retention_needs(const kv_retention *policy, const void *config);
/* Whether a larger budget keeps a superset under these settings. */
bool kv_retention_nested(const kv_retention *policy, const void *config);
/* Whether the settings say only how many entries stay. */
bool kv_retention_counts_only(const kv_retention *policy, const void *config);

#define KV_RETENTION_DEFINE(id) const kv_retention kv__retention_##id

#endif
