/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Reading what a run found: its curves and critical footprints, as summaries, plots and reports
 * show them. */
#ifndef KVSIM_ANALYSIS_CURVES_H
#define KVSIM_ANALYSIS_CURVES_H

#include "analysis/critical.h"
#include "analysis/results.h"

/* The policy whose curves bound those of the others. */
#define KV_ORACLE_POLICY "topk"

/* Whether a policy or a part of a combination, "snapkv+topk", is the oracle. */
bool kv_policy_is_oracle(const char *policy);

/* What amounts are counted in. */
typedef enum kv_axis {
    KV_AXIS_ENTRIES, /* kv_footprint */
    KV_AXIS_BYTES,   /* kv_footprint_bytes */
    KV_AXIS_READS,   /* kv_reads */
    KV_AXIS_PREFILL, /* kv_reads_prefill */
    KV_AXES
} kv_axis;

/* "entries", "bytes", "reads", "prefill". */
const char *kv_axis_name(kv_axis axis);
/* What stands along it, longest first, with tabs between: "KV footprint (% of full causal
 * attention)", "KV footprint (%)". */
const char *kv_axis_title(kv_axis axis);
/* The same of critical footprints: "critical footprint (%)". */
const char *kv_axis_critical(kv_axis axis);
/* Reads such a name; false if it is none. */
bool kv_axis_parse(const char *text, kv_axis *axis);

typedef struct kv_curve_point {
    double keep;            /* NaN: none */
    double kv_footprint;    /* fraction, along the axis that was asked for */
    double amount[KV_AXES]; /* along each axis; NaN: not known */
    double accuracy;        /* NaN: not known, as below */
    double lo, hi;          /* its interval */
} kv_curve_point;

/* One curve of one task: a policy under one chunk size, over its budgets. */
typedef struct kv_curve {
    char *task;
    char *policy;
    char *label;   /* policy and settings in few words, without the chunk size */
    char *title;   /* the same, for legends: where it is long, without the settings that all
                    * curves of the policy share */
    kv_axis saves; /* what to compare the policy by */
    bool oracle;   /* of exact top-k, which knows what is yet to come: the bound of the others */
    long long chunk_tokens; /* 0: whole */
    int examples;
    char *source;          /* weakest accuracy_source of its points */
    kv_curve_point *point; /* by footprint */
    int points;
    bool has_critical; /* the rest is known */
    kv_critical_status status;
    double threshold;
    double full_accuracy;
    double kv_footprint, first_crossing; /* NaN unless ok */
    double lo, hi;                       /* NaN: open */
} kv_curve;

typedef struct kv_curves {
    long long run_id;
    char *name;       /* of the experiment */
    char *experiment; /* its text */
    char *version;
    char *started_at;
    char *finished_at; /* NULL: the run is not complete */
    char *interval;    /* what the accuracy intervals contain */
    long long seed;
    double confidence;
    kv_axis axis;    /* of all footprints, critical ones too */
    kv_curve *curve; /* by task, then as the experiment lists them */
    int curves;
    int turns;         /* the most that a task of the run has; 0: none has turns of its own */
    bool chunks_given; /* several chunk sizes were asked for by name */
} kv_curves;

/* What is wanted; zeroed: the latest run, everything, all turns together. The full policy, which
 * others are measured against, passes whatever the policies and chunk sizes. */
typedef struct kv_curve_filter {
    long long run_id;         /* 0: the latest */
    int turn;                 /* 0: all turns together */
    kv_axis axis;             /* what footprints count; critical ones in reads have no intervals */
    const char *const *tasks; /* names; NULL: all */
    int task_count;
    const char *const *policies; /* policy names or labels; NULL: all */
    int policy_count;
    const long long *chunks; /* chunk sizes, 0 is whole; NULL: all */
    int chunk_count;
} kv_curve_filter;

/* Reads the curves of a run. A name that matches nothing is an error that offers the nearest, and
 * so is a file without points (KV_ERR_INPUT). */
kv_err kv_curves_load(kv_results *results, const kv_curve_filter *filter, kv_curves **out,
                      kv_diag *diag) KV_MUST_USE;
/* NULL is fine. */
void kv_curves_free(kv_curves *curves);

/* "64", or "whole" for 0. */
void kv_chunk_text(long long chunk_tokens, char out[24]);
/* Reads the same; false if it is neither. */
bool kv_chunk_parse(const char *text, long long *chunk_tokens);

/* One sentence, without its full stop, on what an accuracy of that source is. */
const char *kv_accuracy_source_text(const char *source);

#endif
