/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Turn by turn: the critical footprint of each turn of a conversation, one panel per task that has
 * several. */
#include "config.h"

#include "analysis/figure.h"
#include "analysis/sheet.h"
#include "analysis/sql.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static kv_err write_turns(kv_results *results, const kv_plot_options *canvas, FILE *script,
                          kv_diag *diag);

KV_PLOT_DEFINE(turns) = {
    .name = "turns",
    .brief = "critical footprint of each turn of a conversation, per task",
    .width = 1200,
    .height = 560,
    .write = write_turns,
};

enum { MOST_SERIES = 12, MOST_TURNS = 64 };

/* The curves of each turn; NULL: none. */
typedef struct turns {
    kv_curves *all, *turn[MOST_TURNS];
    kv_figure figure; /* of `all` */
    int count;
} turns;

static kv_err load(kv_results *results, const kv_plot_options *canvas, turns *t, kv_diag *diag)
{
    kv_mark mark = {kv_results_path(results), 0, 0};
    long long most = 0;
    kv_plot_options options = *canvas;
    options.filter.turn = 0;
    kv_err err = kv_curves_load(results, &options.filter, &t->all, diag);
    if (err == KV_OK)
        err = kv__figure_init(&t->figure, t->all, MOST_SERIES, diag);
    if (err == KV_OK)
        err = kv__sql_number(results, 0, &most, diag,
                             "SELECT max(turn) FROM footprint_point WHERE run_id = ?", "i",
                             t->all->run_id);
    if (err == KV_OK && most < 2)
        err = kv_fail(diag, KV_ERR_INPUT, &mark, "no task in it has more than one turn");
    t->count = most < MOST_TURNS ? (int)most : MOST_TURNS;
    for (int n = 0; n < t->count && err == KV_OK; n++) {
        options.filter.turn = n + 1;
        err = kv_curves_load(results, &options.filter, &t->turn[n], diag);
        if (err == KV_ERR_INPUT) { /* the task or policy asked for has no such turn */
            *diag = (kv_diag){0};
            err = KV_OK;
        }
    }
    return err;
}

static void unload(turns *t)
{
    if (t->all != NULL)
        kv__figure_fini(&t->figure);
    for (int n = 0; n < t->count; n++)
        kv_curves_free(t->turn[n]);
    kv_curves_free(t->all);
}

static const kv_curve *find(const turns *t, int turn, int task, int series)
{
    const kv_series *s = &t->figure.series[series];
    for (int c = 0; t->turn[turn] != NULL && c < t->turn[turn]->curves; c++) {
        const kv_curve *curve = &t->turn[turn]->curve[c];
        if (curve->chunk_tokens == s->chunk_tokens && strcmp(curve->label, s->label) == 0 &&
            strcmp(curve->task, t->figure.task[task]) == 0)
            return curve;
    }
    return NULL;
}

/* The last turn of a task, 0 if it has none. */
static int turns_of(const turns *t, int task)
{
    int last = 0;
    for (int n = 0; n < t->count; n++)
        for (int i = 0; i < t->figure.count; i++)
            if (find(t, n, task, i) != NULL)
                last = n + 1;
    return last;
}

/* Blocks $dI (turn, critical footprint, interval) and $nI (turns that never reach the target, at
 * the largest footprint tried). */
static void write_data(const turns *t, int task, int series, FILE *script)
{
    char *never = NULL;
    size_t bytes = 0;
    FILE *aside = open_memstream(&never, &bytes);
    fprintf(script, "$d%d << EOD\nNaN NaN NaN NaN\n", series);
    for (int n = 0; n < t->count; n++) {
        const kv_curve *curve = find(t, n, task, series);
        double x = n + 1 + 0.03 * (series - t->figure.count / 2.0);
        bool known = curve != NULL && curve->has_critical && curve->points > 0;
        if (!known || curve->status == KV_CRITICAL_NEVER)
            fprintf(script, "%g NaN NaN NaN\n", x); /* no line goes past it */
        if (!known)
            continue;
        double y = curve->kv_footprint;
        if (curve->status == KV_CRITICAL_ALWAYS)
            y = curve->point[0].kv_footprint;
        if (curve->status == KV_CRITICAL_NEVER && aside != NULL)
            fprintf(aside, "%g %.10g\n", x, 100 * curve->point[curve->points - 1].kv_footprint);
        else
            fprintf(script, "%g %.10g %.10g %.10g\n", x, 100 * y,
                    100 * (isnan(curve->lo) ? y : curve->lo),
                    100 * (isnan(curve->hi) ? y : curve->hi));
    }
    fprintf(script, "EOD\n$n%d << EOD\nNaN NaN\n", series);
    if (aside != NULL && fclose(aside) == 0)
        fwrite(never, 1, bytes, script);
    fputs("EOD\n", script);
    free(never);
}

static kv_look look_of(const turns *t, int series)
{
    const kv_series *s = &t->figure.series[series];
    return (kv_look){s->colour, s->dash, kv__figure_open_point(&t->figure, series)};
}

static void write_panel(const turns *t, int panel, int task, kv_sheet *sheet)
{
    FILE *script = sheet->script;
    int last = turns_of(t, task);
    for (int i = 0; i < t->figure.count; i++)
        write_data(t, task, i, script);
    kv__sheet_panel(sheet, panel, t->figure.task[task],
                    kv__sheet_lowest(sheet, panel) ? "turn" : NULL,
                    kv__sheet_leftmost(sheet, panel) ? kv_axis_critical(t->all->axis) : NULL);
    kv__sheet_y(sheet, panel, 100);
    fprintf(script, "set xrange [0.5:%g]\nset xtics 1,%d\nplot ", last + 0.5,
            kv__sheet_every(kv__sheet_box(sheet, panel).width / last, 26));
    for (int i = 0; i < t->figure.count; i++) {
        kv_look look = look_of(t, i);
        fputs(i > 0 ? ", " : "", script);
        kv__sheet_intervals(sheet, i, &look);
        kv__sheet_look_style(sheet, &look);
    }
    fputs("\n", script);
}

static void write_all(const turns *t, const kv_plot_options *canvas, FILE *script)
{
    kv_sheet sheet;
    char text[512], caption[1024];
    int shown[64], panels = 0;
    for (int task = 0; task < t->figure.tasks && panels < 64; task++)
        if (turns_of(t, task) > 1)
            shown[panels++] = task;
    kv__sheet_init(&sheet, canvas, script);
    for (int i = 0; i < t->figure.count; i++) {
        kv__series_text(&t->figure.series[i], 0, text, sizeof text);
        kv_look look = look_of(t, i);
        kv__sheet_look(&sheet, text, &look);
    }
    kv_sheet_entry *entry = kv__sheet_entry(&sheet, "never reaches the target");
    if (entry != NULL)
        snprintf(entry->point, sizeof entry->point, "points pt 2 ps %.3g lw 2 lc rgb '#404040'",
                 1.1 * sheet.scale);
    snprintf(
        caption, sizeof caption,
        "Accuracy is %s. Bars: %g %% intervals. Crosses stand at the largest footprint tried; a "
        "turn that always reaches the target is shown at the least. kvsim %s, run %lld%s. %s",
        kv_accuracy_source_text(kv__figure_source(&t->figure)), 100 * t->all->confidence,
        t->all->version, t->all->run_id, t->all->finished_at ? "" : " (not complete)",
        t->figure.note);
    snprintf(text, sizeof text, "%s: critical footprint turn by turn", t->all->name);
    for (int p = 0; p < panels; p++)
        kv__sheet_title(&sheet, t->figure.task[shown[p]]);
    kv__sheet_begin(&sheet, panels, text, caption);
    for (int p = 0; p < panels; p++)
        write_panel(t, p, shown[p], &sheet);
    kv__sheet_end(&sheet);
}

static kv_err write_turns(kv_results *results, const kv_plot_options *canvas, FILE *script,
                          kv_diag *diag)
{
    turns *t = calloc(1, sizeof *t);
    kv_mark mark = {kv_results_path(results), 0, 0};
    if (t == NULL)
        return kv_fail_memory(diag);
    kv_err err = load(results, canvas, t, diag);
    bool several = false;
    for (int task = 0; err == KV_OK && task < t->figure.tasks; task++)
        several = several || turns_of(t, task) > 1;
    if (err == KV_OK && !several)
        err = kv_fail(diag, KV_ERR_INPUT, &mark, "no task that is shown has more than one turn");
    if (err == KV_OK)
        write_all(t, canvas, script);
    unload(t);
    free(t);
    return err;
}
