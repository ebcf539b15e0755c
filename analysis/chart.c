/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "analysis/chart.h"

#include "analysis/figure.h"
#include "analysis/html.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

enum { WIDTH = 620, HEIGHT = 230, LEFT = 64, RIGHT = 16, TOP = 10, BOTTOM = 46 };

static const char *const dashes[] = {"none", "8 4", "2 4", "8 4 2 4", "8 4 2 4 2 4"};

/* Colours of series that differ by dashes, too; the palette's ink is the page's. */
static const char *colour_of(int series)
{
    const char *colour = kv__figure_colour(series);
    return strcmp(colour, KV_FIGURE_INK) == 0 ? "currentColor" : colour;
}

/* 1, 2 or 5 times a power of ten, so that some four steps make the axis. */
static double step_of(double most)
{
    double raw = most / 4, power = pow(10, floor(log10(raw)));
    double digit = raw / power;
    return power * (digit <= 1 ? 1 : digit <= 2 ? 2 : digit <= 5 ? 5 : 10);
}

static double x_at(const kv_chart *c, double x)
{
    double share =
        c->x_least > 0 ? log(x / c->x_least) / log(c->x_most / c->x_least) : x / c->x_most;
    return LEFT + (WIDTH - LEFT - RIGHT) * share;
}

static void write_x_number(const kv_chart *c, double x, FILE *out)
{
    fprintf(out, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%.6g</text>\n", x_at(c, x),
            HEIGHT - BOTTOM + 18, x);
}

/* Powers of ten, and 2 and 5 times them if that leaves enough room. */
static void write_log_numbers(const kv_chart *c, FILE *out)
{
    double decades = log10(c->x_most / c->x_least);
    for (int power = (int)floor(log10(c->x_least)); power <= (int)floor(log10(c->x_most)); power++)
        for (int digit = 1; digit <= 5; digit = digit == 1 && decades < 3 ? 2
                                                : digit == 2              ? 5
                                                                          : 6) {
            double x = digit * pow(10, power);
            if (x >= c->x_least * 0.999 && x <= c->x_most * 1.001)
                write_x_number(c, x, out);
        }
}

static double y_at(const kv_chart *c, double y)
{
    return TOP + (HEIGHT - TOP - BOTTOM) * (1 - y / c->y_most);
}

static void write_axes(const kv_chart *c, FILE *out)
{
    double x_step = step_of(c->x_most), y_step = step_of(c->y_most);
    bool linear = !(c->x_least > 0);
    fputs("<g class=\"axes\" font-size=\"12\" fill=\"currentColor\">\n", out);
    for (int i = 0; i * y_step <= c->y_most * 1.0001; i++)
        fprintf(out,
                "<path class=\"gridline\" d=\"M%d %.1fH%d\"/><text x=\"%d\" y=\"%.1f\" "
                "text-anchor=\"end\">%.6g</text>\n",
                LEFT, y_at(c, i * y_step), WIDTH - RIGHT, LEFT - 8, y_at(c, i * y_step) + 4,
                i * y_step);
    for (int i = 0; linear && i * x_step <= c->x_most * 1.0001; i++)
        write_x_number(c, i * x_step, out);
    if (!linear)
        write_log_numbers(c, out);
    fprintf(out, "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">", (LEFT + WIDTH - RIGHT) / 2,
            HEIGHT - 8);
    kv__html_text(out, c->x_label);
    fprintf(out,
            "</text>\n<text transform=\"translate(14,%d) rotate(-90)\" text-anchor=\"middle\">",
            (TOP + HEIGHT - BOTTOM) / 2);
    kv__html_text(out, c->y_label);
    fputs("</text>\n</g>\n", out);
}

static void write_line(const kv_chart *c, const kv_chart_line *line, FILE *out)
{
    fprintf(out,
            "<path data-series=\"%d\" fill=\"none\" stroke=\"%s\" stroke-width=\"2\" "
            "stroke-dasharray=\"%s\" d=\"",
            line->series, colour_of(line->series), dashes[line->series % 5]);
    for (int i = 0; i < line->count; i++)
        fprintf(out, "%s%.1f %.1f", i > 0 ? "L" : "M", x_at(c, line->x[i]), y_at(c, line->y[i]));
    fputs("\"/>\n", out);
    for (int i = 0; i < line->count && c->dots; i++)
        fprintf(out, "<circle data-series=\"%d\" cx=\"%.1f\" cy=\"%.1f\" r=\"3\" fill=\"%s\"/>\n",
                line->series, x_at(c, line->x[i]), y_at(c, line->y[i]), colour_of(line->series));
}

/* At most one spot in four pixels. */
static void write_spots(const kv_chart *c, const kv_chart_line *line, FILE *out)
{
    double last = -INFINITY;
    for (int i = 0; i < line->count; i++) {
        double x = x_at(c, line->x[i]);
        if (x - last < 4)
            continue;
        last = x;
        fprintf(out,
                "<circle class=\"spot\" data-series=\"%d\" cx=\"%.1f\" cy=\"%.1f\" "
                "r=\"6\"><title>",
                line->series, x, y_at(c, line->y[i]));
        kv__html_text(out, line->name);
        fprintf(out, "\n%.4g %s at %.4g %s</title></circle>\n", line->y[i], c->y_unit, line->x[i],
                c->x_unit);
    }
}

void kv__chart_write(const kv_chart *chart, FILE *out)
{
    kv_chart c = *chart;
    c.x_most = c.x_most > 0 && isfinite(c.x_most) ? c.x_most : 1;
    c.y_most = c.y_most > 0 && isfinite(c.y_most) ? 1.05 * c.y_most : 1;
    if (c.x_least > 0) { /* to 1, 2 or 5 times a power of ten on either side */
        double most = 4 * c.x_most;
        c.x_most = step_of(most);
        c.x_least = c.x_least < c.x_most ? pow(10, floor(log10(c.x_least))) : c.x_most / 10;
    }
    fprintf(out, "<svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"", WIDTH, HEIGHT);
    kv__html_text(out, c.description);
    fputs("\">\n", out);
    write_axes(&c, out);
    for (int i = 0; i < c.lines; i++)
        write_line(&c, &c.line[i], out);
    for (int i = 0; i < c.lines; i++)
        write_spots(&c, &c.line[i], out);
    fputs("</svg>\n", out);
}

void kv__chart_button(const char *name, int series, FILE *out)
{
    fprintf(
        out,
        "<button type=\"button\" data-series=\"%d\" aria-pressed=\"true\"><svg viewBox=\"0 0 44 "
        "14\" aria-hidden=\"true\"><path d=\"M0 7H44\" stroke=\"%s\" stroke-width=\"2\" "
        "stroke-dasharray=\"%s\"/></svg>",
        series, colour_of(series), dashes[series % 5]);
    kv__html_text(out, name);
    fputs("</button>\n", out);
}
