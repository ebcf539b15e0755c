/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "sim/measured.h"

#include "analysis/measurements.h"
#include "sim/base/csv.h"
#include "sim/base/file.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* --- Reading ---------------------------------------------------------------------------------- */

typedef struct reader {
    kv_measured *measured;
    kv_csv *csv;
    char *directory;
    int task, policy, chunk_size, accuracy, turn, n; /* columns; the last two may be -1 */
    int room;
} reader;

static kv_err find_columns(reader *r, kv_diag *diag)
{
    kv_err err = kv_csv_need(r->csv, "task", &r->task, diag);
    if (err == KV_OK)
        err = kv_csv_need(r->csv, "policy", &r->policy, diag);
    if (err == KV_OK)
        err = kv_csv_need(r->csv, "chunk_size", &r->chunk_size, diag);
    if (err == KV_OK)
        err = kv_csv_need(r->csv, "accuracy", &r->accuracy, diag);
    r->turn = kv_csv_find(r->csv, "turn");
    r->n = kv_csv_find(r->csv, "n");
    return err;
}

static kv_err read_chunk_size(const reader *r, long long *tokens, kv_diag *diag)
{
    kv_mark mark = kv_csv_mark(r->csv, r->chunk_size);
    const char *text = kv_csv_field(r->csv, r->chunk_size);
    *tokens = 0;
    if (strcmp(text, "whole") == 0)
        return KV_OK;
    if (kv_csv_int(r->csv, r->chunk_size, 1, INT_MAX, tokens, NULL) == KV_OK)
        return KV_OK;
    return kv_fail(diag, KV_ERR_INPUT, &mark,
                   "chunk_size is '%s', expected a number of tokens from 1 or `whole`", text);
}

static bool has_path(const kv_param *table, const void *config)
{
    for (const kv_param *p = table; p->name != NULL; p++) {
        if (kv_param_absent(p, config))
            continue;
        const kv_item *item = (const kv_item *)((const char *)config + p->offset);
        if (p->type == KV_PATH || (p->type == KV_ITEM && has_path(item->params, item->config)))
            return true;
    }
    return false;
}

static bool names_a_file(const kv_point_spec *spec)
{
    for (int i = 0; i < kv_spec_named(spec); i++) {
        kv_part part = kv_spec_get(spec, i);
        if (has_path(part.method.params, part.config))
            return true;
    }
    return false;
}

/* Parses the policy of a row. Most rows repeat one, so the point is looked up. */
static kv_err read_policy(reader *r, int *point, kv_diag *diag)
{
    kv_point_list *points = &r->measured->points;
    kv_mark mark = kv_csv_mark(r->csv, r->policy);
    kv_point_list cell = {0};
    long long chunk_tokens;
    mark.path = r->measured->path;
    kv_err err = read_chunk_size(r, &chunk_tokens, diag);
    if (err == KV_OK)
        err =
            kv_policy_parse_text(kv_csv_field(r->csv, r->policy), &mark, r->directory, &cell, diag);
    if (err == KV_OK && cell.count != 1)
        err = kv_fail(diag, KV_ERR_INPUT, &mark,
                      "%d policies; expected one, with one value for each setting", cell.count);
    if (err == KV_OK && cell.point->chunk_tokens != KV_CHUNK_NOT_GIVEN)
        err = kv_fail(diag, KV_ERR_INPUT, &mark,
                      "chunk_size within the policy; expected it in the column chunk_size only");
    for (*point = 0; err == KV_OK && *point < points->count; ++*point)
        if (points->point[*point].chunk_tokens == chunk_tokens &&
            kv_spec_same(&points->point[*point], cell.point))
            break;
    if (err == KV_OK && *point == points->count)
        err = kv_point_list_add(points, cell.point, chunk_tokens, diag);
    kv_point_list_fini(&cell);
    return err;
}

static kv_err read_task(const reader *r, char **task, kv_diag *diag)
{
    kv_mark mark = kv_csv_mark(r->csv, r->task);
    const char *text = kv_csv_field(r->csv, r->task);
    if (*text == '\0' || strpbrk(text, "\n\r") != NULL)
        return kv_fail(diag, KV_ERR_INPUT, &mark, "expected the name of a task");
    *task = strdup(text);
    return *task ? KV_OK : kv_fail_memory(diag);
}

/* Fields that may be empty, or whose column may be missing. */
static kv_err read_optional(const reader *r, int column, int *out, kv_diag *diag)
{
    long long value = 0;
    kv_err err = KV_OK;
    if (kv_csv_field(r->csv, column)[0] != '\0')
        err = kv_csv_int(r->csv, column, 1, INT_MAX, &value, diag);
    *out = (int)value;
    return err;
}

static kv_err refuse_twice(const reader *r, const kv_measured_row *row, kv_diag *diag)
{
    kv_mark mark = {r->measured->path, row->line, 0};
    for (int i = 0; i < r->measured->rows; i++) {
        const kv_measured_row *old = &r->measured->row[i];
        if (old->point == row->point && old->turn == row->turn && strcmp(old->task, row->task) == 0)
            return kv_fail(diag, KV_ERR_INPUT, &mark,
                           "task, turn, policy and chunk_size are those of line %d; expected each "
                           "point once",
                           old->line);
    }
    return KV_OK;
}

static kv_err read_row(reader *r, kv_measured_row *row, kv_diag *diag)
{
    int n = 0;
    row->line = kv_csv_mark(r->csv, -1).line;
    kv_err err = read_policy(r, &row->point, diag);
    if (err == KV_OK)
        err = kv_csv_real(r->csv, r->accuracy, 0, 1, &row->accuracy, diag);
    if (err == KV_OK)
        err = read_optional(r, r->turn, &row->turn, diag);
    if (err == KV_OK)
        err = read_optional(r, r->n, &n, diag);
    row->n = n;
    if (err == KV_OK)
        err = read_task(r, &row->task, diag);
    if (err == KV_OK)
        err = refuse_twice(r, row, diag);
    return err;
}

static kv_err grow(reader *r, kv_diag *diag)
{
    if (r->measured->rows < r->room)
        return KV_OK;
    int room = r->room ? 2 * r->room : 64;
    void *grown = realloc(r->measured->row, (size_t)room * sizeof *r->measured->row);
    if (grown == NULL)
        return kv_fail_memory(diag);
    r->measured->row = grown;
    r->room = room;
    return KV_OK;
}

static kv_err read_rows(reader *r, kv_diag *diag)
{
    kv_err err = find_columns(r, diag);
    while (err == KV_OK && (err = kv_csv_next(r->csv, diag)) == KV_OK) {
        kv_measured_row row = {0};
        err = grow(r, diag);
        if (err == KV_OK)
            err = read_row(r, &row, diag);
        if (err == KV_OK)
            r->measured->row[r->measured->rows++] = row;
        else
            free(row.task);
    }
    kv_mark mark = {r->measured->path, 0, 0};
    if (err == KV_END && r->measured->rows == 0)
        return kv_fail(diag, KV_ERR_INPUT, &mark, "no rows; expected measured accuracies");
    return err == KV_END ? KV_OK : err;
}

/* The setting by which a policy that draws random numbers is given other ones; NULL: it draws none,
 * or the row says which. */
static const kv_param *free_seed(const kv_point_spec *spec)
{
    const kv_param *seed = kv_param_find(spec->policy->params, "seed");
    return seed != NULL && kv_param_absent(seed, spec->config) ? seed : NULL;
}

static kv_err add_draw(kv_measured *measured, int point, int draw, kv_diag *diag)
{
    char text[32];
    const kv_point_spec from = measured->points.point[point];
    kv_err err = kv_point_list_add(&measured->points, &from, from.chunk_tokens, diag);
    if (err != KV_OK)
        return err;
    kv_point_spec *copy = &measured->points.point[measured->points.count - 1];
    snprintf(text, sizeof text, "%d", 7919 * draw); /* any seed that nobody else would choose */
    return kv_param_set(free_seed(copy), copy->config, text, NULL, diag);
}

static kv_err add_draws(kv_measured *measured, kv_diag *diag)
{
    kv_err err = KV_OK;
    measured->distinct = measured->points.count;
    measured->draw = calloc((size_t)measured->distinct + 1, sizeof *measured->draw);
    if (measured->draw == NULL)
        return kv_fail_memory(diag);
    for (int p = 0; p < measured->distinct && err == KV_OK; p++) {
        if (free_seed(&measured->points.point[p]) == NULL)
            continue;
        measured->draw[p] = measured->points.count;
        for (int d = 1; d < KV_MEASURED_DRAWS && err == KV_OK; d++)
            err = add_draw(measured, p, d, diag);
    }
    return err;
}

kv_err kv_measured_read(const char *path, kv_measured **out, kv_diag *diag)
{
    reader r = {.measured = calloc(1, sizeof *r.measured), .directory = kv_path_directory(path)};
    kv_err err = r.measured && r.directory ? kv_csv_open(path, &r.csv, diag) : kv_fail_memory(diag);
    if (err == KV_OK)
        r.measured->path = strdup(path);
    if (err == KV_OK)
        err = r.measured->path ? read_rows(&r, diag) : kv_fail_memory(diag);
    if (err == KV_OK)
        err = add_draws(r.measured, diag);
    kv_csv_close(r.csv);
    free(r.directory);
    if (err == KV_OK)
        *out = r.measured;
    else
        kv_measured_free(r.measured);
    return err;
}

void kv_measured_free(kv_measured *measured)
{
    if (measured == NULL)
        return;
    for (int i = 0; i < measured->rows; i++)
        free(measured->row[i].task);
    free(measured->row);
    kv_point_list_fini(&measured->points);
    free(measured->draw);
    free(measured->path);
    free(measured);
}

/* --- Planning --------------------------------------------------------------------------------- */

typedef struct planner {
    const kv_measured *measured;
    kv_sweep_plan *plan;
    bool same_examples; /* those of the calibration are those of the results */
    kv_measurements list;
} planner;

/* The calibrating example's task of that name, with the most turns of its examples; NULL: none. */
static const char *find_task(const kv_sweep_plan *plan, const char *name, int *turns)
{
    const char *task = NULL;
    *turns = 0;
    for (int e = 0; e < plan->examples; e++) {
        const kv_example_info *info = &plan->example[e].info;
        if (!info->calibrates || strcmp(info->task, name) != 0)
            continue;
        task = info->task;
        *turns = info->turns > *turns ? info->turns : *turns;
    }
    return task;
}

/* True if the row's accuracy is that of a point of the plan. */
static bool is_point(const planner *p, const kv_sweep_point *point, const kv_point_spec *spec,
                     const char *task)
{
    kv_point_spec planned = {.policy = point->replay.policy,
                             .config = (void *)point->replay.config,
                             .implied = point->implied,
                             .part = (kv_part *)point->replay.part,
                             .parts = point->replay.parts};
    if (point->info.task != NULL ? strcmp(point->info.task, task) != 0 : !p->same_examples)
        return false;
    return point->info.chunk_tokens == spec->chunk_tokens && kv_spec_same(&planned, spec) &&
           (!names_a_file(spec) || strcmp(point->replay.directory, spec->directory) == 0);
}

/* Finds a point of the plan or adds it. */
static kv_err place_point(planner *p, int index, const char *task, int *point, kv_diag *diag)
{
    const kv_point_spec *spec = &p->measured->points.point[index];
    for (*point = 0; *point < p->plan->points; ++*point)
        if (is_point(p, &p->plan->point[*point], spec, task))
            return KV_OK;
    return kv_sweep_plan_point(p->plan, spec, task, true, point, diag);
}

static kv_err place_row(planner *p, const kv_measured_row *row, const char *task, int turns,
                        kv_diag *diag)
{
    kv_mark mark = {p->measured->path, row->line, 0};
    if (row->turn > turns)
        return kv_fail(diag, KV_ERR_INPUT, &mark,
                       "turn is %d, but the recorded examples of task %s have at most %d",
                       row->turn, task, turns);
    kv_measurement *out = &p->list.row[p->list.count];
    int draw = p->measured->draw[row->point], draws = draw ? KV_MEASURED_DRAWS : 1;
    *out = (kv_measurement){
        .turn = row->turn, .accuracy = row->accuracy, .n = row->n, .task = strdup(task)};
    if (out->task == NULL)
        return kv_fail_memory(diag);
    p->list.count++;
    kv_err err = KV_OK;
    for (int d = 0; d < draws && err == KV_OK; d++)
        err = place_point(p, d ? draw + d - 1 : row->point, task, &out->point[out->points++], diag);
    return err;
}

/* Adds a name to a comma-separated list, once. */
static kv_err add_name(char **list, const char *name, kv_diag *diag)
{
    size_t length = *list ? strlen(*list) : 0, bytes = strlen(name);
    for (const char *at = *list; at != NULL && (at = strstr(at, name)) != NULL; at += bytes)
        if ((at == *list || at[-1] == ' ') && (at[bytes] == ',' || at[bytes] == '\0'))
            return KV_OK;
    char *grown = realloc(*list, length + bytes + 3);
    if (grown == NULL)
        return kv_fail_memory(diag);
    *list = grown;
    snprintf(grown + length, bytes + 3, "%s%s", length ? ", " : "", name);
    return KV_OK;
}

static bool is_wanted(const kv_texts *tasks, const char *name)
{
    for (int t = 0; t < tasks->count; t++)
        if (strcmp(tasks->text[t], name) == 0)
            return true;
    return tasks->count == 0;
}

static bool same_examples(const kv_sweep_plan *plan)
{
    for (int e = 0; e < plan->examples; e++)
        if (!plan->example[e].info.calibrates || plan->example[e].info.calibration_only)
            return false;
    return true;
}

static kv_err place_rows(planner *p, const kv_texts *tasks, char **unknown, kv_diag *diag)
{
    kv_err err = KV_OK;
    for (int i = 0; i < p->measured->rows && err == KV_OK; i++) {
        const kv_measured_row *row = &p->measured->row[i];
        int turns;
        const char *task = find_task(p->plan, row->task, &turns);
        if (task != NULL)
            err = place_row(p, row, task, turns, diag);
        else if (is_wanted(tasks, row->task))
            err = add_name(unknown, row->task, diag);
    }
    kv_mark mark = {p->measured->path, 0, 0};
    if (err == KV_OK && p->list.count == 0)
        err = kv_fail(diag, KV_ERR_INPUT, &mark,
                      "no recorded example has a task of this file (%s); `kvsim trace info` lists "
                      "the tasks of a trace",
                      *unknown ? *unknown : p->measured->row[0].task);
    return err;
}

static char *skipped_sentence(const char *path, const char *unknown)
{
    static const char format[] = "%s: rows of tasks that no recorded example has are left out: %s";
    size_t bytes = sizeof format + strlen(path) + strlen(unknown);
    char *text = malloc(bytes);
    if (text != NULL)
        snprintf(text, bytes, format, path, unknown);
    return text;
}

kv_err kv_measured_plan(const kv_measured *measured, const kv_texts *tasks, kv_sweep_plan *plan,
                        char **spec, char **skipped, kv_diag *diag)
{
    planner p = {.measured = measured, .plan = plan, .same_examples = same_examples(plan)};
    char *unknown = NULL;
    p.list.row = calloc((size_t)measured->rows + 1, sizeof *p.list.row);
    kv_err err = p.list.row ? place_rows(&p, tasks, &unknown, diag) : kv_fail_memory(diag);
    *spec = *skipped = NULL;
    if (err == KV_OK && (*spec = kv_measurements_write(&p.list)) == NULL)
        err = kv_fail_memory(diag);
    if (err == KV_OK && unknown != NULL &&
        (*skipped = skipped_sentence(measured->path, unknown)) == NULL)
        err = kv_fail_memory(diag);
    if (err != KV_OK) {
        free(*spec);
        *spec = NULL;
    }
    free(unknown);
    kv_measurements_fini(&p.list);
    return err;
}
