/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Which points of a run, of those that kept their retained sets, the plots of sets show. Internal.
 */
#ifndef KVSIM_ANALYSIS_SETS_H
#define KVSIM_ANALYSIS_SETS_H

#include "analysis/plot.h"
#include "analysis/sheet.h"

enum { KV_SETS_MOST = 9 };

typedef struct kv_set_point {
    long long id; /* footprint_point.id */
    char *title;  /* policy, settings, chunk size, footprint */
} kv_set_point;

typedef struct kv_sets {
    long long run_id;
    char *name, *version, *task; /* of the experiment, of kvsim, of the points */
    char *example;               /* the one asked for, else the first */
    kv_set_point point[KV_SETS_MOST];
    int points;
    int layers, heads;
    int left_out; /* points of the task for which there was no room */
} kv_sets;

/* One point per policy: that whose budget (footprint, if it has none) is nearest to options->keep,
 * or, if that is 0, to a quarter; of its smallest chunk size, or one for each that is asked for.
 * One task: the first if none is asked for. */
kv_err kv__sets_load(kv_results *results, const kv_plot_options *options, int most, kv_sets *out,
                     kv_diag *diag) KV_MUST_USE;
void kv__sets_fini(kv_sets *sets);

/* Palette of shares from 0 to `most` percent and, in the last panel, its bar; then the box of share
 * `share` at x0..x1, y0..y1 is a line "x0 x1 y0 y1 share" of a data block that kv__sets_boxes
 * plots. */
void kv__sets_palette(kv_sheet *sheet, int panel, double most);
void kv__sets_boxes(kv_sheet *sheet, const char *block);

/* The caption's end. */
void kv__sets_caption(const kv_sets *sets, char *out, size_t bytes);

#endif
