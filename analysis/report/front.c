/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* A plan: what each configuration costs against its latencies and its accuracy. */
#include "config.h"

#include "analysis/chart.h"
#include "analysis/html.h"
#include "analysis/report.h"
#include "analysis/sql.h"

#include <math.h>
#include <stdlib.h>

static kv_err write_front(const kv_report *report, FILE *out, kv_diag *diag);

KV_SECTION_DEFINE(front) = {
    .name = "front",
    .title = "Cost against latency and accuracy",
    .write = write_front,
};

/* Numbers of series stand apart from those of the other sections, which have buttons, too. */
enum { MOST_CHOICES = 12, MOST_POINTS = 64 /* of a line */, FIRST_SERIES = 3000 };

/* Latencies far above what is asked for or needed lie beyond the top: they would flatten the rest.
 */
enum { HEADROOM = 4 };

static const struct {
    const char *title, *label, *unit;
    double scale; /* per unit of the table */
} charts[] = {{"Time to the first token", "p99 TTFT (s)", "s", 1},
              {"Time per further token", "p99 TPOT (ms)", "ms", 1e3},
              {"Accuracy", "% of the full cache's", "%", 100}};

enum { CHARTS = sizeof charts / sizeof charts[0], ACCURACY = CHARTS - 1 };

/* A configuration by its replicas, and what limits ask for. */
typedef struct plan_line {
    long long choice;
    char name[512];
    double x[MOST_POINTS], y[CHARTS][MOST_POINTS];
    int points;
} plan_line;

typedef struct plan_lines {
    plan_line line[MOST_CHOICES + 1]; /* the last: room for the limit */
    int lines, hidden;
    bool priced;
    double dearest, limit[CHARTS]; /* NaN: none */
} plan_lines;

/* The answer first, then by rank. The three columns behind the cost are those of `charts`. */
static const char point_sql[] =
    "SELECT c.id, c.label, coalesce(p.cost_per_hour, p.devices), p.ttft_p99, p.tpot_p99, "
    "p.accuracy_of_full, p.cost_per_hour FROM plan_point p JOIN plan_choice c ON c.id = "
    "p.choice_id WHERE p.run_id = ? AND rate_factor = 1 AND blocks_factor = 1 ORDER BY c.rank IS "
    "NULL, c.rank, c.number, p.replicas";

static void take_point(plan_lines *l, sqlite3_stmt *row)
{
    long long choice = sqlite3_column_int64(row, 0);
    plan_line *line = l->lines > 0 ? &l->line[l->lines - 1] : NULL;
    if (line == NULL || line->choice != choice) {
        if (l->lines == MOST_CHOICES) {
            l->hidden++;
            return;
        }
        line = &l->line[l->lines++];
        line->choice = choice;
        snprintf(line->name, sizeof line->name, "%s", sqlite3_column_text(row, 1));
    }
    if (line->points == MOST_POINTS)
        return;
    double cost = kv__sql_double(row, 2);
    line->x[line->points] = cost;
    for (int c = 0; c < CHARTS; c++)
        line->y[c][line->points] = charts[c].scale * kv__sql_double(row, 3 + c);
    line->points++;
    l->dearest = fmax(l->dearest, cost);
    l->priced = l->priced || !isnan(kv__sql_double(row, 6));
}

static kv_err read_points(const kv_report *report, plan_lines *l, kv_diag *diag)
{
    sqlite3_stmt *row = NULL;
    kv_err err = kv__sql_prepare(report->results, point_sql, &row, diag);
    if (err == KV_OK)
        kv__sql_bind(row, 1, "i", report->run_id);
    while (err == KV_OK && (err = kv__sql_step(report->results, row, diag)) == KV_OK)
        take_point(l, row);
    sqlite3_finalize(row);
    return err == KV_END ? KV_OK : err;
}

static kv_err read_limits(const kv_report *report, plan_lines *l, kv_diag *diag)
{
    sqlite3_stmt *row;
    kv_err err = kv__sql_first(
        report->results, &row, diag,
        "SELECT max(value) FILTER (WHERE metric = 'ttft_p99'), max(value) FILTER (WHERE metric = "
        "'tpot_p99'), max(value) FILTER (WHERE metric = 'accuracy' AND text LIKE '%of full') FROM "
        "plan_limit WHERE run_id = ?",
        "i", report->run_id);
    for (int c = 0; c < CHARTS && err == KV_OK; c++)
        l->limit[c] = charts[c].scale * kv__sql_double(row, c);
    sqlite3_finalize(row);
    return err;
}

/* Where the y axis ends. fmin and fmax leave out NaN. */
static double top_of(const plan_lines *l, int chart)
{
    double needed = isnan(l->limit[chart]) ? 0 : l->limit[chart], most = needed;
    for (int i = 0; i < l->lines; i++) {
        double least = INFINITY;
        for (int p = 0; p < l->line[i].points; p++) {
            least = fmin(least, l->line[i].y[chart][p]);
            most = fmax(most, l->line[i].y[chart][p]);
        }
        needed = isfinite(least) ? fmax(needed, least) : needed;
    }
    return chart == ACCURACY ? 100 : fmin(most, HEADROOM * needed);
}

/* Moves the points of a line that have a place on the chart to its front; answers their number. */
static int shown_points(const plan_line *from, int chart, double top, double *x, double *y)
{
    int count = 0;
    for (int p = 0; p < from->points; p++)
        if (from->y[chart][p] <= top * 1.0001) {
            x[count] = from->x[p];
            y[count++] = from->y[chart][p];
        }
    return count;
}

static void write_chart(const plan_lines *l, int chart, FILE *out)
{
    double x[MOST_CHOICES + 1][MOST_POINTS], y[MOST_CHOICES + 1][MOST_POINTS];
    double top = top_of(l, chart), ends[2] = {0, l->dearest};
    double limit[2] = {l->limit[chart], l->limit[chart]};
    kv_chart_line line[MOST_CHOICES + 1];
    int lines = 0;
    for (int i = 0; i < l->lines; i++) {
        int count = shown_points(&l->line[i], chart, top, x[i], y[i]);
        line[lines++] = (kv_chart_line){l->line[i].name, FIRST_SERIES + i, x[i], y[i], count};
    }
    if (!isnan(limit[0]))
        line[lines++] = (kv_chart_line){"limit", FIRST_SERIES + MOST_CHOICES, ends, limit, 2};
    kv_chart drawn = {.x_label = l->priced ? "cost per hour" : "devices",
                      .y_label = charts[chart].label,
                      .description = charts[chart].title,
                      .x_most = l->dearest,
                      .y_most = top,
                      .line = line,
                      .lines = lines,
                      .dots = true,
                      .x_unit = l->priced ? "per hour" : "devices",
                      .y_unit = charts[chart].unit};
    fprintf(out, "<figure>\n<h3>%s</h3>\n", charts[chart].title);
    kv__chart_write(&drawn, out);
    fputs("</figure>\n", out);
}

static void write_all(const plan_lines *l, FILE *out)
{
    fputs("<div class=\"legend\" role=\"group\" aria-label=\"Lines: press to hide or show\">\n",
          out);
    for (int i = 0; i < l->lines; i++)
        kv__chart_button(l->line[i].name, FIRST_SERIES + i, out);
    kv__chart_button("limit", FIRST_SERIES + MOST_CHOICES, out);
    fputs("</div>\n<div class=\"figures\">\n", out);
    for (int c = 0; c < CHARTS; c++)
        write_chart(l, c, out);
    fprintf(out,
            "</div>\n<p class=\"soft\">The points of a line differ in their replicas: those that "
            "the search tried, and from the least that keep the limits to twice as many, at most "
            "8 more. Latencies above %d times the limit, or the worst that a configuration comes "
            "down to, are left out.%s <code>kvsim plot RESULTS.db pareto</code> marks the "
            "front.</p>\n",
            HEADROOM, l->hidden > 0 ? " Shown: the first 12 configurations." : "");
}

static kv_err write_front(const kv_report *report, FILE *out, kv_diag *diag)
{
    plan_lines *l = calloc(1, sizeof *l);
    if (l == NULL)
        return kv_fail_memory(diag);
    kv_err err = read_points(report, l, diag);
    if (err == KV_OK && l->lines == 0)
        err = KV_END;
    if (err == KV_OK)
        err = read_limits(report, l, diag);
    if (err == KV_OK)
        write_all(l, out);
    free(l);
    return err;
}
