/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "analysis/serving_points.h"

#include "analysis/run.h"
#include "analysis/sql.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A label says the chunk size last, where it differs between points. */
#define CHUNK "', chunk ' || coalesce(p.chunk_size, 'whole')"
static const char point_sql[] =
    "SELECT p.id, p.policy, iif(p.label LIKE '%%' || " CHUNK
    ", substr(p.label, 1, length(p.label) - length(" CHUNK
    ")), p.label), coalesce(p.chunk_size, 0), p.ttft_p99, p.tpot_p99, p.goodput, "
    "p.throughput_tok_s, p.number FROM serving_point p WHERE p.run_id = ?1 AND %s ORDER BY "
    "p.number";
#undef CHUNK

static bool passes(const kv_plot_options *options, const char *policy, long long chunk,
                   long long number)
{
    const kv_curve_filter *filter = &options->filter;
    bool good = filter->policy_count == 0;
    for (int i = 0; i < filter->policy_count && !good; i++)
        good = strcmp(filter->policies[i], policy) == 0;
    bool chunks = filter->chunk_count == 0;
    for (int i = 0; i < filter->chunk_count && !chunks; i++)
        chunks = filter->chunks[i] == chunk;
    return good && chunks && (options->point == 0 || options->point == number + 1);
}

static kv_err read_run(kv_results *results, long long run_id, kv_serving_list *out, kv_diag *diag)
{
    sqlite3_stmt *row = NULL;
    kv_err err = kv__run_row(
        results, "SELECT id, name, version, finished_at IS NOT NULL FROM run WHERE " KV__RUN_IS,
        run_id, &row, diag);
    if (err == KV_OK)
        err = kv__sql_text(row, 1, &out->name, diag);
    if (err == KV_OK)
        err = kv__sql_text(row, 2, &out->version, diag);
    if (err == KV_OK) {
        out->run_id = sqlite3_column_int64(row, 0);
        out->finished = sqlite3_column_int(row, 3) != 0;
    }
    sqlite3_finalize(row);
    return err;
}

static kv_err add(kv_serving_list *list, sqlite3_stmt *row, kv_diag *diag)
{
    kv_serving_item *items = realloc(list->item, (size_t)(list->items + 1) * sizeof *items);
    if (items == NULL)
        return kv_fail_memory(diag);
    list->item = items;
    kv_serving_item *item = &items[list->items++];
    *item = (kv_serving_item){.id = sqlite3_column_int64(row, 0),
                              .chunk_tokens = sqlite3_column_int64(row, 3),
                              .ttft_p99 = kv__sql_double(row, 4),
                              .tpot_p99 = kv__sql_double(row, 5),
                              .goodput = kv__sql_double(row, 6),
                              .throughput_tok_s = kv__sql_double(row, 7)};
    kv_err err = kv__sql_text(row, 1, &item->policy, diag);
    return err == KV_OK ? kv__sql_text(row, 2, &item->label, diag) : err;
}

static kv_err read_points(kv_results *results, const kv_plot_options *options, const char *having,
                          kv_serving_list *out, kv_diag *diag)
{
    sqlite3_stmt *rows = NULL;
    kv_err err =
        kv__sql_prepare_text(results, &rows, diag, point_sql, having != NULL ? having : "1");
    if (err == KV_OK)
        kv__sql_bind(rows, 1, "i", out->run_id);
    while (err == KV_OK && (err = kv__sql_step(results, rows, diag)) == KV_OK) {
        out->unfiltered++;
        if (passes(options, (const char *)sqlite3_column_text(rows, 1),
                   sqlite3_column_int64(rows, 3), sqlite3_column_int64(rows, 8)))
            err = add(out, rows, diag);
    }
    sqlite3_finalize(rows);
    return err == KV_END ? KV_OK : err;
}

kv_err kv__serving_list_load(kv_results *results, const kv_plot_options *options,
                             const char *having, kv_serving_list *out, kv_diag *diag)
{
    *out = (kv_serving_list){.run_id = 0};
    kv_err err = read_run(results, options->filter.run_id, out, diag);
    if (err == KV_OK)
        err = read_points(results, options, having, out, diag);
    if (err != KV_OK)
        kv__serving_list_fini(out);
    return err;
}

kv_err kv__serving_list_nothing(kv_results *results, const kv_serving_list *list, kv_diag *diag)
{
    kv_mark mark = {kv_results_path(results), 0, 0};
    sqlite3_stmt *row;
    kv_err err = kv__sql_first(results, &row, diag,
                               "SELECT group_concat(DISTINCT policy), group_concat(DISTINCT "
                               "coalesce(chunk_size, 'whole')), max(number) FROM serving_point "
                               "WHERE run_id = ?",
                               "i", list->run_id);
    if (err == KV_OK)
        err =
            kv_fail(diag, KV_ERR_INPUT, &mark,
                    "run %lld has no such point of the given policy, chunk size and number; there "
                    "are the policies %.300s, chunk sizes %.200s and points 0 to %lld",
                    list->run_id, sqlite3_column_text(row, 0), sqlite3_column_text(row, 1),
                    (long long)sqlite3_column_int64(row, 2));
    sqlite3_finalize(row);
    return err;
}

void kv__serving_list_fini(kv_serving_list *list)
{
    for (int i = 0; i < list->items; i++) {
        free(list->item[i].policy);
        free(list->item[i].label);
    }
    free(list->item);
    free(list->name);
    free(list->version);
    *list = (kv_serving_list){.run_id = 0};
}

kv_err kv__serving_latencies(kv_results *results, const char *column, long long point, int steps,
                             kv_latency_share *out, int *count, kv_diag *diag)
{
    sqlite3_stmt *rows = NULL;
    kv_err err = kv__sql_prepare_text(
        results, &rows, diag,
        "SELECT v, at, n FROM (SELECT %s AS v, row_number() OVER (ORDER BY %s) AS at, "
        "count(*) OVER () AS n FROM request_result WHERE point_id = ?1 AND %s IS NOT NULL) "
        "WHERE at = 1 OR at = n OR at %% (n / %d + 1) = 0 ORDER BY at",
        column, column, column, steps);
    if (err == KV_OK)
        kv__sql_bind(rows, 1, "i", point);
    *count = 0;
    while (err == KV_OK && *count < steps + 2 && (err = kv__sql_step(results, rows, diag)) == KV_OK)
        out[(*count)++] =
            (kv_latency_share){.seconds = fmax(1e-6, kv__sql_double(rows, 0)),
                               .percent = 100 * kv__sql_double(rows, 1) / kv__sql_double(rows, 2)};
    sqlite3_finalize(rows);
    return err == KV_END ? KV_OK : err;
}

void kv__serving_text(const kv_serving_item *item, char *out, size_t bytes)
{
    if (item->chunk_tokens > 0)
        snprintf(out, bytes, "%s, chunk %lld", item->label, item->chunk_tokens);
    else
        snprintf(out, bytes, "%s", item->label);
}

void kv__serving_caption(const kv_serving_list *list, int shown, char *out, size_t bytes)
{
    char left_out[128] = "";
    if (shown < list->items)
        snprintf(left_out, sizeof left_out,
                 "Shown: %d of %d; --policy, --chunk-size and --point select others. ", shown,
                 list->items);
    snprintf(out, bytes, "%skvsim %s, run %lld%s.", left_out, list->version, list->run_id,
             list->finished ? "" : " (not complete)");
}
