/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* From an experiment to the tables of its plan: lists the candidates, has each searched, ranks
 * them, and writes what came of it. */
#include "config.h"

#include "sim/plan/plan.h"

#include "analysis/curves.h"
#include "analysis/plan_results.h"
#include "models/catalogue.h"
#include "sim/base/unit.h"
#include "sim/experiment.h"
#include "sim/plan/rank.h"
#include "sim/serving/serving_run.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
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
    kv_plan_field field; /* the same, once all are searched */
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
        err = kv_limit_parse(config->limits.text[i], &config->limits.mark[i], &p->limit[i], diag);
    p->problem = (kv_plan_problem){.oracle = kv__plan_replay,
                                   .closure = &p->serving,
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

static kv_err find_accuracy(planner *p, kv_candidate *c, kv_results *accuracy, long long run_id,
                            kv_diag *diag)
{
    double chunk = (double)c->point.chunk_tokens * p->experiment->plan.chunk_scale;
    c->accuracy = (kv_plan_accuracy){
        .value = NAN, .lo = NAN, .hi = NAN, .of_full = NAN, .lo_of_full = NAN, .hi_of_full = NAN};
    if (c->point.settings.blend) /* what text costs that was cached elsewhere is not known */
        return KV_OK;
    kv_err err = kv_plan_accuracy_find(accuracy, run_id, c->point.policy, c->point.params, chunk,
                                       &c->accuracy, diag);
    if (err == KV_OK)
        warn_of_chunk(p, c);
    return err;
}

static kv_err check_goodput(const planner *p, const kv_candidate *c, kv_diag *diag)
{
    const kv_serving_config *config = &c->point.config;
    bool defined =
        config->goodput.ttft_ns > 0 || config->goodput.tpot_ns > 0 || config->goodput.e2e_ns > 0;
    for (int i = 0; i < p->problem.limits && !defined; i++)
        if (strcmp(p->limit[i].metric->name, "goodput") == 0)
            return kv_fail(diag, KV_ERR_INPUT, &p->experiment->plan.limits.mark[i],
                           "a limit on goodput takes `goodput: {ttft: 2s, tpot: 50ms}` or the like "
                           "under `serving`, which says what requests count");
    return KV_OK;
}

/* What cannot be run is no answer. */
static void exclude(kv_candidate *c)
{
    const kv_serving_point *point = &c->point;
    if (point->no_room[0] != '\0')
        snprintf(c->why, sizeof c->why, "does not fit: %s", point->no_room);
    else if (kv_policy_is_oracle(point->policy))
        snprintf(c->why, sizeof c->why, "sees the future: %s is a bound, not a policy to run",
                 point->policy);
    c->excluded = c->why[0] != '\0';
}

static kv_err add_candidate(planner *p, int number, kv_diag *diag)
{
    kv_candidate *c = &p->candidate[p->candidates];
    *c = (kv_candidate){.number = number};
    kv_err err = kv_serving_plan_point(&p->serving, number, &c->point, diag);
    if (err != KV_OK)
        return err;
    p->candidates++;
    exclude(c);
    c->devices = (int)c->point.config.tensor_parallel;
    c->price = price_of(&p->experiment->plan, c->point.device) * c->devices;
    return check_goodput(p, c, diag);
}

/* Prices name devices that are candidates or, so that one list serves many plans, known. A list of
 * which nothing is used says so. */
static kv_err check_prices(const planner *p, kv_diag *diag)
{
    const kv_node *price = p->experiment->plan.price;
    kv_err err = KV_OK;
    bool any = price == NULL;
    for (int i = 0; price != NULL && i < kv_node_count(price) && err == KV_OK; i++) {
        kv_mark mark = kv_node_key_mark(price, i);
        kv_document *known = NULL;
        bool used = false;
        for (int n = 0; n < p->candidates; n++)
            used = used || strcmp(p->candidate[n].point.device->name, kv_node_key(price, i)) == 0;
        if (!used)
            err = kv_catalogue_read(KV_SHELF_DEVICES, kv_node_key(price, i), &mark, &known, diag);
        kv_document_free(known);
        any = any || used;
    }
    if (err == KV_OK && !any && p->options != NULL && p->options->warn != NULL)
        p->options->warn(p->options->closure,
                         "plan.price: no configuration has a device of which a price is given");
    return err;
}

/* Where nothing can be run, there is nothing to search. */
static kv_err check_any(const planner *p, kv_diag *diag)
{
    kv_mark mark = kv_node_mark(p->experiment->serving);
    for (int n = 0; n < p->candidates; n++)
        if (!p->candidate[n].excluded)
            return KV_OK;
    return kv_fail(diag, KV_ERR_INPUT, &mark, "no configuration can be run: %s",
                   p->candidate[0].why);
}

static kv_err list_candidates(planner *p, kv_diag *diag)
{
    kv_mark mark = kv_node_mark(p->experiment->serving);
    const char *dear = NULL, *unknown = NULL;
    kv_err err = KV_OK;
    if (p->experiment->plan.price != NULL)
        mark = kv_node_mark(p->experiment->plan.price);
    p->candidate = calloc((size_t)p->serving.combinations + 1, sizeof *p->candidate);
    if (p->candidate == NULL)
        return kv_fail_memory(diag);
    for (int n = 0; n < p->serving.combinations && err == KV_OK; n++) {
        err = add_candidate(p, n, diag);
        if (err == KV_OK && isnan(p->candidate[n].price))
            unknown = p->candidate[n].point.device->name;
        else if (err == KV_OK)
            dear = p->candidate[n].point.device->name;
    }
    p->priced = dear != NULL;
    p->field = (kv_plan_field){&p->problem, p->candidate, p->candidates, p->priced};
    if (err == KV_OK && dear != NULL && unknown != NULL)
        err = kv_fail(diag, KV_ERR_INPUT, &mark,
                      "%s has a price and %s has none; expected `price: {%s: ...}` under `plan`",
                      dear, unknown, unknown);
    if (err == KV_OK)
        err = check_any(p, diag);
    return err == KV_OK ? check_prices(p, diag) : err;
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

/* --- writing ---------------------------------------------------------------------------------- */

static kv_err write_limits(const planner *p, kv_plan_rows *rows, kv_diag *diag)
{
    kv_plan_nearest *nearest = calloc((size_t)p->problem.limits + 1, sizeof *nearest);
    bool feasible = kv__plan_any_feasible(&p->field), alone = false;
    kv_err err = nearest != NULL ? KV_OK : kv_fail_memory(diag);
    if (err == KV_OK && !feasible)
        kv__plan_nearest(&p->field, nearest, &alone);
    for (int i = 0; i < p->problem.limits && err == KV_OK; i++) {
        const kv_limit *limit = &p->limit[i];
        const kv_plan_nearest *n = &nearest[i];
        char text[96];
        kv_plan_limit_row row = {.text = limit->text,
                                 .metric = limit->metric->name,
                                 .relation = limit->metric->at_least ? ">=" : "<=",
                                 .value = limit->value,
                                 .nearest_choice = -1,
                                 .alone = alone,
                                 .why_none = !feasible && n->why[0] != '\0' ? n->why : NULL};
        if (!feasible && n->choice >= 0) {
            row.nearest = n->value;
            row.nearest_choice = n->choice;
            row.nearest_replicas = n->replicas;
            kv_limit_text(limit, n->value, text, sizeof text);
            row.nearest_text = text;
        }
        err = kv_plan_rows_limit(rows, &row, diag);
    }
    free(nearest);
    return err;
}

/* Of a candidate that is not searched. */
static const kv_plan_sample not_asked = {
    .rate = NAN,
    .measures.row = {
        .ttft.p99 = NAN, .tpot.p99 = NAN, .e2e.p99 = NAN, .goodput = NAN, .throughput_tok_s = NAN}};

static kv_plan_choice_row choice_row(const planner *p, int number)
{
    const kv_candidate *c = &p->candidate[number];
    const kv_plan_sample *s = c->excluded ? &not_asked : &c->sample[c->shown];
    const kv_plan_accuracy *a = &c->accuracy;
    int rank = kv__plan_rank(&p->field, number);
    return (kv_plan_choice_row){
        .policy = c->point.policy,
        .params = c->point.params,
        .settings = c->point.settings_json,
        .device = c->point.device->name,
        .verdict = rank == 1  ? "chosen"
                   : rank > 1 ? "dearer"
                              : "infeasible",
        .binding = c->why[0] != '\0' ? c->why : kv__binding_text(&p->problem, c->binding),
        .label = c->point.label,
        .chunk_tokens = c->point.chunk_tokens,
        .rank = rank,
        .replicas = c->replicas,
        .devices = c->devices * c->replicas,
        .cost_per_hour = c->excluded ? NAN : c->price * c->replicas,
        .rate_req_s = s->rate,
        .max_rate_req_s = c->excluded ? NAN : c->rate,
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
                               .requests = r->requests,
                               .rejected_too_long = r->rejected_too_long,
                               .feasible = s->excess <= 0,
                               .latency = kv__plan_latency(&p->problem, s),
                               .pareto = kv__plan_on_front(&p->field, c, s),
                               .binding = kv__binding_text(&p->problem, s->binding),
                               .excess = s->excess};
}

static kv_err write_cases(const planner *p, kv_plan_rows *rows, kv_diag *diag)
{
    char fewer[48], more[48];
    double percent = 100 * p->problem.capacity;
    snprintf(fewer, sizeof fewer, "KV blocks are %g %% fewer", percent);
    snprintf(more, sizeof more, "KV blocks are %g %% more", percent);
    const kv_plan_case cases[] = {
        {"as given", offsetof(kv_candidate, replicas)},
        {fewer, offsetof(kv_candidate, fewer_blocks)},
        {more, offsetof(kv_candidate, more_blocks)},
        {"accuracy is at the lower end of its interval", offsetof(kv_candidate, low_accuracy)},
        {"accuracy is at the upper end of its interval", offsetof(kv_candidate, high_accuracy)}};
    kv_err err = KV_OK;
    for (int i = 0; i < 5 && err == KV_OK; i++) {
        int best = kv__plan_best(&p->field, &cases[i]);
        kv_plan_case_row row = {.name = cases[i].name, .choice = best};
        if (best >= 0) {
            const kv_candidate *c = &p->candidate[best];
            row.replicas = kv__plan_replicas(c, &cases[i]);
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

/* Candidates compete under the same requests. */
static kv_err check_load(const planner *p, kv_diag *diag)
{
    const kv_grid *requests = &p->serving.grid[KV_SERVING_REQUESTS];
    kv_mark mark = kv_node_mark(requests->map);
    if (requests->count == 1)
        return KV_OK;
    return kv_fail(diag, KV_ERR_INPUT, &mark,
                   "requests: a plan is for one load; expected no lists here");
}

/* Reads limits and lists candidates. What policies whose counts depend on attention keep comes from
 * a profile; before there is one, it is that of the run to come. After an error nothing is owned.
 */
static kv_err planner_init(planner *p, const kv_profile_source *profile, kv_diag *diag)
{
    const kv_experiment *experiment = p->experiment;
    kv_err err = kv_serving_plan_init(&p->serving, experiment->serving, experiment->model,
                                      experiment->seed, diag);
    if (err != KV_OK)
        return err;
    p->serving.tells_room = true;
    if (profile != NULL)
        p->serving.profile = *profile;
    else if (experiment->has_attention)
        p->serving.replayed = &experiment->attention.points;
    err = check_load(p, diag);
    if (err == KV_OK)
        err = read_limits(p, diag);
    if (err == KV_OK)
        err = list_candidates(p, diag);
    if (err != KV_OK)
        planner_fini(p);
    return err;
}

static kv_err check_requests(const planner *p, kv_diag *diag)
{
    kv_mark mark = kv_node_mark(kv_node_find(p->experiment->serving, "requests"));
    kv_request_reader *reader;
    kv_request request;
    kv_err err = kv_request_open(&p->serving.requests, &reader, diag);
    if (err != KV_OK)
        return err;
    err = kv_request_next(reader, &request, diag);
    kv_request_close(reader);
    return err != KV_END ? err
                         : kv_fail(diag, KV_ERR_INPUT, &mark,
                                   "the trace has no requests; there is nothing to plan for");
}

kv_err kv_plan_check(const kv_experiment *experiment, kv_diag *diag)
{
    planner p = {.experiment = experiment};
    kv_err err = planner_init(&p, NULL, diag);
    if (err != KV_OK)
        return err;
    err = check_requests(&p, diag);
    planner_fini(&p);
    return err;
}

static kv_err search(planner *p, kv_diag *diag)
{
    kv_err err = search_all(p, diag);
    if (err != KV_OK || kv__plan_any_feasible(&p->field))
        return err;
    p->relax = true;
    return search_all(p, diag);
}

kv_err kv_plan_search(const kv_experiment *experiment, kv_run *run, kv_results *results,
                      kv_results *accuracy, long long accuracy_run, const kv_plan_options *options,
                      kv_diag *diag)
{
    planner p = {.experiment = experiment, .options = options};
    kv_plan_rows *rows;
    kv_profile_source profile = {accuracy_run > 0 ? accuracy : NULL, accuracy_run};
    kv_err err = planner_init(&p, &profile, diag);
    if (err != KV_OK)
        return err;
    for (int n = 0; n < p.candidates && err == KV_OK; n++)
        err = find_accuracy(&p, &p.candidate[n], accuracy, accuracy_run, diag);
    if (err == KV_OK)
        err = search(&p, diag);
    if (err == KV_OK)
        err = kv_serving_note_trace(&p.serving, run, diag);
    if (err == KV_OK)
        err = kv_plan_rows_open(results, kv_run_id(run), &rows, diag);
    if (err == KV_OK)
        err = kv_plan_rows_close(rows, write_all(&p, rows, diag), diag);
    planner_fini(&p);
    return err;
}
