/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Footprint against accuracy: one panel per task, one line per policy and chunk size. */
#include "config.h"

#include "analysis/figure.h"
#include "analysis/gnuplot.h"
#include "analysis/plot.h"

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

/* All in pixels from the upper left. */
enum {
    MOST_SERIES = 16,
    TEXT = 17,  /* height of a line */
    LETTER = 7, /* mean width of a letter */
    GAP = 8,
    SAMPLE = 64, /* of a line in the legend, with gaps */
    TITLE = 34,  /* above everything */
    EDGE = 12,
    PANEL_LEFT = 62, /* room for what stands around the axes */
    PANEL_RIGHT = 14,
    PANEL_TOP = 26,
    PANEL_BOTTOM = 54,
    LEAST_PANEL = 320
};

typedef struct box {
    double x, y, width, height;
} box;

typedef struct layout {
    int width, height;
    int rows, columns; /* of panels */
    box panels, legend;
    int legend_columns;
    int letters; /* of the longest text in the legend */
    int caption_lines;
    int font; /* in the units of the terminal */
} layout;

/* --- layout ----------------------------------------------------------------------------------- */

/* Letters of the longest entry; at most so many that two fit side by side. */
static int longest_text(const kv_figure *figure, int width)
{
    int longest = (int)strlen("critical footprint"), most = (width / 2 - SAMPLE) / LETTER;
    for (int i = 0; i < figure->count; i++) {
        char text[512];
        kv__series_text(&figure->series[i], 0, text, sizeof text);
        longest = (int)strlen(text) > longest ? (int)strlen(text) : longest;
    }
    return longest > most ? most : longest;
}

/* Series, the target line, the ring and the full policy. */
static int legend_entries(const kv_figure *figure)
{
    return figure->count + 3;
}

/* Puts the legend on the right or below, wherever that leaves the panels more room. */
static void place(layout *out, const kv_figure *figure)
{
    double top = TITLE, left = EDGE, width = out->width - 2 * EDGE;
    out->letters = longest_text(figure, (int)width);
    int entry = SAMPLE + LETTER * out->letters, entries = legend_entries(figure);
    double height = out->height - TITLE - EDGE - (out->caption_lines * TEXT + 6);
    int across = (int)(width / entry) > 0 ? (int)(width / entry) : 1;
    int lines = (entries + across - 1) / across;
    double below = width * (height - lines * TEXT - EDGE), beside = (width - entry) * height;
    bool right = beside > below && entries * TEXT <= height;
    out->legend_columns = right ? 1 : across;
    if (right) {
        out->legend = (box){left + width - entry, top + PANEL_TOP, entry, entries * TEXT};
        out->panels = (box){left, top, width - entry, height};
    } else {
        out->legend = (box){left, top + height - lines * TEXT, width, lines * TEXT};
        out->panels = (box){left, top, width, height - lines * TEXT - EDGE};
    }
}

static void divide(layout *out, int tasks)
{
    out->columns = 1;
    while (out->columns * out->columns < tasks)
        out->columns++;
    if (tasks <= 3 && out->panels.width / tasks >= LEAST_PANEL)
        out->columns = tasks; /* one row compares best */
    out->rows = (tasks + out->columns - 1) / out->columns;
}

/* --- captions --------------------------------------------------------------------------------- */

/* Lines of at most `letters`, each to be freed; answers how many there are. */
static int wrap(const char *text, int letters, char **line, int most)
{
    int lines = 0;
    while (*text && lines < most) {
        int length = (int)strlen(text), cut = length;
        if (length > letters) {
            for (cut = letters; cut > 0 && text[cut] != ' ';)
                cut--;
            cut = cut ? cut : letters;
        }
        line[lines++] = strndup(text, (size_t)cut);
        text += cut;
        text += strspn(text, " ");
    }
    return lines;
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

/* --- script ----------------------------------------------------------------------------------- */

/* A label at pixels. */
static void write_label(FILE *script, const layout *l, int tag, const char *text, double x,
                        double y, const char *how)
{
    fprintf(script, "set label %d ", tag);
    kv__gnuplot_text(script, text);
    fprintf(script, " at screen %.6f, screen %.6f %s\n", x / l->width, 1 - y / l->height, how);
}

static void write_margins(FILE *script, const layout *l, const box *b)
{
    fprintf(script, "set lmargin at screen %.6f\nset rmargin at screen %.6f\n", b->x / l->width,
            (b->x + b->width) / l->width);
    fprintf(script, "set tmargin at screen %.6f\nset bmargin at screen %.6f\n",
            1 - b->y / l->height, 1 - (b->y + b->height) / l->height);
}

static void write_frame(const kv_figure *figure, const layout *l, char *const *caption,
                        FILE *script)
{
    char title[512], how[64];
    snprintf(how, sizeof how, "center font ',%d'", l->font + 2);
    snprintf(title, sizeof title, "%s: accuracy against KV footprint", figure->curves->name);
    fprintf(script, "set multiplot\nunset key\n");
    write_label(script, l, 1, title, l->width / 2.0, TITLE / 2.0 - 2, how);
    snprintf(how, sizeof how, "left font ',%d' tc rgb '#505050'", l->font - 1);
    for (int i = 0; i < l->caption_lines; i++)
        write_label(script, l, 2 + i, caption[i], EDGE,
                    l->height - EDGE + 4 - (l->caption_lines - 1 - i) * TEXT, how);
}

static void write_axes(const kv_figure *figure, const layout *l, int panel, FILE *script)
{
    kv_axes axes = kv__figure_axes(figure);
    bool last_row = panel + l->columns >= figure->tasks;
    fprintf(script, "set xrange [0:%.10g]\nset yrange [0:%.10g]\n", axes.x_most, axes.y_most);
    fprintf(script, "set xtics 20\nset mxtics 2\nset grid xtics ytics lc rgb '#dddddd' lw 1\n"
                    "set border 3 lc rgb '#404040'\nset tics nomirror out scale 0.6\n");
    fprintf(script, last_row
                        ? "set xlabel 'KV footprint (%% of full causal attention)' offset 0,0.3\n"
                        : "unset xlabel\n");
    if (panel % l->columns == 0)
        fprintf(script, "set ylabel 'accuracy (%s)' offset 0.7,0\n", kv__figure_source(figure));
    else
        fprintf(script, "unset ylabel\n");
}

static void write_panel(const kv_figure *figure, const layout *l, int panel, double scale,
                        int *plot_series, FILE *script)
{
    double width = l->panels.width / l->columns, height = l->panels.height / l->rows;
    box b = {l->panels.x + (panel % l->columns) * width + PANEL_LEFT,
             l->panels.y + (panel / l->columns) * height + PANEL_TOP,
             width - PANEL_LEFT - PANEL_RIGHT, height - PANEL_TOP - PANEL_BOTTOM};
    char title[256];
    const kv_curve *known = kv__figure_known(figure, panel);
    snprintf(title, sizeof title, "%s (%d examples)", figure->task[panel],
             known ? known->examples : 0);
    write_margins(script, l, &b);
    write_axes(figure, l, panel, script);
    fputs("set title ", script);
    kv__gnuplot_text(script, title);
    fprintf(script, " font ',%d' offset 0,-0.4\n", l->font + 1);
    kv__figure_panel(figure, panel, scale, script, plot_series);
    fputs("unset label\n", script); /* those of the frame are drawn by the first panel */
}

/* One line of the legend: what is drawn (a line, a point or both; NULL: none) and its name. */
typedef struct entry {
    char line[96], point[96], text[256];
} entry;

static void list_entries(const kv_figure *figure, const layout *l, double scale, entry *out)
{
    const kv_curve *known = NULL;
    for (int t = 0; t < figure->tasks && known == NULL; t++)
        known = kv__figure_known(figure, t);
    for (int i = 0; i < figure->count; i++, out++) {
        const kv_series *series = &figure->series[i];
        const char *colour = kv__figure_colour(series->colour);
        snprintf(out->line, sizeof out->line, "lines lw 2 dt %d lc rgb '%s'", series->dash, colour);
        snprintf(out->point, sizeof out->point, "points pt %d ps %.3g lc rgb '%s'", series->point,
                 0.8 * scale, colour);
        kv__series_text(series, l->letters, out->text, sizeof out->text);
    }
    *out = (entry){.line = "lines lw 1 dt 2 lc rgb '#808080'"};
    snprintf(out->text, sizeof out->text, "%g x full accuracy", known ? known->threshold : 0.9);
    *++out = (entry){.text = "critical footprint"};
    snprintf(out->point, sizeof out->point, "points pt 6 ps %.3g lw 2 lc rgb '#404040'",
             1.9 * scale);
    *++out = (entry){.text = "full cache"};
    snprintf(out->point, sizeof out->point, "points pt 3 ps %.3g lw 1.5 lc rgb '#808080'",
             1.4 * scale);
}

/* Draws the legend on the whole canvas, whose unit is then the pixel: gnuplot's own key drops
 * entries that it finds no room for. */
static void write_legend(const kv_figure *figure, const layout *l, const entry *entries,
                         FILE *script)
{
    int count = legend_entries(figure), columns = l->legend_columns;
    int rows = (count + columns - 1) / columns;
    double width = l->legend.width / columns;
    box canvas = {0, 0, l->width, l->height};
    fputs("unset border\nunset tics\nunset grid\nunset xlabel\nunset ylabel\nunset title\n",
          script);
    write_margins(script, l, &canvas);
    for (int i = 0; i < count; i++) {
        double x = l->legend.x + (i / rows) * width, y = l->legend.y + (i % rows + 0.5) * TEXT;
        write_label(script, l, 1 + i, entries[i].text, x + SAMPLE - GAP, y, "left");
        fprintf(script, "$l%d << EOD\n%g %g\n%g %g\nEOD\n$p%d << EOD\n%g %g\nEOD\n", i, x,
                l->height - y, x + SAMPLE - 2 * GAP, l->height - y, i, x + SAMPLE / 2.0 - GAP,
                l->height - y);
    }
    fprintf(script, "plot [0:%d][0:%d]", l->width, l->height);
    for (int i = 0, first = 1; i < count; i++) {
        if (entries[i].line[0])
            fprintf(script, "%s $l%d with %s", first ? "" : ",", i, entries[i].line);
        first = first && !entries[i].line[0];
        if (entries[i].point[0])
            fprintf(script, "%s $p%d with %s", first ? "" : ",", i, entries[i].point);
        first = 0;
    }
    fputs("\nunset multiplot\n", script);
}

static kv_err write_figure(const kv_figure *figure, const kv_plot_options *canvas, FILE *script,
                           kv_diag *diag)
{
    enum { MOST_LINES = 4 };
    layout l = {
        .width = canvas->width, .height = canvas->height, .font = kv_plot_font(canvas->format)};
    char caption[1024], *line[MOST_LINES];
    double scale = kv_plot_point_scale(canvas->format);
    int *plot_series = calloc((size_t)(KV_PANEL_ELEMENTS * figure->count + 2), sizeof *plot_series);
    entry *entries = calloc((size_t)legend_entries(figure), sizeof *entries);
    if (plot_series == NULL || entries == NULL) {
        free(plot_series);
        free(entries);
        return kv_fail_memory(diag);
    }
    caption_text(figure, caption, sizeof caption);
    l.caption_lines = wrap(caption, (l.width - 2 * EDGE) * 10 / 66, line, MOST_LINES);
    place(&l, figure);
    divide(&l, figure->tasks);
    write_frame(figure, &l, line, script);
    for (int t = 0; t < figure->tasks; t++)
        write_panel(figure, &l, t, scale, plot_series, script);
    list_entries(figure, &l, scale, entries);
    write_legend(figure, &l, entries, script);
    for (int i = 0; i < l.caption_lines; i++)
        free(line[i]);
    free(plot_series);
    free(entries);
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
        err = write_figure(&figure, canvas, script, diag);
        kv__figure_fini(&figure);
    }
    kv_curves_free(curves);
    return err;
}
