/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Serving: replays a request trace through the replicas of a server.
 *
 * Default behaviour is that of vLLM's V1 scheduler. A replica steps: the running requests, in order
 * of admission, catch up to the tokens they have, then waiting ones are admitted; docs/serving.md
 * states every rule. Steps that only decode are planned ahead as one jump whose length and time are
 * exact; `stepwise` takes them one by one and gives the same results to the bit. Memory is bounded
 * by the requests that are in the server and the blocks that are resident. */
#ifndef KVSIM_SIM_SERVING_SERVING_H
#define KVSIM_SIM_SERVING_SERVING_H

#include "models/step_time.h"
#include "policies/replacement.h"
#include "policies/scheduling.h"
#include "sim/serving/keep.h"
#include "sim/serving/samples.h"
#include "sim/serving/tier.h"
#include "traces/request.h"

/* Where requests come from: a kv_request_reader behind kv_serving_reader, or a test's own. */
typedef struct kv_serving_source {
    void *closure;
    kv_err (*next)(void *closure, kv_request *out, kv_diag *diag);
    /* See kv_request_peek; may be NULL if completed is, too. */
    kv_err (*peek)(void *closure, int64_t *arrival_ns, kv_diag *diag);
    /* See kv_request_completed; may be NULL. */
    void (*completed)(void *closure, uint64_t session, int32_t turn, int64_t end_ns);
} kv_serving_source;

kv_serving_source kv_serving_reader(kv_request_reader *reader);

/* A level of memory below the GPU, one per replica. */
typedef struct kv_tier_settings {
    const char *name;
    int64_t capacity_blocks;
    double read_bandwidth, write_bandwidth; /* bytes per second: to the GPU, and into the tier */
    int64_t latency_ns;                     /* of one transfer to the GPU */
    int link;         /* whose link it uses: its own place, or that of a tier above */
    bool shared_link; /* all replicas share that link, if it is its own */
    bool fair;        /* transfers share its link, if it is its own; else they take turns on it */
    const kv_replacement *replacement;
    bool write_through; /* blocks are written when they are made, not when the level above drops
                           them */
} kv_tier_settings;

/* What a tier did, all replicas. hit_tokens: of prompts of completed requests, found here when they
 * were first admitted, and loaded. */
typedef struct kv_tier_result {
    int64_t peak_blocks, blocks_in, blocks_out, hit_tokens, evictions, busy_ns;
    int64_t entries_in, entries_out; /* beside blocks: of read policies that keep them here */
    double block_seconds;
    int64_t blended_tokens; /* of prompts, sent by it as what stood elsewhere (kv_serving_result) */
} kv_tier_result;

/* What is done with a prefix that lies in a lower tier. */
typedef enum kv_load_mode {
    KV_LOAD_AUTO,     /* loaded or computed again, whichever is estimated to take less time */
    KV_LOAD_ALWAYS,   /* loaded */
    KV_LOAD_NEVER,    /* computed again */
    KV_LOAD_BOTH_ENDS /* computed from the front while its end is loaded, until they meet */
} kv_load_mode;

typedef struct kv_serving_settings {
    int64_t kv_blocks;          /* of one replica, all layers in full; >= 1 */
    int32_t block_tokens;       /* tokens per block */
    int64_t block_bytes;        /* of all layers, all devices of a group together */
    double entry_bytes;         /* of one KV entry */
    int64_t max_batched_tokens; /* of one step */
    int32_t max_seqs;           /* in one batch */
    int32_t chunk_tokens;       /* of one request in one step; 0: no limit */
    int64_t max_context_tokens; /* longer requests are rejected; 0: no limit */
    int replicas;
    bool reserve_full_input; /* admit only what fits whole */
    bool swap;               /* who is preempted moves to tier[0]; keep must be NULL */
    bool stepwise;
    kv_tier_settings tier[KV_MOST_TIERS]; /* from the fastest down */
    int tiers;
    int load;   /* kv_load_mode */
    bool blend; /* contents are reused that do not stand behind the prompt's beginning */
    int64_t recompute_millionths; /* of their tokens, that are computed again */
    int64_t full_layers;          /* first layers that compute all of them again; <= layers */
    bool overlap;        /* computing begins when the first layer has arrived, not the last */
    int64_t layers;      /* of the model, for overlap */
    const kv_keep *keep; /* what requests keep; NULL: everything, in blocks of all layers */
    int home;            /* tier that holds what keep->away says */
    bool prefix_cache;   /* keep->reuse must be true */
    const kv_replacement *replacement; /* of the prefix cache */
    const void *replacement_config;    /* NULL: its defaults */
    kv_foresight *foresight; /* of the requests, for policies that look ahead (foresight.h); the run
                                changes it; NULL: none do */
    const kv_queue_order *order;
    const kv_routing *routing;
    uint64_t seed;
    int64_t goodput_ttft_ns, goodput_tpot_ns, goodput_e2e_ns; /* limits; 0: none */
    int64_t timeline_ns; /* between two samples, see KV_MOST_SAMPLES; 0: none are taken */
} kv_serving_settings;

/* Pages of a block of the prefix cache and of the tiers. */
static inline int64_t kv_serving_cached_pages(const kv_serving_settings *s)
{
    return s->keep == NULL             ? 1
           : s->keep->named_pages == 0 ? s->keep->block_pages
                                       : s->keep->named_pages;
}

/* A tier holds entries of running requests. */
static inline bool kv_serving_has_home(const kv_serving_settings *s)
{
    return s->keep != NULL && s->keep->away.read != NULL;
}

/* Bytes of a page. */
static inline double kv_serving_page_bytes(const kv_serving_settings *s)
{
    return (double)s->block_bytes / (double)(s->keep != NULL ? s->keep->block_pages : 1);
}

/* Bytes of a block of the prefix cache and of the tiers. */
static inline double kv_serving_cached_bytes(const kv_serving_settings *s)
{
    return kv_serving_page_bytes(s) * (double)kv_serving_cached_pages(s);
}

typedef enum kv_request_status {
    KV_REQUEST_COMPLETED,
    KV_REQUEST_TOO_LONG, /* rejected: prompt and answer exceed max_context_tokens */
    KV_REQUEST_TOO_LARGE /* rejected: its KV does not fit an empty cache */
} kv_request_status;

extern const char *const kv_request_status_names[];

/* What became of one request. Times in ns; -1 where there is none. */
typedef struct kv_request_outcome {
    int64_t number;
    int64_t arrival_ns, queue_ns, ttft_ns, tpot_ns, e2e_ns;
    int64_t blended_tokens; /* of its prompt, found elsewhere in another one */
    int32_t prompt_tokens, output_tokens;
    int32_t cached_tokens; /* found in any tier, as its prefix */
    int32_t preemptions;
    int replica;
    kv_request_status status;
} kv_request_outcome;

/* A point takes no more samples: when there are so many, every second one is void and the interval
 * doubles. */
enum { KV_MOST_SAMPLES = 1 << 16 };

/* One sample of the timeline, all replicas. */
typedef struct kv_serving_sample {
    int64_t time_ns;
    int64_t interval_ns;               /* from now on; samples before that it leaves out are void */
    int64_t used_bytes;                /* of the GPU, by running requests */
    int64_t tier_bytes[KV_MOST_TIERS]; /* that the tiers hold */
    int64_t running, waiting;
} kv_serving_sample;

/* One step or jump, for a trace of what happened. */
typedef struct kv_serving_span {
    int replica;
    int64_t start_ns, end_ns;
    int64_t steps, prefill_tokens, decodes;
} kv_serving_span;

/* The time from a preemption of a request to its next admission. */
typedef struct kv_serving_pause {
    int64_t number; /* of the request */
    int replica;
    int64_t start_ns, end_ns;
} kv_serving_pause;

/* Who listens while it runs. Slots may be NULL. */
typedef struct kv_serving_listener {
    void *closure;
    kv_err (*request)(void *closure, const kv_request_outcome *outcome, kv_diag *diag);
    kv_err (*sample)(void *closure, const kv_serving_sample *sample, kv_diag *diag);
    kv_err (*span)(void *closure, const kv_serving_span *span, kv_diag *diag);
    kv_err (*pause)(void *closure, const kv_serving_pause *pause, kv_diag *diag);
} kv_serving_listener;

typedef struct kv_serving_result {
    int64_t requests, completed, rejected_long, rejected_large;
    int64_t preemptions, recomputed_tokens;
    int64_t prompt_tokens, output_tokens; /* of completed requests */
    int64_t cached_tokens;  /* of prompts of completed requests, found in the GPU when they were
                               first admitted */
    int64_t loaded_tokens;  /* the same, found in lower tiers and loaded; those of all tiers */
    int64_t blended_tokens; /* of the same, found behind the prefix where their content is cached */
    int64_t blend_recomputed_tokens; /* as many as were computed again of these */
    int64_t good_requests;           /* completed within the goodput limits */
    int64_t steps, jumps;            /* steps, and events they took */
    int64_t first_arrival_ns, end_ns;
    int64_t busy_ns;    /* of steps, all replicas */
    int64_t peak_bytes; /* most KV bytes in use by running requests, one replica's maximum summed */
    int64_t ideal_peak_bytes; /* the same, of entries: as if every page were full */
    int64_t evictions;
    int64_t peak_running;      /* most requests in the batch of one replica, summed */
    double byte_seconds;       /* KV bytes in use over time */
    double ideal_byte_seconds; /* the same, of entries */
    double running_seconds;    /* requests in batches over the time of their steps */
    double read_bytes;         /* KV bytes that attention reads, all steps */
    kv_tier_result tier[KV_MOST_TIERS];
    kv_samples ttft, tpot, e2e, queue;
    kv_samples itl; /* gaps between answer tokens in fine time, see kv_samples_add_ramp */
} kv_serving_result;

void kv_serving_result_fini(kv_serving_result *result);

/* Replays all requests of the source. The result must be zeroed. */
kv_err kv_serving_run(const kv_serving_settings *settings, const kv_step_time *time,
                      int64_t entries_per_token, const kv_serving_source *source,
                      const kv_serving_listener *listener, kv_serving_result *result,
                      kv_diag *diag) KV_MUST_USE;

#endif
