/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "analysis/sheet.h"

#include "analysis/figure.h"
#include "analysis/gnuplot.h"

#include <stdlib.h>
#include <string.h>

/* All in pixels. */
enum {
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
    LEAST_PANEL = 320,
    BAR = 84,      /* of a colour bar with its numbers */
    MOST_LINES = 4 /* of the caption */
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

/* --- layout ----------------------------------------------------------------------------------- */

/* Letters of the longest entry; at most so many that two fit side by side. */
static int longest_text(const kv_sheet *sheet, int width)
{
    int longest = 0, most = (width / 2 - SAMPLE) / LETTER;
    for (int i = 0; i < sheet->entries; i++) {
        int letters = (int)strlen(sheet->entry[i].text);
        longest = letters > longest ? letters : longest;
    }
    return longest > most ? most : longest;
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
    out->letters = longest_text(out, (int)width);
    int entry = SAMPLE + LETTER * out->letters;
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

static void divide(kv_sheet *out)
{
    if (out->columns == 0) {
        out->columns = 1;
        while (out->columns * out->columns < out->panels)
            out->columns++;
        if (out->panels <= 3 && out->area.width / out->panels >= LEAST_PANEL)
            out->columns = out->panels; /* one row compares best */
    }
    out->rows = (out->panels + out->columns - 1) / out->columns;
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

/* Lines of at most `letters`, each to be freed; answers how many there are. */
static int wrap(const char *text, int letters, char **line, int most)
{
    int lines = 0;
    while (*text && lines < most) {
        int length = (int)strlen(text), cut = length;
        if (length > letters) {
            for (cut = letters; cut > 0 && text[cut] != ' ';)
                cut--;
            cut = cut ? cut : whole_characters(text, letters);
        }
        line[lines++] = strndup(text, (size_t)cut);
        text += cut;
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

void kv__sheet_begin(kv_sheet *sheet, int panels, const char *title, const char *caption)
{
    char *line[MOST_LINES], how[64];
    char fitted[512];
    int lines = wrap(caption, (sheet->width - 2 * EDGE) * 10 / 66, line, MOST_LINES);
    sheet->panels = panels;
    sheet->wide = PANEL_LEFT + (sheet->long_labels > 6 ? (sheet->long_labels - 6) * LETTER : 0);
    place(sheet, lines);
    divide(sheet);
    fprintf(sheet->script, "set multiplot\nunset key\nunset colorbox\n");
    kv__text_fit(title, sheet->width / (LETTER + 2), fitted, sizeof fitted);
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

static kv_box panel_box(const kv_sheet *sheet, int panel)
{
    double width = sheet->area.width / sheet->columns, height = sheet->area.height / sheet->rows;
    return (kv_box){sheet->area.x + (panel % sheet->columns) * width + sheet->wide,
                    sheet->area.y + (panel / sheet->columns) * height + PANEL_TOP,
                    width - sheet->wide - PANEL_RIGHT, height - PANEL_TOP - PANEL_BOTTOM};
}

static void write_axis(const kv_sheet *sheet, const char *axis, const char *label,
                       const char *offset)
{
    if (label == NULL) {
        fprintf(sheet->script, "unset %slabel\n", axis);
        return;
    }
    fprintf(sheet->script, "set %slabel ", axis);
    kv__gnuplot_text(sheet->script, label);
    fprintf(sheet->script, " offset %s\n", offset);
}

void kv__sheet_panel(kv_sheet *sheet, int panel, const char *title, const char *x_label,
                     const char *y_label)
{
    FILE *script = sheet->script;
    kv_box box = panel_box(sheet, panel);
    char fitted[256];
    if (panel > 0)
        fputs("unset label\n", script); /* those of the frame were drawn by the first panel */
    write_margins(sheet, &box);
    fputs("set grid xtics ytics lc rgb '#dddddd' lw 1\nset border 3 lc rgb '#404040'\n"
          "set tics nomirror out scale 0.6\nset mxtics default\nset mytics default\n"
          "set xtics autofreq\nset ytics autofreq\nunset logscale\n"
          "set xrange [*:*]\nset yrange [*:*]\n",
          script);
    write_axis(sheet, "x", x_label, "0,0.3");
    write_axis(sheet, "y", y_label, "0.7,0");
    kv__text_fit(title, (int)((box.width + sheet->wide) / (LETTER + 1)), fitted, sizeof fitted);
    fputs("set title ", script);
    kv__gnuplot_text(script, fitted);
    fprintf(script, " font ',%d' offset 0,-0.4\n", sheet->font + 1);
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
        kv__text_fit(sheet->entry[i].text, sheet->letters, text, sizeof text);
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
