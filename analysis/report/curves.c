/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Curves: one figure per task as gnuplot draws it, made part of the page. gnuplot sees numbers
 * only; titles, legend and what shows up under the pointer are HTML and SVG of our own, so that the
 * page can hide a series and follow the reader's light or dark colours. */
#include "config.h"

#include "analysis/figure.h"
#include "analysis/gnuplot.h"
#include "analysis/html.h"
#include "analysis/report.h"
#include "analysis/report_curves.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static kv_err write_curves(const kv_report *report, FILE *out, kv_diag *diag);

KV_SECTION_DEFINE(curves) = {
    .name = "curves",
    .title = "Accuracy against KV footprint",
    .write = write_curves,
};

/* A figure in pixels. */
enum { WIDTH = 620, HEIGHT = 390, LEFT = 68, RIGHT = 16, TOP = 10, BOTTOM = 58, MOST_SERIES = 40 };

static const double point_scale = 0.8;

/* --- gnuplot ---------------------------------------------------------------------------------- */

static int write_script(const kv_figure *figure, int task, int *plot_series, FILE *script)
{
    kv_axes axes = kv__figure_axes(figure);
    fprintf(script,
            "set encoding utf8\nset terminal svg size %d,%d noenhanced font 'sans-serif,13' name "
            "'kv%d'\nset lmargin at screen %.8f\nset rmargin at screen %.8f\n"
            "set bmargin at screen %.8f\nset tmargin at screen %.8f\nunset key\n",
            WIDTH, HEIGHT, task, (double)LEFT / WIDTH, 1 - (double)RIGHT / WIDTH,
            (double)BOTTOM / HEIGHT, 1 - (double)TOP / HEIGHT);
    fprintf(script,
            "set xrange [0:%.10g]\nset yrange [0:%.10g]\nset xtics 20\nset mxtics 2\n"
            "set grid xtics ytics\nset border 3\nset tics nomirror out scale 0.6\n"
            "set xlabel 'KV footprint (%% of full causal attention)' offset 0,0.3\n"
            "set ylabel 'accuracy (%s)' offset 1.5,0\n",
            axes.x_most, axes.y_most, kv__figure_source(figure));
    return kv__figure_panel(figure, task, point_scale, script, plot_series);
}

/* Draws into a text that is to be freed. */
static kv_err draw(const kv_figure *figure, int task, int *plot_series, char **svg, kv_diag *diag)
{
    FILE *script = tmpfile(), *picture = tmpfile();
    kv_err err =
        script && picture ? KV_OK : kv_fail(diag, KV_ERR_IO, NULL, "cannot write a temporary file");
    if (err == KV_OK) {
        write_script(figure, task, plot_series, script);
        err = kv__gnuplot_run(script, fileno(picture), diag);
    }
    if (err == KV_OK) {
        long bytes = fseek(picture, 0, SEEK_END) == 0 ? ftell(picture) : -1;
        *svg = bytes > 0 ? calloc(1, (size_t)bytes + 1) : NULL;
        rewind(picture);
        if (*svg == NULL || fread(*svg, 1, (size_t)bytes, picture) != (size_t)bytes) {
            free(*svg);
            err = kv_fail(diag, KV_ERR_IO, NULL, "gnuplot drew nothing");
        }
    }
    if (script != NULL)
        fclose(script);
    if (picture != NULL)
        fclose(picture);
    return err;
}

/* --- into the page ---------------------------------------------------------------------------- */

/* What is rewritten in gnuplot's SVG. Black, and what we gave for it, becomes the page's ink; the
 * names of what every SVG defines get the figure's number. */
typedef struct rewrite {
    const char *from, *to; /* %d in `to` is the figure's number */
} rewrite;

static const rewrite rewrites[] = {
    {" color=\"black\"", ""},
    {"\"black\"", "\"currentColor\""},
    {"'black'", "'currentColor'"},
    {"'rgb( 51,  51,  51)'", "'currentColor'"},
    {"\"rgb(51,51,51)\"", "\"currentColor\""},
    {"'rgb(51,51,51)'", "'currentColor'"},
    {"gnuplot_canvas", "kv%d_canvas"},
    {"gpPt", "kv%d_point"},
    {"gpDot", "kv%d_dot"},
    {"'textbox'", "'kv%d_textbox'"},
    {"'greybox'", "'kv%d_greybox'"},
};

/* Writes the opening tag of plot element `number` of a figure, and answers what follows it in
 * gnuplot's SVG: `<g id="kv0_plot_3" ><title>kv0_plot_3</title>`. */
static const char *write_element(const char *at, int task, const int *plot_series, int elements,
                                 FILE *out)
{
    int number = 0, bytes = 0, figure = 0, again = 0, other = 0;
    if (sscanf(at, "<g id=\"kv%d_plot_%d\" ><title>kv%d_plot_%d</title>%n", &figure, &number,
               &other, &again, &bytes) != 4 ||
        bytes == 0 || figure != task || number < 1 || number > elements)
        return NULL;
    if (plot_series[number - 1] >= 0)
        fprintf(out, "<g data-series=\"%d\">", plot_series[number - 1]);
    else
        fputs("<g>", out);
    return at + bytes;
}

static const char *write_rewritten(const char *at, int task, FILE *out)
{
    for (size_t i = 0; i < sizeof rewrites / sizeof rewrites[0]; i++) {
        size_t bytes = strlen(rewrites[i].from);
        if (strncmp(at, rewrites[i].from, bytes) != 0)
            continue;
        const char *mark = strstr(rewrites[i].to, "%d");
        if (mark != NULL)
            fprintf(out, "%.*s%d%s", (int)(mark - rewrites[i].to), rewrites[i].to, task, mark + 2);
        else
            fputs(rewrites[i].to, out);
        return at + bytes;
    }
    return NULL;
}

/* Writes what is between <svg ...> and </svg>, without the title that would show up everywhere. */
static void write_body(const char *svg, int task, const int *plot_series, int elements, FILE *out)
{
    const char *at = strstr(svg, "<g id=\"gnuplot_canvas\">");
    const char *end = strstr(svg, "</svg>");
    while (at != NULL && end != NULL && at < end) {
        const char *next = NULL;
        if (*at == '<')
            next = write_element(at, task, plot_series, elements, out);
        if (next == NULL)
            next = write_rewritten(at, task, out);
        if (next == NULL) {
            fputc(*at, out);
            next = at + 1;
        }
        at = next;
    }
}

/* Invisible circles over the points, whose titles show up under the pointer. */
static void write_spots(const kv_figure *figure, int task, FILE *out)
{
    kv_axes axes = kv__figure_axes(figure);
    double wide = WIDTH - LEFT - RIGHT, high = HEIGHT - TOP - BOTTOM;
    for (int i = 0; i < figure->count; i++) {
        const kv_curve *curve = kv__figure_curve(figure, task, i);
        char series[512];
        kv__series_text(&figure->series[i], 0, series, sizeof series);
        for (int p = 0; curve != NULL && p < curve->points; p++) {
            const kv_curve_point *point = &curve->point[p];
            if (isnan(point->accuracy) || isnan(point->kv_footprint))
                continue;
            fprintf(
                out,
                "<circle class=\"spot\" data-series=\"%d\" cx=\"%.2f\" cy=\"%.2f\" r=\"8\"><title>",
                i, LEFT + wide * 100 * point->kv_footprint / axes.x_most,
                TOP + high * (1 - point->accuracy / axes.y_most));
            kv__html_text(out, series);
            if (!isnan(point->keep))
                fprintf(out, ", keep %g", point->keep);
            fprintf(out, "\nfootprint %.1f %%, accuracy %.3f", 100 * point->kv_footprint,
                    point->accuracy);
            if (!isnan(point->lo) && !isnan(point->hi))
                fprintf(out, " (%.3f to %.3f)", point->lo, point->hi);
            fputs("</title></circle>\n", out);
        }
    }
}

static kv_err write_figure(const kv_figure *figure, int task, int *plot_series, FILE *out,
                           kv_diag *diag)
{
    char *svg = NULL;
    const kv_curve *known = kv__figure_known(figure, task);
    kv_err err = draw(figure, task, plot_series, &svg, diag);
    if (err != KV_OK)
        return err;
    fputs("<figure>\n<h3>", out);
    kv__html_text(out, figure->task[task]);
    if (known != NULL)
        fprintf(out, " <span class=\"soft\">(%d example%s)</span>", known->examples,
                known->examples == 1 ? "" : "s");
    fprintf(out,
            "</h3>\n<svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"Accuracy against KV "
            "footprint, task ",
            WIDTH, HEIGHT);
    kv__html_text(out, figure->task[task]);
    fputs("\">\n", out);
    write_body(svg, task, plot_series, KV_PANEL_ELEMENTS * figure->count + 2, out);
    write_spots(figure, task, out);
    fputs("</svg>\n</figure>\n", out);
    free(svg);
    return KV_OK;
}

/* --- legend ----------------------------------------------------------------------------------- */

/* A sample of a series, with the point that the first figure defines. */
static void write_sample(const kv_series *series, FILE *out)
{
    static const char *const dashes[] = {"none", "8 4", "2 4", "8 4 2 4", "8 4 2 4 2 4"};
    const char *colour = kv__figure_colour(series->colour);
    colour = strcmp(colour, KV_FIGURE_INK) == 0 ? "currentColor" : colour;
    fprintf(out,
            "<svg viewBox=\"0 0 44 14\" aria-hidden=\"true\"><path d=\"M0 7H44\" stroke=\"%s\" "
            "stroke-width=\"2\" stroke-dasharray=\"%s\"/><use href=\"#kv0_point%d\" "
            "transform=\"translate(22,7) scale(4.2)\" fill=\"none\" color=\"%s\"/></svg>",
            colour, dashes[(series->dash - 1) % 5], series->point - 1, colour);
}

static void write_legend(const kv_figure *figure, FILE *out)
{
    const kv_curve *known = NULL;
    for (int t = 0; t < figure->tasks && known == NULL; t++)
        known = kv__figure_known(figure, t);
    fputs("<div class=\"legend\" role=\"group\" aria-label=\"Series: press to hide or show\">\n",
          out);
    for (int i = 0; i < figure->count; i++) {
        char text[512];
        kv__series_text(&figure->series[i], 0, text, sizeof text);
        fprintf(out, "<button type=\"button\" data-series=\"%d\" aria-pressed=\"true\">", i);
        write_sample(&figure->series[i], out);
        kv__html_text(out, text);
        fputs("</button>\n", out);
    }
    if (figure->count > 2)
        fputs("<button type=\"button\" data-all=\"true\">show all</button>\n"
              "<button type=\"button\" data-all=\"false\">hide all</button>\n",
              out);
    fprintf(
        out,
        "<span class=\"key\"><svg viewBox=\"0 0 44 14\" aria-hidden=\"true\"><path d=\"M0 7H44\" "
        "stroke=\"#808080\" stroke-dasharray=\"3 3\"/></svg>%g x full accuracy</span>\n"
        "<span class=\"key\"><svg viewBox=\"0 0 44 14\" aria-hidden=\"true\"><circle cx=\"22\" "
        "cy=\"7\" r=\"6\" fill=\"none\" stroke=\"currentColor\" stroke-width=\"1.5\"/></svg>"
        "critical footprint</span>\n<span class=\"key\"><svg viewBox=\"0 0 44 14\" "
        "aria-hidden=\"true\"><use href=\"#kv0_point2\" transform=\"translate(22,7) "
        "scale(5.5)\" color=\"#808080\"/></svg>full cache</span>\n</div>\n",
        known ? known->threshold : 0.9);
}

static kv_err write_figures(const kv_figure *figure, FILE *out, kv_diag *diag)
{
    int *plot_series = calloc((size_t)(KV_PANEL_ELEMENTS * figure->count + 2), sizeof *plot_series);
    kv_err err = plot_series ? KV_OK : kv_fail_memory(diag);
    write_legend(figure, out);
    if (figure->note[0])
        fprintf(out, "<p class=\"soft\">%s</p>\n", figure->note);
    fputs("<div class=\"figures\">\n", out);
    for (int t = 0; t < figure->tasks && err == KV_OK; t++)
        err = write_figure(figure, t, plot_series, out, diag);
    fputs("</div>\n", out);
    free(plot_series);
    return err;
}

/* Without gnuplot the page is the tables, and says so. */
static kv_err write_curves(const kv_report *report, FILE *out, kv_diag *diag)
{
    kv_curves *curves = NULL;
    kv_figure figure;
    kv_diag trouble = {0};
    char *text = NULL;
    size_t bytes = 0;
    kv_err err = kv__report_curves(report, &curves, diag);
    if (err != KV_OK)
        return err;
    FILE *aside = open_memstream(&text, &bytes);
    err = aside ? kv__figure_init(&figure, curves, MOST_SERIES, diag) : kv_fail_memory(diag);
    if (err == KV_OK) {
        err = write_figures(&figure, aside, &trouble);
        kv__figure_fini(&figure);
    }
    if (aside != NULL && fclose(aside) != 0 && err == KV_OK)
        err = kv_fail_memory(diag);
    if (err == KV_OK)
        fwrite(text, 1, bytes, out);
    else if (err == KV_ERR_UNSUPPORTED)
        fprintf(out, "<p class=\"note\">No curves: %s.</p>\n", trouble.text);
    else if (diag->code == KV_OK)
        *diag = trouble;
    free(text);
    kv_curves_free(curves);
    return err == KV_ERR_UNSUPPORTED ? KV_OK : err;
}
