/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Section `serving` of an experiment: what is replayed, on what, and every combination of the
 * settings that are lists. */
#ifndef KVSIM_SIM_SERVING_PLAN_H
#define KVSIM_SIM_SERVING_PLAN_H

#include "sim/grid.h"
#include "sim/policy_spec.h"
#include "sim/serving/profile.h"
#include "sim/serving/serving.h"

/* Scalars of one mapping in `tiers`. */
typedef struct kv_tier_config {
    long long capacity_bytes;
    double bandwidth, write_bandwidth; /* 0: not given */
    long long latency_ns;              /* -1: not given */
    int write;                         /* 0: back, 1: through */
    char *link;                        /* name of a tier above; NULL: it has its own */
    bool shared_link;
    int sharing; /* of its link, 0: fair, 1: fifo */
    char *replacement;
} kv_tier_config;

/* Scalars of the section and of the mappings in it. */
typedef struct kv_serving_config {
    long long kv_blocks;       /* 0: computed from the device's memory */
    long long reserved_blocks; /* of these, held by the server itself */
    long long block_tokens;
    long long tensor_parallel;
    long long replicas;
    long long max_context_tokens; /* 0: the model's */
    double memory_utilization;
    long long activation_bytes; /* -1: estimated */
    long long reserve_bytes;
    int kv_dtype;       /* 0: the model's, else kv_dtype + 1 */
    long long kv_group; /* numbers that share a scale and a zero; 0: none do */
    char *profile;      /* results of a run whose attention part knows the policies; NULL: none */
    char *home;         /* tier of read policies with entries in host memory; NULL: the first */
    int load;           /* kv_load_mode */
    bool overlap;
    bool request_results;
    long long timeline_ns; /* 0: none */
    struct {
        long long max_batched_tokens, max_seqs;
        bool reserve_full_input;
        int preemption; /* 0: recompute, 1: swap */
        char *queue, *routing;
    } scheduler;
    struct {
        bool enabled;
        char *replacement;
    } prefix_cache;
    struct {
        int mode; /* 0: prefix, 1: blend */
        double recompute;
        long long full_layers;
    } reuse;
    struct {
        long long ttft_ns, tpot_ns, e2e_ns; /* 0: no limit */
    } goodput;
    struct {
        long long start_ns, duration_ns;
    } trace_events;
    kv_step_time_config step_time;
    kv_tier_config tier[KV_MOST_TIERS];
} kv_serving_config;

/* A mapping of the section, with its part of the grid. */
typedef struct kv_serving_part {
    const char *name; /* "" is the section itself */
    const char *help;
    const kv_param *params;
    size_t offset; /* of its struct in kv_serving_config */
} kv_serving_part;

/* Dimensions of the grid: the parts, the tiers, `requests`. */
enum {
    KV_SERVING_REUSE = 3, /* of the parts, "reuse" */
    KV_SERVING_PARTS = 7,
    KV_SERVING_REQUESTS = KV_SERVING_PARTS + KV_MOST_TIERS,
    KV_SERVING_GRIDS
};
extern const kv_serving_part kv_serving_parts[KV_SERVING_PARTS];
extern const kv_param kv_tier_params[];

/* Settings whose values are names from a table of policies. */
typedef struct kv_serving_choice {
    const char *part, *name;      /* of the mapping ("tiers": each of them) and the setting */
    const char *(*option)(int i); /* the i-th name, NULL behind the last */
} kv_serving_choice;

extern const kv_serving_choice kv_serving_choices[]; /* part NULL ends it */
/* The choice that a setting of a mapping is, or NULL. */
const kv_serving_choice *kv_serving_choice_find(const char *part, const char *name);

/* One combination, ready to run. */
typedef struct kv_serving_point {
    kv_serving_config config;
    kv_serving_settings settings;
    kv_model *model;
    kv_device *device;
    kv_step_hardware hardware; /* points into model and device */
    kv_step_time *time;
    kv_request_spec requests;
    char *label;                   /* policy and all that differs between points, for people */
    double keep_fraction;          /* that it is told to keep; NaN: it is told otherwise */
    char *policy, *params;         /* retention policy and its settings as JSON */
    char *settings_json;           /* all other settings, canonical */
    char no_room[384];             /* why not one block fits; "": some do, or it was an error */
    long long chunk_tokens;        /* 0: whole */
    kv_keep *keep;                 /* settings.keep */
    const kv_retention *retention; /* that made the next; NULL: none did */
    void *retention_plan;
    double capacity_bytes, cost_per_hour; /* of all replicas; cost < 0: not known */
} kv_serving_point;

typedef struct kv_serving_plan {
    const kv_node *map, *model_node;
    kv_grid grid[KV_SERVING_GRIDS];
    int tiers;
    int models; /* that stand above the section as a list; else 1 */
    int combinations;
    kv_profile_source profile;     /* this run's attention part, once it is done */
    const kv_point_list *replayed; /* the points of that part; NULL: there is none */
    kv_point_list policies;
    int policy_items;         /* of the key `policies` as the grid sees it */
    int faster;               /* combinations of what varies faster than the policies */
    kv_request_spec requests; /* of the first combination: file and format are those of all */
    uint64_t seed;
    bool tells_room; /* a model that leaves no room for a block is told in the point, no error */
} kv_serving_plan;

/* Reads the section. Every combination is checked as far as that costs no reading of traces. model
 * is what the experiment names, NULL: nothing; `model` in the section comes before it. */
kv_err kv_serving_plan_init(kv_serving_plan *plan, const kv_node *map, const kv_node *model,
                            long long seed, kv_diag *diag) KV_MUST_USE;
void kv_serving_plan_fini(kv_serving_plan *plan);

/* One combination; what is written first varies slowest, `model` above the section most so and
 * `requests` least. */
kv_err kv_serving_plan_point(const kv_serving_plan *plan, int combination, kv_serving_point *out,
                             kv_diag *diag) KV_MUST_USE;
void kv_serving_point_fini(kv_serving_point *point);

#endif
