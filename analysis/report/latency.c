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

static kv_err read_line(const kv_report *report, long long point, int chart, int number, lines *l,
                        kv_diag *diag)
{
    kv_latency_share at[STEPS + 2];
    int count = 0;
    kv_err err = kv__serving_latencies(report->results, charts[chart].column, point, STEPS, at,
                                       &count, diag);
    for (int i = 0; i < count; i++) {
        l->x[number][i] = at[i].seconds * charts[chart].scale;
        l->y[number][i] = at[i].percent;
        l->least = fmin(l->least, l->x[number][i]);
        l->most = fmax(l->most, l->x[number][i]);
    }
    l->line[number] =
        (kv_chart_line){l->name[number], FIRST_SERIES + number, l->x[number], l->y[number], count};
    return err;
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
