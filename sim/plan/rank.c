/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* The order of candidates and the front of their samples. */
#include "config.h"

#include "sim/plan/rank.h"

#include <math.h>
#include <string.h>

bool kv__plan_any_feasible(const kv_plan_field *field)
{
    for (int n = 0; n < field->candidates; n++)
        if (field->candidate[n].feasible)
            return true;
    return false;
}

double kv__plan_latency(const kv_plan_problem *problem, const kv_plan_sample *sample)
{
    double most = NAN;
    bool limited = false;
    for (int i = 0; i < problem->limits; i++)
        if (problem->limit[i].metric->kind == KV_METRIC_SECONDS) {
            double value = kv_limit_measure(&problem->limit[i], &sample->measures);
            limited = true;
            most = fmax(most, value / problem->limit[i].value); /* leaves out NaN */
        }
    return limited ? most : sample->measures.row.ttft.p99;
}

bool kv__plan_is_nominal(const kv_plan_sample *s)
{
    return s->speed == 1 && s->blocks == 1;
}

/* --- what is compared ------------------------------------------------------------------------- */

/* Of a candidate with so many replicas; less is better in each. */
typedef struct standing {
    double cost, inaccuracy, latency;
} standing;

/* What is not known is the worst; a latency that no request has is the best. */
static standing standing_of(const kv_plan_field *field, const kv_candidate *c,
                            const kv_plan_sample *s, int replicas)
{
    double latency = s != NULL ? kv__plan_latency(field->problem, s) : NAN;
    return (standing){(field->priced ? c->price : c->devices) * replicas,
                      isnan(c->accuracy.of_full) ? INFINITY : -c->accuracy.of_full,
                      isnan(latency) ? -INFINITY : latency};
}

/* < 0: a is less. Costs are products: equal ones may differ in their last digits. */
static int compare(double a, double b)
{
    bool equal = a == b || (isfinite(a) && isfinite(b) && fabs(a - b) <= 1e-9 * fabs(a));
    return equal ? 0 : a < b ? -1 : 1;
}

static bool dominates(const standing *a, const standing *b)
{
    int cost = compare(a->cost, b->cost), inaccuracy = compare(a->inaccuracy, b->inaccuracy),
        latency = compare(a->latency, b->latency);
    return cost <= 0 && inaccuracy <= 0 && latency <= 0 &&
           (cost < 0 || inaccuracy < 0 || latency < 0);
}

/* --- the order -------------------------------------------------------------------------------- */

/* The nominal sample with so many replicas; NULL: it was not asked for. */
static const kv_plan_sample *nominal(const kv_candidate *c, int replicas)
{
    for (int i = 0; i < c->samples; i++)
        if (kv__plan_is_nominal(&c->sample[i]) && c->sample[i].replicas == replicas)
            return &c->sample[i];
    return NULL;
}

static double rate_of(const kv_candidate *c)
{
    return c->rate_open ? INFINITY : isnan(c->rate) ? -INFINITY : c->rate;
}

static bool before(const kv_plan_field *field, const kv_candidate *a, int a_replicas,
                   const kv_candidate *b, int b_replicas)
{
    standing x = standing_of(field, a, nominal(a, a_replicas), a_replicas);
    standing y = standing_of(field, b, nominal(b, b_replicas), b_replicas);
    int order = compare(x.cost, y.cost);
    if (order == 0)
        order = compare(x.inaccuracy, y.inaccuracy);
    if (order == 0)
        order = compare(x.latency, y.latency);
    if (order == 0)
        order = compare(rate_of(b), rate_of(a));
    return order != 0 ? order < 0 : a->number < b->number;
}

int kv__plan_replicas(const kv_candidate *c, const kv_plan_case *which)
{
    int replicas;
    memcpy(&replicas, (const char *)c + which->offset, sizeof replicas);
    return which->offset == offsetof(kv_candidate, replicas) && !c->feasible ? 0 : replicas;
}

int kv__plan_best(const kv_plan_field *field, const kv_plan_case *which)
{
    int best = -1, least = 0;
    for (int n = 0; n < field->candidates; n++) {
        const kv_candidate *c = &field->candidate[n];
        int replicas = kv__plan_replicas(c, which);
        if (replicas > 0 &&
            (best < 0 || before(field, c, replicas, &field->candidate[best], least))) {
            best = n;
            least = replicas;
        }
    }
    return best;
}

int kv__plan_rank(const kv_plan_field *field, int number)
{
    const kv_candidate *c = &field->candidate[number];
    int rank = 1;
    for (int n = 0; n < field->candidates; n++) {
        const kv_candidate *other = &field->candidate[n];
        if (n != number && other->feasible && before(field, other, other->replicas, c, c->replicas))
            rank++;
    }
    return c->feasible ? rank : 0;
}

/* --- the front -------------------------------------------------------------------------------- */

/* What the front is made of. Larger numbers of replicas that a search passed by are left out: which
 * they are says nothing about the server. */
static bool stands(const kv_candidate *c, const kv_plan_sample *s)
{
    return kv__plan_is_nominal(s) && s->excess <= 0 && s->replicas <= c->widest;
}

bool kv__plan_on_front(const kv_plan_field *field, const kv_candidate *c, const kv_plan_sample *s)
{
    standing mine = standing_of(field, c, s, s->replicas);
    if (!stands(c, s))
        return false;
    for (int n = 0; n < field->candidates; n++) {
        const kv_candidate *o = &field->candidate[n];
        for (int i = 0; i < o->samples; i++) {
            const kv_plan_sample *other = &o->sample[i];
            standing its = standing_of(field, o, other, other->replicas);
            if (stands(o, other) && dominates(&its, &mine))
                return false;
        }
    }
    return true;
}
