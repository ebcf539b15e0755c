/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Heat map: the share of the prompt that each KV head of each layer retains, one panel per policy.
 */
#include "config.h"

#include "analysis/sets.h"
#include "analysis/sql.h"

#include <math.h>

static kv_err write_heads(kv_results *results, const kv_plot_options *canvas, FILE *script,
                          kv_diag *diag);

KV_PLOT_DEFINE(heads) = {
    .name = "heads",
    .brief = "share of the prompt retained by layer and KV head (needs keep_sets: true)",
    .width = 1200,
    .height = 640,
    .write = write_heads,
};

/* A prompt is as long as the last position that any point retains says: every policy keeps it. */
static const char share_sql[] =
    "WITH length AS (SELECT example, 1 + max(json_extract(positions, '$[#-1]')) AS tokens FROM "
    "retained_set JOIN footprint_point ON id = point_id WHERE run_id = ?2 GROUP BY example) "
    "SELECT layer, kv_head, 100 * avg(1.0 * json_array_length(positions) / tokens) FROM "
    "retained_set JOIN length USING (example) WHERE point_id = ?1 AND (?3 IS NULL OR example = ?3) "
    "GROUP BY layer, kv_head ORDER BY layer, kv_head";

static kv_err write_data(kv_results *results, const kv_sets *sets, const kv_plot_options *canvas,
                         int panel, double *most, FILE *script, kv_diag *diag)
{
    sqlite3_stmt *rows = NULL;
    kv_err err = kv__sql_prepare(results, share_sql, &rows, diag);
    if (err == KV_OK)
        kv__sql_bind(rows, 1, "iit", sets->point[panel].id, sets->run_id, canvas->example);
    fprintf(script, "$h%d << EOD\n", panel);
    while (err == KV_OK && (err = kv__sql_step(results, rows, diag)) == KV_OK) {
        int layer = sqlite3_column_int(rows, 0), head = sqlite3_column_int(rows, 1);
        *most = fmax(*most, kv__sql_double(rows, 2));
        fprintf(script, "%g %g %g %g %.6g\n", head - 0.5, head + 0.5, layer - 0.5, layer + 0.5,
                kv__sql_double(rows, 2));
    }
    fputs("EOD\n", script);
    sqlite3_finalize(rows);
    return err == KV_END ? KV_OK : err;
}

static void write_panel(const kv_sets *sets, kv_sheet *sheet, int panel, double most)
{
    char block[24];
    kv_box box = kv__sheet_box(sheet, panel);
    snprintf(block, sizeof block, "$h%d", panel);
    kv__sheet_panel(sheet, panel, sets->point[panel].title,
                    kv__sheet_lowest(sheet, panel) ? "KV head" : NULL,
                    kv__sheet_leftmost(sheet, panel) ? "layer" : NULL);
    kv__sets_palette(sheet, panel, most > 0 ? 5 * ceil(most / 5) : 100);
    fprintf(sheet->script,
            "set xrange [-0.5:%g]\nset yrange [%g:-0.5]\nset xtics %d\nset ytics %d\nunset grid\n",
            sets->heads - 0.5, sets->layers - 0.5, kv__sheet_every(box.width / sets->heads, 28),
            kv__sheet_every(box.height / sets->layers, 17));
    kv__sets_boxes(sheet, block);
}

static kv_err write_heads(kv_results *results, const kv_plot_options *canvas, FILE *script,
                          kv_diag *diag)
{
    kv_sets sets;
    kv_sheet sheet;
    char title[512], caption[768], end[256];
    double most = 0;
    kv_err err = kv__sets_load(results, canvas, KV_SETS_MOST, &sets, diag);
    if (err != KV_OK)
        return err;
    kv__sheet_init(&sheet, canvas, script);
    sheet.colour_bar = "retained after the prompt (%)";
    sheet.short_colour_bar = "retained (%)";
    kv__sets_caption(&sets, end, sizeof end);
    snprintf(caption, sizeof caption, "%s%s. %s",
             canvas->example ? "Example " : "Mean of the examples of the task",
             canvas->example ? canvas->example : "", end);
    snprintf(title, sizeof title, "%s: what each head keeps, %s", sets.name, sets.task);
    for (int p = 0; p < sets.points; p++)
        kv__sheet_title(&sheet, sets.point[p].title);
    kv__sheet_begin(&sheet, sets.points, title, caption);
    for (int p = 0; p < sets.points && err == KV_OK; p++)
        err = write_data(results, &sets, canvas, p, &most, script, diag);
    for (int p = 0; p < sets.points; p++)
        write_panel(&sets, &sheet, p, most);
    kv__sheet_end(&sheet);
    kv__sets_fini(&sets);
    return err;
}
