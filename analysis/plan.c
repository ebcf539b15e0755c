/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "analysis/plan.h"

#include "analysis/run.h"
#include "analysis/schema.h"
#include "analysis/sql.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --- what follows from a plan ------------------------------------------------------ */

static int compare_texts(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Collects the tasks of the results in byte order; the names stay the examples'. */
static void sort_tasks(const kv_points_plan *plan, const char **names, int *turns, int *tasks)
{
    int all = 0, count = 0;
    for (int e = 0; e < plan->examples; e++)
        if (!plan->example[e].calibration_only)
            names[all++] = plan->example[e].task;
    qsort(names, (size_t)all, sizeof *names, compare_texts);
    for (int i = 0; i < all; i++)
        if (count == 0 || strcmp(names[count - 1], names[i]) != 0)
            names[count++] = names[i];
    for (int t = 0; t < count; t++) {
        turns[t] = 0;
        for (int e = 0; e < plan->examples; e++) {
            const kv_example_info *example = &plan->example[e];
            if (!example->calibration_only && strcmp(example->task, names[t]) == 0 &&
                example->turns > turns[t])
                turns[t] = example->turns;
        }
    }
    *tasks = count;
}

/* Rows of footprint_point that a task of so many turns has per point. */
static int slots_of(int turns)
{
    return turns > 1 ? turns + 1 : 1;
}

static bool point_has_task(const kv_point_info *point, const char *task)
{
    return !point->calibration_only && (point->task == NULL || strcmp(point->task, task) == 0);
}

int kv__plan_slots(const kv_plan *plan, int task)
{
    return slots_of(plan->task_turns[task]);
}

bool kv__plan_has(const kv_plan *plan, int point, int task)
{
    return point_has_task(&plan->info.point[point], plan->task[task]);
}

long long kv__plan_point_id(const kv_plan *plan, int point, int task)
{
    long long id = plan->first_point;
    for (int p = 0; p <= point; p++) {
        for (int t = 0; t < (p == point ? task : plan->tasks); t++)
            id += kv__plan_has(plan, p, t) ? kv__plan_slots(plan, t) : 0;
    }
    return id;
}

/* --- storing ----------------------------------------------------------------------- */

/* Where two traces call an example by the same name, the trace goes before it. */
static char *unique_name(const kv_points_plan *plan, int e)
{
    const kv_example_info *example = &plan->example[e];
    for (int other = 0; other < plan->examples; other++) {
        if (other != e && strcmp(plan->example[other].name, example->name) == 0) {
            size_t bytes = strlen(example->trace) + strlen(example->name) + 2;
            char *name = malloc(bytes);
            if (name != NULL)
                snprintf(name, bytes, "%s:%s", example->trace, example->name);
            return name;
        }
    }
    return strdup(example->name);
}

static kv_err check_plan(const kv_points_plan *plan, kv_diag *diag)
{
    for (int e = 0; e < plan->examples; e++) {
        const kv_example_info *example = &plan->example[e];
        for (int other = e + 1; other < plan->examples; other++)
            if (strcmp(plan->example[other].trace, example->trace) == 0 &&
                strcmp(plan->example[other].name, example->name) == 0)
                return kv_fail(diag, KV_ERR_INPUT, NULL,
                               "example %s of trace %s is listed twice; list each trace once",
                               example->name, example->trace);
    }
    return KV_OK;
}

/* Opens a statement that inserts rows of a table. */
static kv_err prepare_insert(kv_results *results, const char *table, sqlite3_stmt **out,
                             kv_diag *diag)
{
    char *sql = kv_schema_insert(kv_schema_find(table));
    if (sql == NULL)
        return kv_fail_memory(diag);
    kv_err err = kv__sql_prepare(results, sql, out, diag);
    free(sql);
    return err;
}

static kv_err store_points(kv_run *run, const kv_points_plan *plan, kv_diag *diag)
{
    kv_results *results = kv__run_results(run);
    sqlite3_stmt *insert = NULL;
    kv_err err = prepare_insert(results, "attention_point", &insert, diag);
    for (int p = 0; p < plan->points && err == KV_OK; p++) {
        const kv_point_info *point = &plan->point[p];
        kv__sql_bind(insert, 1, "iittttttodi", kv_run_id(run), (long long)p, point->policy,
                     point->params_json, point->curve_json, point->label,
                     point->saves ? point->saves : "entries", point->task, point->chunk_tokens,
                     point->keep, (long long)point->calibration_only);
        err = kv__sql_run(results, insert, diag);
    }
    sqlite3_finalize(insert);
    return err;
}

static kv_err store_examples(kv_run *run, const kv_points_plan *plan, kv_diag *diag)
{
    kv_results *results = kv__run_results(run);
    sqlite3_stmt *insert = NULL;
    kv_err err = prepare_insert(results, "example", &insert, diag);
    for (int e = 0; e < plan->examples && err == KV_OK; e++) {
        const kv_example_info *example = &plan->example[e];
        char *name = unique_name(plan, e);
        if (name == NULL) {
            err = kv_fail_memory(diag);
            break;
        }
        kv__sql_bind(insert, 1, "iitttiidttii", kv_run_id(run), (long long)e, name, example->name,
                     example->task, (long long)example->turns, (long long)example->prompt_tokens,
                     example->full_score, example->trace, example->digest,
                     (long long)example->calibrates, (long long)example->calibration_only);
        err = kv__sql_run(results, insert, diag);
        free(name);
    }
    sqlite3_finalize(insert);
    return err;
}

static kv_err count_rows(const kv_points_plan *plan, long long *rows, kv_diag *diag)
{
    const char **names = calloc((size_t)plan->examples + 1, sizeof *names);
    int *turns = calloc((size_t)plan->examples + 1, sizeof *turns);
    int tasks = 0;
    *rows = 0;
    if (names != NULL && turns != NULL) {
        sort_tasks(plan, names, turns, &tasks);
        for (int p = 0; p < plan->points; p++)
            for (int t = 0; t < tasks; t++)
                *rows += point_has_task(&plan->point[p], names[t]) ? slots_of(turns[t]) : 0;
    }
    bool memory = names == NULL || turns == NULL;
    free(names);
    free(turns);
    return memory ? kv_fail_memory(diag) : KV_OK;
}

kv_err kv__plan_store(kv_run *run, const kv_points_plan *plan, kv_diag *diag)
{
    kv_results *results = kv__run_results(run);
    long long rows = 0, first = 1;
    kv_err err = check_plan(plan, diag);
    if (err == KV_OK)
        err = count_rows(plan, &rows, diag);
    if (err == KV_OK) /* ids are fixed here, so that they do not depend on who finishes first */
        err = kv__sql_number(results, 1, &first, diag,
                             "SELECT max(first_point + point_rows) FROM attention_run", "");
    if (err == KV_OK)
        err = kv__sql_do(results, diag,
                         "INSERT INTO attention_run (run_id, threshold, confidence, resamples, "
                         "accuracy_model, accuracy_spec, first_point, point_rows) "
                         "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                         "iddittii", kv_run_id(run), plan->critical.threshold,
                         plan->critical.confidence, (long long)plan->critical.resamples,
                         plan->accuracy_model ? plan->accuracy_model : "proxy", plan->accuracy_spec,
                         first, rows);
    if (err == KV_OK)
        err = store_points(run, plan, diag);
    if (err == KV_OK)
        err = store_examples(run, plan, diag);
    return err;
}

/* --- loading ----------------------------------------------------------------------- */

/* What is const in a plan that a caller lends is owned here. */
static void free_text(const char *text)
{
    free((char *)text);
}

void kv__plan_free(kv_plan *plan)
{
    if (plan == NULL)
        return;
    for (int p = 0; p < plan->info.points; p++) {
        const kv_point_info *point = &plan->info.point[p];
        free_text(point->policy);
        free_text(point->params_json);
        free_text(point->curve_json);
        free_text(point->label);
        free_text(point->saves);
        free_text(point->task);
    }
    for (int e = 0; e < plan->info.examples; e++) {
        const kv_example_info *example = &plan->info.example[e];
        free_text(example->trace);
        free_text(example->digest);
        free_text(example->name);
        free_text(example->task);
        free(plan->example_name[e]);
    }
    free((kv_point_info *)plan->info.point);
    free((kv_example_info *)plan->info.example);
    free_text(plan->info.accuracy_model);
    free_text(plan->info.accuracy_spec);
    free(plan->example_name);
    free(plan->task); /* the names are the examples' */
    free(plan->task_turns);
    free(plan);
}

/* Reads a text column into a const field. */
static kv_err load_text(sqlite3_stmt *row, int column, const char **field, kv_diag *diag)
{
    return kv__sql_text(row, column, (char **)field, diag);
}

static kv_err load_point(sqlite3_stmt *row, kv_point_info *point, kv_diag *diag)
{
    kv_err err = load_text(row, 0, &point->policy, diag);
    if (err == KV_OK)
        err = load_text(row, 1, &point->params_json, diag);
    if (err == KV_OK)
        err = load_text(row, 2, &point->curve_json, diag);
    if (err == KV_OK)
        err = load_text(row, 3, &point->label, diag);
    if (err == KV_OK)
        err = load_text(row, 4, &point->saves, diag);
    if (err == KV_OK)
        err = load_text(row, 5, &point->task, diag);
    point->chunk_tokens = sqlite3_column_int64(row, 6);
    point->keep = kv__sql_double(row, 7);
    point->calibration_only = sqlite3_column_int(row, 8) != 0;
    return err;
}

static kv_err load_example(sqlite3_stmt *row, kv_example_info *example, char **unique,
                           kv_diag *diag)
{
    kv_err err = load_text(row, 0, &example->trace, diag);
    if (err == KV_OK)
        err = load_text(row, 1, &example->digest, diag);
    if (err == KV_OK)
        err = load_text(row, 2, &example->name, diag);
    if (err == KV_OK)
        err = load_text(row, 3, &example->task, diag);
    if (err == KV_OK)
        err = kv__sql_text(row, 4, unique, diag);
    example->turns = sqlite3_column_int(row, 5);
    example->full_score = kv__sql_double(row, 6);
    example->calibrates = sqlite3_column_int(row, 7) != 0;
    example->calibration_only = sqlite3_column_int(row, 8) != 0;
    example->prompt_tokens = sqlite3_column_int(row, 9);
    return err;
}

static kv_err load_points(kv_results *results, long long run_id, kv_plan *plan, kv_diag *diag)
{
    long long count = 0;
    sqlite3_stmt *rows = NULL;
    kv_err err =
        kv__sql_number(results, 0, &count, diag,
                       "SELECT count(*) FROM attention_point WHERE run_id = ?", "i", run_id);
    if (err == KV_OK)
        err = kv__sql_prepare(results,
                              "SELECT policy, params, curve, label, saves, task, chunk_size, keep, "
                              "calibration_only FROM attention_point WHERE run_id = ? "
                              "ORDER BY number",
                              &rows, diag);
    kv_point_info *points = calloc((size_t)count + 1, sizeof *points);
    plan->info.point = points;
    if (err == KV_OK && points == NULL)
        err = kv_fail_memory(diag);
    if (err == KV_OK)
        kv__sql_bind(rows, 1, "i", run_id);
    while (err == KV_OK && (err = kv__sql_step(results, rows, diag)) == KV_OK)
        err = load_point(rows, &points[plan->info.points++], diag);
    sqlite3_finalize(rows);
    return err == KV_END ? KV_OK : err;
}

static kv_err load_examples(kv_results *results, long long run_id, kv_plan *plan, kv_diag *diag)
{
    long long count = 0;
    sqlite3_stmt *rows = NULL;
    kv_err err = kv__sql_number(results, 0, &count, diag,
                                "SELECT count(*) FROM example WHERE run_id = ?", "i", run_id);
    if (err == KV_OK)
        err = kv__sql_prepare(results,
                              "SELECT trace, digest, name, task, example, turns, full_score, "
                              "calibrates, calibration_only, prompt_tokens FROM example "
                              "WHERE run_id = ? "
                              "ORDER BY number",
                              &rows, diag);
    kv_example_info *examples = calloc((size_t)count + 1, sizeof *examples);
    plan->info.example = examples;
    plan->example_name = calloc((size_t)count + 1, sizeof *plan->example_name);
    plan->task = calloc((size_t)count + 1, sizeof *plan->task);
    plan->task_turns = calloc((size_t)count + 1, sizeof *plan->task_turns);
    if (err == KV_OK && (examples == NULL || plan->example_name == NULL || plan->task == NULL ||
                         plan->task_turns == NULL))
        err = kv_fail_memory(diag);
    if (err == KV_OK)
        kv__sql_bind(rows, 1, "i", run_id);
    while (err == KV_OK && (err = kv__sql_step(results, rows, diag)) == KV_OK) {
        int e = plan->info.examples++;
        err = load_example(rows, &examples[e], &plan->example_name[e], diag);
    }
    sqlite3_finalize(rows);
    return err == KV_END ? KV_OK : err;
}

static kv_err load_settings(kv_results *results, long long run_id, kv_plan *plan, kv_diag *diag)
{
    sqlite3_stmt *row;
    kv_err err = kv__sql_first(results, &row, diag,
                               "SELECT threshold, confidence, resamples, accuracy_model, "
                               "accuracy_spec, first_point, done FROM attention_run "
                               "WHERE run_id = ?",
                               "i", run_id);
    if (err == KV_OK) {
        plan->info.critical =
            (kv_critical_info){sqlite3_column_double(row, 0), sqlite3_column_double(row, 1),
                               sqlite3_column_int(row, 2)};
        plan->first_point = sqlite3_column_int64(row, 5);
        plan->done = sqlite3_column_int(row, 6) != 0;
        err = load_text(row, 3, &plan->info.accuracy_model, diag);
    }
    if (err == KV_OK)
        err = load_text(row, 4, &plan->info.accuracy_spec, diag);
    sqlite3_finalize(row);
    return err;
}

kv_err kv__plan_load(kv_results *results, long long run_id, kv_plan **out, kv_diag *diag)
{
    kv_plan *plan = calloc(1, sizeof *plan);
    if (plan == NULL)
        return kv_fail_memory(diag);
    kv_err err = load_settings(results, run_id, plan, diag);
    bool absent = err == KV_END;
    if (err == KV_OK)
        err = load_points(results, run_id, plan, diag);
    if (err == KV_OK)
        err = load_examples(results, run_id, plan, diag);
    if (err == KV_OK)
        sort_tasks(&plan->info, (const char **)plan->task, plan->task_turns, &plan->tasks);
    if (err == KV_OK)
        *out = plan;
    else
        kv__plan_free(plan);
    if (absent)
        *out = NULL;
    return absent ? KV_OK : err;
}

/* --- comparing --------------------------------------------------------------------- */

static bool same_text(const char *a, const char *b)
{
    return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

/* Equal to the bit; NaN equals NaN. */
static bool same_real(double a, double b)
{
    return a == b || (isnan(a) && isnan(b));
}

static bool same_point(const kv_point_info *a, const kv_point_info *b)
{
    return same_text(a->policy, b->policy) && same_text(a->params_json, b->params_json) &&
           same_text(a->curve_json, b->curve_json) && same_text(a->label, b->label) &&
           same_text(a->task, b->task) && a->chunk_tokens == b->chunk_tokens &&
           same_real(a->keep, b->keep) && a->calibration_only == b->calibration_only;
}

static bool same_example(const kv_example_info *a, const kv_example_info *b)
{
    return same_text(a->trace, b->trace) && same_text(a->digest, b->digest) &&
           same_text(a->name, b->name) && same_text(a->task, b->task) && a->turns == b->turns &&
           a->prompt_tokens == b->prompt_tokens && same_real(a->full_score, b->full_score) &&
           a->calibrates == b->calibrates && a->calibration_only == b->calibration_only;
}

static bool same_settings(const kv_points_plan *a, const kv_points_plan *b)
{
    const char *model = b->accuracy_model ? b->accuracy_model : "proxy";
    return a->critical.threshold == b->critical.threshold &&
           a->critical.confidence == b->critical.confidence &&
           a->critical.resamples == b->critical.resamples && same_text(a->accuracy_model, model) &&
           same_text(a->accuracy_spec, b->accuracy_spec);
}

kv_err kv__plan_compare(const kv_plan *stored, const kv_points_plan *plan, const char *path,
                        kv_diag *diag)
{
    kv_mark mark = {path, 0, 0};
    const kv_points_plan *old = &stored->info;
    if (old->examples != plan->examples)
        return kv_fail(diag, KV_ERR_INPUT, &mark,
                       "the run was begun on %d examples, now the traces have %d", old->examples,
                       plan->examples);
    for (int e = 0; e < plan->examples; e++)
        if (!same_text(old->example[e].digest, plan->example[e].digest) &&
            same_text(old->example[e].trace, plan->example[e].trace))
            return kv_fail(diag, KV_ERR_INPUT, &mark,
                           "trace %s is not the file the run was begun on (SHA-256 was %.12s..., "
                           "now %.12s...)",
                           plan->example[e].trace, old->example[e].digest, plan->example[e].digest);
    for (int e = 0; e < plan->examples; e++)
        if (!same_example(&old->example[e], &plan->example[e]))
            return kv_fail(
                diag, KV_ERR_INPUT, &mark,
                "the run was begun with example %s of %s in place %d, now it is %s of %s",
                old->example[e].name, old->example[e].trace, e + 1, plan->example[e].name,
                plan->example[e].trace);
    if (old->points != plan->points && !stored->done)
        return kv_fail(diag, KV_ERR_INPUT, &mark,
                       "the run was begun with %d points, now the experiment has %d", old->points,
                       plan->points);
    for (int p = 0; p < old->points; p++)
        if (!same_point(&old->point[p], &plan->point[p]))
            return kv_fail(diag, KV_ERR_INPUT, &mark,
                           "the run was begun with %s %s as point %d, now it is %s %s",
                           old->point[p].policy, old->point[p].params_json, p + 1,
                           plan->point[p].policy, plan->point[p].params_json);
    if (!same_settings(old, plan))
        return kv_fail(diag, KV_ERR_INPUT, &mark,
                       "the run was begun with other settings of critical footprints or accuracy");
    return KV_OK;
}

bool kv__same_curve(const kv_point_info *a, const kv_point_info *b)
{
    return a->chunk_tokens == b->chunk_tokens && strcmp(a->policy, b->policy) == 0 &&
           strcmp(a->curve_json, b->curve_json) == 0;
}
