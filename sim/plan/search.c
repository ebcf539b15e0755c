/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* The search of one candidate: replicas by doubling and bisection, then the largest rate, then
 * replicas with fewer and with more KV blocks. What a question comes to is the oracle's. */
#include "config.h"

#include "sim/plan/candidate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double MOST_SPEED = 1024;
enum { MOST_MORE = 8 /* replicas beyond the least that the front looks at */ };

const char *kv__binding_text(const kv_plan_problem *problem, int binding)
{
    return binding >= 0                    ? problem->limit[binding].text
           : binding == KV_BINDING_MEMORY  ? "some requests are larger than the cache"
           : binding == KV_BINDING_CONTEXT ? "no request is completed"
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
    s->excess = s->but_accuracy = s->of_serving = -INFINITY;
    s->binding = KV_BINDING_NONE;
    for (int i = 0; i < problem->limits; i++) {
        const kv_limit *limit = &problem->limit[i];
        double excess = kv_limit_excess(limit, &s->measures);
        if (!is_accuracy(limit))
            s->but_accuracy = fmax(s->but_accuracy, excess);
        if (!is_accuracy(limit) && !is_price(limit))
            s->of_serving = fmax(s->of_serving, excess);
        if (excess > s->excess) {
            s->excess = excess;
            s->binding = i;
        }
    }
    if (s->measures.row.rejected_too_large > 0 || s->measures.row.completed == 0) {
        s->excess = s->but_accuracy = s->of_serving = INFINITY;
        s->binding =
            s->measures.row.rejected_too_large > 0 ? KV_BINDING_MEMORY : KV_BINDING_CONTEXT;
    }
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
    kv_err err = problem->oracle(problem->closure, c, s, diag);
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

static bool inaccurate(const kv_candidate *c, const kv_plan_problem *problem)
{
    return !accurate(problem, c->accuracy.value, c->accuracy.of_full);
}

/* True if the price of so many replicas is known and keeps the limits on it. */
static bool affords(const kv_candidate *c, const kv_plan_problem *problem, int replicas)
{
    kv_plan_measures measures = {.price = c->price * replicas};
    for (int i = 0; i < problem->limits; i++)
        if (is_price(&problem->limit[i]) && kv_limit_excess(&problem->limit[i], &measures) > 0)
            return false;
    return true;
}

/* What a search of replicas looks at: what no number of them can change is left out. */
typedef enum kv_search { ALL_LIMITS, BUT_ACCURACY, OF_SERVING } kv_search;

/* Replicas that are tried, and what for. */
typedef struct range {
    int least, most;
    kv_search search;
} range;

static range range_of(const kv_candidate *c, const kv_plan_problem *problem)
{
    range r = {1, problem->most_replicas, ALL_LIMITS};
    if (problem->fixed_replicas)
        r.least = r.most = (int)c->point.config.replicas;
    if (!affords(c, problem, r.least)) {
        r.search = OF_SERVING;
        return r;
    }
    while (!affords(c, problem, r.most))
        r.most--;
    r.search = inaccurate(c, problem) ? BUT_ACCURACY : ALL_LIMITS;
    return r;
}

static double excess_of(const kv_plan_sample *s, kv_search search)
{
    return search == ALL_LIMITS     ? s->excess
           : search == BUT_ACCURACY ? s->but_accuracy
                                    : s->of_serving;
}

/* The least number of replicas that keeps what is looked at, from a first guess; *out 0: none. */
static kv_err find_replicas(kv_candidate *c, const kv_plan_problem *problem, double blocks,
                            int guess, range tried, int *out, kv_diag *diag)
{
    int low = tried.least - 1, high = 0, at; /* missed with `low`, kept with `high` */
    for (int n = guess; high == 0 || high - low > 1;) {
        kv_err err = ask(c, problem, n, 1, blocks, &at, diag);
        if (err != KV_OK)
            return err;
        if (c->sample[at].binding < KV_BINDING_NONE) /* which no number of replicas changes */
            break;
        if (excess_of(&c->sample[at], tried.search) <= 0)
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
    range tried = range_of(c, problem);
    int found;
    if (c->excluded)
        return KV_OK;
    tried.search = OF_SERVING;
    if (!problem->fixed_replicas)
        tried.most = problem->most_replicas;
    return find_replicas(c, problem, 1, tried.least, tried, &found, diag);
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

/* What stands in the way of a cheaper answer or, if there is none, of this one. */
static kv_err find_binding(kv_candidate *c, const kv_plan_problem *problem, kv_diag *diag)
{
    int at;
    kv_err err = ask(c, problem, c->replicas, 1, 1, &c->shown, diag);
    if (err != KV_OK)
        return err;
    c->binding = c->feasible ? KV_BINDING_NONE : c->sample[c->shown].binding;
    if (!c->feasible && c->binding >= 0 && inaccurate(c, problem))
        c->binding = worst_accuracy(c, problem);
    const kv_limit *limit = c->binding >= 0 ? &problem->limit[c->binding] : NULL;
    if (!c->feasible && limit != NULL &&
        isnan(kv_limit_measure(limit, &c->sample[c->shown].measures)))
        snprintf(c->why, sizeof c->why, "its %s is not known", limit->metric->name);
    if (c->feasible && c->replicas > 1 && !problem->fixed_replicas) {
        err = ask(c, problem, c->replicas - 1, 1, 1, &at, diag);
        if (err == KV_OK)
            c->binding = c->sample[at].binding;
    }
    return err;
}

/* --- rate ------------------------------------------------------------------------------------- */

/* What a rate comes to. More requests are too many, but where a limit asks for more to be served
 * than there are. */
typedef enum kv_pace { KEPT, TOO_FEW, TOO_MANY } kv_pace;

/* Requests or answer tokens per second that arrive, as a limit counts them. */
static double offered(const kv_limit *limit, const kv_plan_sample *s)
{
    const kv_serving_row *row = &s->measures.row;
    bool tokens = strcmp(limit->metric->name, "throughput_tok_s") == 0;
    return tokens ? s->rate * (double)row->output_tokens / (double)row->requests : s->rate;
}

/* The end of a replay, when nothing more arrives, takes its share of what is served per second: a
 * limit may be missed for want of requests though a few more arrive than it asks for. */
static const double ENDING = 1.25;

static kv_err ask_pace(kv_candidate *c, const kv_plan_problem *problem, double speed, kv_pace *out,
                       kv_diag *diag)
{
    int at;
    kv_err err = ask(c, problem, c->replicas, speed, 1, &at, diag);
    *out = KEPT;
    if (err != KV_OK || c->sample[at].of_serving <= 0)
        return err;
    *out = c->sample[at].binding < KV_BINDING_NONE ? TOO_MANY : TOO_FEW;
    for (int i = 0; i < problem->limits; i++) {
        const kv_limit *limit = &problem->limit[i];
        if (!is_accuracy(limit) && !is_price(limit) &&
            kv_limit_excess(limit, &c->sample[at].measures) > 0 &&
            !(limit->metric->at_least && offered(limit, &c->sample[at]) < ENDING * limit->value))
            *out = TOO_MANY;
    }
    return err;
}

/* Speeds: the largest that is kept (0: none is), the largest that is not too fast and the least
 * that is (0: there is none). */
typedef struct speeds {
    double kept, low, high;
} speeds;

static kv_err try_speed(kv_candidate *c, const kv_plan_problem *problem, double speed, speeds *s,
                        kv_diag *diag)
{
    kv_pace pace;
    kv_err err = ask_pace(c, problem, speed, &pace, diag);
    if (pace == TOO_MANY)
        s->high = speed;
    else
        s->low = speed;
    if (pace == KEPT)
        s->kept = speed;
    return err;
}

static kv_err find_rate(kv_candidate *c, const kv_plan_problem *problem, kv_diag *diag)
{
    speeds s = {0, 0, 0};
    double recorded = c->sample[c->shown].rate;
    c->rate = NAN;
    if (isnan(recorded) || c->sample[c->shown].binding < KV_BINDING_NONE)
        return KV_OK;
    kv_err err = try_speed(c, problem, 1, &s, diag);
    while (err == KV_OK && (s.low == 0 || s.high == 0)) {
        double speed = s.high == 0 ? 2 * s.low : s.high / 2;
        if (speed > MOST_SPEED || speed < 1 / MOST_SPEED)
            break;
        err = try_speed(c, problem, speed, &s, diag);
    }
    while (err == KV_OK && s.low > 0 && s.high > s.low * (1 + problem->tolerance))
        err = try_speed(c, problem, sqrt(s.low * s.high), &s, diag);
    if (err == KV_OK && s.kept > 0)
        c->rate = s.kept * recorded;
    c->rate_open = s.kept > 0 && s.high == 0;
    return err;
}

/* --- all -------------------------------------------------------------------------------------- */

/* Replicas at the ends of the accuracy's interval. Without an interval nothing changes. */
static void find_accuracy_ends(kv_candidate *c, const kv_plan_problem *problem, range tried,
                               int found)
{
    const kv_plan_accuracy *a = &c->accuracy;
    bool as_given = !inaccurate(c, problem);
    bool low = isnan(a->lo) ? as_given : accurate(problem, a->lo, a->lo_of_full);
    bool high = isnan(a->hi) ? as_given : accurate(problem, a->hi, a->hi_of_full);
    bool possible = tried.search != OF_SERVING;
    c->low_accuracy = possible && low ? found : 0;
    c->high_accuracy = possible && high ? found : 0;
}

static kv_err find_capacity_ends(kv_candidate *c, const kv_plan_problem *problem, range tried,
                                 kv_diag *diag)
{
    c->fewer_blocks = c->more_blocks = c->feasible ? c->replicas : 0;
    if (problem->capacity == 0 || tried.search != ALL_LIMITS)
        return KV_OK;
    kv_err err = find_replicas(c, problem, 1 - problem->capacity, c->replicas, tried,
                               &c->fewer_blocks, diag);
    if (err == KV_OK)
        err = find_replicas(c, problem, 1 + problem->capacity, c->replicas, tried, &c->more_blocks,
                            diag);
    return err;
}

/* The front has the least replicas to twice as many: which of them the bisection asked for is an
 * accident, so all are. */
static kv_err find_front(kv_candidate *c, const kv_plan_problem *problem, range tried,
                         kv_diag *diag)
{
    kv_err err = KV_OK;
    int at, more = c->replicas < MOST_MORE ? c->replicas : MOST_MORE;
    c->widest = c->replicas + more < tried.most ? c->replicas + more : tried.most;
    for (int n = c->replicas; n <= c->widest && c->feasible && err == KV_OK; n++)
        err = ask(c, problem, n, 1, 1, &at, diag);
    return err;
}

kv_err kv__candidate_search(kv_candidate *c, const kv_plan_problem *problem, kv_diag *diag)
{
    range tried = range_of(c, problem);
    int found = 0;
    if (c->excluded)
        return KV_OK;
    kv_err err = find_replicas(c, problem, 1, tried.least, tried, &found, diag);
    c->feasible = found > 0 && tried.search == ALL_LIMITS;
    if (err == KV_OK)
        c->replicas = found > 0                                ? found
                      : c->sample[0].binding < KV_BINDING_NONE ? tried.least
                                                               : tried.most;
    if (err == KV_OK)
        err = find_binding(c, problem, diag);
    if (err == KV_OK)
        err = find_rate(c, problem, diag);
    if (err == KV_OK)
        err = find_front(c, problem, tried, diag);
    find_accuracy_ends(c, problem, tried, found);
    return err == KV_OK ? find_capacity_ends(c, problem, tried, diag) : err;
}

void kv__candidate_fini(kv_candidate *c)
{
    kv_serving_point_fini(&c->point);
    free(c->sample);
    *c = (kv_candidate){0};
}
