/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* One configuration of a plan and what the oracle said of it. Internal to planning. */
#ifndef KVSIM_SIM_PLAN_CANDIDATE_H
#define KVSIM_SIM_PLAN_CANDIDATE_H

#include "analysis/plan_accuracy.h"
#include "sim/plan/limits.h"
#include "sim/serving/plan.h"

/* One question to the oracle and its answer. */
typedef struct kv_plan_sample {
    int replicas;
    double speed;  /* times the recorded rate */
    double blocks; /* times the computed or measured number of KV blocks */
    kv_plan_measures measures;
    double rate;         /* requests per second; NaN: all arrive at once */
    double excess;       /* of the limit that is missed by most; <= 0: all are kept */
    double but_accuracy; /* the same without limits on accuracy */
    double of_serving;   /* the same without those on accuracy and price */
    int binding;         /* that limit; KV_BINDING_* */
} kv_plan_sample;

enum {
    KV_BINDING_NONE = -1,
    KV_BINDING_MEMORY = -2, /* some requests can never fit the cache */
    KV_BINDING_CONTEXT = -3 /* no request fits the model's context, or none was completed */
};

struct kv_candidate;

/* Fills in measures.row and rate of a sample whose replicas, speed and blocks are set. Threads ask
 * at the same time. */
typedef kv_err (*kv_plan_oracle)(void *closure, const struct kv_candidate *candidate,
                                 kv_plan_sample *sample, kv_diag *diag);

/* What all candidates share. */
typedef struct kv_plan_problem {
    kv_plan_oracle oracle;
    void *closure;
    const kv_limit *limit;
    int limits;
    int most_replicas;
    bool fixed_replicas; /* the experiment gives them */
    double tolerance, capacity;
} kv_plan_problem;

/* A combination of the settings of serving, and what the search found. */
typedef struct kv_candidate {
    int number;
    kv_serving_point point;
    kv_plan_accuracy accuracy;
    double price; /* per hour of one replica; NaN: not known */
    int devices;  /* of one replica */
    kv_plan_sample *sample;
    int samples;
    bool excluded; /* it cannot be the answer, and is not searched: see why */
    int widest;    /* the most replicas of it that the front looks at */
    /* The outcome. */
    char why[448]; /* why it is infeasible, where that is no limit that is missed; else "" */
    bool feasible;
    int replicas;   /* least that keep all limits, or all but those on accuracy or price that no
                       number of replicas keeps; if none do, the most that were tried */
    int shown;      /* sample with so many replicas */
    int binding;    /* the limit that a replica less misses, or, if not feasible, that is missed */
    double rate;    /* largest at which the limits on serving are kept with so many replicas,
                       requests per second; NaN: none, or all arrive at once */
    bool rate_open; /* it is more than was tried */
    int fewer_blocks, more_blocks; /* replicas with so much less or more capacity; 0: infeasible */
    int low_accuracy, high_accuracy; /* the same at the ends of the accuracy's interval */
} kv_candidate;

/* Asks until the outcome is known. */
kv_err kv__candidate_search(kv_candidate *candidate, const kv_plan_problem *problem,
                            kv_diag *diag) KV_MUST_USE;
/* Asks how many replicas it takes, whatever the price, so that something is known of what comes
 * nearest to limits that nothing keeps. */
kv_err kv__candidate_relax(kv_candidate *candidate, const kv_plan_problem *problem,
                           kv_diag *diag) KV_MUST_USE;
void kv__candidate_fini(kv_candidate *candidate);

/* Text of a binding; NULL: nothing binds. */
const char *kv__binding_text(const kv_plan_problem *problem, int binding);

/* The oracle of `kvsim plan`: replays the requests of a candidate. The closure is not used. */
kv_err kv__plan_replay(void *closure, const kv_candidate *candidate, kv_plan_sample *sample,
                       kv_diag *diag) KV_MUST_USE;

#endif
