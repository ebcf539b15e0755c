/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Experiments: what a YAML file asks kvsim to do. */
#ifndef KVSIM_SIM_EXPERIMENT_H
#define KVSIM_SIM_EXPERIMENT_H

#include "sim/plan/plan.h"
#include "sim/policy_spec.h"
#include "sim/section.h"

#include <stdio.h>

typedef enum kv_footprint_model {
    KV_FOOTPRINT_SIMULATED, /* counted while attention is replayed */
    KV_FOOTPRINT_ANALYTIC   /* by formula from the lengths alone */
} kv_footprint_model;

/* Section `attention`: replay of recorded attention. */
typedef struct kv_attention_config {
    kv_files traces;       /* recorded attention, at least one file */
    kv_texts tasks;        /* only these tasks; none: all */
    kv_point_list points;  /* policies x chunk sizes, each once; chunk_tokens is always given */
    kv_chunks chunk_sizes; /* of policies that do not give their own; at least one */
    int footprint_model;   /* kv_footprint_model */
    int compress_with;     /* kv_compress_with (sim/replay/replay.h) */
    bool oracle;           /* exact top-k is added at the amounts of the others, see oracle.h */
    bool skip_refused;     /* what a trace cannot serve is left out and named, not an error */
    bool keep_sets;        /* record which entries are retained after the prompt */
    long long page_tokens; /* of the page-granular measures */
    struct {
        double threshold;    /* share of the full accuracy, 0..1 */
        double confidence;   /* of intervals, 0..1 */
        long long resamples; /* of the examples */
    } critical;
    struct {
        char *file;      /* CSV of measured accuracy; NULL: no calibration */
        kv_files traces; /* that were measured; none: those of the experiment */
    } calibration;
    struct {
        long long prefill_token_ns; /* time of one prompt token; 0: not given, a second per token */
        long long decode_ns;        /* time of one decode step; 0: not given, a second per step */
    } step_time;
    struct {
        double kv_footprint; /* at which a run ends with a ranking of its policies; 0: not given */
    } rank;
} kv_attention_config;

typedef struct kv_experiment {
    kv_document *document; /* the resolved YAML; nodes and marks point into it */
    char *name;            /* as given, else the file's name without folder and ending */
    long long seed;
    const kv_node *model;   /* a catalogue name, a path or a mapping; NULL: not given */
    const kv_node *serving; /* section `serving`, see sim/serving/plan.h; NULL: not given */
    bool has_attention;
    kv_attention_config attention;
    bool has_plan;
    kv_plan_config plan; /* read by `kvsim plan` */
} kv_experiment;

/* The whole file, as tables. */
extern const kv_section kv__experiment_section;

/* Sections with files of their own, one line each; listed in experiment.c. */
extern const kv_section kv__section_attention;

/* Reads an experiment file. sets[0..count) are KEY=VALUE with a dotted KEY and a YAML VALUE, as if
 * the file said so. */
kv_err kv_experiment_read(const char *path, const char *const *sets, int count, kv_experiment **out,
                          kv_diag *diag) KV_MUST_USE;

/* The same from text; path labels messages, and relative paths start from its folder. */
kv_err kv_experiment_parse(const char *path, const char *text, size_t bytes,
                           const char *const *sets, int count, kv_experiment **out,
                           kv_diag *diag) KV_MUST_USE;

void kv_experiment_free(kv_experiment *experiment);

/* Writes the YAML as resolved (what was set is in it, aliases are expanded): it reads back to the
 * same experiment. */
kv_err kv_experiment_write(const kv_experiment *experiment, FILE *out);

#endif
