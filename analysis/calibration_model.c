/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* The accuracy model "calibrated", its tables and its warnings. */
#include "config.h"

#include "analysis/bootstrap.h"
#include "analysis/calibration_private.h"
#include "analysis/run.h"
#include "analysis/schema.h"
#include "analysis/sql.h"
#include "sim/base/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct model {
    const kv_points_plan *plan;
    long long seed;
    kv_measurements measured;
    kv_calibration *calibration;
    kv_link *best;               /* [tasks] */
    kv_calibration_draws *draws; /* [tasks] */
    char **warning;
    int warnings, room;
} model;

static const kv_calibration_task *find_task(const model *m, const char *name)
{
    for (int t = 0; t < m->calibration->tasks; t++)
        if (strcmp(m->calibration->task[t].name, name) == 0)
            return &m->calibration->task[t];
    return NULL;
}

static bool covers(const void *closure, const char *task)
{
    const kv_calibration_task *found = find_task(closure, task);
    return found != NULL && found->kind != KV_CALIBRATION_NONE;
}

/* --- Prediction ------------------------------------------------------------------------------- */

static int draws(const void *closure)
{
    return KV_CALIBRATION_DRAWS;
}

static void predict(const void *closure, int draw, int point, const kv_example_info *example,
                    const kv_record *records, double *accuracy)
{
    const model *m = closure;
    const kv_calibration_task *task = find_task(m, example->task);
    long t = task - m->calibration->task;
    const kv_link *link = draw == 0 ? &m->best[t] : &m->draws[t].link[draw - 1];
    double full =
        example->calibrates ? kv_calibration_full(task, example->full_score) : example->full_score;
    for (int i = 0; i < example->turns; i++) {
        double x, q;
        accuracy[i] =
            kv_link_features(&records[i + 1], &x, &q) ? full * kv_link_pass(link, x, q, NULL) : NAN;
    }
}

static double disturb(const void *closure, int draw, const char *name, int turn, double accuracy)
{
    const model *m = closure;
    const kv_calibration_task *task = find_task(m, name);
    double spread = turn > 0 ? task->turn_spread : task->spread;
    return kv__calibration_shift(task, spread,
                                 m->draws[task - m->calibration->task].shift[draw - 1], accuracy);
}

static bool measured(const void *closure, int point, const char *task, int turn, double *accuracy,
                     double *n)
{
    const kv_measurement *row =
        kv_measurements_find(&((const model *)closure)->measured, point, task, turn);
    if (row == NULL)
        return false;
    *accuracy = row->accuracy;
    *n = row->n;
    return true;
}

/* --- Warnings --------------------------------------------------------------------------------- */

static kv_err warn(model *m, kv_diag *diag, const char *format, ...) KV_PRINTF(3, 4);

static kv_err warn(model *m, kv_diag *diag, const char *format, ...)
{
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (m->warnings == m->room) {
        int room = m->room ? 2 * m->room : 16;
        char **grown = realloc(m->warning, (size_t)room * sizeof *grown);
        if (grown == NULL)
            return kv_fail_memory(diag);
        m->warning = grown;
        m->room = room;
    }
    m->warning[m->warnings] = strdup(text);
    return m->warning[m->warnings] != NULL ? (m->warnings++, KV_OK) : kv_fail_memory(diag);
}

static bool has_task(const kv_point_info *point, const char *task)
{
    return point->task == NULL || strcmp(point->task, task) == 0;
}

/* Mean x and q of one point over the examples of a task that are in the results; false if its
 * accuracy is not predicted. */
static kv_err mean_features(const model *m, const kv_record_source *source, int point,
                            const char *task, kv_record *records, double *x, double *q,
                            kv_diag *diag)
{
    int turns = 0;
    *x = *q = 0;
    for (int e = 0; e < m->plan->examples; e++) {
        const kv_example_info *example = &m->plan->example[e];
        if (example->calibration_only || strcmp(example->task, task) != 0)
            continue;
        kv_err err = source->read(source->closure, point, e, records, diag);
        if (err != KV_OK)
            return err;
        for (int t = 1; t <= example->turns; t++) {
            double turn_x, turn_q;
            if (!kv_link_features(&records[t], &turn_x, &turn_q))
                continue;
            *x += turn_x;
            *q += turn_q;
            turns++;
        }
    }
    *x /= turns;
    *q /= turns;
    return KV_OK;
}

/* Warns of the points of one policy that lie below all that was measured. */
static kv_err warn_policy(model *m, const kv_record_source *source, const kv_calibration_task *task,
                          int first, kv_record *records, kv_diag *diag)
{
    static const double margin = 0.02;
    const char *policy = m->plan->point[first].policy;
    int outside = 0, points = 0;
    double least_x = 1, least_q = 1;
    for (int p = first; p < m->plan->points; p++) {
        double x, q;
        if (m->plan->point[p].calibration_only || !has_task(&m->plan->point[p], task->name) ||
            strcmp(m->plan->point[p].policy, policy) != 0 ||
            kv_measurements_find(&m->measured, p, task->name, 0) != NULL)
            continue;
        kv_err err = mean_features(m, source, p, task->name, records, &x, &q, diag);
        if (err != KV_OK)
            return err;
        points++;
        if (x >= task->least_output - margin && q >= task->least_intact - margin)
            continue;
        outside += !isnan(x);
        least_x = fmin(least_x, x);
        least_q = fmin(least_q, q);
    }
    if (outside == 0)
        return KV_OK;
    return warn(m, diag,
                "%s: %d of %d points of %s lie outside what was measured (evidence_output down to "
                "%.2f, measured to %.2f; query_intact down to %.2f, measured to %.2f): their "
                "accuracy is an extrapolation",
                task->name, outside, points, policy, least_x, task->least_output, least_q,
                task->least_intact);
}

/* True if no earlier point of the results has the point's policy. */
static bool begins_policy(const model *m, int point)
{
    const kv_point_info *p = m->plan->point;
    for (int i = 0; i < point; i++)
        if (!p[i].calibration_only && strcmp(p[i].policy, p[point].policy) == 0)
            return false;
    return !p[point].calibration_only;
}

static kv_err warn_task(model *m, const kv_record_source *source, const char *name,
                        kv_record *records, kv_diag *diag)
{
    const kv_calibration_task *task = find_task(m, name);
    kv_err err = KV_OK;
    if (!covers(m, name))
        return warn(m, diag,
                    "%s: accuracy is a proxy, because %s were measured; a calibration needs %d "
                    "points of %d policies with %d different accuracies",
                    name, task ? "too few points" : "no points of this task",
                    KV_CALIBRATION_LEAST_POINTS, KV_CALIBRATION_LEAST_POLICIES,
                    KV_CALIBRATION_LEAST_ACCURACIES);
    if (task->kind == KV_CALIBRATION_SHARED)
        err = warn(m, diag,
                   "%s: too few points were measured for a fit of its own; it shares one with the "
                   "other tasks",
                   name);
    for (int p = 0; p < m->plan->points && err == KV_OK; p++)
        if (begins_policy(m, p))
            err = warn_policy(m, source, task, p, records, diag);
    return err;
}

/* True if no earlier example of the results has the example's task. */
static bool begins_task(const kv_points_plan *plan, int example)
{
    for (int e = 0; e < example; e++)
        if (!plan->example[e].calibration_only &&
            strcmp(plan->example[e].task, plan->example[example].task) == 0)
            return false;
    return !plan->example[example].calibration_only;
}

static kv_err warn_tasks(model *m, const kv_record_source *source, kv_diag *diag)
{
    int most = 1;
    for (int e = 0; e < m->plan->examples; e++)
        most = m->plan->example[e].turns > most ? m->plan->example[e].turns : most;
    kv_record *records = malloc((size_t)(most + 1) * sizeof *records);
    kv_err err = records ? KV_OK : kv_fail_memory(diag);
    for (int e = 0; e < m->plan->examples && err == KV_OK; e++)
        if (begins_task(m->plan, e))
            err = warn_task(m, source, m->plan->example[e].task, records, diag);
    free(records);
    return err;
}

/* --- Life ------------------------------------------------------------------------------------- */

static void release(void *closure)
{
    model *m = closure;
    for (int i = 0; i < m->warnings; i++)
        free(m->warning[i]);
    free(m->warning);
    free(m->best);
    free(m->draws);
    kv_calibration_free(m->calibration);
    kv_measurements_fini(&m->measured);
    free(m);
}

static kv_err make(const kv_points_plan *plan, long long seed, void **out, kv_diag *diag)
{
    model *m = calloc(1, sizeof *m);
    if (m == NULL)
        return kv_fail_memory(diag);
    m->plan = plan;
    m->seed = seed;
    kv_err err = kv_measurements_parse(plan->accuracy_spec, plan->points, &m->measured, diag);
    if (err == KV_OK)
        *out = m;
    else
        free(m);
    return err;
}

static kv_err draw_tasks(model *m, kv_diag *diag)
{
    int tasks = m->calibration->tasks;
    kv_err err = KV_OK;
    m->best = calloc((size_t)tasks + 1, sizeof *m->best);
    m->draws = calloc((size_t)tasks + 1, sizeof *m->draws);
    if (m->best == NULL || m->draws == NULL)
        return kv_fail_memory(diag);
    for (int t = 0; t < tasks && err == KV_OK; t++) {
        const kv_calibration_task *task = &m->calibration->task[t];
        char purpose[256];
        if (task->kind == KV_CALIBRATION_NONE)
            continue;
        snprintf(purpose, sizeof purpose, "calibration of %s", task->name);
        kv_link_init(&m->best[t], task->fit.theta, task->fit.parameters);
        err = kv__calibration_draw(&task->fit, task->freedom, kv_stream_seed(m->seed, purpose),
                                   &m->draws[t], diag);
    }
    return err;
}

static kv_err fit(void *closure, const kv_record_source *source, kv_diag *diag)
{
    model *m = closure;
    kv_err err = kv_calibration_new(source, &m->measured, m->seed, &m->calibration, diag);
    if (err == KV_OK)
        err = draw_tasks(m, diag);
    if (err == KV_OK)
        err = warn_tasks(m, source, diag);
    return err;
}

/* --- Tables ----------------------------------------------------------------------------------- */

static char *covariance_json(const kv_link_fit *fit)
{
    char *text = NULL;
    size_t bytes;
    FILE *out = open_memstream(&text, &bytes);
    if (out == NULL)
        return NULL;
    for (int i = 0; i < fit->parameters; i++) {
        fputs(i ? ",[" : "[[", out);
        for (int j = 0; j < fit->parameters; j++) {
            fputs(j ? "," : "", out);
            kv_json_real(fit->covariance[i][j], out);
        }
        fputs("]", out);
    }
    fputs("]", out);
    fclose(out);
    return text;
}

static kv_err store_task(const kv_calibration_task *task, kv_run *run, sqlite3_stmt *insert,
                         kv_diag *diag)
{
    static const char *const kinds[] = {"own", "shared", "none"};
    const kv_link_fit *fit = &task->fit;
    bool none = task->kind == KV_CALIBRATION_NONE;
    char *covariance = none ? NULL : covariance_json(fit);
    if (!none && covariance == NULL)
        return kv_fail_memory(diag);
    kv_link link;
    kv_link_init(&link, fit->theta, none ? 0 : fit->parameters);
    int at =
        kv__sql_bind(insert, 1, "ittiiidi", kv_run_id(run), task->name, kinds[task->kind],
                     (long long)task->points, (long long)task->policies, (long long)task->examples,
                     task->full_accuracy, (long long)task->full_measured);
    at = kv__sql_bind(insert, at, "ddddtd", none ? NAN : link.output.b, none ? NAN : link.output.m,
                      none ? NAN : link.query.m, fit->parameters > KV_LINK_GUESS ? link.guess : NAN,
                      covariance, fit->residual_rms);
    at = kv__sql_bind(insert, at, "dddddd", task->mae, task->rms, task->max, task->bias,
                      task->turn_mae, task->coverage);
    kv__sql_bind(insert, at, "dddii", task->spread, task->turn_spread, task->critical_mae,
                 (long long)task->critical_curves, (long long)task->critical_differ);
    kv_err err = kv__sql_run(kv__run_results(run), insert, diag);
    free(covariance);
    return err;
}

static kv_err store_point(const model *m, const kv_calibration_point *point, kv_run *run,
                          sqlite3_stmt *insert, kv_diag *diag)
{
    const kv_point_info *info = &m->plan->point[point->point];
    int at = kv__sql_bind(insert, 1, "itotttodi", kv_run_id(run),
                          m->calibration->task[point->task].name, (long long)point->turn,
                          info->policy, info->params_json, info->label, info->chunk_tokens,
                          point->n > 0 ? point->n : NAN, (long long)point->fitted_to);
    kv__sql_bind(insert, at, "dddddddd", point->accuracy, point->fitted, point->held_out,
                 point->held_out_lo, point->held_out_hi, point->footprint, point->output,
                 point->intact);
    return kv__sql_run(kv__run_results(run), insert, diag);
}

static kv_err prepare(kv_run *run, const char *table, sqlite3_stmt **out, kv_diag *diag)
{
    char *sql = kv_schema_insert(kv_schema_find(table));
    kv_err err = sql ? kv__sql_prepare(kv__run_results(run), sql, out, diag) : kv_fail_memory(diag);
    free(sql);
    return err;
}

static kv_err store(const void *closure, kv_run *run, kv_diag *diag)
{
    const model *m = closure;
    sqlite3_stmt *task = NULL, *point = NULL, *warning = NULL;
    kv_err err = prepare(run, "calibration", &task, diag);
    if (err == KV_OK)
        err = prepare(run, "calibration_point", &point, diag);
    if (err == KV_OK)
        err = prepare(run, "warning", &warning, diag);
    for (int t = 0; t < m->calibration->tasks && err == KV_OK; t++)
        err = store_task(&m->calibration->task[t], run, task, diag);
    for (int i = 0; i < m->calibration->points && err == KV_OK; i++)
        err = store_point(m, &m->calibration->point[i], run, point, diag);
    for (int i = 0; i < m->warnings && err == KV_OK; i++) {
        kv__sql_bind(warning, 1, "iit", kv_run_id(run), (long long)i, m->warning[i]);
        err = kv__sql_run(kv__run_results(run), warning, diag);
    }
    sqlite3_finalize(task);
    sqlite3_finalize(point);
    sqlite3_finalize(warning);
    return err;
}

const kv_accuracy_type kv__accuracy_calibrated = {
    .name = "calibrated",
    .source = "calibrated",
    .interval = "resampling of the examples, the fit's covariance, errors on held-out policies",
    .make = make,
    .release = release,
    .fit = fit,
    .draws = draws,
    .covers = covers,
    .predict = predict,
    .disturb = disturb,
    .measured = measured,
    .store = store,
};
