/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* The nearest limits that could be kept, where nothing keeps all. */
#include "config.h"

#include "sim/plan/rank.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Four digits, rounded to the side that is easier to keep. */
static double loosened(const kv_limit *limit, double value)
{
    if (!(value > 0) || !isfinite(value))
        return value;
    double step = pow(10, floor(log10(value)) - 3), steps = value / step;
    return (limit->metric->at_least ? floor(steps) : ceil(steps)) * step;
}

/* --- what cannot be kept by any value --------------------------------------------------------- */

/* Of what limits ask for in the nominal samples of all candidates. */
typedef struct tally {
    int all, measured; /* samples; those whose requests could be served at all */
    int known, kept;   /* of these, with what the limit asks for known and above nothing */
    long long requests, too_large, too_long; /* of the sample that served most */
} tally;

static bool is_measured(const kv_plan_sample *s)
{
    return kv__plan_is_nominal(s) && s->binding >= KV_BINDING_NONE;
}

static tally count(const kv_plan_field *field, const kv_limit *limit)
{
    tally t = {.too_large = -1};
    for (int n = 0; n < field->candidates; n++)
        for (int i = 0; i < field->candidate[n].samples; i++) {
            const kv_plan_sample *s = &field->candidate[n].sample[i];
            const kv_serving_row *row = &s->measures.row;
            if (!kv__plan_is_nominal(s))
                continue;
            t.all++;
            t.measured += is_measured(s);
            t.known += is_measured(s) && !isnan(kv_limit_measure(limit, &s->measures));
            t.kept += is_measured(s) && isfinite(kv_limit_excess(limit, &s->measures));
            if (t.too_large < 0 || row->rejected_too_large < t.too_large) {
                t.requests = row->requests;
                t.too_large = row->rejected_too_large;
                t.too_long = row->rejected_too_long;
            }
        }
    return t;
}

/* Writes why a limit has no nearest whatever its value, "" if it may have one. */
static void explain(const kv_limit *limit, const tally *t, char *out, size_t bytes)
{
    const char *name = limit->metric->name;
    out[0] = '\0';
    if (t->measured == 0 && t->too_large > 0)
        snprintf(out, bytes,
                 "no configuration has room in its cache for every request: %lld of %lld fit none",
                 t->too_large, t->requests);
    else if (t->measured == 0)
        snprintf(out, bytes, "no request is completed: %lld of %lld are longer than the context",
                 t->too_long, t->requests);
    else if (t->known == 0 && strcmp(name, "accuracy") == 0)
        snprintf(out, bytes, "the accuracy of no configuration is known%s",
                 limit->of_full ? "; replay its policy in `attention`, or name `plan.results`"
                                : "; it takes an `attention` part, or `plan.results`");
    else if (t->known == 0 && strcmp(name, "price") == 0)
        snprintf(out, bytes, "the price of no device is known; give `plan.price`");
    else if (t->kept == 0)
        snprintf(out, bytes, "%s is %s in every configuration", name,
                 t->known == 0 ? "not known" : "0");
}

/* --- what can --------------------------------------------------------------------------------- */

/* By how much the limits that something could keep are missed, but one (-1: but none). */
static double excess_beside(const kv_plan_field *field, const kv_plan_nearest *said,
                            const kv_plan_sample *s, int but)
{
    double most = -INFINITY;
    for (int i = 0; i < field->problem->limits; i++)
        if (i != but && said[i].why[0] == '\0')
            most = fmax(most, kv_limit_excess(&field->problem->limit[i], &s->measures));
    return most;
}

/* The sample that misses a limit by least (-1: the worst of all), if it keeps the others. */
static const kv_plan_sample *find(const kv_plan_field *field, const kv_plan_nearest *said,
                                  int limit, int *choice)
{
    const kv_plan_sample *best = NULL;
    double least = INFINITY;
    for (int n = 0; n < field->candidates; n++)
        for (int i = 0; i < field->candidate[n].samples; i++) {
            const kv_plan_sample *s = &field->candidate[n].sample[i];
            if (!is_measured(s) || (limit >= 0 && excess_beside(field, said, s, limit) > 0))
                continue;
            double excess = limit >= 0
                                ? kv_limit_excess(&field->problem->limit[limit], &s->measures)
                                : excess_beside(field, said, s, -1);
            if (excess < least) {
                least = excess;
                best = s;
                *choice = n;
            }
        }
    return best;
}

/* What a sample says of a limit. */
static void set(const kv_plan_field *field, int i, const kv_plan_sample *s, int choice,
                kv_plan_nearest *out)
{
    const kv_limit *limit = &field->problem->limit[i];
    out->kept = kv_limit_excess(limit, &s->measures) <= 0;
    if (out->kept)
        return;
    out->value = loosened(limit, kv_limit_measure(limit, &s->measures));
    out->choice = choice;
    out->replicas = s->replicas;
}

void kv__plan_nearest(const kv_plan_field *field, kv_plan_nearest *out, bool *alone)
{
    int limits = field->problem->limits, choice = -1, hopeless = 0;
    for (int i = 0; i < limits; i++) {
        tally t = count(field, &field->problem->limit[i]);
        out[i] = (kv_plan_nearest){.value = NAN, .choice = -1};
        explain(&field->problem->limit[i], &t, out[i].why, sizeof out[i].why);
        hopeless += out[i].why[0] != '\0';
    }
    const kv_plan_sample *all = find(field, out, -1, &choice);
    bool one = false;
    for (int i = 0; i < limits && all != NULL && excess_beside(field, out, all, -1) > 0; i++) {
        int who;
        one = one || (out[i].why[0] == '\0' && find(field, out, i, &who) != NULL);
    }
    *alone = one && hopeless == 0;
    for (int i = 0; i < limits; i++) {
        int who = choice;
        const kv_plan_sample *s = one && out[i].why[0] == '\0' ? find(field, out, i, &who) : all;
        if (out[i].why[0] != '\0')
            continue;
        if (s != NULL)
            set(field, i, s, who, &out[i]);
        else if (one) /* it is another limit that has to give */
            out[i].kept = true;
        else
            snprintf(out[i].why, sizeof out[i].why,
                     "no configuration has all that the limits ask for known");
    }
}
