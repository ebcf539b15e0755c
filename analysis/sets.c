/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "analysis/sets.h"

#include "analysis/sql.h"
#include "analysis/text.h"

#include <stdlib.h>
#include <string.h>

/* One row per policy, settings and chunk size, with the bare columns of the row of min(). */
static const char point_sql[] =
    "SELECT p.id, p.policy, p.label, p.task, coalesce(p.chunk_size, 0), "
    "printf('%s%s (%.0f\u00a0%%)', p.label, CASE WHEN p.chunk_size IS NULL THEN ', whole' "
    "ELSE ', chunk ' || p.chunk_size END, 100 * coalesce(p.keep, p.kv_footprint)), "
    "min(abs(coalesce(p.keep, p.kv_footprint) - ?2)), coalesce(p.chunk_size, 0) = "
    "(SELECT coalesce(min(o.chunk_size), 0) FROM footprint_point o WHERE o.run_id = p.run_id AND "
    "o.task = p.task AND o.policy = p.policy AND o.curve = p.curve) "
    "FROM footprint_point p WHERE p.run_id = ?1 AND p.turn IS NULL AND EXISTS (SELECT 1 FROM "
    "retained_set s WHERE s.point_id = p.id) GROUP BY p.task, p.policy, p.curve, p.chunk_size "
    "ORDER BY p.id";

static bool named(const char *name, const char *const *names, int count)
{
    for (int i = 0; i < count; i++)
        if (strcmp(names[i], name) == 0)
            return true;
    return count == 0;
}

static bool passes(const kv_plot_options *options, const kv_sets *sets, sqlite3_stmt *row)
{
    const kv_curve_filter *f = &options->filter;
    const char *policy = (const char *)sqlite3_column_text(row, 1);
    const char *label = (const char *)sqlite3_column_text(row, 2);
    const char *task = (const char *)sqlite3_column_text(row, 3);
    bool chunk = f->chunk_count == 0 && sqlite3_column_int(row, 7) != 0;
    for (int i = 0; i < f->chunk_count; i++)
        chunk = chunk || f->chunks[i] == sqlite3_column_int64(row, 4);
    bool policies = f->policy_count == 0 ? strcmp(policy, "full") != 0
                                         : named(policy, f->policies, f->policy_count) ||
                                               named(label, f->policies, f->policy_count);
    return chunk && policies && named(task, f->tasks, f->task_count) &&
           (sets->task == NULL || strcmp(sets->task, task) == 0);
}

static kv_err read_points(kv_results *results, const kv_plot_options *options, int most,
                          kv_sets *out, kv_diag *diag)
{
    sqlite3_stmt *rows = NULL;
    kv_err err = kv__sql_prepare(results, point_sql, &rows, diag);
    if (err == KV_OK)
        kv__sql_bind(rows, 1, "id", out->run_id, options->keep > 0 ? options->keep : 0.25);
    while (err == KV_OK && (err = kv__sql_step(results, rows, diag)) == KV_OK) {
        if (!passes(options, out, rows))
            continue;
        if (out->points == most) {
            out->left_out++;
            continue;
        }
        if (out->task == NULL)
            err = kv__sql_text(rows, 3, &out->task, diag);
        out->point[out->points].id = sqlite3_column_int64(rows, 0);
        if (err == KV_OK)
            err = kv__sql_text(rows, 5, &out->point[out->points++].title, diag);
    }
    sqlite3_finalize(rows);
    return err == KV_END ? KV_OK : err;
}

static kv_err read_run(kv_results *results, const kv_plot_options *options, kv_sets *out,
                       kv_diag *diag)
{
    kv_mark mark = {kv_results_path(results), 0, 0};
    sqlite3_stmt *row;
    kv_err err = kv__sql_first(results, &row, diag,
                               "SELECT id, name, version FROM run WHERE id = CASE ?1 WHEN 0 THEN "
                               "(SELECT id FROM latest_run) ELSE ?1 END",
                               "i", options->filter.run_id);
    if (err == KV_END)
        err = kv_fail(diag, KV_ERR_INPUT, &mark, "there is no such run in it");
    if (err == KV_OK) {
        out->run_id = sqlite3_column_int64(row, 0);
        err = kv__sql_text(row, 1, &out->name, diag);
    }
    if (err == KV_OK)
        err = kv__sql_text(row, 2, &out->version, diag);
    sqlite3_finalize(row);
    return err;
}

static kv_err read_shape(kv_results *results, const kv_plot_options *options, kv_sets *out,
                         kv_diag *diag)
{
    kv_mark mark = {kv_results_path(results), 0, 0};
    sqlite3_stmt *row;
    kv_err err = kv__sql_first(results, &row, diag,
                               "SELECT min(example), max(layer) + 1, max(kv_head) + 1 FROM "
                               "retained_set WHERE point_id = ?1 AND example = coalesce(?2, "
                               "(SELECT min(example) FROM retained_set WHERE point_id = ?1))",
                               "it", out->point[0].id, options->example);
    if (err == KV_OK && sqlite3_column_type(row, 0) == SQLITE_NULL)
        err = kv_fail(diag, KV_ERR_INPUT, &mark, "task %s has no sets of an example '%s'",
                      out->task, options->example ? options->example : "");
    if (err == KV_OK) {
        out->layers = sqlite3_column_int(row, 1);
        out->heads = sqlite3_column_int(row, 2);
        err = kv__sql_text(row, 0, &out->example, diag);
    }
    sqlite3_finalize(row);
    return err;
}

kv_err kv__sets_load(kv_results *results, const kv_plot_options *options, int most, kv_sets *out,
                     kv_diag *diag)
{
    kv_mark mark = {kv_results_path(results), 0, 0};
    *out = (kv_sets){.run_id = 0};
    kv_err err = read_run(results, options, out, diag);
    if (err == KV_OK)
        err = read_points(results, options, most < KV_SETS_MOST ? most : KV_SETS_MOST, out, diag);
    if (err == KV_OK && out->points == 0)
        err = kv_fail(diag, KV_ERR_INPUT, &mark,
                      "no retained sets of such points are in it; run the experiment with "
                      "`keep_sets: true` under `attention`");
    if (err == KV_OK)
        err = read_shape(results, options, out, diag);
    if (err != KV_OK)
        kv__sets_fini(out);
    return err;
}

void kv__sets_fini(kv_sets *sets)
{
    for (int i = 0; i < sets->points; i++)
        free(sets->point[i].title);
    free(sets->name);
    free(sets->version);
    free(sets->task);
    free(sets->example);
    *sets = (kv_sets){.run_id = 0};
}

/* From white to dark blue: lightness alone tells shares apart, to everybody. */
void kv__sets_palette(kv_sheet *sheet, int panel, double most)
{
    double right = (sheet->width - 78.0) / sheet->width;
    kv_box first = kv__sheet_box(sheet, 0), last = kv__sheet_box(sheet, sheet->panels - 1);
    double low = 1 - (last.y + last.height) / sheet->height, high = 1 - first.y / sheet->height;
    double pixels = last.y + last.height - first.y;
    const char *title = kv__text_width(sheet->colour_bar, 14) > pixels ? sheet->short_colour_bar
                                                                       : sheet->colour_bar;
    fprintf(
        sheet->script,
        "set palette defined (0 '#ffffff', 1 '#c6dbef', 2 '#6baed6', 3 '#2171b5', 4 '#08306b')\n"
        "set cbrange [0:%g]\n",
        most);
    if (panel + 1 < sheet->panels)
        return; /* one bar is enough */
    fprintf(sheet->script,
            "set cbtics %g\nset label 90 '%s' at screen %.6f, screen %.6f center rotate by "
            "90\n",
            most / (pixels > 100 ? 4 : 1), title, (sheet->width - 12.0) / sheet->width,
            (low + high) / 2);
    fprintf(sheet->script,
            "set colorbox vertical user origin screen %.6f, screen %.6f size screen %.6f, screen "
            "%.6f\n",
            right, low, 14.0 / sheet->width, high - low);
}

void kv__sets_boxes(kv_sheet *sheet, const char *block)
{
    fprintf(sheet->script,
            "plot %s using (($1+$2)/2):(($3+$4)/2):1:2:3:4:5 with boxxyerror fs solid noborder lc "
            "palette notitle\n",
            block);
}

void kv__sets_caption(const kv_sets *sets, char *out, size_t bytes)
{
    char more[128] = "";
    if (sets->left_out > 0)
        snprintf(more, sizeof more, "%d more: --policy selects. ", sets->left_out);
    snprintf(out, bytes,
             "In brackets: budget (or footprint) in %%; --keep and --chunk-size select others. "
             "%skvsim %s, run %lld.",
             more, sets->version, sets->run_id);
}
