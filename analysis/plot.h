/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Plots of a results database. A kind of plot is one file in analysis/plots/ that ends in
 * KV_PLOT_DEFINE(name) = {...}, and one line in analysis/analysis.am. */
#ifndef KVSIM_ANALYSIS_PLOT_H
#define KVSIM_ANALYSIS_PLOT_H

#include "analysis/curves.h"

#include <stdio.h>

typedef enum kv_plot_format { KV_PLOT_SVG, KV_PLOT_PNG, KV_PLOT_PDF } kv_plot_format;

typedef struct kv_plot_options {
    kv_plot_format format;
    int width, height;      /* pixels, of a PDF at 100 to the inch; 0: as the kind likes */
    kv_curve_filter filter; /* what is shown */
    const char *example;    /* of sets that were kept; NULL: the first */
    double keep;            /* the budget nearest to it, of kinds that show one; 0: as they like */
    long long point;        /* serving_point.number + 1; 0: all, or the first */
} kv_plot_options;

typedef struct kv_plot_kind {
    const char *name;
    const char *brief;
    int width, height; /* default size */
    /* Writes a gnuplot script. `canvas` has its size filled in; the terminal is set already, with
     * every text taken literally (noenhanced). */
    kv_err (*write)(kv_results *results, const kv_plot_options *canvas, FILE *script,
                    kv_diag *diag);
} kv_plot_kind;

#define KV_PLOT_DEFINE(id) const kv_plot_kind kv__plot_##id

/* The table of all kinds, ended by NULL. */
const kv_plot_kind *const *kv_plot_all(void);
/* The kind of that name, or NULL. */
const kv_plot_kind *kv_plot_find(const char *name);

/* The format that the end of a path names; false if it names none of ours. */
bool kv_plot_format_of(const char *path, kv_plot_format *format);

/* The size of usual text in a format's terminal, in the terminal's own units: 13 pixels or so. */
int kv_plot_font(kv_plot_format format);

/* How many times its usual size a point must be in a format's terminal to look the same in all. */
double kv_plot_point_scale(kv_plot_format format);

/* Draws a plot into a file, which appears only when it is complete; path NULL: to standard output.
 */
kv_err kv_plot_draw(kv_results *results, const kv_plot_kind *kind, const kv_plot_options *options,
                    const char *path, kv_diag *diag) KV_MUST_USE;

#endif
