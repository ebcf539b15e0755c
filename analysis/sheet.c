/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "analysis/sheet.h"

#include "analysis/figure.h"
#include "analysis/gnuplot.h"
#include "analysis/text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* All in pixels. */
enum {
    TEXT = 17, /* height of a line */
    FONT = 14, /* size of usual text, in the terminal where it is largest */
    GAP = 8,
    SAMPLE = 64, /* of a line in the legend, with gaps */
    TITLE = 34,  /* above everything */
    EDGE = 12,
    PANEL_LEFT = 62, /* room for what stands around the axes */
    PANEL_RIGHT = 14,
    PANEL_TOP = 26, /* with a title of one line */
    PANEL_BOTTOM = 54,
    BAR = 84,      /* of a colour bar with its numbers */
    MOST_LINES = 8 /* of the caption */
};

void kv__sheet_init(kv_sheet *sheet, const kv_plot_options *canvas, FILE *script)
{
    *sheet = (kv_sheet){.script = script,
                        .width = canvas->width,
                        .height = canvas->height,
                        .font = kv_plot_font(canvas->format),
                        .scale = kv_plot_point_scale(canvas->format)};
}

/* --- legend ----------------------------------------------------------------------------------- */

kv_sheet_entry *kv__sheet_entry(kv_sheet *sheet, const char *text)
{
    if (sheet->entries == KV_SHEET_ENTRIES)
        return NULL;
    kv_sheet_entry *entry = &sheet->entry[sheet->entries++];
    *entry = (kv_sheet_entry){.line = ""};
    snprintf(entry->text, sizeof entry->text, "%s", text);
    return entry;
}

/* Lines without points are told apart by their dashes, too. */
static int dash_of(int number, bool point)
{
    return point ? kv__figure_dash(number) : 1 + number % 5;
}

void kv__sheet_series(kv_sheet *sheet, const char *text, int number, bool line, bool point)
{
    kv_sheet_entry *entry = kv__sheet_entry(sheet, text);
    const char *colour = kv__figure_colour(number);
    if (entry != NULL && line)
        snprintf(entry->line, sizeof entry->line, "lines lw 2 dt %d lc rgb '%s'",
                 dash_of(number, point), colour);
    if (entry != NULL && point)
        snprintf(entry->point, sizeof entry->point, "points pt %d ps %.3g lc rgb '%s'",
                 kv__figure_point(number), 0.8 * sheet->scale, colour);
}

void kv__sheet_style(const kv_sheet *sheet, int number, bool line, bool point)
{
    fprintf(sheet->script, " with %s lw 2 lc rgb '%s'",
            line && point ? "linespoints"
            : line        ? "lines"
                          : "points",
            kv__figure_colour(number));
    if (line)
        fprintf(sheet->script, " dt %d", dash_of(number, point));
    if (point)
        fprintf(sheet->script, " pt %d ps %.3g", kv__figure_point(number), 0.8 * sheet->scale);
    fputs(" notitle", sheet->script);
}

void kv__sheet_look(kv_sheet *sheet, const char *text, const kv_look *look)
{
    kv_sheet_entry *entry = kv__sheet_entry(sheet, text);
    const char *colour = kv__figure_colour(look->colour);
    if (entry == NULL)
        return;
    snprintf(entry->line, sizeof entry->line, "lines lw 2 dt %d lc rgb '%s'", look->dash, colour);
    snprintf(entry->point, sizeof entry->point, "points pt %d ps %.3g lc rgb '%s'", look->point,
             0.8 * sheet->scale, colour);
}

void kv__sheet_look_style(const kv_sheet *sheet, const kv_look *look)
{
    fprintf(sheet->script, " with linespoints lw 2 lc rgb '%s' dt %d pt %d ps %.3g notitle",
            kv__figure_colour(look->colour), look->dash, look->point, 0.8 * sheet->scale);
}

void kv__sheet_intervals(const kv_sheet *sheet, int number, const kv_look *look)
{
    const char *colour = kv__figure_colour(look->colour);
    fprintf(
        sheet->script,
        "$d%d using 1:3:(0):($4-$3) with vectors nohead lw 1 lc rgb '#90%s' notitle, $n%d using "
        "1:2 with points pt 2 ps %.3g lw 2 lc rgb '%s' notitle, $d%d using 1:2",
        number, colour + 1, number, 1.1 * sheet->scale, colour, number);
}

/* --- layout ----------------------------------------------------------------------------------- */

/* Width of the longest text in the legend; at most so much that two fit side by side, or one if
 * they are few. */
static double entry_width(const kv_sheet *sheet, double width)
{
    double longest = 0, most = (sheet->entries > 3 ? width / 2 : width) - SAMPLE;
    for (int i = 0; i < sheet->entries; i++)
        longest = fmax(longest, kv__text_width(sheet->entry[i].text, FONT) + GAP);
    return fmin(longest, most);
}

/* Puts the legend on the right or below, wherever that leaves the panels more room. */
static void place(kv_sheet *out, int caption_lines)
{
    double top = TITLE, left = EDGE, width = out->width - 2 * EDGE;
    double height = out->height - TITLE - EDGE - (caption_lines * TEXT + 6);
    if (out->colour_bar != NULL)
        width -= BAR;
    out->area = (kv_box){left, top, width, height};
    out->legend_columns = 1;
    if (out->entries == 0)
        return;
    out->entry_width = entry_width(out, width);
    double entry = SAMPLE + out->entry_width;
    int across = (int)(width / entry) > 0 ? (int)(width / entry) : 1;
    int lines = (out->entries + across - 1) / across;
    double below = width * (height - lines * TEXT - EDGE), beside = (width - entry) * height;
    if (beside > below && out->entries * TEXT <= height) {
        out->legend = (kv_box){left + width - entry, top + PANEL_TOP, entry, out->entries * TEXT};
        out->area.width -= entry;
        return;
    }
    out->legend_columns = across;
    out->legend = (kv_box){left, top + height - lines * TEXT, width, lines * TEXT};
    out->area.height -= lines * TEXT + EDGE;
}

kv_box kv__sheet_box(const kv_sheet *sheet, int panel)
{
    double width = sheet->area.width / sheet->columns, height = sheet->area.height / sheet->rows;
    return (kv_box){sheet->area.x + (panel % sheet->columns) * width + PANEL_LEFT,
                    sheet->area.y + (panel / sheet->columns) * height + sheet->panel_top,
                    width - PANEL_LEFT - PANEL_RIGHT, height - sheet->panel_top - PANEL_BOTTOM};
}

/* Pixels that a title of one line may have. */
static double title_room(const kv_sheet *sheet)
{
    return sheet->area.width / sheet->columns - PANEL_RIGHT;
}

static void set_columns(kv_sheet *sheet, int columns)
{
    sheet->columns = columns;
    sheet->rows = (sheet->panels + columns - 1) / columns;
    sheet->panel_top = PANEL_TOP + (sheet->widest_title > title_room(sheet) ? TEXT : 0);
}

/* The larger the more can be seen in a panel: its height, or its width if that is little. */
static double clearness(const kv_sheet *sheet)
{
    kv_box box = kv__sheet_box(sheet, 0);
    return fmin(box.height, box.width / 1.4);
}

/* Of equals the fewest rows: one compares best; then the fewest columns, so that rows are full. */
static void divide(kv_sheet *out)
{
    double most = -INFINITY;
    int best = out->columns, rows = 0;
    for (int columns = out->panels; columns >= 1 && out->columns == 0; columns--) {
        kv_sheet trial = *out;
        set_columns(&trial, columns);
        double clear = clearness(&trial);
        if (clear > most + 1 || (trial.rows == rows && clear > most - 1)) {
            most = clear;
            best = columns;
            rows = trial.rows;
        }
    }
    set_columns(out, best > 0 ? best : 1);
}

bool kv__sheet_lowest(const kv_sheet *sheet, int panel)
{
    return panel + sheet->columns >= sheet->panels;
}

bool kv__sheet_leftmost(const kv_sheet *sheet, int panel)
{
    return panel % sheet->columns == 0;
}

/* --- texts ------------------------------------------------------------------------------------ */

/* Moves a cut to where a character begins. */
static int whole_characters(const char *text, int bytes)
{
    while (bytes > 0 && ((unsigned char)text[bytes] & 0xc0) == 0x80)
        bytes--;
    return bytes;
}

void kv__text_fit(const char *text, int letters, char *out, size_t bytes)
{
    int all = (int)strlen(text), room = letters - 3;
    if (letters == 0 || all <= letters) {
        snprintf(out, bytes, "%s", text);
        return;
    }
    room = room > 2 ? room : 2;
    int head = whole_characters(text, room / 2), tail = whole_characters(text, all - room / 2);
    snprintf(out, bytes, "%.*s...%s", head, text, text + tail);
}

void kv__text_fit_width(const char *text, double size, double width, char *out, size_t bytes)
{
    snprintf(out, bytes, "%s", text);
    for (int letters = (int)strlen(text); letters > 5 && kv__text_width(out, size) > width;)
        kv__text_fit(text, --letters, out, bytes);
}

/* Bytes of text that fit into a line; it breaks at a space, or, within a long word, anywhere. */
static int line_end(const char *text, double size, double width)
{
    char line[1024];
    int all = (int)strlen(text), space = 0;
    for (int end = 1; end <= all && end < (int)sizeof line; end++) {
        if (whole_characters(text, end) != end)
            continue;
        snprintf(line, sizeof line, "%.*s", end, text);
        if (kv__text_width(line, size) > width)
            return space > 0 ? space : whole_characters(text, end > 1 ? end - 1 : 1);
        if (text[end] == ' ')
            space = end;
    }
    return all;
}

/* Lines of at most `width`, each to be freed; answers how many there are. */
static int wrap(const char *text, double size, double width, char **line, int most)
{
    int lines = 0;
    while (*text && lines < most) {
        int end = line_end(text, size, width);
        line[lines++] = strndup(text, (size_t)(end > 0 ? end : 1));
        text += end > 0 ? end : 1;
        text += strspn(text, " ");
    }
    return lines;
}

/* A label at pixels. */
static void write_label(const kv_sheet *sheet, int tag, const char *text, double x, double y,
                        const char *how)
{
    fprintf(sheet->script, "set label %d ", tag);
    kv__gnuplot_text(sheet->script, text);
    fprintf(sheet->script, " at screen %.6f, screen %.6f %s\n", x / sheet->width,
            1 - y / sheet->height, how);
}

static void write_margins(const kv_sheet *sheet, const kv_box *b)
{
    fprintf(sheet->script, "set lmargin at screen %.6f\nset rmargin at screen %.6f\n",
            b->x / sheet->width, (b->x + b->width) / sheet->width);
    fprintf(sheet->script, "set tmargin at screen %.6f\nset bmargin at screen %.6f\n",
            1 - b->y / sheet->height, 1 - (b->y + b->height) / sheet->height);
}

void kv__sheet_title(kv_sheet *sheet, const char *title)
{
    sheet->widest_title = fmax(sheet->widest_title, kv__text_width(title, FONT + 1));
}

void kv__sheet_begin(kv_sheet *sheet, int panels, const char *title, const char *caption)
{
    char *line[MOST_LINES], how[64];
    char fitted[512];
    int lines = wrap(caption, FONT - 1, sheet->width - 2 * EDGE, line, MOST_LINES);
    sheet->panels = panels;
    place(sheet, lines);
    divide(sheet);
    fprintf(sheet->script, "set multiplot\nunset key\nunset colorbox\n");
    kv__text_fit_width(title, FONT + 2, sheet->width - 2 * EDGE, fitted, sizeof fitted);
    snprintf(how, sizeof how, "center font ',%d'", sheet->font + 2);
    write_label(sheet, 1, fitted, sheet->width / 2.0, TITLE / 2.0 - 2, how);
    snprintf(how, sizeof how, "left font ',%d' tc rgb '#505050'", sheet->font - 1);
    for (int i = 0; i < lines; i++) {
        write_label(sheet, 2 + i, line[i] ? line[i] : "", EDGE,
                    sheet->height - EDGE + 4 - (lines - 1 - i) * TEXT, how);
        free(line[i]);
    }
}

/* --- panels ----------------------------------------------------------------------------------- */

/* Takes the first of several labels that there is room for, else cuts the last. */
static void write_axis(const kv_sheet *sheet, const char *axis, const char *label, double room,
                       const char *offset)
{
    char text[128], fitted[128];
    if (label == NULL) {
        fprintf(sheet->script, "unset %slabel\n", axis);
        return;
    }
    for (const char *next = label; next != NULL; label = next) {
        size_t bytes = strcspn(label, "\t");
        snprintf(text, sizeof text, "%.*s", (int)bytes, label);
        next = label[bytes] == '\t' && kv__text_width(text, FONT) > room ? label + bytes + 1 : NULL;
        if (next == NULL)
            break;
    }
    kv__text_fit_width(text, FONT, room, fitted, sizeof fitted);
    fprintf(sheet->script, "set %slabel ", axis);
    kv__gnuplot_text(sheet->script, fitted);
    fprintf(sheet->script, " offset %s\n", offset);
}

/* Labels, since a title of gnuplot's has one line. */
static void write_title(const kv_sheet *sheet, const kv_box *box, const char *title)
{
    double middle = box->x + box->width / 2, room = title_room(sheet);
    bool two = sheet->panel_top > PANEL_TOP && kv__text_width(title, FONT + 1) > room;
    char first[256], second[256] = "", how[32];
    int end = two ? line_end(title, FONT + 1, room) : (int)strlen(title);
    snprintf(first, sizeof first, "%.*s", end, title);
    kv__text_fit_width(title + end + strspn(title + end, " "), FONT + 1, room, second,
                       sizeof second);
    if (!two)
        kv__text_fit_width(title, FONT + 1, room, first, sizeof first);
    snprintf(how, sizeof how, "center font ',%d'", sheet->font + 1);
    write_label(sheet, 60, first, middle, box->y - TEXT / 2.0 - 6 - (two ? TEXT : 0), how);
    if (two)
        write_label(sheet, 61, second, middle, box->y - TEXT / 2.0 - 6, how);
}

void kv__sheet_panel(kv_sheet *sheet, int panel, const char *title, const char *x_label,
                     const char *y_label)
{
    FILE *script = sheet->script;
    kv_box box = kv__sheet_box(sheet, panel);
    if (panel > 0)
        fputs("unset label\n", script); /* those of the frame were drawn by the first panel */
    write_margins(sheet, &box);
    fputs("set grid xtics ytics lc rgb '#dddddd' lw 1\nset border 3 lc rgb '#404040'\n"
          "set tics nomirror out scale 0.6\nset mxtics default\nset mytics default\n"
          "set xtics autofreq\nset ytics autofreq\nunset logscale\n"
          "set xrange [*:*]\nset yrange [*:*]\n",
          script);
    write_axis(sheet, "x", x_label, box.width + PANEL_LEFT - GAP, "0,0.3");
    write_axis(sheet, "y", y_label, box.height, "0.7,0");
    write_title(sheet, &box, title);
}

/* --- axes ------------------------------------------------------------------------------------- */

/* 1, 2 or 5 times a power of ten, no less than `least`. */
static double nice_step(double least)
{
    double power = pow(10, floor(log10(least))), digit = least / power;
    return power * (digit <= 1 ? 1 : digit <= 2 ? 2 : digit <= 5 ? 5 : 10);
}

/* Width of the longest number on an axis. */
static double number_width(double from, double to, double step)
{
    double widest = 0;
    char text[32];
    int first = (int)ceil(from / step - 1e-9), last = (int)floor(to / step + 1e-9);
    for (int i = first; i <= last; i++) {
        double tick = i * step;
        snprintf(text, sizeof text, "%g", tick);
        widest = fmax(widest, kv__text_width(text, FONT));
    }
    return widest;
}

void kv__sheet_x(const kv_sheet *sheet, int panel, double from, double to)
{
    double pixels = kv__sheet_box(sheet, panel).width, span = to > from ? to - from : 1;
    double step = nice_step(span / 8);
    while (step < span && step / span * pixels < number_width(from, from + span, step) + GAP)
        step = nice_step(1.01 * step);
    fprintf(sheet->script, "set xrange [%.10g:%.10g]\nset xtics %.10g\n", from, from + span, step);
}

void kv__sheet_y(const kv_sheet *sheet, int panel, double to)
{
    double pixels = kv__sheet_box(sheet, panel).height, span = to > 0 && isfinite(to) ? to : 1;
    double step = nice_step(span / 6);
    while (step < span && step / span * pixels < TEXT)
        step = nice_step(1.01 * step);
    fprintf(sheet->script, "set yrange [0:%.10g]\nset ytics %.10g\n",
            ceil(span / step - 1e-6) * step, step);
}

void kv__sheet_log_x(const kv_sheet *sheet, int panel, double from, double to)
{
    int low = from > 0 ? (int)floor(log10(from) + 1e-9) : 0;
    int high = to > 0 ? (int)ceil(log10(to) - 1e-9) : 1, factor = 1;
    high = high > low ? high : low + 1;
    double decade = kv__sheet_box(sheet, panel).width / (high - low);
    while (factor * decade < kv__text_width("0.001", FONT) + GAP && factor < high - low)
        factor++;
    fprintf(sheet->script,
            "set logscale x 10\nset xrange [1e%d:1e%d]\nset xtics 1e%d\nset mxtics %s\n", low, high,
            factor, factor > 1 ? "default" : "10");
}

int kv__sheet_every(double each, double text)
{
    int every = 1;
    while (every * each < text && every < 1 << 20)
        every *= 2;
    return every;
}

/* --- the end ---------------------------------------------------------------------------------- */

static void write_entries(const kv_sheet *sheet)
{
    int columns = sheet->legend_columns, rows = (sheet->entries + columns - 1) / columns;
    double width = sheet->legend.width / columns;
    for (int i = 0; i < sheet->entries; i++) {
        char text[256];
        double x = sheet->legend.x + (i / rows) * width;
        double y = sheet->legend.y + (i % rows + 0.5) * TEXT;
        kv__text_fit_width(sheet->entry[i].text, FONT, sheet->entry_width, text, sizeof text);
        write_label(sheet, 1 + i, text, x + SAMPLE - GAP, y, "left");
        fprintf(sheet->script, "$l%d << EOD\n%g %g\n%g %g\nEOD\n$p%d << EOD\n%g %g\nEOD\n", i, x,
                sheet->height - y, x + SAMPLE - 2 * GAP, sheet->height - y, i,
                x + SAMPLE / 2.0 - GAP, sheet->height - y);
    }
}

/* Draws the legend on the whole canvas, whose unit is then the pixel. */
static void write_legend(const kv_sheet *sheet)
{
    kv_box canvas = {0, 0, sheet->width, sheet->height};
    const char *comma = "";
    fputs("unset label\nunset border\nunset tics\nunset grid\nunset xlabel\nunset ylabel\n"
          "unset title\nunset logscale\n",
          sheet->script);
    write_margins(sheet, &canvas);
    write_entries(sheet);
    fprintf(sheet->script, "plot [0:%d][0:%d]", sheet->width, sheet->height);
    for (int i = 0; i < sheet->entries; i++) {
        if (sheet->entry[i].line[0]) {
            fprintf(sheet->script, "%s $l%d with %s notitle", comma, i, sheet->entry[i].line);
            comma = ",";
        }
        if (sheet->entry[i].point[0]) {
            fprintf(sheet->script, "%s $p%d with %s notitle", comma, i, sheet->entry[i].point);
            comma = ",";
        }
    }
    fputs(*comma ? "\n" : " NaN notitle\n", sheet->script);
}

void kv__sheet_end(kv_sheet *sheet)
{
    if (sheet->entries > 0)
        write_legend(sheet);
    fputs("unset multiplot\n", sheet->script);
}
