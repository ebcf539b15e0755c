/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* From measured accuracies and replayed records to fits, one per task or one for all. */
#include "config.h"

#include "analysis/calibration_private.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --- Tasks ------------------------------------------------------------------------------------ */

static int find_task(const kv_calibration *c, const char *name)
{
    for (int t = 0; t < c->tasks; t++)
        if (strcmp(c->task[t].name, name) == 0)
            return t;
    return -1;
}

static int compare_tasks(const void *a, const void *b)
{
    return strcmp(((const kv_calibration_task *)a)->name, ((const kv_calibration_task *)b)->name);
}

/* Tasks of calibrating examples that were measured. */
static kv_err find_tasks(kv_calibration *c, const kv_measurements *measured, kv_diag *diag)
{
    c->task = calloc((size_t)measured->count + 1, sizeof *c->task);
    c->no_values = calloc((size_t)measured->count + 1, sizeof *c->no_values);
    c->no_evidence = calloc((size_t)measured->count + 1, sizeof *c->no_evidence);
    if (c->task == NULL || c->no_values == NULL || c->no_evidence == NULL)
        return kv_fail_memory(diag);
    for (int i = 0; i < measured->count; i++)
        for (int e = 0; e < c->plan->examples; e++) {
            const kv_example_info *example = &c->plan->example[e];
            if (example->calibrates && strcmp(example->task, measured->row[i].task) == 0 &&
                find_task(c, example->task) < 0)
                c->task[c->tasks++].name = example->task;
        }
    qsort(c->task, (size_t)c->tasks, sizeof *c->task, compare_tasks);
    for (int e = 0; e < c->plan->examples; e++) {
        const kv_example_info *example = &c->plan->example[e];
        int t = example->calibrates ? find_task(c, example->task) : -1;
        if (t < 0)
            continue;
        c->task[t].examples++;
        c->task[t].mean_turns += example->turns;
        c->task[t].mean_score += example->full_score;
    }
    for (int t = 0; t < c->tasks; t++) {
        c->task[t].mean_turns /= c->task[t].examples;
        c->task[t].mean_score /= c->task[t].examples;
        c->task[t].full_accuracy = c->task[t].mean_score;
    }
    return KV_OK;
}

double kv_calibration_full(const kv_calibration_task *task, double score)
{
    double mean = task->mean_score, full = task->full_accuracy;
    if (full <= mean)
        return mean > 0 ? score * full / mean : 0;
    return 1 - (1 - score) * (1 - full) / (1 - mean);
}

double kv_calibration_scale(const kv_calibration_task *task, double accuracy)
{
    static const double floor_variance = 0.005; /* where the prediction is all or nothing */
    double full = task->full_accuracy;
    double share = full > 0 ? fmin(1, fmax(0, accuracy / full)) : 0;
    return full * sqrt(share * (1 - share) + floor_variance);
}

/* --- Points ----------------------------------------------------------------------------------- */

static const char *policy_name(const kv_calibration *c, int i)
{
    return c->plan->point[c->point[i].point].policy;
}

/* Policies by the first point that has them, and whether a point of single turns stands for all. */
static void describe_points(kv_calibration *c)
{
    for (int i = 0; i < c->points; i++) {
        kv_calibration_point *point = &c->point[i];
        c->policy_of[i] = 0;
        while (strcmp(policy_name(c, c->policy_of[i]), policy_name(c, i)) != 0)
            c->policy_of[i]++;
        point->full = strcmp(policy_name(c, i), "full") == 0;
        bool has_all = false;
        for (int j = i;
             j >= 0 && c->point[j].task == point->task && c->point[j].point == point->point; j--)
            has_all |= c->point[j].turn == 0;
        point->fitted_to = point->turn == 0 || !has_all;
        if (point->full && point->turn == 0) {
            c->task[point->task].full_accuracy = point->accuracy;
            c->task[point->task].full_measured = true;
        }
    }
}

/* A measurement on its way to its place. */
typedef struct listing {
    int task;
    const kv_measurement *from;
} listing;

static int compare_listed(const void *a, const void *b)
{
    const listing *x = a, *y = b;
    if (x->task != y->task)
        return x->task < y->task ? -1 : 1;
    if (x->from->point[0] != y->from->point[0])
        return x->from->point[0] < y->from->point[0] ? -1 : 1;
    return (x->from->turn > y->from->turn) - (x->from->turn < y->from->turn);
}

static void list_point(kv_calibration *c, const listing *next)
{
    c->from[c->points] = next->from;
    c->point[c->points++] = (kv_calibration_point){.task = next->task,
                                                   .point = next->from->point[0],
                                                   .turn = next->from->turn,
                                                   .n = next->from->n,
                                                   .accuracy = next->from->accuracy,
                                                   .fitted = NAN,
                                                   .held_out = NAN,
                                                   .held_out_lo = NAN,
                                                   .held_out_hi = NAN};
}

static kv_err list_points(kv_calibration *c, const kv_measurements *measured, kv_diag *diag)
{
    size_t room = (size_t)measured->count + 1;
    int count = 0;
    listing *list = calloc(room, sizeof *list);
    c->point = calloc(room, sizeof *c->point);
    c->from = calloc(room, sizeof *c->from);
    c->row = calloc(room, sizeof *c->row);
    c->policy_of = calloc(room, sizeof *c->policy_of);
    if (!list || !c->point || !c->from || !c->row || !c->policy_of) {
        free(list);
        return kv_fail_memory(diag);
    }
    for (int i = 0; i < measured->count; i++) {
        int task = find_task(c, measured->row[i].task);
        if (task >= 0)
            list[count++] = (listing){task, &measured->row[i]};
    }
    qsort(list, (size_t)count, sizeof *list, compare_listed);
    for (int i = 0; i < count; i++)
        list_point(c, &list[i]);
    free(list);
    return KV_OK;
}

/* --- Rows ------------------------------------------------------------------------------------- */

/* Where the cells of a row are collected. */
typedef struct builder {
    kv_link_cell *cell;
    int cells, examples;
    double footprint;
} builder;

/* Adds the turns of one example to a row; an example with a turn that tells nothing adds none. */
static void add_example(kv_calibration *c, int i, const kv_example_info *example, int number,
                        const kv_record *records, builder *b)
{
    const kv_calibration_point *point = &c->point[i];
    int first = point->turn ? point->turn : 1, last = point->turn ? point->turn : example->turns;
    double full = kv_calibration_full(&c->task[point->task], example->full_score);
    if (last > example->turns)
        return;
    for (int t = first; t <= last; t++) {
        kv_link_cell *cell = &b->cell[b->cells + t - first];
        if (!kv_link_features(&records[t], &cell->x, &cell->q))
            return;
        cell->example = number;
        cell->weight = full / (last - first + 1);
        c->no_values[point->task] |= isnan(records[t].value[KV_M_OUTPUT_ERROR]);
        c->no_evidence[point->task] |= isnan(records[t].value[KV_M_EVIDENCE_OUTPUT]);
    }
    b->cells += last - first + 1;
    b->examples++;
    b->footprint += records[point->turn].value[KV_M_FOOTPRINT];
}

/* Makes averages of sums over examples. */
static void finish_row(kv_calibration *c, int i, const builder *b)
{
    kv_calibration_point *point = &c->point[i];
    double x = 0, q = 0;
    for (int k = 0; k < b->cells; k++) {
        b->cell[k].weight /= b->examples;
        x += b->cell[k].x;
        q += b->cell[k].q;
    }
    point->footprint = b->footprint / b->examples;
    point->output = x / b->cells;
    point->intact = q / b->cells;
    c->row[i] = (kv_link_row){b->cell, b->cells, point->accuracy};
}

static int most_turns(const kv_points_plan *plan)
{
    int most = 1;
    for (int e = 0; e < plan->examples; e++)
        most = plan->example[e].turns > most ? plan->example[e].turns : most;
    return most;
}

static kv_err builders_init(const kv_calibration *c, builder *b, kv_diag *diag)
{
    int turns = most_turns(c->plan);
    for (int i = 0; i < c->points; i++) {
        int cells = c->task[c->point[i].task].examples * c->from[i]->points *
                    (c->point[i].turn ? 1 : turns);
        b[i].cell = calloc((size_t)cells + 1, sizeof *b[i].cell);
        if (b[i].cell == NULL)
            return kv_fail_memory(diag);
    }
    return KV_OK;
}

/* Reads one example at all draws of point i and adds it to its rows, which follow one another, one
 * per turn. Answers the first point that is not of the kind. */
static int add_draws(kv_calibration *c, const kv_record_source *source, int i, int example,
                     int number, builder *b, kv_record *records, kv_err *err, kv_diag *diag)
{
    const kv_measurement *from = c->from[i];
    int end = i;
    while (end < c->points && c->point[end].task == c->point[i].task &&
           c->point[end].point == c->point[i].point)
        end++;
    for (int d = 0; d < from->points && *err == KV_OK; d++) {
        *err = source->read(source->closure, from->point[d], example, records, diag);
        for (int k = i; k < end && *err == KV_OK; k++)
            add_example(c, k, &c->plan->example[example], number, records, &b[k]);
    }
    return end;
}

/* Reads each record once. */
static kv_err fill_rows(kv_calibration *c, const kv_record_source *source, builder *b,
                        kv_record *records, kv_diag *diag)
{
    int *number = calloc((size_t)c->tasks + 1, sizeof *number); /* of the task's next example */
    kv_err err = number ? KV_OK : kv_fail_memory(diag);
    for (int e = 0; e < c->plan->examples && err == KV_OK; e++) {
        const kv_example_info *example = &c->plan->example[e];
        int task = example->calibrates ? find_task(c, example->task) : -1;
        for (int i = 0; task >= 0 && i < c->points && err == KV_OK;)
            i = c->point[i].task == task
                    ? add_draws(c, source, i, e, number[task], b, records, &err, diag)
                    : i + 1;
        if (task >= 0)
            number[task]++;
    }
    free(number);
    return err;
}

/* Drops points that no example was replayed at. */
static void keep_rows(kv_calibration *c, builder *b)
{
    int kept = 0;
    for (int i = 0; i < c->points; i++) {
        if (b[i].examples == 0)
            continue;
        c->point[kept] = c->point[i];
        finish_row(c, kept++, &b[i]);
        b[i].cell = NULL; /* the row's now */
    }
    c->points = kept;
}

static kv_err build_rows(kv_calibration *c, const kv_record_source *source, kv_diag *diag)
{
    builder *b = calloc((size_t)c->points + 1, sizeof *b);
    kv_record *records = malloc((size_t)(most_turns(c->plan) + 1) * sizeof *records);
    kv_err err = b && records ? builders_init(c, b, diag) : kv_fail_memory(diag);
    if (err == KV_OK)
        err = fill_rows(c, source, b, records, diag);
    int listed = c->points;
    if (err == KV_OK)
        keep_rows(c, b);
    for (int i = 0; b != NULL && i < listed; i++)
        free(b[i].cell);
    free(b);
    free(records);
    return err;
}

/* --- Pools ------------------------------------------------------------------------------------ */

/* Where there is no evidence x is another measure, which tells other tasks nothing. */
static bool has_task(const kv_calibration *c, const kv_calibration_pool *pool, int task)
{
    return pool->only < 0 ? !c->no_evidence[task] : task == pool->only;
}

bool kv__calibration_in_pool(const kv_calibration *c, const kv_calibration_pool *pool, int i)
{
    return has_task(c, pool, c->point[i].task);
}

/* True if no earlier point of the pool has the policy (the accuracy) of point i. */
static bool is_first(const kv_calibration *c, const kv_calibration_pool *pool, int i, bool accuracy)
{
    for (int j = 0; j < i; j++)
        if (kv__calibration_in_pool(c, pool, j) && c->point[j].fitted_to && !c->point[j].full &&
            (accuracy ? c->point[j].accuracy == c->point[i].accuracy
                      : c->policy_of[j] == c->policy_of[i]))
            return false;
    return true;
}

static void count_points(const kv_calibration *c, const kv_calibration_pool *pool, int *points,
                         int *policies, int *accuracies)
{
    *points = *policies = *accuracies = 0;
    for (int i = 0; i < c->points; i++) {
        if (!kv__calibration_in_pool(c, pool, i) || !c->point[i].fitted_to || c->point[i].full)
            continue;
        ++*points;
        *policies += is_first(c, pool, i, false);
        *accuracies += is_first(c, pool, i, true);
    }
}

static bool can_fit(const kv_calibration *c, const kv_calibration_pool *pool)
{
    int points, policies, accuracies;
    count_points(c, pool, &points, &policies, &accuracies);
    return points >= KV_CALIBRATION_LEAST_POINTS && policies >= KV_CALIBRATION_LEAST_POLICIES &&
           accuracies >= KV_CALIBRATION_LEAST_ACCURACIES;
}

/* Fits the pool's points of all policies but one (-1: of all). */
static kv_err fit_pool(const kv_calibration *c, const kv_calibration_pool *pool, int except,
                       kv_link_fit *out, kv_diag *diag)
{
    const kv_link_row **rows = malloc((size_t)(c->points + 1) * sizeof *rows);
    int count = 0;
    if (rows == NULL)
        return kv_fail_memory(diag);
    for (int i = 0; i < c->points; i++)
        if (kv__calibration_in_pool(c, pool, i) && c->point[i].fitted_to &&
            c->policy_of[i] != except)
            rows[count++] = &c->row[i];
    kv_err err = kv_link_fit_rows(rows, count, pool->parameters, out, diag);
    free(rows);
    return err;
}

/* Leaves out each policy in turn and predicts its points. */
static kv_err cross_validate(const kv_calibration *c, kv_calibration_pool *pool, kv_diag *diag)
{
    kv_err err = KV_OK;
    for (int i = 0; i < c->points; i++)
        pool->held_out[i] = NAN;
    for (int i = 0; i < c->points && err == KV_OK; i++) {
        if (!kv__calibration_in_pool(c, pool, i) || c->point[i].full || !isnan(pool->held_out[i]))
            continue;
        kv_calibration_fold *fold = &pool->fold[pool->folds++];
        kv_link link;
        fold->policy = c->policy_of[i];
        err = fit_pool(c, pool, fold->policy, &fold->fit, diag);
        if (err != KV_OK)
            break;
        kv_link_init(&link, fold->fit.theta, pool->parameters);
        for (int j = i; j < c->points; j++)
            if (kv__calibration_in_pool(c, pool, j) && c->policy_of[j] == fold->policy)
                pool->held_out[j] = kv_link_predict(&link, &c->row[j]);
    }
    return err;
}

static void pool_fini(kv_calibration_pool *pool)
{
    free(pool->fold);
    free(pool->held_out);
}

static kv_err pool_init(const kv_calibration *c, int only, kv_calibration_pool *pool, kv_diag *diag)
{
    *pool = (kv_calibration_pool){.only = only, .parameters = KV_LINK_GUESS};
    for (int t = 0; t < c->tasks; t++)
        if (has_task(c, pool, t) && c->no_values[t])
            pool->parameters = KV_LINK_PARAMETERS;
    pool->fold = calloc((size_t)c->points + 1, sizeof *pool->fold);
    pool->held_out = calloc((size_t)c->points + 1, sizeof *pool->held_out);
    kv_err err = pool->fold && pool->held_out ? KV_OK : kv_fail_memory(diag);
    if (err == KV_OK)
        err = fit_pool(c, pool, -1, &pool->fit, diag);
    if (err == KV_OK)
        err = cross_validate(c, pool, diag);
    if (err != KV_OK)
        pool_fini(pool);
    return err;
}

/* Writes what the pool says about one of its tasks. */
static void take_fit(kv_calibration *c, const kv_calibration_pool *pool, int task)
{
    kv_calibration_task *out = &c->task[task];
    kv_link link;
    int accuracies, turn_policies;
    count_points(c, pool, &out->points, &out->policies, &accuracies);
    out->kind = pool->only < 0 ? KV_CALIBRATION_SHARED : KV_CALIBRATION_OWN;
    out->fit = pool->fit;
    out->spread = kv__calibration_spread(c, pool, false, -1, &out->freedom);
    out->turn_spread = kv__calibration_spread(c, pool, true, -1, &turn_policies);
    if (turn_policies == 0) /* as if the errors of turns were independent */
        out->turn_spread = out->spread * sqrt(out->mean_turns);
    out->least_output = out->least_intact = 1;
    kv_link_init(&link, pool->fit.theta, pool->parameters);
    for (int i = 0; i < c->points; i++) {
        if (!kv__calibration_in_pool(c, pool, i))
            continue;
        if (c->point[i].fitted_to) {
            out->least_output = fmin(out->least_output, c->point[i].output);
            out->least_intact = fmin(out->least_intact, c->point[i].intact);
        }
        if (c->point[i].task != task)
            continue;
        c->point[i].fitted = kv_link_predict(&link, &c->row[i]);
        c->point[i].held_out = pool->held_out[i];
    }
}

static void take_nothing(kv_calibration_task *task)
{
    task->kind = KV_CALIBRATION_NONE;
    task->spread = task->turn_spread = task->mae = task->rms = task->max = task->bias = NAN;
    task->turn_mae = task->coverage = task->critical_mae = NAN;
    task->least_output = task->least_intact = task->fit.residual_rms = NAN;
    for (int i = 0; i < KV_LINK_PARAMETERS; i++)
        task->fit.theta[i] = NAN;
}

/* Whether a task has at least one point that a fit of all tasks can be compared with. */
static bool can_share(const kv_calibration *c, int task)
{
    kv_calibration_pool own = {.only = task};
    int points, policies, accuracies;
    count_points(c, &own, &points, &policies, &accuracies);
    return points > 0 && !c->no_evidence[task];
}

static kv_err fit_tasks(kv_calibration *c, kv_diag *diag)
{
    kv_err err = KV_OK;
    for (int t = 0; t < c->tasks && err == KV_OK; t++) {
        kv_calibration_pool own = {.only = t}, all = {.only = -1}, pool;
        bool fits = can_fit(c, &own);
        if (!fits && !(can_share(c, t) && can_fit(c, &all))) {
            take_nothing(&c->task[t]);
            continue;
        }
        err = pool_init(c, fits ? t : -1, &pool, diag);
        if (err != KV_OK)
            break;
        take_fit(c, &pool, t);
        err = kv__calibration_check(c, &pool, t, diag);
        pool_fini(&pool);
    }
    return err;
}

/* --- The whole -------------------------------------------------------------------------------- */

kv_err kv_calibration_new(const kv_record_source *source, const kv_measurements *measured,
                          long long seed, kv_calibration **out, kv_diag *diag)
{
    kv_calibration *c = calloc(1, sizeof *c);
    if (c == NULL)
        return kv_fail_memory(diag);
    c->plan = source->plan;
    c->seed = seed;
    kv_err err = find_tasks(c, measured, diag);
    if (err == KV_OK)
        err = list_points(c, measured, diag);
    if (err == KV_OK) {
        describe_points(c);
        err = build_rows(c, source, diag);
    }
    if (err == KV_OK) {
        describe_points(c);
        err = fit_tasks(c, diag);
    }
    if (err == KV_OK)
        *out = c;
    else
        kv_calibration_free(c);
    return err;
}

void kv_calibration_free(kv_calibration *c)
{
    if (c == NULL)
        return;
    for (int i = 0; i < c->points; i++)
        free((kv_link_cell *)c->row[i].cell);
    free(c->task);
    free(c->no_values);
    free(c->no_evidence);
    free(c->point);
    free(c->from);
    free(c->row);
    free(c->policy_of);
    free(c);
}

const kv_calibration_task *kv_calibration_tasks(const kv_calibration *c, int *count)
{
    *count = c->tasks;
    return c->task;
}

const kv_calibration_point *kv_calibration_points(const kv_calibration *c, int *count)
{
    *count = c->points;
    return c->point;
}
