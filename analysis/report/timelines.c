/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Timelines: memory in use per tier, and requests in batches and queues, of the serving points. */
#include "config.h"

#include "analysis/chart.h"
#include "analysis/html.h"
#include "analysis/report.h"
#include "analysis/serving_points.h"
#include "analysis/sql.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static kv_err write_timelines(const kv_report *report, FILE *out, kv_diag *diag);

KV_SECTION_DEFINE(timelines) = {
    .name = "timelines",
    .title = "Servers over time",
    .write = write_timelines,
};

/* Numbers of series stand apart from those of the curves, which the same buttons toggle. */
enum { MOST_POINTS = 12, MOST_TIERS = 5, FIRST_SERIES = 1000 };

/* The samples of one point; tiers and requests share the times. */
typedef struct samples {
    double *time, *used[MOST_TIERS], *running, *waiting;
    char *tier[MOST_TIERS];
    int tiers, count;
    double unit; /* s */
    const char *unit_name;
} samples;

static kv_err read_tiers(const kv_report *report, long long point, samples *s, kv_diag *diag)
{
    sqlite3_stmt *rows = NULL;
    kv_err err = kv__sql_prepare(report->results,
                                 "SELECT DISTINCT tier FROM timeline WHERE point_id = ? ORDER BY "
                                 "tier <> 'gpu', tier",
                                 &rows, diag);
    if (err == KV_OK)
        kv__sql_bind(rows, 1, "i", point);
    while (err == KV_OK && s->tiers < MOST_TIERS &&
           (err = kv__sql_step(report->results, rows, diag)) == KV_OK) {
        err = kv__sql_text(rows, 0, &s->tier[s->tiers], diag);
        s->tiers += err == KV_OK;
    }
    sqlite3_finalize(rows);
    return err == KV_END ? KV_OK : err;
}

static kv_err make_room(samples *s, long long count, kv_diag *diag)
{
    size_t room = (size_t)count + 1;
    bool good = true;
    double **const all[] = {&s->time, &s->running, &s->waiting};
    for (int i = 0; i < 3; i++)
        good = (*all[i] = calloc(room, sizeof(double))) != NULL && good;
    for (int t = 0; t < s->tiers; t++)
        good = (s->used[t] = calloc(room, sizeof(double))) != NULL && good;
    return good ? KV_OK : kv_fail_memory(diag);
}

/* Every n-th sample, so that a page of a long run stays small. */
static kv_err read_samples(const kv_report *report, long long point, samples *s, kv_diag *diag)
{
    sqlite3_stmt *rows = NULL;
    kv_err err = kv__sql_prepare(
        report->results,
        "WITH moment AS (SELECT time_s, row_number() OVER (ORDER BY time_s) AS n, count(*) OVER () "
        "AS all_of FROM timeline WHERE point_id = ?1 GROUP BY time_s) SELECT time_s / ?2, "
        "used_bytes / 1073741824.0, running, waiting, tier FROM timeline JOIN moment USING "
        "(time_s) "
        "WHERE point_id = ?1 AND n % (all_of / 600 + 1) = 0 ORDER BY time_s",
        &rows, diag);
    if (err == KV_OK)
        kv__sql_bind(rows, 1, "id", point, s->unit);
    while (err == KV_OK && (err = kv__sql_step(report->results, rows, diag)) == KV_OK) {
        double time = kv__sql_double(rows, 0);
        if (s->count == 0 || time > s->time[s->count - 1])
            s->time[s->count++] = time;
        s->running[s->count - 1] = kv__sql_double(rows, 2);
        s->waiting[s->count - 1] = kv__sql_double(rows, 3);
        for (int t = 0; t < s->tiers; t++)
            if (strcmp(s->tier[t], (const char *)sqlite3_column_text(rows, 4)) == 0)
                s->used[t][s->count - 1] = kv__sql_double(rows, 1);
    }
    sqlite3_finalize(rows);
    return err == KV_END ? KV_OK : err;
}

static void samples_fini(samples *s)
{
    for (int t = 0; t < s->tiers; t++) {
        free(s->tier[t]);
        free(s->used[t]);
    }
    free(s->time);
    free(s->running);
    free(s->waiting);
}

static kv_err load(const kv_report *report, long long point, samples *s, kv_diag *diag)
{
    long long count = 0, last_s = 0;
    kv_err err = kv__sql_number(report->results, 0, &count, diag,
                                "SELECT count(DISTINCT time_s) FROM timeline WHERE point_id = ?",
                                "i", point);
    if (err == KV_OK)
        err = kv__sql_number(report->results, 0, &last_s, diag,
                             "SELECT CAST(max(time_s) AS INTEGER) FROM timeline WHERE point_id = ?",
                             "i", point);
    s->unit = last_s > 10800 ? 3600 : last_s > 300 ? 60 : 1;
    s->unit_name = last_s > 10800 ? "h" : last_s > 300 ? "min" : "s";
    if (err == KV_OK)
        err = read_tiers(report, point, s, diag);
    if (err == KV_OK)
        err = make_room(s, count, diag);
    return err == KV_OK ? read_samples(report, point, s, diag) : err;
}

static void write_charts(const samples *s, FILE *out)
{
    kv_chart_line line[MOST_TIERS];
    char x_label[32];
    double memory = 0, requests = 0;
    snprintf(x_label, sizeof x_label, "time (%s)", s->unit_name);
    for (int t = 0; t < s->tiers; t++)
        line[t] = (kv_chart_line){s->tier[t], FIRST_SERIES + t, s->time, s->used[t], s->count};
    for (int i = 0; i < s->count; i++) {
        for (int t = 0; t < s->tiers; t++)
            memory = fmax(memory, s->used[t][i]);
        requests = fmax(requests, fmax(s->running[i], s->waiting[i]));
    }
    kv_chart chart = {.x_label = x_label,
                      .y_label = "KV in use (GiB)",
                      .description = "KV memory in use by running requests over time",
                      .x_most = s->count > 0 ? s->time[s->count - 1] : 1,
                      .y_most = memory,
                      .line = line,
                      .lines = s->tiers,
                      .x_unit = s->unit_name,
                      .y_unit = "GiB"};
    kv__chart_write(&chart, out);
    line[0] = (kv_chart_line){"running", FIRST_SERIES + MOST_TIERS, s->time, s->running, s->count};
    line[1] =
        (kv_chart_line){"waiting", FIRST_SERIES + MOST_TIERS + 1, s->time, s->waiting, s->count};
    chart.y_label = chart.y_unit = "requests";
    chart.description = "requests in the batch and in the queues over time";
    chart.y_most = requests;
    chart.lines = 2;
    kv__chart_write(&chart, out);
}

static kv_err write_point(const kv_report *report, const kv_serving_item *item, bool first,
                          FILE *out, kv_diag *diag)
{
    samples s = {.count = 0};
    char text[512];
    kv_err err = load(report, item->id, &s, diag);
    if (err == KV_OK && first) {
        fputs("<div class=\"legend\" role=\"group\" aria-label=\"Lines: press to hide or "
              "show\">\n",
              out);
        for (int t = 0; t < s.tiers; t++)
            kv__chart_button(s.tier[t], FIRST_SERIES + t, out);
        kv__chart_button("running", FIRST_SERIES + MOST_TIERS, out);
        kv__chart_button("waiting", FIRST_SERIES + MOST_TIERS + 1, out);
        fputs("</div>\n<div class=\"figures\">\n", out);
    }
    if (err == KV_OK) {
        kv__serving_text(item, text, sizeof text);
        fputs("<figure>\n<h3>", out);
        kv__html_text(out, text);
        fputs("</h3>\n", out);
        write_charts(&s, out);
        fputs("</figure>\n", out);
    }
    samples_fini(&s);
    return err;
}

static kv_err write_timelines(const kv_report *report, FILE *out, kv_diag *diag)
{
    kv_plot_options all = {.filter = {.run_id = report->run_id}};
    kv_serving_list list;
    kv_err err = kv__serving_list_load(report->results, &all,
                                       "EXISTS (SELECT 1 FROM timeline t WHERE t.point_id = p.id)",
                                       &list, diag);
    if (err != KV_OK)
        return err;
    int shown = list.items < MOST_POINTS ? list.items : MOST_POINTS;
    for (int i = 0; i < shown && err == KV_OK; i++)
        err = write_point(report, &list.item[i], i == 0, out, diag);
    if (shown > 0)
        fputs("</div>\n", out);
    if (shown < list.items)
        fprintf(out,
                "<p class=\"soft\">Shown: %d of %d; <code>kvsim plot RESULTS.db timeline --point "
                "N</code> draws any.</p>\n",
                shown, list.items);
    kv__serving_list_fini(&list);
    return err == KV_OK && shown == 0 ? KV_END : err;
}
