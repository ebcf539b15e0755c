/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* From an experiment to the tables of its plan: lists the candidates, has each searched, ranks
 * them, and writes what came of it. */
#include "config.h"

#include "sim/plan/plan.h"

#include "analysis/plan_results.h"
#include "sim/base/unit.h"
#include "sim/experiment.h"
#include "sim/plan/candidate.h"
#include "sim/serving/serving_run.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* All that a plan knows. */
typedef struct planner {
    const kv_experiment *experiment;
    const kv_plan_options *options;
    kv_serving_plan serving;
    kv_plan_problem problem;
    kv_limit *limit;
    kv_candidate *candidate;
    int candidates;
    bool priced;
    bool relax; /* the crew asks for what comes nearest */
    /* The crew. */
    pthread_mutex_t lock; /* guards what follows */
    int next, done;
    kv_err err;
    kv_diag diag;
} planner;

/* --- candidates ------------------------------------------------------------------------------- */

static kv_err read_limits(planner *p, kv_diag *diag)
{
    const kv_plan_config *config = &p->experiment->plan;
    kv_err err = KV_OK;
    p->limit = calloc((size_t)config->limits.count + 1, sizeof *p->limit);
    if (p->limit == NULL)
        return kv_fail_memory(diag);
    for (int i = 0; i < config->limits.count && err == KV_OK; i++)
        err = kv_limit_parse(config->limits.text[i], NULL, &p->limit[i], diag);
    p->problem = (kv_plan_problem){.serving = &p->serving,
                                   .limit = p->limit,
                                   .limits = config->limits.count,
                                   .most_replicas = (int)config->most_replicas,
                                   .fixed_replicas =
                                       kv_node_find(p->experiment->serving, "replicas") != NULL,
                                   .tolerance = config->tolerance,
                                   .capacity = config->capacity};
    return err;
}

/* Per hour of one device; NaN: not known. */
static double price_of(const kv_plan_config *config, const kv_device *device)
{
    const kv_node *given = config->price != NULL ? kv_node_find(config->price, device->name) : NULL;
    double price = device->price_per_hour >= 0 ? device->price_per_hour : NAN;
    if (given != NULL && !kv_number_parse(kv_node_text(given, NULL), &price, NULL))
        price = NAN;
    return price;
}

static void warn_of_chunk(const planner *p, const kv_candidate *c)
{
    char text[256];
    double wanted = (double)c->point.chunk_tokens * p->experiment->plan.chunk_scale;
    if (p->options->warn == NULL || !c->accuracy.known || strcmp(c->point.policy, "full") == 0 ||
        (double)c->accuracy.chunk_tokens == wanted)
        return;
    snprintf(text, sizeof text,
             "accuracy of %s under chunk size %g is taken from the nearest, %lld; see chunk_scale",
             c->point.policy, wanted, c->accuracy.chunk_tokens);
    p->options->warn(p->options->closure, text);
}

static kv_err add_candidate(planner *p, int number, kv_results *accuracy, long long run_id,
                            kv_diag *diag)
{
    kv_candidate *c = &p->candidate[p->candidates];
    *c = (kv_candidate){.number = number};
    kv_err err = kv_serving_plan_point(&p->serving, number, &c->point, diag);
    if (err != KV_OK)
        return err;
    p->candidates++;
    c->devices = (int)c->point.config.tensor_parallel;
    c->price = price_of(&p->experiment->plan, c->point.device) * c->devices;
    double chunk = (double)c->point.chunk_tokens * p->experiment->plan.chunk_scale;
    err = kv_plan_accuracy_find(accuracy, run_id, c->point.policy, c->point.params, chunk,
                                &c->accuracy, diag);
    if (err == KV_OK)
        warn_of_chunk(p, c);
    return err;
}

static kv_err list_candidates(planner *p, kv_results *accuracy, long long run_id, kv_diag *diag)
{
    kv_mark mark = kv_node_mark(p->experiment->serving);
    const char *dear = NULL, *unknown = NULL;
    kv_err err = KV_OK;
    p->candidate = calloc((size_t)p->serving.combinations + 1, sizeof *p->candidate);
    if (p->candidate == NULL)
        return kv_fail_memory(diag);
    for (int n = 0; n < p->serving.combinations && err == KV_OK; n++) {
        err = add_candidate(p, n, accuracy, run_id, diag);
        if (err == KV_OK && isnan(p->candidate[n].price))
            unknown = p->candidate[n].point.device->name;
        else if (err == KV_OK)
            dear = p->candidate[n].point.device->name;
    }
    p->priced = dear != NULL;
    if (err == KV_OK && dear != NULL && unknown != NULL)
        err = kv_fail(diag, KV_ERR_INPUT, &mark,
                      "%s has a price and %s has none; expected `price: {%s: ...}` under `plan`",
                      dear, unknown, unknown);
    return err;
}

/* --- the crew --------------------------------------------------------------------------------- */

static int take(planner *p)
{
    pthread_mutex_lock(&p->lock);
    int number = p->err == KV_OK && p->next < p->candidates ? p->next++ : -1;
    pthread_mutex_unlock(&p->lock);
    return number;
}

static void *work(void *closure)
{
    planner *p = closure;
    for (int n = take(p); n >= 0; n = take(p)) {
        kv_diag diag = {0};
        kv_err err = (p->relax ? kv__candidate_relax : kv__candidate_search)(&p->candidate[n],
                                                                             &p->problem, &diag);
        pthread_mutex_lock(&p->lock);
        p->done++;
        if (err != KV_OK && p->err == KV_OK) {
            p->err = err;
            p->diag = diag;
        }
        if (p->options->progress != NULL && !p->relax)
            p->options->progress(p->options->closure, p->done, p->candidates);
        pthread_mutex_unlock(&p->lock);
    }
    return NULL;
}

static kv_err search_all(planner *p, kv_diag *diag)
{
    int threads = p->options->threads, started = 0;
    pthread_t *thread = calloc((size_t)threads + 1, sizeof *thread);
    p->next = p->done = 0;
    pthread_mutex_init(&p->lock, NULL);
    while (thread != NULL && started < threads - 1 && started + 1 < p->candidates &&
           pthread_create(&thread[started], NULL, work, p) == 0)
        started++;
    work(p);
    for (int t = 0; t < started; t++)
        pthread_join(thread[t], NULL);
    pthread_mutex_destroy(&p->lock);
    free(thread);
    if (p->err != KV_OK && diag != NULL && diag->code == KV_OK)
        *diag = p->diag;
    return p->err;
}

static bool any_feasible(const planner *p)
{
    for (int n = 0; n < p->candidates; n++)
        if (p->candidate[n].feasible)
            return true;
    return false;
}

/* --- comparing -------------------------------------------------------------------------------- */

/* What is paid: per hour, or devices where no price is known. */
static double cost_of(const planner *p, const kv_candidate *c, int replicas)
{
    return p->priced ? c->price * replicas : (double)c->devices * replicas;
}

static double known(double value)
{
    return isnan(value) ? -INFINITY : value;
}

/* Which of two comes first: the cheaper, the more accurate, the one that takes the larger rate, the
 * first in the grid. */
static bool before(const planner *p, const kv_candidate *a, int a_replicas, const kv_candidate *b,
                   int b_replicas)
{
    double x = cost_of(p, a, a_replicas), y = cost_of(p, b, b_replicas);
    if (fabs(x - y) > 1e-9 * fmax(x, y))
        return x < y;
    x = known(a->accuracy.of_full);
    y = known(b->accuracy.of_full);
    if (x != y)
        return x > y;
    x = a->rate_open ? INFINITY : known(a->rate);
    y = b->rate_open ? INFINITY : known(b->rate);
    return x != y ? x > y : a->number < b->number;
}

/* The cases of plan_case: where a candidate's replicas stand. */
typedef struct plan_case {
    const char *name;
    size_t offset; /* of an int in kv_candidate; 0: infeasible */
} plan_case;

static int replicas_in(const kv_candidate *c, const plan_case *which)
{
    int replicas;
    memcpy(&replicas, (const char *)c + which->offset, sizeof replicas);
    return which->offset == offsetof(kv_candidate, replicas) && !c->feasible ? 0 : replicas;
}

static int cheapest(const planner *p, const plan_case *which)
{
    int best = -1;
    for (int n = 0; n < p->candidates; n++) {
        int replicas = replicas_in(&p->candidate[n], which);
        if (replicas > 0 && (best < 0 || before(p, &p->candidate[n], replicas, &p->candidate[best],
                                                replicas_in(&p->candidate[best], which))))
            best = n;
    }
    return best;
}

static int rank_of(const planner *p, int number)
{
    const kv_candidate *c = &p->candidate[number];
    int rank = 1;
    for (int n = 0; n < p->candidates; n++) {
        const kv_candidate *other = &p->candidate[n];
        if (n != number && other->feasible && before(p, other, other->replicas, c, c->replicas))
            rank++;
    }
    return c->feasible ? rank : 0;
}

/* The latency of the front: the first that is limited, else p99 of the TTFT. */
static double latency_of(const planner *p, const kv_plan_sample *s)
{
    for (int i = 0; i < p->problem.limits; i++)
        if (p->limit[i].metric->kind == KV_METRIC_SECONDS)
            return kv_limit_measure(&p->limit[i], &s->measures);
    return s->measures.row.ttft.p99;
}

/* Samples that are about the experiment as it stands. */
static bool is_nominal(const kv_plan_sample *s)
{
    return s->speed == 1 && s->blocks == 1 && s->binding != KV_BINDING_MEMORY;
}

static bool is_dominated(const planner *p, const kv_candidate *c, const kv_plan_sample *s)
{
    double mine[3] = {-known(c->accuracy.of_full), cost_of(p, c, s->replicas), latency_of(p, s)};
    for (int n = 0; n < p->candidates; n++) {
        const kv_candidate *o = &p->candidate[n];
        for (int i = 0; i < o->samples; i++) {
            double other[3] = {-known(o->accuracy.of_full), cost_of(p, o, o->sample[i].replicas),
                               latency_of(p, &o->sample[i])};
            int better = 0, worse = 0;
            for (int k = 0; k < 3; k++) {
                better += other[k] < mine[k];
                worse += !(other[k] <= mine[k]);
            }
            if (is_nominal(&o->sample[i]) && better > 0 && worse == 0)
                return true;
        }
    }
    return false;
}

/* --- nearest limits --------------------------------------------------------------------------- */

/* Four digits, rounded to the side that is easier to keep. */
static double loosened(const kv_limit *limit, double value)
{
    if (!(value > 0) || !isfinite(value))
        return value;
    double step = pow(10, floor(log10(value)) - 3), steps = value / step;
    return (limit->metric->at_least ? floor(steps) : ceil(steps)) * step;
}

/* By how much other limits than one are missed. */
static double excess_beside(const planner *p, const kv_plan_sample *s, int limit)
{
    double most = -INFINITY;
    for (int i = 0; i < p->problem.limits; i++)
        if (i != limit)
            most = fmax(most, kv_limit_excess(&p->limit[i], &s->measures));
    return most;
}

/* The sample that misses a limit (-1: the worst of all) by least, if it keeps the others. */
static const kv_plan_sample *nearest(const planner *p, int limit, int *choice)
{
    const kv_plan_sample *best = NULL;
    double least = INFINITY;
    for (int n = 0; n < p->candidates; n++)
        for (int i = 0; i < p->candidate[n].samples; i++) {
            const kv_plan_sample *s = &p->candidate[n].sample[i];
            double excess = limit < 0 ? s->excess : kv_limit_excess(&p->limit[limit], &s->measures);
            if (!is_nominal(s) || (limit >= 0 && excess_beside(p, s, limit) > 0) ||
                !(excess < least))
                continue;
            least = excess;
            best = s;
            *choice = n;
        }
    return best;
}

static void set_nearest(const planner *p, int limit, const kv_plan_sample *s, int choice,
                        char *text, size_t bytes, kv_plan_limit_row *row)
{
    row->nearest = loosened(&p->limit[limit], kv_limit_measure(&p->limit[limit], &s->measures));
    row->nearest_choice = choice;
    kv_limit_text(&p->limit[limit], row->nearest, text, bytes);
    row->nearest_text = text;
}

static kv_err write_limits(const planner *p, kv_plan_rows *rows, kv_diag *diag)
{
    bool feasible = any_feasible(p), alone = false;
    int choice = -1;
    kv_err err = KV_OK;
    for (int i = 0; i < p->problem.limits && !feasible; i++)
        alone = alone || nearest(p, i, &choice) != NULL;
    const kv_plan_sample *together = feasible || alone ? NULL : nearest(p, -1, &choice);
    for (int i = 0; i < p->problem.limits && err == KV_OK; i++) {
        const kv_limit *limit = &p->limit[i];
        const kv_plan_sample *s = feasible ? NULL : alone ? nearest(p, i, &choice) : together;
        kv_plan_limit_row row = {.text = limit->text,
                                 .metric = limit->metric->name,
                                 .relation = limit->metric->at_least ? ">=" : "<=",
                                 .value = limit->value,
                                 .nearest_choice = -1,
                                 .alone = alone};
        char text[96];
        if (s != NULL && kv_limit_excess(limit, &s->measures) > 0)
            set_nearest(p, i, s, choice, text, sizeof text, &row);
        err = kv_plan_rows_limit(rows, &row, diag);
    }
    return err;
}

/* --- writing ---------------------------------------------------------------------------------- */

static kv_plan_choice_row choice_row(const planner *p, int number)
{
    const kv_candidate *c = &p->candidate[number];
    const kv_plan_sample *s = &c->sample[c->shown];
    const kv_plan_accuracy *a = &c->accuracy;
    int rank = rank_of(p, number);
    return (kv_plan_choice_row){.policy = c->point.policy,
                                .params = c->point.params,
                                .settings = c->point.settings_json,
                                .device = c->point.device->name,
                                .verdict = rank == 1  ? "chosen"
                                           : rank > 1 ? "dearer"
                                                      : "infeasible",
                                .binding = kv__binding_text(&p->problem, c->binding),
                                .chunk_tokens = c->point.chunk_tokens,
                                .rank = rank,
                                .replicas = c->replicas,
                                .devices = c->devices * c->replicas,
                                .cost_per_hour = c->price * c->replicas,
                                .rate_req_s = s->rate,
                                .max_rate_req_s = c->rate,
                                .max_rate_open = c->rate_open,
                                .accuracy = a->value,
                                .accuracy_of_full = a->of_full,
                                .accuracy_lo = a->lo,
                                .accuracy_hi = a->hi,
                                .accuracy_source = a->source[0] ? a->source : NULL,
                                .accuracy_task = a->task[0] ? a->task : NULL,
                                .ttft_p99 = s->measures.row.ttft.p99,
                                .tpot_p99 = s->measures.row.tpot.p99,
                                .e2e_p99 = s->measures.row.e2e.p99,
                                .goodput = s->measures.row.goodput,
                                .throughput_tok_s = s->measures.row.throughput_tok_s,
                                .replicas_fewer_blocks = c->fewer_blocks,
                                .replicas_more_blocks = c->more_blocks};
}

static kv_plan_point_row point_row(const planner *p, int number, const kv_plan_sample *s)
{
    const kv_candidate *c = &p->candidate[number];
    const kv_serving_row *r = &s->measures.row;
    return (kv_plan_point_row){.choice = number,
                               .replicas = s->replicas,
                               .devices = c->devices * s->replicas,
                               .rate_factor = s->speed,
                               .blocks_factor = s->blocks,
                               .rate_req_s = s->rate,
                               .cost_per_hour = c->price * s->replicas,
                               .accuracy_of_full = c->accuracy.of_full,
                               .ttft_p99 = r->ttft.p99,
                               .tpot_p99 = r->tpot.p99,
                               .e2e_p99 = r->e2e.p99,
                               .goodput = r->goodput,
                               .throughput_tok_s = r->throughput_tok_s,
                               .gpu_busy = r->gpu_busy,
                               .feasible = s->excess <= 0,
                               .pareto = is_nominal(s) && !is_dominated(p, c, s),
                               .binding = kv__binding_text(&p->problem, s->binding),
                               .excess = s->excess};
}

static kv_err write_cases(const planner *p, kv_plan_rows *rows, kv_diag *diag)
{
    char fewer[48], more[48];
    double percent = 100 * p->problem.capacity;
    snprintf(fewer, sizeof fewer, "KV blocks are %g %% fewer", percent);
    snprintf(more, sizeof more, "KV blocks are %g %% more", percent);
    const plan_case cases[] = {
        {"as given", offsetof(kv_candidate, replicas)},
        {fewer, offsetof(kv_candidate, fewer_blocks)},
        {more, offsetof(kv_candidate, more_blocks)},
        {"accuracy is at the lower end of its interval", offsetof(kv_candidate, low_accuracy)},
        {"accuracy is at the upper end of its interval", offsetof(kv_candidate, high_accuracy)}};
    kv_err err = KV_OK;
    for (int i = 0; i < 5 && err == KV_OK; i++) {
        int best = cheapest(p, &cases[i]);
        kv_plan_case_row row = {.name = cases[i].name, .choice = best};
        if (best >= 0) {
            const kv_candidate *c = &p->candidate[best];
            row.replicas = replicas_in(c, &cases[i]);
            row.devices = c->devices * row.replicas;
            row.cost_per_hour = c->price * row.replicas;
        }
        err = kv_plan_rows_case(rows, &row, diag);
    }
    return err;
}

static kv_err write_all(const planner *p, kv_plan_rows *rows, kv_diag *diag)
{
    kv_err err = KV_OK;
    for (int n = 0; n < p->candidates && err == KV_OK; n++) {
        kv_plan_choice_row row = choice_row(p, n);
        err = kv_plan_rows_choice(rows, &row, diag);
    }
    for (int n = 0; n < p->candidates && err == KV_OK; n++)
        for (int i = 0; i < p->candidate[n].samples && err == KV_OK; i++) {
            kv_plan_point_row row = point_row(p, n, &p->candidate[n].sample[i]);
            err = kv_plan_rows_point(rows, &row, diag);
        }
    if (err == KV_OK)
        err = write_limits(p, rows, diag);
    return err == KV_OK ? write_cases(p, rows, diag) : err;
}

/* --- all -------------------------------------------------------------------------------------- */

static void planner_fini(planner *p)
{
    for (int n = 0; n < p->candidates; n++)
        kv__candidate_fini(&p->candidate[n]);
    free(p->candidate);
    free(p->limit);
    kv_serving_plan_fini(&p->serving);
}

kv_err kv_plan_search(const kv_experiment *experiment, kv_run *run, kv_results *results,
                      kv_results *accuracy, long long accuracy_run, const kv_plan_options *options,
                      kv_diag *diag)
{
    planner p = {.experiment = experiment, .options = options};
    kv_plan_rows *rows;
    kv_err err = kv_serving_plan_init(&p.serving, experiment->serving, experiment->model,
                                      experiment->seed, diag);
    if (err != KV_OK)
        return err;
    if (accuracy_run > 0) /* what policies whose counts depend on attention keep */
        p.serving.profile = (kv_profile_source){accuracy, accuracy_run};
    err = read_limits(&p, diag);
    if (err == KV_OK)
        err = list_candidates(&p, accuracy, accuracy_run, diag);
    if (err == KV_OK)
        err = search_all(&p, diag);
    if (err == KV_OK && !any_feasible(&p)) {
        p.relax = true;
        err = search_all(&p, diag);
    }
    if (err == KV_OK)
        err = kv_serving_note_trace(&p.serving, run, diag);
    if (err == KV_OK)
        err = kv_plan_rows_open(results, kv_run_id(run), &rows, diag);
    if (err == KV_OK)
        err = kv_plan_rows_close(rows, write_all(&p, rows, diag), diag);
    planner_fini(&p);
    return err;
}
