/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* What all kinds of plots share: a title, panels in rows and columns, a legend of our own
 * (gnuplot's drops entries that it finds no room for), a colour bar and a caption, placed so that
 * no text meets another. Internal.
 *
 *     kv__sheet_init(&sheet, canvas, script);
 *     kv_sheet_entry *entry = kv__sheet_entry(&sheet, "snapkv");   for each series
 *     kv__sheet_begin(&sheet, panels, title, caption);
 *     kv__sheet_panel(&sheet, i, title, x, y); then a plot command   for each panel
 *     kv__sheet_end(&sheet);
 */
#ifndef KVSIM_ANALYSIS_SHEET_H
#define KVSIM_ANALYSIS_SHEET_H

#include "analysis/plot.h"

enum { KV_SHEET_ENTRIES = 40 };

/* One line of the legend: gnuplot styles of what is drawn ("": none) and its name. */
typedef struct kv_sheet_entry {
    char line[96], point[96], text[256];
} kv_sheet_entry;

/* A place on the canvas, in pixels from the upper left. */
typedef struct kv_box {
    double x, y, width, height;
} kv_box;

typedef struct kv_sheet {
    FILE *script; /* borrowed */
    int width, height;
    int font;     /* size of usual text in the units of the terminal */
    double scale; /* of points */
    int columns;  /* of panels; 0 before kv__sheet_begin: as it fits */
    int rows, panels;
    const char *colour_bar;       /* its title; NULL: there is none */
    const char *short_colour_bar; /* the same in little room */
    kv_sheet_entry entry[KV_SHEET_ENTRIES];
    int entries;
    double widest_title; /* of the panels, in pixels; see kv__sheet_title */
    kv_box area, legend; /* set by kv__sheet_begin, as the rest is */
    int legend_columns;
    double entry_width; /* of the text of an entry */
    int panel_top;      /* room above a panel: its title in one line or in two */
} kv_sheet;

void kv__sheet_init(kv_sheet *sheet, const kv_plot_options *canvas, FILE *script);

/* A new line of the legend, NULL if it is full. */
kv_sheet_entry *kv__sheet_entry(kv_sheet *sheet, const char *text);
/* The same with the looks of series `number`, from 0: lines, points or both. */
void kv__sheet_series(kv_sheet *sheet, const char *text, int number, bool line, bool point);
/* " with linespoints ..." of a series, as its entry looks. */
void kv__sheet_style(const kv_sheet *sheet, int number, bool line, bool point);

/* How a line with points looks that is no series of a number: kv__figure_colour, gnuplot dash and
 * point types. */
typedef struct kv_look {
    int colour, dash, point;
} kv_look;

/* The same two for such a line. */
void kv__sheet_look(kv_sheet *sheet, const char *text, const kv_look *look);
void kv__sheet_look_style(const kv_sheet *sheet, const kv_look *look);
/* Writes plot elements, each followed by a comma, of series `number`: block $dN of places, values
 * and the ends of their intervals as bars, block $nN as crosses; then the beginning of what shows
 * the values, which takes a style. */
void kv__sheet_intervals(const kv_sheet *sheet, int number, const kv_look *look);

/* Tells of a panel's title before the layout, which leaves room for two lines where one is too few.
 */
void kv__sheet_title(kv_sheet *sheet, const char *title);

/* Lays out and writes title and caption. Both are text as it stands. */
void kv__sheet_begin(kv_sheet *sheet, int panels, const char *title, const char *caption);

/* Writes place, title, labels (NULL: none) and looks of the axes of a panel; the caller's ranges
 * and plot command follow. A label may be several, the longest first, with tabs between: the first
 * that there is room for is taken. */
void kv__sheet_panel(kv_sheet *sheet, int panel, const char *title, const char *x_label,
                     const char *y_label);
/* The inside of a panel. */
kv_box kv__sheet_box(const kv_sheet *sheet, int panel);
/* Writes the range of an axis, and so many ticks that their numbers do not meet: from..to; 0 to
 * what ends on a tick; whole powers of ten. */
void kv__sheet_x(const kv_sheet *sheet, int panel, double from, double to);
void kv__sheet_y(const kv_sheet *sheet, int panel, double to);
void kv__sheet_log_x(const kv_sheet *sheet, int panel, double from, double to);
/* Every how many of rows or columns, each so many pixels, can have a text of so many: 1, 2, 4 ...
 */
int kv__sheet_every(double each, double text);
/* True of panels that no other stands below of, or left of. */
bool kv__sheet_lowest(const kv_sheet *sheet, int panel);
bool kv__sheet_leftmost(const kv_sheet *sheet, int panel);

/* Writes the legend and ends the picture. */
void kv__sheet_end(kv_sheet *sheet);

/* Cuts text in its middle so that at most `letters` remain (0: any number), at whole characters. */
void kv__text_fit(const char *text, int letters, char *out, size_t bytes);
/* The same for a width in pixels at a size of the font in pixels. */
void kv__text_fit_width(const char *text, double size, double width, char *out, size_t bytes);

#endif
