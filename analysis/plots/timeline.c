/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* A server over time: memory in use per tier above, running and waiting requests below. */
#include "config.h"

#include "analysis/serving_points.h"
#include "analysis/sheet.h"
#include "analysis/sql.h"

#include <math.h>
#include <string.h>
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

static const double GIB = 1073741824;
static const char requests_title[] = "requests in the batch and in the queues";

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
    double capacity_bytes[MOST_TIERS], most_bytes[MOST_TIERS]; /* NaN: not known */
    int count;
    double last_s;
} tiers;

static kv_err find_tiers(kv_results *results, long long point, tiers *out, kv_diag *diag)
{
    static const char sql[] =
        "SELECT t.tier, max(t.time_s), s.capacity_bytes, max(t.used_bytes) FROM timeline t LEFT "
        "JOIN tier_stat s "
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
        out->most_bytes[out->count] = kv__sql_double(rows, 3);
        err = kv__sql_text(rows, 0, &out->name[out->count], diag);
        out->count += err == KV_OK;
    }
    sqlite3_finalize(rows);
    return err == KV_END ? KV_OK : err;
}

/* "KV in use in gpu, of 55.1 GiB". */
static void tier_title(const tiers *t, int tier, char *out, size_t bytes)
{
    const char *what = strcmp(t->name[tier], "gpu") == 0 ? "KV in use" : "KV held";
    int end = snprintf(out, bytes, "%s in %s", what, t->name[tier]);
    if (t->capacity_bytes[tier] > 0 && end > 0 && (size_t)end < bytes)
        snprintf(out + end, bytes - (size_t)end, ", of %.3g GiB", t->capacity_bytes[tier] / GIB);
}

static void free_tiers(tiers *t)
{
    for (int i = 0; i < t->count; i++)
        free(t->name[i]);
}

/* One panel per tier: their sizes differ by orders. */
static kv_err write_memory(kv_results *results, const kv_serving_item *item, const tiers *t,
                           int tier, const span *s, kv_sheet *sheet, kv_diag *diag)
{
    char title[256];
    double capacity = t->capacity_bytes[tier] / GIB;
    kv_err err = write_block(results, "m", tier,
                             "SELECT time_s, used_bytes, 0 FROM timeline WHERE point_id = ? AND "
                             "tier = ? ORDER BY time_s",
                             item->id, t->name[tier], sheet->script, diag);
    tier_title(t, tier, title, sizeof title);
    kv__sheet_panel(sheet, tier, title, kv__sheet_lowest(sheet, tier) ? s->label : NULL, "GiB");
    kv__sheet_x(sheet, tier, 0, t->last_s > 0 ? t->last_s / s->unit : 1);
    kv__sheet_y(sheet, tier, fmax(capacity, t->most_bytes[tier] / GIB)); /* leaves out NaN */
    fprintf(sheet->script, "plot $m%d using ($1/%g):($2/%.10g)", tier, s->unit, GIB);
    kv__sheet_style(sheet, tier, true, false);
    if (capacity > 0)
        fprintf(sheet->script, ", %.10g with lines lw 1 dt 2 lc rgb '#808080' notitle", capacity);
    fputs("\n", sheet->script);
    return err;
}

static kv_err write_requests(kv_results *results, const kv_serving_item *item, const tiers *t,
                             const span *s, kv_sheet *sheet, kv_diag *diag)
{
    int panel = t->count;
    long long most = 0;
    kv_err err = write_block(results, "r", 0,
                             "SELECT time_s, max(running), max(waiting) FROM timeline WHERE "
                             "point_id = ? GROUP BY time_s ORDER BY time_s",
                             item->id, NULL, sheet->script, diag);
    if (err == KV_OK)
        err = kv__sql_number(results, 0, &most, diag,
                             "SELECT max(max(running), max(waiting)) FROM timeline WHERE point_id "
                             "= ?",
                             "i", item->id);
    kv__sheet_panel(sheet, panel, requests_title, s->label, "requests");
    kv__sheet_x(sheet, panel, 0, t->last_s > 0 ? t->last_s / s->unit : 1);
    kv__sheet_y(sheet, panel, (double)most);
    fprintf(sheet->script, "plot $r0 using ($1/%g):2", s->unit);
    kv__sheet_style(sheet, RUNNING, true, false);
    fprintf(sheet->script, ", $r0 using ($1/%g):3", s->unit);
    kv__sheet_style(sheet, WAITING, true, false);
    fputs("\n", sheet->script);
    return err;
}

static void list_entries(const tiers *t, kv_sheet *sheet)
{
    char title[256];
    bool sized = false;
    for (int i = 0; i < t->count; i++) {
        snprintf(title, sizeof title, "KV in %s", t->name[i]);
        kv__sheet_series(sheet, title, i, true, false);
        tier_title(t, i, title, sizeof title);
        kv__sheet_title(sheet, title);
        sized = sized || t->capacity_bytes[i] > 0;
    }
    kv_sheet_entry *entry = sized ? kv__sheet_entry(sheet, "capacity") : NULL;
    if (entry != NULL)
        snprintf(entry->line, sizeof entry->line, "lines lw 1 dt 2 lc rgb '#808080'");
    kv__sheet_series(sheet, "running", RUNNING, true, false);
    kv__sheet_series(sheet, "waiting", WAITING, true, false);
    kv__sheet_title(sheet, requests_title);
}

static kv_err write_point(kv_results *results, const kv_serving_list *list, const tiers *t,
                          const kv_plot_options *canvas, FILE *script, kv_diag *diag)
{
    kv_sheet sheet;
    char title[600], caption[512], text[400];
    const span s = span_of(t->last_s);
    kv_err err = KV_OK;
    kv__sheet_init(&sheet, canvas, script);
    sheet.columns = t->count < 2 ? 1 : 0;
    list_entries(t, &sheet);
    kv__serving_caption(list, 1, caption, sizeof caption);
    kv__serving_text(&list->item[0], text, sizeof text);
    snprintf(title, sizeof title, "%s: %s over time", list->name, text);
    kv__sheet_begin(&sheet, t->count + 1, title, caption);
    for (int i = 0; i < t->count && err == KV_OK; i++)
        err = write_memory(results, &list->item[0], t, i, &s, &sheet, diag);
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
    if (list.items == 0 && list.unfiltered > 0)
        err = kv__serving_list_nothing(results, &list, diag);
    else if (list.items == 0)
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
