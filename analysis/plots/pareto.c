/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* A plan: what each configuration costs against its latencies and its accuracy, with the front and
 * the answer marked. */
#include "config.h"

#include "analysis/figure.h"
#include "analysis/sheet.h"
#include "analysis/sql.h"

#include <math.h>
#include <stdlib.h>

static kv_err write_pareto(kv_results *results, const kv_plot_options *canvas, FILE *script,
                           kv_diag *diag);

KV_PLOT_DEFINE(pareto) = {
    .name = "pareto",
    .brief = "cost against latency and accuracy of a plan, with its front (needs `kvsim plan`)",
    .width = 1200,
    .height = 560,
    .write = write_pareto,
};

enum { MOST_SERIES = 12, PANELS = 3 };

static const struct {
    const char *column, *limit, *title, *label;
    double unit;
} panels[PANELS] = {
    {"ttft_p99", "ttft_p99", "time to the first token", "p99 TTFT (s)\tp99 (s)", 1},
    {"tpot_p99", "tpot_p99", "time per further token", "p99 TPOT (ms)\tp99 (ms)", 1e3},
    {"accuracy_of_full", "accuracy", "accuracy, of the full cache's", "accuracy (%)\t%", 100}};

typedef struct front {
    long long run_id, choice[MOST_SERIES], choices; /* that are shown, and all of the run */
    int series;
    char *name, *version, *label[MOST_SERIES];
    bool priced;
    double dearest, most[PANELS]; /* on the axes */
    double limit[PANELS];         /* NaN: none */
    bool cut;                     /* some lie beyond the top */
} front;

/* Latencies far above what is asked for or needed would flatten the rest: of either, so many times.
 */
enum { HEADROOM = 4 };

/* --- reading ---------------------------------------------------------------------------------- */

static kv_err read_run(kv_results *results, const kv_plot_options *options, front *f, kv_diag *diag)
{
    kv_mark mark = {kv_results_path(results), 0, 0};
    sqlite3_stmt *row;
    kv_err err = kv__sql_first(
        results, &row, diag,
        "SELECT id, name, version, (SELECT count(*) FROM plan_choice WHERE run_id = run.id), "
        "(SELECT max(cost_per_hour) FROM plan_choice WHERE run_id = run.id) FROM run WHERE id = "
        "CASE ?1 WHEN 0 THEN (SELECT coalesce((SELECT max(run_id) FROM plan_choice), "
        "(SELECT id FROM latest_run))) ELSE ?1 END",
        "i", options->filter.run_id);
    if (err == KV_END || (err == KV_OK && sqlite3_column_int64(row, 3) == 0))
        err = kv_fail(diag, KV_ERR_INPUT, &mark, "no plan is in it; make one with `kvsim plan`");
    if (err == KV_OK) {
        f->run_id = sqlite3_column_int64(row, 0);
        f->choices = sqlite3_column_int64(row, 3);
        f->priced = !isnan(kv__sql_double(row, 4));
        err = kv__sql_text(row, 1, &f->name, diag);
    }
    if (err == KV_OK)
        err = kv__sql_text(row, 2, &f->version, diag);
    sqlite3_finalize(row);
    return err;
}

/* The configurations that are shown: the answer, those on the front, then by rank. */
static kv_err read_choices(kv_results *results, front *f, kv_diag *diag)
{
    sqlite3_stmt *rows = NULL;
    kv_err err = kv__sql_prepare(
        results,
        "SELECT id, label FROM plan_choice c WHERE run_id = ? ORDER BY rank IS NOT 1, (SELECT "
        "max(pareto) FROM plan_point WHERE choice_id = c.id) DESC, rank IS NULL, rank, number "
        "LIMIT "
        "?",
        &rows, diag);
    if (err == KV_OK)
        kv__sql_bind(rows, 1, "ii", f->run_id, (long long)MOST_SERIES);
    while (err == KV_OK && (err = kv__sql_step(results, rows, diag)) == KV_OK) {
        f->choice[f->series] = sqlite3_column_int64(rows, 0);
        err = kv__sql_text(rows, 1, &f->label[f->series++], diag);
    }
    sqlite3_finalize(rows);
    return err == KV_END ? KV_OK : err;
}

static kv_err read_limit(kv_results *results, front *f, int panel, kv_diag *diag)
{
    sqlite3_stmt *row = NULL;
    kv_err err = kv__sql_prepare(results,
                                 "SELECT value FROM plan_limit WHERE run_id = ? AND metric = ? AND "
                                 "(metric <> 'accuracy' OR text LIKE '%of full')",
                                 &row, diag);
    f->limit[panel] = NAN;
    if (err == KV_OK) {
        kv__sql_bind(row, 1, "it", f->run_id, panels[panel].limit);
        err = kv__sql_step(results, row, diag);
    }
    if (err == KV_OK)
        f->limit[panel] = panels[panel].unit * kv__sql_double(row, 0);
    sqlite3_finalize(row);
    return err == KV_END ? KV_OK : err;
}

/* most: of all latencies; least: the worst of those that a configuration comes down to. */
static void set_top(front *f, int panel, double most, double least)
{
    double needed = fmax(least, f->limit[panel]); /* fmax leaves out NaN */
    f->cut = f->cut || most > HEADROOM * needed;
    f->most[panel] = fmin(fmax(most, f->limit[panel]), HEADROOM * needed);
}

/* How far the axes must reach; limits are known. */
static kv_err read_ranges(kv_results *results, front *f, kv_diag *diag)
{
    sqlite3_stmt *row;
    kv_err err = kv__sql_first(results, &row, diag,
                               "SELECT max(x), max(t), max(o), max(tl), max(ol) FROM (SELECT "
                               "max(coalesce(cost_per_hour, devices)) AS x, max(ttft_p99) AS t, "
                               "max(tpot_p99) AS o, min(ttft_p99) AS tl, min(tpot_p99) AS ol "
                               "FROM plan_point WHERE run_id = ? AND rate_factor = 1 AND "
                               "blocks_factor = 1 GROUP BY choice_id)",
                               "i", f->run_id);
    if (err == KV_OK) {
        f->dearest = fmax(kv__sql_double(row, 0), 0);
        for (int p = 0; p < 2; p++)
            set_top(f, p, fmax(kv__sql_double(row, 1 + p), 0) * panels[p].unit,
                    fmax(kv__sql_double(row, 3 + p), 0) * panels[p].unit);
        f->most[2] = 100;
    }
    sqlite3_finalize(row);
    return err;
}

static void front_fini(front *f)
{
    for (int i = 0; i < f->series; i++)
        free(f->label[i]);
    free(f->name);
    free(f->version);
}

/* --- panels ----------------------------------------------------------------------------------- */

/* A block of cost and a column of points. condition: SQL about plan_point p. */
static kv_err write_block(kv_results *results, const front *f, const char *name, int panel,
                          long long choice, const char *condition, FILE *script, kv_diag *diag)
{
    sqlite3_stmt *rows = NULL;
    kv_err err = kv__sql_prepare_text(
        results, &rows, diag,
        "SELECT coalesce(p.cost_per_hour, p.devices), p.%s FROM plan_point p JOIN plan_choice c ON "
        "c.id = p.choice_id WHERE p.run_id = ?1 AND (?2 IS NULL OR p.choice_id = ?2) AND "
        "rate_factor = 1 AND blocks_factor = 1 AND %s ORDER BY p.replicas",
        panels[panel].column, condition);
    if (err == KV_OK)
        kv__sql_bind(rows, 1, "io", f->run_id, choice);
    fprintf(script, "$%s << EOD\nNaN NaN\n", name);
    while (err == KV_OK && (err = kv__sql_step(results, rows, diag)) == KV_OK)
        fprintf(script, "%.10g %.10g\n", kv__sql_double(rows, 0),
                panels[panel].unit * kv__sql_double(rows, 1));
    fputs("EOD\n", script);
    sqlite3_finalize(rows);
    return err == KV_END ? KV_OK : err;
}

static kv_err write_blocks(kv_results *results, const front *f, int panel, FILE *script,
                           kv_diag *diag)
{
    char name[24];
    kv_err err = KV_OK;
    for (int i = 0; i < f->series && err == KV_OK; i++) {
        snprintf(name, sizeof name, "d%d", i);
        err = write_block(results, f, name, panel, f->choice[i], "1", script, diag);
    }
    if (err == KV_OK)
        err = write_block(results, f, "f", panel, 0, "p.pareto", script, diag);
    return err == KV_OK ? write_block(results, f, "a", panel, 0,
                                      "c.rank = 1 AND p.replicas = c.replicas", script, diag)
                        : err;
}

static kv_err write_panel(kv_results *results, const front *f, int panel, kv_sheet *sheet,
                          kv_diag *diag)
{
    FILE *script = sheet->script;
    double limit = f->limit[panel];
    kv_err err = write_blocks(results, f, panel, script, diag);
    if (err != KV_OK)
        return err;
    kv__sheet_panel(sheet, panel, panels[panel].title, f->priced ? "cost per hour" : "devices",
                    panels[panel].label);
    kv__sheet_x(sheet, panel, 0, 1.05 * f->dearest);
    kv__sheet_y(sheet, panel, f->most[panel]);
    fputs(panel == 2 ? "set yrange [0:105]\nplot " : "plot ", script);
    if (!isnan(limit))
        fprintf(script, "%.10g with lines lw 1 dt 2 lc rgb '#808080' notitle, ", limit);
    for (int i = 0; i < f->series; i++) {
        fprintf(script, "%s$d%d using 1:2", i > 0 ? ", " : "", i);
        kv__sheet_style(sheet, i, true, true);
    }
    fprintf(script,
            ", $f using 1:2 with points pt 6 ps %.3g lw 1.5 lc rgb '#404040' notitle, $a using 1:2 "
            "with points pt 3 ps %.3g lw 2 lc rgb '#000000' notitle\n",
            1.9 * sheet->scale, 2.4 * sheet->scale);
    return KV_OK;
}

static void list_entries(const front *f, kv_sheet *sheet)
{
    for (int i = 0; i < f->series; i++)
        kv__sheet_series(sheet, f->label[i], i, true, true);
    kv_sheet_entry *entry = kv__sheet_entry(sheet, "limit");
    snprintf(entry->line, sizeof entry->line, "lines lw 1 dt 2 lc rgb '#808080'");
    entry = kv__sheet_entry(sheet, "on the front");
    snprintf(entry->point, sizeof entry->point, "points pt 6 ps %.3g lw 1.5 lc rgb '#404040'",
             1.9 * sheet->scale);
    entry = kv__sheet_entry(sheet, "the answer");
    snprintf(entry->point, sizeof entry->point, "points pt 3 ps %.3g lw 2 lc rgb '#000000'",
             2.4 * sheet->scale);
}

static kv_err write_pareto(kv_results *results, const kv_plot_options *canvas, FILE *script,
                           kv_diag *diag)
{
    front f = {.run_id = 0};
    kv_sheet sheet;
    char title[512], caption[512];
    kv_err err = read_run(results, canvas, &f, diag);
    if (err == KV_OK)
        err = read_choices(results, &f, diag);
    for (int p = 0; p < PANELS && err == KV_OK; p++)
        err = read_limit(results, &f, p, diag);
    if (err == KV_OK)
        err = read_ranges(results, &f, diag);
    if (err == KV_OK) {
        kv__sheet_init(&sheet, canvas, script);
        list_entries(&f, &sheet);
        snprintf(title, sizeof title, "%s: what each configuration costs and gives", f.name);
        snprintf(
            caption, sizeof caption,
            "Points of a line differ in their replicas: those that were tried, and from the least "
            "that keep the limits to twice as many, at most 8 more.%s On the front: it keeps all "
            "limits, and nothing else that does is at least as accurate, as cheap and as fast, and "
            "better in one. Shown: %d of %lld configurations. kvsim %s, run %lld.",
            f.cut ? " Latencies far above what is needed lie beyond the top." : "", f.series,
            f.choices, f.version, f.run_id);
        for (int p = 0; p < PANELS; p++)
            kv__sheet_title(&sheet, panels[p].title);
        kv__sheet_begin(&sheet, PANELS, title, caption);
        for (int p = 0; p < PANELS && err == KV_OK; p++)
            err = write_panel(results, &f, p, &sheet, diag);
        kv__sheet_end(&sheet);
    }
    front_fini(&f);
    return err;
}
