/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* A line chart as SVG, for the report: axes, lines, and a spot on every point that says its values
 * when pointed at. Internal. */
#ifndef KVSIM_ANALYSIS_CHART_H
#define KVSIM_ANALYSIS_CHART_H

#include <stdbool.h>
#include <stdio.h>

typedef struct kv_chart_line {
    const char *name; /* as it stands */
    int series;       /* data-series, and its colour and dashes */
    const double *x, *y;
    int count; /* >= 0 */
} kv_chart_line;

typedef struct kv_chart {
    const char *x_label, *y_label; /* with units */
    const char *description;       /* for readers who do not see it */
    double x_most, y_most;         /* axes begin at 0 */
    double x_least;                /* > 0: the x axis is logarithmic and begins here */
    const kv_chart_line *line;
    int lines;
    const char *x_unit, *y_unit; /* of values when pointed at */
    bool dots;                   /* every point is seen, as where lines are of few */
} kv_chart;

void kv__chart_write(const kv_chart *chart, FILE *out);

/* A button that shows and hides a series, with a sample of its line. */
void kv__chart_button(const char *name, int series, FILE *out);

#endif
