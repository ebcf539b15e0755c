/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Which positions of one example survive the prompt in each KV head: one panel per policy, one line
 * per head. */
#include "config.h"

#include "analysis/sets.h"
#include "analysis/sql.h"

#include <stdlib.h>

static kv_err write_retained(kv_results *results, const kv_plot_options *canvas, FILE *script,
                             kv_diag *diag);

KV_PLOT_DEFINE(retained) = {
    .name = "retained",
    .brief = "positions of one example that survive, per KV head (needs keep_sets: true)",
    .width = 1200,
    .height = 700,
    .write = write_retained,
};

enum {
    MOST_PANELS = 6,
    MOST_BINS = 320,    /* columns of a panel: more are finer than its pixels */
    MOST_CELLS = 60000, /* of a picture */
    SHADES = 8
};

/* Columns of a panel and the positions that each stands for. */
typedef struct bins {
    long long tokens;
    int width, count;
} bins;

static kv_err measure(kv_results *results, const kv_sets *sets, bins *out, kv_diag *diag)
{
    int most = MOST_CELLS / (sets->layers * sets->heads * sets->points + 1);
    most = most > MOST_BINS ? MOST_BINS : most < 40 ? 40 : most;
    kv_err err =
        kv__sql_number(results, 1, &out->tokens, diag,
                       "SELECT 1 + max(json_extract(positions, '$[#-1]')) FROM retained_set JOIN "
                       "footprint_point ON id = point_id WHERE run_id = ? AND example = ?",
                       "it", sets->run_id, sets->example);
    out->width = (int)((out->tokens + most - 1) / most);
    out->count = (int)((out->tokens + out->width - 1) / out->width);
    return err;
}

/* Writes a line of cells, neighbours of one shade as one box. */
static void write_line(const double *share, const bins *b, double row, FILE *script)
{
    for (int i = 0; i < b->count;) {
        int shade = (int)(share[i] * SHADES + 0.999), end = i;
        while (end < b->count && (int)(share[end] * SHADES + 0.999) == shade)
            end++;
        if (shade > 0)
            fprintf(script, "%g %g %g %g %g\n", (double)i * b->width, (double)end * b->width,
                    row - 0.45, row + 0.45, 100.0 * shade / SHADES);
        i = end;
    }
}

static kv_err write_data(kv_results *results, const kv_sets *sets, const bins *b, int panel,
                         FILE *script, kv_diag *diag)
{
    static const char sql[] =
        "SELECT layer, kv_head, CAST(j.value AS INTEGER) / ?3 AS bin, count(*) FROM retained_set, "
        "json_each(positions) j WHERE point_id = ?1 AND example = ?2 GROUP BY layer, kv_head, bin "
        "ORDER BY layer, kv_head, bin";
    sqlite3_stmt *rows = NULL;
    double *share = calloc((size_t)b->count + 1, sizeof *share);
    int row = -1;
    if (share == NULL)
        return kv_fail_memory(diag);
    kv_err err = kv__sql_prepare(results, sql, &rows, diag);
    if (err == KV_OK)
        kv__sql_bind(rows, 1, "iti", sets->point[panel].id, sets->example, (long long)b->width);
    fprintf(script, "$s%d << EOD\n0 0 -1 -1 0\n", panel);
    while (err == KV_OK && (err = kv__sql_step(results, rows, diag)) == KV_OK) {
        int here = sqlite3_column_int(rows, 0) * sets->heads + sqlite3_column_int(rows, 1);
        int bin = sqlite3_column_int(rows, 2);
        if (here != row && row >= 0)
            write_line(share, b, row, script);
        for (int i = 0; here != row && i < b->count; i++)
            share[i] = 0;
        row = here;
        long long left = b->tokens - (long long)bin * b->width;
        if (bin >= 0 && bin < b->count)
            share[bin] = kv__sql_double(rows, 3) / (double)(left < b->width ? left : b->width);
    }
    if (row >= 0)
        write_line(share, b, row, script);
    fputs("EOD\n", script);
    sqlite3_finalize(rows);
    free(share);
    return err == KV_END ? KV_OK : err;
}

/* Labels the first head of some layers. */
static void write_layers(const kv_sets *sets, const kv_sheet *sheet, int panel)
{
    FILE *script = sheet->script;
    int step = kv__sheet_every(kv__sheet_box(sheet, panel).height / sets->layers, 17);
    fputs("set ytics (", script);
    for (int l = 0; l < sets->layers; l += step)
        fprintf(script, "%s'%d' %d", l > 0 ? ", " : "", l, l * sets->heads);
    fputs(")\n", script);
}

static void write_panel(const kv_sets *sets, const bins *b, kv_sheet *sheet, int panel)
{
    char block[24];
    snprintf(block, sizeof block, "$s%d", panel);
    kv__sheet_panel(sheet, panel, sets->point[panel].title,
                    kv__sheet_lowest(sheet, panel)
                        ? "position in the prompt (tokens)\tposition (tokens)\ttokens"
                        : NULL,
                    kv__sheet_leftmost(sheet, panel) ? "layer (a line per KV head)\tlayer" : NULL);
    kv__sets_palette(sheet, panel, 100);
    kv__sheet_x(sheet, panel, 0, (double)b->tokens);
    fprintf(sheet->script, "set yrange [%g:-0.7]\n", sets->layers * sets->heads - 0.3);
    write_layers(sets, sheet, panel);
    kv__sets_boxes(sheet, block);
}

static kv_err write_retained(kv_results *results, const kv_plot_options *canvas, FILE *script,
                             kv_diag *diag)
{
    kv_sets sets;
    kv_sheet sheet;
    bins b = {.tokens = 0};
    char title[512], caption[768], end[256];
    kv_err err = kv__sets_load(results, canvas, MOST_PANELS, &sets, diag);
    if (err != KV_OK)
        return err;
    err = measure(results, &sets, &b, diag);
    kv__sheet_init(&sheet, canvas, script);
    sheet.colour_bar = "retained after the prompt (%)";
    sheet.short_colour_bar = "retained (%)";
    kv__sets_caption(&sets, end, sizeof end);
    snprintf(caption, sizeof caption, "A line is a KV head, a column %d position%s. %s", b.width,
             b.width == 1 ? "" : "s", end);
    snprintf(title, sizeof title, "%s: what survives of %s", sets.name, sets.example);
    for (int p = 0; p < sets.points; p++)
        kv__sheet_title(&sheet, sets.point[p].title);
    kv__sheet_begin(&sheet, sets.points, title, caption);
    for (int p = 0; p < sets.points && err == KV_OK; p++) {
        err = write_data(results, &sets, &b, p, script, diag);
        write_panel(&sets, &b, &sheet, p);
    }
    kv__sheet_end(&sheet);
    kv__sets_fini(&sets);
    return err;
}
