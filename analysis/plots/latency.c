/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Latencies of requests as cumulative shares: one panel per latency, one line per serving point. */
#include "config.h"

#include "analysis/serving_points.h"
#include "analysis/sheet.h"
#include "analysis/sql.h"

#include <math.h>

static kv_err write_latency(kv_results *results, const kv_plot_options *canvas, FILE *script,
                            kv_diag *diag);

KV_PLOT_DEFINE(latency) = {
    .name = "latency",
    .brief = "share of requests within a latency, per serving point (needs request_results: true)",
    .width = 1200,
    .height = 520,
    .write = write_latency,
};

enum { MOST_SERIES = 12, PANELS = 3, STEPS = 400 /* of a line at most */ };

static const struct {
    const char *column, *title, *label;
    double unit; /* per second */
} panels[PANELS] = {{"ttft_s", "time to the first token", "TTFT (s)", 1},
                    {"tpot_s", "time per further token", "TPOT (ms)", 1e3},
                    {"e2e_s", "time to the last token", "end to end (s)", 1}};

/* Block $dI: latency and share of the requests that have one. */
static kv_err write_data(kv_results *results, const kv_serving_item *item, int number, int panel,
                         FILE *script, kv_diag *diag)
{
    kv_latency_share at[STEPS + 2];
    int count = 0;
    kv_err err =
        kv__serving_latencies(results, panels[panel].column, item->id, STEPS, at, &count, diag);
    fprintf(script, "$d%d << EOD\n", number);
    for (int i = 0; i < count; i++)
        fprintf(script, "%.10g %.10g\n", at[i].seconds * panels[panel].unit, at[i].percent);
    fputs(count ? "EOD\n" : "NaN NaN\nEOD\n", script);
    return err;
}

/* The least and the largest of all that is shown. */
static kv_err find_range(kv_results *results, const kv_serving_list *list, int shown, int panel,
                         double *least, double *most, kv_diag *diag)
{
    kv_err err = KV_OK;
    *least = INFINITY;
    *most = 0;
    for (int i = 0; i < shown && err == KV_OK; i++) {
        sqlite3_stmt *row = NULL;
        err = kv__sql_prepare_text(results, &row, diag,
                                   "SELECT min(%s), max(%s) FROM request_result WHERE point_id = ?",
                                   panels[panel].column, panels[panel].column);
        if (err == KV_OK) {
            kv__sql_bind(row, 1, "i", list->item[i].id);
            err = kv__sql_step(results, row, diag);
        }
        if (err == KV_OK) { /* fmin and fmax leave out NaN */
            *least = fmin(*least, fmax(1e-6, kv__sql_double(row, 0)) * panels[panel].unit);
            *most = fmax(*most, kv__sql_double(row, 1) * panels[panel].unit);
        }
        sqlite3_finalize(row);
    }
    *least = isfinite(*least) && *least < *most ? *least : *most / 10;
    return err;
}

static kv_err write_panel(kv_results *results, const kv_serving_list *list, int shown, int panel,
                          kv_sheet *sheet, kv_diag *diag)
{
    double least, most;
    kv_err err = find_range(results, list, shown, panel, &least, &most, diag);
    for (int i = 0; i < shown && err == KV_OK; i++)
        err = write_data(results, &list->item[i], i, panel, sheet->script, diag);
    kv__sheet_panel(sheet, panel, panels[panel].title, panels[panel].label,
                    kv__sheet_leftmost(sheet, panel) ? "requests within (%)\trequests (%)\t%"
                                                     : NULL);
    kv__sheet_log_x(sheet, panel, least, most);
    kv__sheet_y(sheet, panel, 100);
    fputs("plot ", sheet->script);
    for (int i = 0; i < shown; i++) {
        fprintf(sheet->script, "%s$d%d using 1:2", i > 0 ? ", " : "", i);
        kv__sheet_style(sheet, i, true, false);
    }
    fputs("\n", sheet->script);
    return err;
}

static kv_err write_all(kv_results *results, const kv_serving_list *list,
                        const kv_plot_options *canvas, FILE *script, kv_diag *diag)
{
    kv_sheet sheet;
    char title[512], caption[512];
    int shown = list->items < MOST_SERIES ? list->items : MOST_SERIES;
    kv__sheet_init(&sheet, canvas, script);
    for (int i = 0; i < shown; i++) {
        kv__serving_text(&list->item[i], title, sizeof title);
        kv__sheet_series(&sheet, title, i, true, false);
    }
    kv__serving_caption(list, shown, caption, sizeof caption);
    snprintf(title, sizeof title, "%s: latencies of requests", list->name);
    for (int p = 0; p < PANELS; p++)
        kv__sheet_title(&sheet, panels[p].title);
    kv__sheet_begin(&sheet, PANELS, title, caption);
    kv_err err = KV_OK;
    for (int p = 0; p < PANELS && err == KV_OK; p++)
        err = write_panel(results, list, shown, p, &sheet, diag);
    kv__sheet_end(&sheet);
    return err;
}

static kv_err write_latency(kv_results *results, const kv_plot_options *canvas, FILE *script,
                            kv_diag *diag)
{
    kv_serving_list list;
    kv_mark mark = {kv_results_path(results), 0, 0};
    kv_err err = kv__serving_list_load(
        results, canvas,
        "EXISTS (SELECT 1 FROM request_result r WHERE r.point_id = p.id AND r.e2e_s IS NOT NULL)",
        &list, diag);
    if (err != KV_OK)
        return err;
    if (list.items > 0)
        err = write_all(results, &list, canvas, script, diag);
    else if (list.unfiltered > 0)
        err = kv__serving_list_nothing(results, &list, diag);
    else
        err = kv_fail(diag, KV_ERR_INPUT, &mark,
                      "no latencies of requests are in it; run the experiment with "
                      "`request_results: true` under `serving`");
    kv__serving_list_fini(&list);
    return err;
}
