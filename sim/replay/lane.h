/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* What the files of the attention replay share. A reader starts at replay.c (kv_replay_example),
 * goes on to lane.c (one step of one lane) and evict.c (one event), and leaves measure.c for last.
 */
#ifndef KVSIM_SIM_REPLAY_LANE_H
#define KVSIM_SIM_REPLAY_LANE_H

#include "sim/replay/replay.h"

enum { KV__DEAD = 255, KV__MAX_BUDGETS = 254, KV__SINKS = 4, KV__MAX_SAMPLES = 1 << 16 };

/* Points that differ in their budget alone; budgets ascend, kept sets are nested. */
typedef struct kv__group {
    const kv_retention *policy;
    const void **config; /* [budgets] */
    int *point;          /* [budgets] index of each budget's point */
    int budgets;
    const kv_part *part; /* [parts] of the only point, where there are any; borrowed */
    int parts;
    long long chunk_tokens;
    void *plan;
    kv_scorer scorer;  /* whose scores count, with the settings of the first point */
    void *scorer_plan; /* what its `prepare` made; NULL where that is `plan` */
    bool owns_plan;
} kv__group;

struct kv_replay {
    kv__group *group;
    int groups, points;
    kv_shape shape;
    char *model; /* shape.model points here */
    kv_replay_options options;
};

/* Positions in ascending order that grow at the end. */
typedef struct kv__list {
    int32_t *at;
    int count, capacity;
} kv__list;

/* One KV head of the current layer in one lane. What is present is: the kept entries of every level
 * up to the budget, and the tail tail_first .. now, which every budget still holds. */
typedef struct kv__lane_head {
    kv__list *level;   /* [budgets] entries whose least budget that keeps them is this one */
    uint8_t *level_of; /* [N] of each token; KV__DEAD: gone at every budget */
    int tail_first;
    double *state; /* [state_doubles * N], the policy's; NULL if none */
} kv__lane_head;

/* Pages of a layer: page p holds the tokens p*page_tokens .. of all KV heads. */
typedef struct kv__pages {
    uint8_t *level; /* [pages] least budget at which an entry of the page is retained */
    int32_t *count; /* [pages] retained entries; kept up to date with one budget only */
    int *at_level;  /* [256] pages of each level */
    int page_tokens, pages;
    int last; /* highest page that ever held a retained entry of this layer, or -1 */
} kv__pages;

/* Entries over time: what footprint and peak are made of. Kinds: ideal, head-compacted, page. */
enum { KV__IDEAL, KV__BY_HEAD, KV__BY_PAGE, KV__KINDS };
typedef struct kv__occupancy {
    int64_t prefill[KV__KINDS], decode[KV__KINDS]; /* entries summed over token steps */
    int64_t *at_step[KV__KINDS];                   /* [steps] summed over layers and heads */
    int steps;
    /* where kv__bytes_differ: the same in entries of plain size, metadata included */
    double stored_prefill, stored_decode;
    double stored_on_device; /* of both together, without what is in host memory */
    double *stored_at_step;  /* [steps] NULL elsewhere */
} kv__occupancy;

/* Rows of the example that predict answer tokens, ascending. */
typedef struct kv__answer_row {
    int position;
    int turn;
    bool first_of_turn, last_of_turn;
} kv__answer_row;

/* Measures of one budget of one lane, gathered over layers. */
typedef struct kv__tally {
    double *row_recall, *row_no_sinks, *row_error; /* [rows] summed over layers and query heads */
    double *evidence_mass;                         /* [rows] alive mass on evidence */
    double *evidence_loss; /* [rows] what the outputs of the heads lose, weighted by evidence */
    double *query_intact;  /* [rows] peaked attention left in the layers below, weighted likewise */
    double *least_intact;  /* [rows] least share of peaked attention in the layers so far */
    double *head_recall;   /* [1+turns][layers*heads] summed over rows */
    float *sample;         /* [sampled rows][layers*heads] recalls */
    double *evidence_alive;  /* [turns] alive (layer, head, token) */
    uint8_t *token_anywhere; /* [evidence tokens] alive in some head */
    uint8_t *span_whole;     /* [evidences][layers*kv_heads] */
    double *row_reads;       /* [rows] entries read, summed over layers and KV heads */
    double *row_read_bytes;  /* [rows] the same in entries of plain size, metadata included */
    double *row_fetched;     /* [rows] of those, what came from host memory, without metadata */
    double probe_reads, probe_full, probe_recall; /* of probed prefill rows, over query heads */
    long long probes;
} kv__tally;

/* What one query head's row lost at one budget. */
typedef struct kv__row_measure {
    double mass;       /* recorded probability that is read */
    double sinks;      /* of the first KV__SINKS tokens */
    double evidence;   /* of the turn's evidence */
    const double *out; /* [head_dim] sum of attention times values over what is read */
    double out_mass;   /* sum of that attention */
} kv__row_measure;

typedef struct kv__parts kv__parts; /* parts.c */

/* One group at work on one example. */
typedef struct kv__lane {
    const kv__group *group;
    void *memo;          /* what the policy's `enter` made of the example */
    kv__lane_head *head; /* [kv_heads] */
    kv__pages pages;
    kv__occupancy *occupancy; /* [budgets] */
    kv__tally *tally;         /* [budgets] */
    int entered; /* tokens of the step that entered the model: all, unless the policy compresses
                    the prompt */
    int step, step_start, step_end; /* the step that runs now; step_end is exclusive */
    int observe_first;              /* rows from this one on and before observe_end are shown */
    int observe_end;                /* to policy->observe */
    kv__parts *parts;               /* of lanes with transforms or a read policy; else NULL */
} kv__lane;

/* What all lanes share while one example is replayed. */
typedef struct kv__stage {
    const kv_replay *replay;
    const kv_example *example; /* &seen */
    kv_example seen;           /* the example with prompt_tokens as what is compressed at once */
    const kv_replay_result *given; /* what the first request kept of a shared context; NULL: the
                                      example decides for itself */
    bool prompt_only;              /* only the sets after the prompt are wanted */
    const char *path;              /* of the trace */
    kv_attention *trace;
    int example_index;
    kv_layer *source;
    kv_view view;
    uint8_t *wanted;        /* [rows] recorded rows that some lane or measure reads */
    uint8_t *probed;        /* [rows] prefill rows that lanes reading sparsely there are shown;
                               NULL: none */
    const float **row;      /* [heads] the current position's rows */
    float *row_scratch;     /* [heads][row_stride] */
    size_t row_stride;      /* N, and what fills the last cache line */
    const float **value;    /* [kv_heads] values of the layer, NULL if not recorded */
    double *full_output;    /* [heads][head_dim] output of the full row */
    double *full_norm;      /* [heads] */
    double *full_mass;      /* [heads] sum of the full row: 1 within rounding */
    double *full_sinks;     /* [heads] its mass on the first KV__SINKS tokens */
    double *alive_output;   /* [head_dim] scratch */
    double *samples;        /* scratch for percentiles */
    kv__answer_row *answer; /* [answers] */
    int answers, sample_stride;
    int evidence_tokens;     /* tokens of all evidence spans */
    int *evidence_first;     /* [evidences] index of the span's first token among them */
    double *span_mass;       /* [evidences][layers*kv_heads] full attention on the span */
    double *evidence_full;   /* [answers] full attention on the turn's evidence, all heads */
    double *evidence_output; /* [answers] evidence mass times size of output, all heads */
    double *head_evidence;   /* [heads] of the current row: full attention on evidence */
    double *head_weight;     /* [heads] the same times the size of the output that it makes */
    float **square;          /* [heads] squares of the current row's probabilities */
    float *squares;          /* [heads][N] where they lie */
    double square_sum;       /* their sum over all heads */
    double *value_mean;      /* [kv_heads][head_dim] mean value of the layer */
    int32_t *watched;        /* [N] what a watcher is shown */
    void *scratch;           /* evict.c's */
} kv__stage;

/* --- plan.c ------------------------------------------------------------------------ */
/* Whether rows are renormalised over the current chunk's keys, not over all that is present. */
bool kv__scores_chunk_only(const kv_retention_config *config);
/* KV_NEEDS_* of a group's policy under its settings. */
unsigned kv__group_needs(const kv__group *group);
/* Marks the recorded rows that the sweep reads of an example, or refuses it. wanted: [rows],
 * zeroed. */
kv_err kv__replay_wanted(const kv_replay *replay, const kv_attention *trace,
                         const kv_example *example, uint8_t *wanted, kv_diag *diag);

/* --- shared.c ---------------------------------------------------------------------- */
/* An example as it is replayed: prompt_tokens is what is compressed at once. *leader: the example
 * whose prompt compresses the context that this one shares; index itself if it does so. */
kv_err kv__shared_example(const kv_replay *replay, const kv_attention *trace, int index,
                          kv_example *out, int *leader, kv_diag *diag);
/* Whether a lane goes on from what the leader kept of the context. An oracle does not: it bounds
 * what any set serves this request, so it chooses for this request's answers. */
bool kv__lane_forks(const kv__lane *lane, const kv__stage *stage);
/* Sets what a lane retains of the context to what the leader kept of it. */
kv_err kv__lane_restore(kv__lane *lane, kv__stage *stage, kv_diag *diag);

/* --- lane.c ------------------------------------------------------------------------ */
/* Rows before this position are shown to the policy: none after its last eviction. */
int kv__observe_end(const kv__group *group, const kv_example *example);
/* Entries of a head present before the current step, at one budget. */
int64_t kv__lane_past(const kv__lane_head *head, int budget, int step_start);
/* Entries of a head that the current step found, once it is over, at one budget. */
int64_t kv__lane_found(const kv__lane *lane, int kv_head, int budget);
kv_err kv__lane_init(kv__lane *lane, const kv__group *group, const kv__stage *stage, kv_diag *diag);
void kv__lane_fini(kv__lane *lane, const kv_shape *shape);
/* Before the first step of a layer. */
kv_err kv__lane_start_layer(kv__lane *lane, kv__stage *stage, kv_diag *diag);
/* The current position's rows are ready: accumulate and measure. answer: index or -1. */
void kv__lane_row(kv__lane *lane, kv__stage *stage, int position, int answer);
/* The step that ended with this position is charged, then entries may leave. */
kv_err kv__lane_step_end(kv__lane *lane, kv__stage *stage, kv_diag *diag);

/* --- parts.c: transforms and read policies ----------------------------------------- */
/* What the parts need of a recording: KV_NEEDS_*, and last rows of the prompt. *observer: the part
 * that looks at the most; NULL: none looks at any. */
unsigned kv__parts_needs(const kv__group *group);
long long kv__parts_observers(const kv__group *group, const kv_part **observer);
/* The last part that needs it, one of KV_NEEDS_*; NULL: none does. */
const kv_part *kv__parts_needing(const kv__group *group, unsigned need);
/* Whether the read policy chooses in prefill too. */
bool kv__parts_read_prefill(const kv__group *group);
/* *out is the caller's to free, whatever is returned. */
kv_err kv__parts_new(const kv__group *group, const kv__stage *stage, kv__parts **out,
                     kv_diag *diag);
void kv__parts_free(kv__parts *parts, const kv__group *group, int kv_heads);
kv_err kv__parts_start_layer(kv__lane *lane, kv__stage *stage, kv_diag *diag);
/* Lets transforms change the scores that rank what leaves. */
void kv__parts_prior(const kv__group *group, const kv_event *event, double *score);
bool kv__parts_has_prior(const kv__group *group);
/* Around the eviction that ends a step: transforms see what left. */
void kv__parts_before_evict(kv__lane *lane, const kv__stage *stage);
void kv__parts_after_evict(kv__lane *lane, kv__stage *stage);
/* Bytes of a stored entry, of `entries` in a head, as a share of a plain one's. */
double kv__parts_share(const kv__group *group, const kv__stage *stage, double entries,
                       bool prefill);
/* What the read policy keeps beside `entries` entries, in plain ones. */
double kv__parts_metadata(const kv__group *group, const kv__stage *stage, double entries,
                          bool prefill);
/* The share of `entries` entries that is on the device. */
double kv__parts_device_share(const kv__group *group, double entries);
/* Measures an answer row. *squares += the squared probabilities that are read. */
void kv__parts_row(kv__lane *lane, kv__stage *stage, int answer, double *squares);
/* Counts what a prefill row reads. */
void kv__parts_probe(kv__lane *lane, kv__stage *stage, int position);

/* --- evict.c ----------------------------------------------------------------------- */
kv_err kv__scratch_new(int kv_heads, int tokens, void **out, kv_diag *diag);
void kv__scratch_free(void *scratch);
/* The eviction that the schedule asks for after the current step, if any. */
kv_err kv__lane_evict(kv__lane *lane, kv__stage *stage, kv_diag *diag);
kv_err kv__list_push(kv__list *list, int32_t position, kv_diag *diag);

/* --- rank.c ------------------------------------------------------------------------ */
typedef struct kv__ranker kv__ranker;
kv_err kv__ranker_new(int capacity, kv__ranker **out, kv_diag *diag);
void kv__ranker_free(kv__ranker *ranker);
/* order[0..n) = indices of score[0..n) from best to worst; equal scores: lower index first; NaN
 * counts as the worst. */
void kv__rank(kv__ranker *ranker, const double *score, int n, int32_t *order);

/* --- pages.c ----------------------------------------------------------------------- */
kv_err kv__pages_init(kv__pages *pages, int tokens, int page_tokens, kv_diag *diag);
void kv__pages_fini(kv__pages *pages);
void kv__pages_clear(kv__pages *pages);
/* An entry leaves the tail and is retained from this level on (KV__DEAD: nowhere). */
void kv__pages_settle(kv__pages *pages, int position, int level);
/* An entry that was retained leaves. One budget only. */
void kv__pages_drop(kv__pages *pages, int position);
/* Adds what the step start..end costs, in entries, to one budget's occupancy of one layer. */
void kv__occupancy_add(kv__occupancy *occupancy, const kv__lane *lane, int kv_heads, int budget,
                       bool prefill, int64_t probes);

/* --- bytes.c ----------------------------------------------------------------------- */
/* Whether what a group stores is more than its counts times the bytes of an entry. */
bool kv__bytes_differ(const kv__group *group, const kv_replay_cache *cache);
/* Bytes of a plain entry. */
double kv__bytes_entry(const kv__stage *stage);
/* Adds what the current step stores at one budget, before its eviction. */
void kv__bytes_charge(kv__lane *lane, const kv__stage *stage, int budget, bool prefill,
                      int64_t probes);
/* Footprint and peak in bytes, from plain entries summed over steps, those of them on the device,
 * and the most at one step; the model's states come on top. */
void kv__bytes_set(double entry_steps, double on_device, double peak, const kv__stage *stage,
                   kv_record *record);
/* The measures in bytes. */
void kv__bytes_finish(const kv__occupancy *occupancy, const kv__stage *stage, kv_record *record);

/* --- measure.c --------------------------------------------------------------------- */
kv_err kv__tally_init(kv__tally *tally, const kv__stage *stage, kv_diag *diag);
void kv__tally_fini(kv__tally *tally);
kv_err kv__stage_answers(kv__stage *stage, kv_diag *diag);
/* What the measures need of a layer, before its first row. */
void kv__measure_layer(kv__stage *stage);
/* The full row's own measures, once per answer row for all lanes. */
void kv__measure_full(kv__stage *stage, int answer);
void kv__measure_row(kv__lane *lane, kv__stage *stage, int answer);
/* Fills sinks and evidence of a row: alive[] marks the tokens that are read. */
void kv__measure_alive(const kv__stage *stage, int answer, int query_head, const uint8_t *alive,
                       kv__row_measure *out);
/* Tallies one query head of an answer row at one budget. */
void kv__measure_head(const kv__lane *lane, const kv__stage *stage, int answer, int query_head,
                      int budget, const kv__row_measure *m);
/* The records of one budget's point, from its tallies. record: [1 + turns]. */
kv_err kv__measure_finish(const kv__lane *lane, int budget, kv__stage *stage, kv_record *record,
                          kv_diag *diag);

#endif
