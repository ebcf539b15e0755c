/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Footprint against accuracy: one panel per task, one line per policy and chunk size. */
#include "config.h"

#include "analysis/figure.h"
#include "analysis/sheet.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static kv_err write_curve(kv_results *results, const kv_plot_options *canvas, FILE *script,
                          kv_diag *diag);

KV_PLOT_DEFINE(curve) = {
    .name = "curve",
    .brief = "accuracy against KV footprint, per task, with critical footprints",
    .width = 1200,
    .height = 700,
    .write = write_curve,
};

enum { MOST_SERIES = 16 };

/* Whether any point of a series has an accuracy. */
static bool is_known(const kv_figure *figure, int series)
{
    for (int t = 0; t < figure->tasks; t++) {
        const kv_curve *curve = kv__figure_curve(figure, t, series);
        for (int p = 0; curve != NULL && p < curve->points; p++)
            if (!isnan(curve->point[p].accuracy) && !isnan(curve->point[p].kv_footprint))
                return true;
    }
    return false;
}

/* Says which series are not drawn, or that none is: policies that are known by their counts alone
 * have footprints and no accuracy. */
static kv_err check_known(kv_figure *figure, kv_results *results, kv_diag *diag)
{
    kv_mark mark = {kv_results_path(results), 0, 0};
    int unknown = 0;
    const char *first = NULL;
    for (int i = 0; i < figure->count; i++)
        if (!is_known(figure, i)) {
            first = first ? first : figure->series[i].label;
            unknown++;
        }
    if (unknown > 0 && unknown == figure->count)
        return kv_fail(
            diag, KV_ERR_INPUT, &mark,
            "there is no curve to draw along %s: nothing is known of the accuracy of %s%s "
            "there (what is known by its counts alone, as a head mask without its file, "
            "has none)",
            kv_axis_name(figure->curves->axis), first, unknown > 1 ? " and the others" : "");
    size_t used = strlen(figure->note);
    if (unknown > 0)
        snprintf(figure->note + used, sizeof figure->note - used,
                 "%sNot drawn, as no accuracy is known: %.60s%s.", used > 0 ? " " : "", first,
                 unknown > 1 ? " and others" : "");
    return KV_OK;
}

static void caption_text(const kv_figure *figure, char *out, size_t bytes)
{
    const kv_curves *curves = figure->curves;
    snprintf(out, bytes,
             "Accuracy is %s. Bands and bars: %g %% intervals (%s). kvsim %s, run %lld%s. %s",
             kv_accuracy_source_text(kv__figure_source(figure)), 100 * curves->confidence,
             curves->interval ? curves->interval : "not known", curves->version, curves->run_id,
             curves->finished_at ? "" : " (not complete)", figure->note);
}

static void write_axes(const kv_figure *figure, const kv_sheet *sheet, int panel)
{
    kv_axes axes = kv__figure_axes(figure);
    kv__sheet_x(sheet, panel, 0, axes.x_most);
    kv__sheet_y(sheet, panel, axes.y_most / 1.05);
    fprintf(sheet->script, "set yrange [0:%.10g]\nset mxtics 2\n", axes.y_most);
}

static void panel_title(const kv_figure *figure, int task, char *out, size_t bytes)
{
    const kv_curve *known = kv__figure_known(figure, task);
    snprintf(out, bytes, "%s (%d examples)", figure->task[task], known ? known->examples : 0);
}

static void write_panel(const kv_figure *figure, kv_sheet *sheet, int panel, int *plot_series)
{
    char title[256], label[64];
    panel_title(figure, panel, title, sizeof title);
    snprintf(label, sizeof label, "accuracy (%s)\taccuracy", kv__figure_source(figure));
    kv__sheet_panel(sheet, panel, title,
                    kv__sheet_lowest(sheet, panel) ? kv_axis_title(figure->curves->axis) : NULL,
                    kv__sheet_leftmost(sheet, panel) ? label : NULL);
    write_axes(figure, sheet, panel);
    kv__figure_panel(figure, panel, sheet->scale, sheet->script, plot_series);
}

static void list_entries(const kv_figure *figure, kv_sheet *sheet)
{
    const kv_curve *known = NULL;
    kv_sheet_entry *entry;
    char text[256];
    for (int t = 0; t < figure->tasks && known == NULL; t++)
        known = kv__figure_known(figure, t);
    for (int i = 0; i < figure->count; i++) {
        const kv_series *series = &figure->series[i];
        const char *colour = kv__figure_colour(series->colour);
        kv__series_text(series, 0, text, sizeof text);
        if ((entry = kv__sheet_entry(sheet, text)) == NULL)
            return;
        snprintf(entry->line, sizeof entry->line, "lines lw 2 dt %d lc rgb '%s'", series->dash,
                 colour);
        snprintf(entry->point, sizeof entry->point, "points pt %d ps %.3g lc rgb '%s'",
                 series->point, 0.8 * sheet->scale, colour);
    }
    snprintf(text, sizeof text, "%g x full accuracy", known ? known->threshold : 0.9);
    if ((entry = kv__sheet_entry(sheet, text)) != NULL)
        snprintf(entry->line, sizeof entry->line, "lines lw 1 dt 2 lc rgb '#808080'");
    if ((entry = kv__sheet_entry(sheet, "critical footprint")) != NULL)
        snprintf(entry->point, sizeof entry->point, "points pt 6 ps %.3g lw 2 lc rgb '#404040'",
                 1.9 * sheet->scale);
    if ((entry = kv__sheet_entry(sheet, "full cache")) != NULL)
        snprintf(entry->point, sizeof entry->point, "points pt 3 ps %.3g lw 1.5 lc rgb '#808080'",
                 1.4 * sheet->scale);
}

static kv_err write_figure(const kv_figure *figure, const kv_plot_options *canvas, FILE *script,
                           kv_diag *diag)
{
    kv_sheet sheet;
    char caption[1024], title[512];
    int *plot_series = calloc((size_t)(KV_PANEL_ELEMENTS * figure->count + 2), sizeof *plot_series);
    if (plot_series == NULL)
        return kv_fail_memory(diag);
    kv__sheet_init(&sheet, canvas, script);
    list_entries(figure, &sheet);
    caption_text(figure, caption, sizeof caption);
    static const char *const against[KV_AXES] = {"KV footprint", "KV footprint in bytes",
                                                 "KV entries read", "scores in prefill"};
    snprintf(title, sizeof title, "%s: accuracy against %s", figure->curves->name,
             against[figure->curves->axis]);
    for (int t = 0; t < figure->tasks; t++) {
        char panel[256];
        panel_title(figure, t, panel, sizeof panel);
        kv__sheet_title(&sheet, panel);
    }
    kv__sheet_begin(&sheet, figure->tasks, title, caption);
    for (int t = 0; t < figure->tasks; t++)
        write_panel(figure, &sheet, t, plot_series);
    kv__sheet_end(&sheet);
    free(plot_series);
    return KV_OK;
}

static kv_err write_curve(kv_results *results, const kv_plot_options *canvas, FILE *script,
                          kv_diag *diag)
{
    kv_curves *curves = NULL;
    kv_figure figure;
    kv_err err = kv_curves_load(results, &canvas->filter, &curves, diag);
    if (err != KV_OK)
        return err;
    err = kv__figure_init(&figure, curves, MOST_SERIES, diag);
    if (err == KV_OK) {
        err = check_known(&figure, results, diag);
        if (err == KV_OK)
            err = write_figure(&figure, canvas, script, diag);
        kv__figure_fini(&figure);
    }
    kv_curves_free(curves);
    return err;
}
