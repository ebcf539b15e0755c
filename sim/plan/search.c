/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* The search of one candidate: replicas by doubling and bisection, then the largest rate, then
 * replicas with fewer and with more KV blocks. */
#include "config.h"

#include "sim/plan/candidate.h"
#include "sim/plan/speed.h"
#include "sim/serving/serving_run.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double MOST_SPEED = 1024;

const char *kv__binding_text(const kv_plan_problem *problem, int binding)
{
    return binding >= 0                   ? problem->limit[binding].text
           : binding == KV_BINDING_MEMORY ? "every request fits the cache"
                                          : NULL;
}

/* --- the oracle ------------------------------------------------------------------------------- */

static bool is_accuracy(const kv_limit *limit)
{
    return strcmp(limit->metric->name, "accuracy") == 0;
}

static bool is_price(const kv_limit *limit)
{
    return strcmp(limit->metric->name, "price") == 0;
}

static void judge(const kv_plan_problem *problem, kv_plan_sample *s)
{
    s->excess = s->serving_excess = -INFINITY;
    s->binding = KV_BINDING_NONE;
    for (int i = 0; i < problem->limits; i++) {
        const kv_limit *limit = &problem->limit[i];
        double excess = kv_limit_excess(limit, &s->measures);
        if (!is_accuracy(limit) && !is_price(limit))
            s->serving_excess = fmax(s->serving_excess, excess);
        if (excess > s->excess) {
            s->excess = excess;
            s->binding = i;
        }
    }
    if (s->measures.row.rejected_too_large > 0 || s->measures.row.completed == 0) {
        s->excess = s->serving_excess = INFINITY;
        s->binding = KV_BINDING_MEMORY;
    }
}

static kv_err simulate(const kv_candidate *c, const kv_plan_problem *problem, kv_plan_sample *s,
                       kv_diag *diag)
{
    kv_request_reader *reader;
    kv_serving_point point = c->point; /* shares everything but its settings */
    int64_t last_ns = 0;
    double blocks = floor((double)point.settings.kv_blocks * s->blocks);
    point.settings.kv_blocks = blocks < 1 ? 1 : (int64_t)blocks;
    point.settings.replicas = s->replicas;
    kv_err err = kv_request_open(&problem->serving->requests, &reader, diag);
    if (err != KV_OK)
        return err;
    kv_speed speed = {reader, s->speed, 0};
    kv_serving_source source = s->speed == 1 ? kv_serving_reader(reader) : kv__speed_source(&speed);
    err = kv_serving_probe(&point, &source, &s->measures.row, &last_ns, diag);
    kv_request_close(reader);
    double span = (double)last_ns * 1e-9;
    s->rate = span > 0 ? (double)(s->measures.row.requests - 1) / span : NAN;
    return err;
}

/* The answer to a question, asked at most once: its number in the list. */
static kv_err ask(kv_candidate *c, const kv_plan_problem *problem, int replicas, double speed,
                  double blocks, int *out, kv_diag *diag)
{
    for (int i = 0; i < c->samples; i++)
        if (c->sample[i].replicas == replicas && c->sample[i].speed == speed &&
            c->sample[i].blocks == blocks) {
            *out = i;
            return KV_OK;
        }
    kv_plan_sample *all = realloc(c->sample, (size_t)(c->samples + 1) * sizeof *all);
    if (all == NULL)
        return kv_fail_memory(diag);
    c->sample = all;
    kv_plan_sample *s = &all[c->samples];
    *s = (kv_plan_sample){.replicas = replicas, .speed = speed, .blocks = blocks};
    kv_err err = simulate(c, problem, s, diag);
    if (err != KV_OK)
        return err;
    s->measures.accuracy = c->accuracy.value;
    s->measures.accuracy_of_full = c->accuracy.of_full;
    s->measures.price = c->price * replicas;
    judge(problem, s);
    *out = c->samples++;
    return KV_OK;
}

/* --- replicas --------------------------------------------------------------------------------- */

/* True if an accuracy keeps the limits on it. */
static bool accurate(const kv_plan_problem *problem, double value, double of_full)
{
    kv_plan_measures measures = {.accuracy = value, .accuracy_of_full = of_full};
    for (int i = 0; i < problem->limits; i++)
        if (is_accuracy(&problem->limit[i]) && kv_limit_excess(&problem->limit[i], &measures) > 0)
            return false;
    return true;
}

static bool hopeless(const kv_candidate *c, const kv_plan_problem *problem)
{
    return !accurate(problem, c->accuracy.value, c->accuracy.of_full);
}

/* Replicas that are tried. */
typedef struct range {
    int least, most;
} range;

/* The most replicas that a limit on the price allows are at least 1. */
static range affordable(const kv_candidate *c, const kv_plan_problem *problem)
{
    int most = problem->most_replicas;
    if (problem->fixed_replicas)
        return (range){(int)c->point.config.replicas, (int)c->point.config.replicas};
    for (int i = 0; i < problem->limits; i++)
        if (is_price(&problem->limit[i]) &&
            problem->limit[i].value * (1 + KV_LIMIT_ROUNDING) < c->price * most)
            most = (int)(problem->limit[i].value / c->price * (1 + KV_LIMIT_ROUNDING));
    return (range){1, most < 1 ? 1 : most};
}

/* What a search of replicas looks at. */
typedef enum kv_search { ALL_LIMITS, SERVING_LIMITS } kv_search;

/* The least number of replicas that keeps all limits, from a first guess; *out 0: none does. */
static kv_err find_replicas(kv_candidate *c, const kv_plan_problem *problem, kv_search search,
                            double blocks, int guess, range tried, int *out, kv_diag *diag)
{
    int low = tried.least - 1, high = 0, at; /* missed with `low`, kept with `high` */
    for (int n = guess; high == 0 || high - low > 1;) {
        kv_err err = ask(c, problem, n, 1, blocks, &at, diag);
        if (err != KV_OK)
            return err;
        const kv_plan_sample *s = &c->sample[at];
        if ((search == ALL_LIMITS ? s->excess : s->serving_excess) <= 0)
            high = n;
        else
            low = n;
        if (high == 0 && low >= tried.most)
            break;
        if (high == 0)
            n = 2 * low < tried.most ? 2 * low : tried.most;
        else
            n = high == guess && low < guess - 1 ? guess - 1 : (low + high) / 2;
    }
    *out = high;
    return KV_OK;
}

kv_err kv__candidate_relax(kv_candidate *c, const kv_plan_problem *problem, kv_diag *diag)
{
    range tried = affordable(c, problem);
    int found;
    if (!problem->fixed_replicas)
        tried.most = problem->most_replicas;
    return find_replicas(c, problem, SERVING_LIMITS, 1, tried.least, tried, &found, diag);
}

/* The limit on accuracy that is missed most. */
static int worst_accuracy(const kv_candidate *c, const kv_plan_problem *problem)
{
    const kv_plan_measures *measures = &c->sample[c->shown].measures;
    int worst = KV_BINDING_NONE;
    for (int i = 0; i < problem->limits; i++)
        if (is_accuracy(&problem->limit[i]) &&
            (worst < 0 || kv_limit_excess(&problem->limit[i], measures) >
                              kv_limit_excess(&problem->limit[worst], measures)))
            worst = i;
    return worst;
}

/* What stands in the way of a cheaper answer. */
static kv_err find_binding(kv_candidate *c, const kv_plan_problem *problem, kv_diag *diag)
{
    int at;
    kv_err err = ask(c, problem, c->replicas, 1, 1, &c->shown, diag);
    c->binding = KV_BINDING_NONE;
    if (err == KV_OK && !c->feasible)
        c->binding =
            hopeless(c, problem) ? worst_accuracy(c, problem) : c->sample[c->shown].binding;
    if (err == KV_OK && c->feasible && c->replicas > 1 && !problem->fixed_replicas) {
        err = ask(c, problem, c->replicas - 1, 1, 1, &at, diag);
        if (err == KV_OK)
            c->binding = c->sample[at].binding;
    }
    return err;
}

/* --- rate ------------------------------------------------------------------------------------- */

static kv_err keeps(kv_candidate *c, const kv_plan_problem *problem, double speed, bool *out,
                    kv_diag *diag)
{
    int at;
    kv_err err = ask(c, problem, c->replicas, speed, 1, &at, diag);
    *out = err == KV_OK && c->sample[at].excess <= 0;
    return err;
}

/* Speeds low (kept) and high (missed) a factor of two apart; 0: there is none. */
static kv_err bracket(kv_candidate *c, const kv_plan_problem *problem, double *low, double *high,
                      kv_diag *diag)
{
    bool good;
    kv_err err = keeps(c, problem, 1, &good, diag);
    *low = good ? 1 : 0;
    *high = good ? 0 : 1;
    for (double speed = 1; err == KV_OK && (*low == 0 || *high == 0);) {
        speed = *high == 0 ? 2 * speed : speed / 2;
        if (speed > MOST_SPEED || speed < 1 / MOST_SPEED)
            break;
        err = keeps(c, problem, speed, &good, diag);
        if (good)
            *low = speed;
        else
            *high = speed;
    }
    return err;
}

static kv_err find_rate(kv_candidate *c, const kv_plan_problem *problem, kv_diag *diag)
{
    double low, high, recorded = c->sample[c->shown].rate;
    c->rate = NAN;
    if (isnan(recorded) || hopeless(c, problem) || c->sample[c->shown].binding == KV_BINDING_MEMORY)
        return KV_OK;
    kv_err err = bracket(c, problem, &low, &high, diag);
    while (err == KV_OK && low > 0 && high > 0 && high > low * (1 + problem->tolerance)) {
        bool good;
        double middle = sqrt(low * high);
        err = keeps(c, problem, middle, &good, diag);
        if (good)
            low = middle;
        else
            high = middle;
    }
    if (err == KV_OK && low > 0)
        c->rate = low * recorded;
    c->rate_open = low > 0 && high == 0;
    return err;
}

/* --- all -------------------------------------------------------------------------------------- */

/* Replicas at the ends of the accuracy's interval. Without an interval nothing changes. */
static kv_err find_accuracy_ends(kv_candidate *c, const kv_plan_problem *problem, range tried,
                                 kv_diag *diag)
{
    const kv_plan_accuracy *a = &c->accuracy;
    bool low = isnan(a->lo) ? !hopeless(c, problem) : accurate(problem, a->lo, a->lo_of_full);
    bool high = isnan(a->hi) ? !hopeless(c, problem) : accurate(problem, a->hi, a->hi_of_full);
    int found = c->feasible ? c->replicas : 0;
    kv_err err = KV_OK;
    if (hopeless(c, problem) && (low || high))
        err = find_replicas(c, problem, SERVING_LIMITS, 1, tried.least, tried, &found, diag);
    c->low_accuracy = low ? found : 0;
    c->high_accuracy = high ? found : 0;
    return err;
}

static kv_err find_sensitivity(kv_candidate *c, const kv_plan_problem *problem, range tried,
                               kv_diag *diag)
{
    kv_err err = find_accuracy_ends(c, problem, tried, diag);
    c->fewer_blocks = c->more_blocks = c->feasible ? c->replicas : 0;
    if (err != KV_OK || problem->capacity == 0 || hopeless(c, problem))
        return err;
    err = find_replicas(c, problem, ALL_LIMITS, 1 - problem->capacity, c->replicas, tried,
                        &c->fewer_blocks, diag);
    if (err == KV_OK)
        err = find_replicas(c, problem, ALL_LIMITS, 1 + problem->capacity, c->replicas, tried,
                            &c->more_blocks, diag);
    return err;
}

kv_err kv__candidate_search(kv_candidate *c, const kv_plan_problem *problem, kv_diag *diag)
{
    range all = affordable(c, problem), tried = all;
    int found = 0;
    if (hopeless(c, problem))
        tried.most = tried.least;
    kv_err err = find_replicas(c, problem, ALL_LIMITS, 1, tried.least, tried, &found, diag);
    c->feasible = found > 0;
    c->replicas = found > 0 ? found : tried.most;
    if (err == KV_OK)
        err = find_binding(c, problem, diag);
    if (err == KV_OK)
        err = find_rate(c, problem, diag);
    if (err == KV_OK)
        err = find_sensitivity(c, problem, all, diag);
    return err;
}

void kv__candidate_fini(kv_candidate *c)
{
    kv_serving_point_fini(&c->point);
    free(c->sample);
    *c = (kv_candidate){0};
}
