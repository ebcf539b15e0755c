/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "analysis/merge_serving.h"
#include "analysis/schema.h"
#include "analysis/sql.h"

#include <stdlib.h>

/* Tables whose first column is the point. */
static const char *const tables_of_point[] = {"tier_stat", "request_result", "timeline", NULL};

kv_err kv__serving_shard_read(kv__serving_shard *shard, kv_diag *diag)
{
    return kv__sql_number(shard->results, 0, &shard->points, diag,
                          "SELECT points FROM serving_plan WHERE run_id = ?", "i", shard->run_id);
}

/* The id of a point in a shard; 0: it is not there. */
static kv_err find_point(const kv__serving_shard *shard, long long number, long long *id,
                         kv_diag *diag)
{
    return kv__sql_number(shard->results, 0, id, diag,
                          "SELECT id FROM serving_point WHERE run_id = ? AND number = ?", "ii",
                          shard->run_id, number);
}

static long long most_points(const kv__serving_shard *shard, int count)
{
    long long points = 0;
    for (int i = 0; i < count; i++)
        points = shard[i].points > points ? shard[i].points : points;
    return points;
}

/* Shards of one run replay one trace, byte by byte (where it is one file). */
static kv_err check_traces(const kv__serving_shard *shard, int count, kv_diag *diag)
{
    sqlite3_stmt *row = NULL;
    char *digest = NULL;
    kv_err err = kv__sql_prepare(shard[0].results,
                                 "SELECT digest FROM request_trace WHERE run_id = ?", &row, diag);
    if (err == KV_OK)
        kv__sql_bind(row, 1, "i", shard[0].run_id);
    if (err == KV_OK && (err = kv__sql_step(shard[0].results, row, diag)) == KV_OK)
        err = kv__sql_text(row, 0, &digest, diag);
    sqlite3_finalize(row);
    err = err == KV_END ? KV_OK : err;
    for (int i = 1; i < count && err == KV_OK; i++) {
        long long others;
        kv_mark mark = {.path = kv_results_path(shard[i].results)};
        err = kv__sql_number(shard[i].results, 0, &others, diag,
                             "SELECT count(*) FROM request_trace WHERE run_id = ? AND digest <> ?",
                             "it", shard[i].run_id, digest);
        if (err == KV_OK && others > 0)
            err = kv_fail(diag, KV_ERR_INPUT, &mark,
                          "replays another request trace than %s: their SHA-256 differ",
                          kv_results_path(shard[0].results));
    }
    free(digest);
    return err;
}

kv_err kv__serving_shards_check(const kv__serving_shard *shard, int count, int shards,
                                kv_diag *diag)
{
    long long points = most_points(shard, count);
    kv_err same = points > 0 ? check_traces(shard, count, diag) : KV_OK;
    if (same != KV_OK)
        return same;
    for (long long number = 0; number < points; number++) {
        int times = 0;
        for (int i = 0; i < count; i++) {
            long long id;
            kv_err err = find_point(&shard[i], number, &id, diag);
            if (err != KV_OK)
                return err;
            times += id > 0;
        }
        if (times > 1)
            return kv_fail(diag, KV_ERR_INPUT, NULL,
                           "point %lld of the serving part is in more than one of the files; give "
                           "each shard once",
                           number);
        if (times == 0)
            return kv_fail(diag, KV_ERR_INPUT, NULL,
                           "point %lld of the serving part is missing; run shard %lld/%d to its "
                           "end (--resume) and give its file too",
                           number, number % shards + 1, shards);
    }
    return KV_OK;
}

/* Copies rows with other values in their first columns. */
static kv_err copy_rows(kv_results *from, kv_results *to, const char *table, const char *key,
                        long long value, const long long *replace, int replaced, kv_diag *diag)
{
    sqlite3_stmt *rows = NULL, *put = NULL;
    char *insert = kv_schema_insert(kv_schema_find(table));
    char *select = sqlite3_mprintf("SELECT * FROM %s WHERE %s = ?", table, key);
    kv_err err = insert != NULL && select != NULL ? KV_OK : kv_fail_memory(diag);
    if (err == KV_OK)
        err = kv__sql_prepare(from, select, &rows, diag);
    if (err == KV_OK)
        err = kv__sql_prepare(to, insert, &put, diag);
    if (err == KV_OK)
        kv__sql_bind(rows, 1, "i", value);
    while (err == KV_OK && (err = kv__sql_step(from, rows, diag)) == KV_OK) {
        for (int c = 0; c < sqlite3_column_count(rows); c++)
            if (c < replaced)
                sqlite3_bind_int64(put, c + 1, replace[c]);
            else
                sqlite3_bind_value(put, c + 1, sqlite3_column_value(rows, c));
        err = kv__sql_run(to, put, diag);
    }
    sqlite3_finalize(rows);
    sqlite3_finalize(put);
    sqlite3_free(select);
    free(insert);
    return err == KV_END ? KV_OK : err;
}

static kv_err copy_point(const kv__serving_shard *from, long long id, kv_results *to,
                         long long run_id, kv_diag *diag)
{
    long long replace[2] = {0, run_id};
    kv_err err = kv__sql_number(to, 1, &replace[0], diag,
                                "SELECT coalesce(max(id), 0) + 1 FROM serving_point", "");
    if (err == KV_OK)
        err = copy_rows(from->results, to, "serving_point", "id", id, replace, 2, diag);
    for (const char *const *table = tables_of_point; *table != NULL && err == KV_OK; table++)
        err = copy_rows(from->results, to, *table, "point_id", id, replace, 1, diag);
    return err;
}

kv_err kv__serving_shards_copy(const kv__serving_shard *shard, int count, kv_results *to,
                               long long run_id, kv_diag *diag)
{
    long long points = most_points(shard, count);
    kv_err err = KV_OK;
    if (points > 0)
        err = copy_rows(shard[0].results, to, "request_trace", "run_id", shard[0].run_id, &run_id,
                        1, diag);
    for (long long number = 0; number < points && err == KV_OK; number++)
        for (int i = 0; i < count && err == KV_OK; i++) {
            long long id;
            err = find_point(&shard[i], number, &id, diag);
            if (err == KV_OK && id > 0)
                err = copy_point(&shard[i], id, to, run_id, diag);
        }
    return err;
}
