/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* What the candidates of a plan come to together: the answer, the front, and, where nothing keeps
 * all limits, what comes nearest. Internal to planning. */
#ifndef KVSIM_SIM_PLAN_RANK_H
#define KVSIM_SIM_PLAN_RANK_H

#include "sim/plan/candidate.h"

/* Candidates that were all searched. */
typedef struct kv_plan_field {
    const kv_plan_problem *problem;
    kv_candidate *candidate; /* [candidates] */
    int candidates;
    bool priced; /* else devices are counted */
} kv_plan_field;

bool kv__plan_any_feasible(const kv_plan_field *field);

/* A place where a candidate may stand: a case of plan_case. */
typedef struct kv_plan_case {
    const char *name;
    size_t offset; /* of an int in kv_candidate, replicas; 0: infeasible */
} kv_plan_case;

/* Replicas of a candidate in a case; 0: infeasible. */
int kv__plan_replicas(const kv_candidate *candidate, const kv_plan_case *which);
/* The number of the best candidate in a case: the cheapest; of equals the most accurate, then the
 * one with the least latency, then the one that takes the larger rate, then the first; -1: none. */
int kv__plan_best(const kv_plan_field *field, const kv_plan_case *which);
/* Place of a candidate by the same order, from 1; 0: infeasible. */
int kv__plan_rank(const kv_plan_field *field, int number);

/* The latency of the front: of those that are limited the one nearest to its limit, as a share of
 * it; if none is limited, p99 of the time to the first token, in seconds. NaN: no request has one,
 * which is taken for the least. */
double kv__plan_latency(const kv_plan_problem *problem, const kv_plan_sample *sample);

/* True of a sample that is about the experiment as it stands, at the trace's rate. */
bool kv__plan_is_nominal(const kv_plan_sample *sample);
/* True if a nominal sample keeps all limits and no other that does is at least as accurate, as
 * cheap and as fast, and better in one of these, of each candidate's samples up to its `widest`.
 * The answer is always among them. */
bool kv__plan_on_front(const kv_plan_field *field, const kv_candidate *candidate,
                       const kv_plan_sample *sample);

/* What is said of one limit where nothing keeps all. */
typedef struct kv_plan_nearest {
    bool kept;     /* the limit is no obstacle: neither of the next two is set */
    double value;  /* the nearest that could be kept; NaN: there is none */
    int choice;    /* who keeps it */
    int replicas;  /* with so many */
    char why[192]; /* there is none */
} kv_plan_nearest;

/* Says it of all limits, out[problem->limits]; *alone: relaxing one of those that have a nearest is
 * enough, else they must be relaxed together. Candidates must have been relaxed. */
void kv__plan_nearest(const kv_plan_field *field, kv_plan_nearest *out, bool *alone);

#endif
