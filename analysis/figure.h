/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Footprint against accuracy as gnuplot draws it: which curves are shown, how each series looks,
 * and one panel per task. Shared by `kvsim plot` and the report. Internal. */
#ifndef KVSIM_ANALYSIS_FIGURE_H
#define KVSIM_ANALYSIS_FIGURE_H

#include "analysis/curves.h"

#include <stdbool.h>
#include <stdio.h>

/* A series is a policy with its settings under one chunk size; it looks the same in every panel. */
typedef struct kv_series {
    const char *label; /* borrowed from a curve, as title is */
    const char *title;
    long long chunk_tokens;
    bool oracle; /* drawn as a reference: dashed, in the ink of the page, without intervals */
    int colour;  /* see kv__figure_colour */
    int dash;    /* gnuplot dash type */
    int point;   /* gnuplot point type */
} kv_series;

typedef struct kv_figure {
    const kv_curves *curves;
    const char **task; /* [tasks], borrowed */
    int tasks;
    kv_series *series; /* [count] */
    int count;
    int hidden;     /* series that were left out because they were too many */
    char note[256]; /* says so, "" if none was */
} kv_figure;

/* Chooses at most `most` series and their looks. If there are more, one chunk size per policy
 * stays: the one that most policies have, or the nearest; then those with the least critical
 * footprints. */
kv_err kv__figure_init(kv_figure *figure, const kv_curves *curves, int most,
                       kv_diag *diag) KV_MUST_USE;
void kv__figure_fini(kv_figure *figure);

/* The curve of a series on a task, NULL if there is none. */
const kv_curve *kv__figure_curve(const kv_figure *figure, int task, int series);
/* The curve of the full policy on a task, NULL if there is none. */
const kv_curve *kv__figure_full(const kv_figure *figure, int task);
/* Any curve of a task whose threshold is known, NULL if there is none. */
const kv_curve *kv__figure_known(const kv_figure *figure, int task);

/* The colour of the palette that stands for black; a page that may be dark replaces it. */
#define KV_FIGURE_INK "#333333"

/* "#e69f00". Series 0.. take a palette that colour-blind readers can tell apart. */
const char *kv__figure_colour(int colour);
/* gnuplot point and dash types of series 0.., so that no two differ by colour alone. */
int kv__figure_point(int series);
int kv__figure_dash(int series);

/* The point type of a series where crosses mean something else: open shapes stand for oracles. */
int kv__figure_open_point(const kv_figure *figure, int series);

/* The weakest accuracy_source among its curves. */
const char *kv__figure_source(const kv_figure *figure);

/* "snapkv chunked, chunk 64" in at most `letters` letters (0: any number): a long title is cut in
 * its middle. */
void kv__series_text(const kv_series *series, int letters, char *out, size_t bytes);

/* Ranges of the axes: percent of footprint, accuracy. */
typedef struct kv_axes {
    double x_most, y_most;
} kv_axes;
kv_axes kv__figure_axes(const kv_figure *figure);

/* Writes the data blocks of a task, then the plot command of its panel. Margins, titles and
 * terminal are the caller's. plot_series[i] tells which series plot element i + 1 belongs to, -1:
 * none; it must hold KV_PANEL_ELEMENTS per series and 2 more. Answers the number of elements. */
enum { KV_PANEL_ELEMENTS = 3 };
int kv__figure_panel(const kv_figure *figure, int task, double scale, FILE *script,
                     int *plot_series);

#endif
