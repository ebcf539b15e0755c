/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* What the chunk size does: critical footprints, one panel per task, and latencies of serving
 * points. */
#include "config.h"

#include "analysis/figure.h"
#include "analysis/serving_points.h"
#include "analysis/sheet.h"
#include "analysis/sql.h"
#include "analysis/text.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static kv_err write_chunk(kv_results *results, const kv_plot_options *canvas, FILE *script,
                          kv_diag *diag);

KV_PLOT_DEFINE(chunk) = {
    .name = "chunk",
    .brief = "critical footprint and latencies against chunk size",
    .width = 1200,
    .height = 640,
    .write = write_chunk,
};

enum { MOST_SERIES = 12, MOST_CHUNKS = 40 };

/* All that is shown. A series is a label: a policy with its settings, or a serving point without
 * its chunk size. */
typedef struct chart {
    kv_curves *curves; /* NULL: no attention points */
    kv_figure figure;
    kv_serving_list serving;
    const char *label[MOST_SERIES], *title[MOST_SERIES]; /* borrowed */
    int labels, hidden;
    long long chunk[MOST_CHUNKS]; /* ascending, whole last */
    int chunks;
} chart;

/* --- what is shown ---------------------------------------------------------------------------- */

static int label_of(const chart *c, const char *label)
{
    for (int i = 0; i < c->labels; i++)
        if (strcmp(c->label[i], label) == 0)
            return i;
    return -1;
}

static void add_label(chart *c, const char *label, const char *title)
{
    if (label_of(c, label) >= 0)
        return;
    if (c->labels == MOST_SERIES) {
        c->hidden++;
        return;
    }
    c->label[c->labels] = label;
    c->title[c->labels++] = title;
}

static long long order_of(long long chunk)
{
    return chunk == 0 ? LLONG_MAX : chunk;
}

static int place_of(const chart *c, long long chunk)
{
    int at = 0;
    while (at < c->chunks && order_of(c->chunk[at]) < order_of(chunk))
        at++;
    return at;
}

static void add_chunk(chart *c, long long chunk)
{
    int at = place_of(c, chunk);
    if (c->chunks == MOST_CHUNKS || (at < c->chunks && c->chunk[at] == chunk))
        return;
    memmove(&c->chunk[at + 1], &c->chunk[at], (size_t)(c->chunks - at) * sizeof *c->chunk);
    c->chunk[at] = chunk;
    c->chunks++;
}

static kv_err load_curves(kv_results *results, const kv_plot_options *canvas, chart *c,
                          kv_diag *diag)
{
    long long points = 0;
    kv_err err = kv__sql_number(results, 0, &points, diag,
                                "SELECT count(*) FROM footprint_point WHERE run_id = ?", "i",
                                c->serving.run_id);
    if (err != KV_OK || points == 0)
        return err;
    err = kv_curves_load(results, &canvas->filter, &c->curves, diag);
    if (err == KV_OK)
        err = kv__figure_init(&c->figure, c->curves, INT_MAX, diag);
    for (int i = 0; err == KV_OK && i < c->figure.count; i++) {
        add_label(c, c->figure.series[i].label, c->figure.series[i].title);
        add_chunk(c, c->figure.series[i].chunk_tokens);
    }
    return err;
}

static kv_err load(kv_results *results, const kv_plot_options *canvas, chart *c, kv_diag *diag)
{
    kv_mark mark = {kv_results_path(results), 0, 0};
    kv_err err = kv__serving_list_load(results, canvas, NULL, &c->serving, diag);
    if (err == KV_OK)
        err = load_curves(results, canvas, c, diag);
    for (int i = 0; err == KV_OK && i < c->serving.items; i++) {
        add_label(c, c->serving.item[i].label, c->serving.item[i].label);
        add_chunk(c, c->serving.item[i].chunk_tokens);
    }
    if (err == KV_OK && c->chunks < 2)
        err = kv_fail(diag, KV_ERR_INPUT, &mark,
                      "expected points of at least two chunk sizes; give `chunk_size` a list");
    return err;
}

static void unload(chart *c)
{
    if (c->curves != NULL) {
        kv__figure_fini(&c->figure);
        kv_curves_free(c->curves);
    }
    kv__serving_list_fini(&c->serving);
}

/* As many dashes as there are rounds of colours; an oracle looks as in other plots. */
static kv_look look_of(const chart *c, int label)
{
    for (int i = 0; i < c->figure.count; i++)
        if (strcmp(c->figure.series[i].label, c->label[label]) == 0) {
            const kv_series *s = &c->figure.series[i];
            int dash = s->oracle ? s->dash : kv__figure_dash(s->colour);
            return (kv_look){s->colour, dash,
                             s->oracle ? kv__figure_open_point(&c->figure, i)
                                       : kv__figure_point(label)};
        }
    return (kv_look){label, kv__figure_dash(label), kv__figure_point(label)};
}

static void list_label(const chart *c, int label, kv_sheet *sheet)
{
    char text[512];
    bool oracle = false;
    for (int i = 0; i < c->figure.count; i++)
        oracle = oracle || (c->figure.series[i].oracle &&
                            strcmp(c->figure.series[i].label, c->label[label]) == 0);
    kv_look look = look_of(c, label);
    snprintf(text, sizeof text, "%s%s", c->title[label], oracle ? " (sees the future)" : "");
    kv__sheet_look(sheet, text, &look);
}

/* --- panels ----------------------------------------------------------------------------------- */

/* As many chunk sizes are named as there is room for, from the last, which is the whole prompt. */
static void write_ticks(const chart *c, const kv_sheet *sheet, int panel)
{
    FILE *script = sheet->script;
    char text[24];
    double widest = 0;
    for (int i = 0; i < c->chunks; i++) {
        kv_chunk_text(c->chunk[i], text);
        widest = fmax(widest, kv__text_width(text, 14) + 8);
    }
    int every = kv__sheet_every(kv__sheet_box(sheet, panel).width / (c->chunks - 0.4), widest);
    fputs("set xtics (", script);
    for (int i = (c->chunks - 1) % every; i < c->chunks; i += every) {
        kv_chunk_text(c->chunk[i], text);
        fprintf(script, "%s'%s' %d", i >= every ? ", " : "", text, i);
    }
    fprintf(script, ")\nset xrange [-0.3:%g]\n", c->chunks - 0.7);
}

/* The curve of a label under a chunk size on a task, NULL if there is none. */
static const kv_curve *find_curve(const chart *c, int task, int label, long long chunk)
{
    for (int i = 0; i < c->figure.count; i++)
        if (c->figure.series[i].chunk_tokens == chunk &&
            strcmp(c->figure.series[i].label, c->label[label]) == 0)
            return kv__figure_curve(&c->figure, task, i);
    return NULL;
}

/* Block $dI: place, critical footprint (that is always reached: the least tried) and its interval
 * in percent; $nI: place and largest footprint tried where none reaches the target. Series stand
 * side by side. */
static void write_critical(const chart *c, int task, int label, bool never, FILE *script)
{
    fprintf(script, "$%c%d << EOD\nNaN NaN NaN NaN\n", never ? 'n' : 'd', label);
    for (int k = 0; k < c->chunks; k++) {
        const kv_curve *curve = find_curve(c, task, label, c->chunk[k]);
        double x = k + 0.03 * (label - c->labels / 2.0);
        bool known = curve != NULL && curve->has_critical && curve->points > 0;
        if (!never && !(known && curve->status != KV_CRITICAL_NEVER))
            fprintf(script, "%g NaN NaN NaN\n", x); /* no line goes past it */
        if (!known || never != (curve->status == KV_CRITICAL_NEVER))
            continue;
        if (never) {
            fprintf(script, "%g %.10g\n", x, 100 * curve->point[curve->points - 1].kv_footprint);
            continue;
        }
        double y = curve->status == KV_CRITICAL_ALWAYS ? curve->point[0].kv_footprint
                                                       : curve->kv_footprint;
        fprintf(script, "%g %.10g %.10g %.10g\n", x, 100 * y,
                100 * (isnan(curve->lo) ? y : curve->lo), 100 * (isnan(curve->hi) ? y : curve->hi));
    }
    fputs("EOD\n", script);
}

static void write_task(const chart *c, int task, kv_sheet *sheet)
{
    FILE *script = sheet->script;
    for (int i = 0; i < c->labels; i++) {
        write_critical(c, task, i, false, script);
        write_critical(c, task, i, true, script);
    }
    kv__sheet_panel(sheet, task, c->figure.task[task],
                    kv__sheet_lowest(sheet, task) ? "chunk size (tokens)\ttokens" : NULL,
                    kv__sheet_leftmost(sheet, task) ? kv_axis_critical(c->curves->axis) : NULL);
    write_ticks(c, sheet, task);
    kv__sheet_y(sheet, task, 100);
    fputs("plot ", script);
    for (int i = 0; i < c->labels; i++) {
        kv_look look = look_of(c, i);
        fputs(i > 0 ? ", " : "", script);
        kv__sheet_intervals(sheet, i, &look);
        kv__sheet_look_style(sheet, &look);
    }
    fputs("\n", script);
}

static double latency_of(const kv_serving_item *item, int which)
{
    return which == 0 ? item->ttft_p99 : 1e3 * item->tpot_p99;
}

static void write_latency(const chart *c, int which, int panel, kv_sheet *sheet)
{
    FILE *script = sheet->script;
    double most = 0;
    for (int p = 0; p < c->serving.items; p++)
        most = fmax(most, latency_of(&c->serving.item[p], which));
    for (int i = 0; i < c->labels; i++) {
        int written = 0;
        fprintf(script, "$d%d << EOD\n", i);
        for (int k = 0; k < c->chunks; k++)
            for (int p = 0; p < c->serving.items; p++) {
                const kv_serving_item *item = &c->serving.item[p];
                if (item->chunk_tokens == c->chunk[k] && strcmp(item->label, c->label[i]) == 0)
                    written += fprintf(script, "%d %.10g\n", k, latency_of(item, which)) > 0;
            }
        fputs(written ? "EOD\n" : "NaN NaN\nEOD\n", script);
    }
    kv__sheet_panel(sheet, panel, which == 0 ? "time to the first token" : "time per further token",
                    "chunk size (tokens)\ttokens",
                    which == 0 ? "p99 TTFT (s)\tp99 (s)" : "p99 TPOT (ms)\tp99 (ms)");
    write_ticks(c, sheet, panel);
    kv__sheet_y(sheet, panel, most);
    fputs("plot ", script);
    for (int i = 0; i < c->labels; i++) {
        kv_look look = look_of(c, i);
        fprintf(script, "%s$d%d using 1:2", i > 0 ? ", " : "", i);
        kv__sheet_look_style(sheet, &look);
    }
    fputs("\n", script);
}

static void caption_text(const chart *c, char *out, size_t bytes)
{
    char end[256], hidden[96] = "", accuracy[256] = "";
    kv__serving_caption(&c->serving, c->serving.items, end, sizeof end);
    if (c->hidden > 0)
        snprintf(hidden, sizeof hidden, "%d more series: --policy selects. ", c->hidden);
    if (c->curves != NULL)
        snprintf(
            accuracy, sizeof accuracy,
            "Bars: %g %% intervals. Crosses: never reaches the target, at the largest footprint "
            "tried; where it is always reached, the least is shown. Accuracy is %s. ",
            100 * c->curves->confidence, kv_accuracy_source_text(kv__figure_source(&c->figure)));
    snprintf(out, bytes, "%s%s%s", accuracy, hidden, end);
}

static kv_err write_chunk(kv_results *results, const kv_plot_options *canvas, FILE *script,
                          kv_diag *diag)
{
    kv_sheet sheet;
    chart c = {.curves = NULL};
    char text[1024];
    kv_err err = load(results, canvas, &c, diag);
    if (err == KV_OK) {
        int tasks = c.figure.tasks;
        kv__sheet_init(&sheet, canvas, script);
        for (int i = 0; i < c.labels; i++)
            list_label(&c, i, &sheet);
        snprintf(text, sizeof text, "%s: what the chunk size does", c.serving.name);
        char caption[1024];
        caption_text(&c, caption, sizeof caption);
        for (int t = 0; t < tasks; t++)
            kv__sheet_title(&sheet, c.figure.task[t]);
        kv__sheet_begin(&sheet, tasks + (c.serving.items > 0 ? 2 : 0), text, caption);
        for (int t = 0; t < tasks; t++)
            write_task(&c, t, &sheet);
        for (int w = 0; w < 2 && c.serving.items > 0; w++)
            write_latency(&c, w, tasks + w, &sheet);
        kv__sheet_end(&sheet);
    }
    unload(&c);
    return err;
}
