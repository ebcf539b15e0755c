/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Latencies of requests as cumulative shares: a chart per latency, a line per serving point. */
#include "config.h"

#include "analysis/chart.h"
#include "analysis/html.h"
#include "analysis/report.h"
#include "analysis/serving_points.h"
#include "analysis/sql.h"

#include <math.h>
#include <stdlib.h>

static kv_err write_latency(const kv_report *report, FILE *out, kv_diag *diag);

KV_SECTION_DEFINE(latency) = {
    .name = "latency",
    .title = "Latencies of requests",
    .write = write_latency,
};

/* Numbers of series stand apart from those of curves and timelines, which have buttons, too. */
enum { MOST_POINTS = 12, STEPS = 200 /* of a line at most */, FIRST_SERIES = 2000 };

static const struct {
    const char *column, *title, *label, *unit;
    double scale; /* per second */
} charts[] = {{"ttft_s", "Time to the first token", "TTFT (s)", "s", 1},
              {"tpot_s", "Time per further token", "TPOT (ms)", "ms", 1e3},
              {"e2e_s", "Time to the last token", "end to end (s)", "s", 1}};

enum { CHARTS = sizeof charts / sizeof charts[0] };

/* The lines of a chart. */
typedef struct lines {
    kv_chart_line line[MOST_POINTS];
    char name[MOST_POINTS][512];
    double x[MOST_POINTS][STEPS + 2], y[MOST_POINTS][STEPS + 2];
    double least, most;
} lines;

/* Latencies of a point in ascending order, each with the share of the requests that have it or
 * less. Values of 0 have no place on a logarithmic axis and are put at its left end. */
static kv_err read_line(const kv_report *report, long long point, int chart, int number, lines *l,
                        kv_diag *diag)
{
    char *sql = sqlite3_mprintf(
        "SELECT v, at, n FROM (SELECT %s AS v, row_number() OVER (ORDER BY %s) AS at, count(*) "
        "OVER () AS n FROM request_result WHERE point_id = ?1 AND %s IS NOT NULL) WHERE at = 1 OR "
        "at = n OR at %% (n / %d + 1) = 0 ORDER BY at",
        charts[chart].column, charts[chart].column, charts[chart].column, STEPS);
    sqlite3_stmt *rows = NULL;
    if (sql == NULL)
        return kv_fail_memory(diag);
    kv_err err = kv__sql_prepare(report->results, sql, &rows, diag);
    sqlite3_free(sql);
    if (err == KV_OK)
        kv__sql_bind(rows, 1, "i", point);
    int count = 0;
    while (err == KV_OK && count < STEPS + 2 &&
           (err = kv__sql_step(report->results, rows, diag)) == KV_OK) {
        double value = fmax(1e-6, kv__sql_double(rows, 0)) * charts[chart].scale;
        l->x[number][count] = value;
        l->y[number][count++] = 100 * kv__sql_double(rows, 1) / kv__sql_double(rows, 2);
        l->least = fmin(l->least, value);
        l->most = fmax(l->most, value);
    }
    sqlite3_finalize(rows);
    l->line[number] =
        (kv_chart_line){l->name[number], FIRST_SERIES + number, l->x[number], l->y[number], count};
    return err == KV_END ? KV_OK : err;
}

static kv_err write_chart(const kv_report *report, const kv_serving_list *list, int shown,
                          int chart, lines *l, FILE *out, kv_diag *diag)
{
    kv_err err = KV_OK;
    l->least = INFINITY;
    l->most = 0;
    for (int i = 0; i < shown && err == KV_OK; i++)
        err = read_line(report, list->item[i].id, chart, i, l, diag);
    if (err != KV_OK || !(l->most > 0))
        return err;
    kv_chart drawn = {.x_label = charts[chart].label,
                      .y_label = "requests within (%)",
                      .description = charts[chart].title,
                      .x_least = l->least,
                      .x_most = l->most,
                      .y_most = 100 / 1.05,
                      .line = l->line,
                      .lines = shown,
                      .x_unit = charts[chart].unit,
                      .y_unit = "%"};
    fprintf(out, "<figure>\n<h3>%s</h3>\n", charts[chart].title);
    kv__chart_write(&drawn, out);
    fputs("</figure>\n", out);
    return KV_OK;
}

static kv_err write_all(const kv_report *report, const kv_serving_list *list, lines *l, FILE *out,
                        kv_diag *diag)
{
    int shown = list->items < MOST_POINTS ? list->items : MOST_POINTS;
    kv_err err = KV_OK;
    fputs("<div class=\"legend\" role=\"group\" aria-label=\"Lines: press to hide or show\">\n",
          out);
    for (int i = 0; i < shown; i++) {
        kv__serving_text(&list->item[i], l->name[i], sizeof l->name[i]);
        kv__chart_button(l->name[i], FIRST_SERIES + i, out);
    }
    fputs("</div>\n<div class=\"figures\">\n", out);
    for (int c = 0; c < CHARTS && err == KV_OK; c++)
        err = write_chart(report, list, shown, c, l, out, diag);
    fputs("</div>\n", out);
    if (shown < list->items)
        fprintf(out,
                "<p class=\"soft\">Shown: %d of %d; <code>kvsim plot RESULTS.db latency --point "
                "N</code> draws any.</p>\n",
                shown, list->items);
    return err;
}

static kv_err write_latency(const kv_report *report, FILE *out, kv_diag *diag)
{
    kv_plot_options all = {.filter = {.run_id = report->run_id}};
    kv_serving_list list;
    kv_err err = kv__serving_list_load(
        report->results, &all,
        "EXISTS (SELECT 1 FROM request_result r WHERE r.point_id = p.id AND r.e2e_s IS NOT NULL)",
        &list, diag);
    if (err != KV_OK)
        return err;
    lines *l = list.items > 0 ? calloc(1, sizeof *l) : NULL;
    if (list.items == 0)
        err = KV_END;
    else
        err = l != NULL ? write_all(report, &list, l, out, diag) : kv_fail_memory(diag);
    free(l);
    kv__serving_list_fini(&list);
    return err;
}
