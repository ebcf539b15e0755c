/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* A server over time: memory in use per tier above, running and waiting requests below. */
#include "config.h"

#include "analysis/serving_points.h"
#include "analysis/sheet.h"
#include "analysis/sql.h"

#include <math.h>
#include <stdlib.h>

static kv_err write_timeline(kv_results *results, const kv_plot_options *canvas, FILE *script,
                             kv_diag *diag);

KV_PLOT_DEFINE(timeline) = {
    .name = "timeline",
    .brief = "memory in use per tier, running and waiting requests over time (needs `timeline`)",
    .width = 1200,
    .height = 640,
    .write = write_timeline,
};

enum { MOST_TIERS = 5, RUNNING = MOST_TIERS, WAITING };

/* What the time axis is divided into. */
typedef struct span {
    double unit; /* s */
    const char *label;
} span;

static span span_of(double seconds)
{
    return seconds > 3 * 86400  ? (span){86400, "time (days)"}
           : seconds > 3 * 3600 ? (span){3600, "time (h)"}
           : seconds > 300      ? (span){60, "time (min)"}
                                : (span){1, "time (s)"};
}

/* Writes a data block from a query of two numbers per row. */
static kv_err write_block(kv_results *results, const char *name, int number, const char *sql,
                          long long point, const char *tier, FILE *script, kv_diag *diag)
{
    sqlite3_stmt *rows = NULL;
    kv_err err = kv__sql_prepare(results, sql, &rows, diag);
    fprintf(script, "$%s%d << EOD\n", name, number);
    if (err == KV_OK)
        kv__sql_bind(rows, 1, tier != NULL ? "it" : "i", point, tier);
    int written = 0;
    for (; err == KV_OK && (err = kv__sql_step(results, rows, diag)) == KV_OK; written++)
        fprintf(script, "%.10g %.10g %.10g\n", kv__sql_double(rows, 0), kv__sql_double(rows, 1),
                kv__sql_double(rows, 2));
    fputs(written ? "EOD\n" : "NaN NaN NaN\nEOD\n", script);
    sqlite3_finalize(rows);
    return err == KV_END ? KV_OK : err;
}

typedef struct tiers {
    char *name[MOST_TIERS];
    double capacity_bytes[MOST_TIERS];
    int count;
    double last_s;
} tiers;

static kv_err find_tiers(kv_results *results, long long point, tiers *out, kv_diag *diag)
{
    static const char sql[] =
        "SELECT t.tier, max(t.time_s), s.capacity_bytes FROM timeline t LEFT JOIN tier_stat s "
        "USING (point_id, tier) WHERE point_id = ? GROUP BY t.tier ORDER BY t.tier <> 'gpu', "
        "t.tier";
    sqlite3_stmt *rows = NULL;
    kv_err err = kv__sql_prepare(results, sql, &rows, diag);
    if (err == KV_OK)
        kv__sql_bind(rows, 1, "i", point);
    while (err == KV_OK && out->count < MOST_TIERS &&
           (err = kv__sql_step(results, rows, diag)) == KV_OK) {
        out->last_s = fmax(out->last_s, kv__sql_double(rows, 1));
        out->capacity_bytes[out->count] = kv__sql_double(rows, 2);
        err = kv__sql_text(rows, 0, &out->name[out->count], diag);
        out->count += err == KV_OK;
    }
    sqlite3_finalize(rows);
    return err == KV_END ? KV_OK : err;
}

static void free_tiers(tiers *t)
{
    for (int i = 0; i < t->count; i++)
        free(t->name[i]);
}

static kv_err write_memory(kv_results *results, const kv_serving_item *item, const tiers *t,
                           const span *s, kv_sheet *sheet, kv_diag *diag)
{
    kv_err err = KV_OK;
    for (int i = 0; i < t->count && err == KV_OK; i++)
        err = write_block(results, "m", i,
                          "SELECT time_s, used_bytes, 0 FROM timeline WHERE point_id = ? AND tier "
                          "= ? ORDER BY time_s",
                          item->id, t->name[i], sheet->script, diag);
    kv__sheet_panel(sheet, 0, "KV cache in use by running requests", s->label, "GiB");
    fprintf(sheet->script, "set xrange [0:%.10g]\nset yrange [0:*]\nplot ",
            t->last_s > 0 ? t->last_s / s->unit : 1);
    for (int i = 0; i < t->count; i++) {
        fprintf(sheet->script, "%s$m%d using ($1/%g):($2/1073741824)", i > 0 ? ", " : "", i,
                s->unit);
        kv__sheet_style(sheet, i, true, false);
    }
    if (t->capacity_bytes[0] > 0)
        fprintf(sheet->script, ", %.10g with lines lw 1 dt 2 lc rgb '#808080' notitle",
                t->capacity_bytes[0] / 1073741824);
    fputs("\n", sheet->script);
    return err;
}

static kv_err write_requests(kv_results *results, const kv_serving_item *item, const tiers *t,
                             const span *s, kv_sheet *sheet, kv_diag *diag)
{
    kv_err err = write_block(results, "r", 0,
                             "SELECT time_s, max(running), max(waiting) FROM timeline WHERE "
                             "point_id = ? GROUP BY time_s ORDER BY time_s",
                             item->id, NULL, sheet->script, diag);
    kv__sheet_panel(sheet, 1, "requests in the batch and in the queues", s->label, "requests");
    fprintf(sheet->script, "set xrange [0:%.10g]\nset yrange [0:*]\nplot $r0 using ($1/%g):2",
            t->last_s > 0 ? t->last_s / s->unit : 1, s->unit);
    kv__sheet_style(sheet, RUNNING, true, false);
    fprintf(sheet->script, ", $r0 using ($1/%g):3", s->unit);
    kv__sheet_style(sheet, WAITING, true, false);
    fputs("\n", sheet->script);
    return err;
}

static kv_err write_point(kv_results *results, const kv_serving_list *list, const tiers *t,
                          const kv_plot_options *canvas, FILE *script, kv_diag *diag)
{
    kv_sheet sheet;
    char title[600], caption[512], text[400];
    const span s = span_of(t->last_s);
    kv__sheet_init(&sheet, canvas, script);
    sheet.columns = 1;
    for (int i = 0; i < t->count; i++)
        kv__sheet_series(&sheet, t->name[i], i, true, false);
    if (t->capacity_bytes[0] > 0) {
        kv_sheet_entry *entry = kv__sheet_entry(&sheet, "capacity of the gpu");
        snprintf(entry->line, sizeof entry->line, "lines lw 1 dt 2 lc rgb '#808080'");
    }
    kv__sheet_series(&sheet, "running", RUNNING, true, false);
    kv__sheet_series(&sheet, "waiting", WAITING, true, false);
    kv__serving_caption(list, 1, caption, sizeof caption);
    kv__serving_text(&list->item[0], text, sizeof text);
    snprintf(title, sizeof title, "%s: %s over time", list->name, text);
    kv__sheet_begin(&sheet, 2, title, caption);
    kv_err err = write_memory(results, &list->item[0], t, &s, &sheet, diag);
    if (err == KV_OK)
        err = write_requests(results, &list->item[0], t, &s, &sheet, diag);
    kv__sheet_end(&sheet);
    return err;
}

static kv_err write_timeline(kv_results *results, const kv_plot_options *canvas, FILE *script,
                             kv_diag *diag)
{
    kv_serving_list list;
    tiers t = {.count = 0};
    kv_mark mark = {kv_results_path(results), 0, 0};
    kv_err err = kv__serving_list_load(
        results, canvas, "EXISTS (SELECT 1 FROM timeline t WHERE t.point_id = p.id)", &list, diag);
    if (err != KV_OK)
        return err;
    if (list.items == 0)
        err = kv_fail(diag, KV_ERR_INPUT, &mark,
                      "no timeline is in it; run the experiment with `timeline: 10s` or so under "
                      "`serving`");
    else
        err = find_tiers(results, list.item[0].id, &t, diag);
    if (err == KV_OK)
        err = write_point(results, &list, &t, canvas, script, diag);
    free_tiers(&t);
    kv__serving_list_fini(&list);
    return err;
}
