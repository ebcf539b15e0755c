/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "analysis/run.h"
#include "analysis/serving_results.h"
#include "analysis/serving_tables.h"
#include "analysis/sql.h"
#include "analysis/text.h"

#include <math.h>
#include <stdlib.h>

enum { POINT, TIER, REQUEST, TIMELINE, TABLES };

struct kv_serving_rows {
    kv_results *results;
    const kv_run_info *info; /* of the run */
    long long run_id, point_id;
    int number;
    bool begun;
    sqlite3_stmt *insert[TABLES];
};

/* How many points the experiment has, for who merges shards. */
static kv_err store_plan(kv_serving_rows *rows, int points, kv_diag *diag)
{
    kv_err err = kv__sql_begin(rows->results, diag);
    if (err != KV_OK)
        return err;
    err = kv__sql_do(rows->results, diag,
                     "INSERT OR REPLACE INTO serving_plan (run_id, points) VALUES (?, ?)", "ii",
                     rows->run_id, (long long)points);
    return kv__sql_end(rows->results, err, diag);
}

kv_err kv_serving_rows_open(kv_run *run, int points, kv_serving_rows **out, kv_diag *diag)
{
    kv_serving_rows *rows = calloc(1, sizeof *rows);
    if (rows == NULL)
        return kv_fail_memory(diag);
    rows->results = kv__run_results(run);
    rows->run_id = kv_run_id(run);
    rows->info = kv__run_info(run);
    kv_err err = store_plan(rows, points, diag);
    for (int t = 0; t < TABLES && err == KV_OK; t++) {
        char *sql = kv_schema_insert(&kv__serving_tables[t]);
        err = sql == NULL ? kv_fail_memory(diag)
                          : kv__sql_prepare(rows->results, sql, &rows->insert[t], diag);
        free(sql);
    }
    if (err != KV_OK) {
        kv_serving_rows_close(rows);
        return err;
    }
    *out = rows;
    return KV_OK;
}

void kv_serving_rows_close(kv_serving_rows *rows)
{
    if (rows == NULL)
        return;
    kv_diag ignored = {0};
    if (rows->begun && kv_serving_rows_end(rows, NULL, &ignored) == KV_OK)
        rows->begun = false;
    for (int t = 0; t < TABLES; t++)
        sqlite3_finalize(rows->insert[t]);
    free(rows);
}

kv_err kv_serving_rows_lacks(kv_serving_rows *rows, int number, bool *lacks, kv_diag *diag)
{
    const kv_run_info *info = rows->info;
    long long count = 0;
    *lacks = false;
    if (info->shards > 0 && number % info->shards != info->shard - 1)
        return KV_OK;
    kv_err err =
        kv__sql_number(rows->results, 0, &count, diag,
                       "SELECT count(*) FROM serving_point WHERE run_id = ? AND number = ?", "ii",
                       rows->run_id, (long long)number);
    *lacks = count == 0;
    return err;
}

kv_err kv_serving_rows_finish(kv_serving_rows *rows, kv_diag *diag)
{
    if (rows->info->shards > 0)
        return KV_OK;
    kv_err err = kv__sql_begin(rows->results, diag);
    if (err != KV_OK)
        return err;
    err = kv__sql_do(rows->results, diag, "DELETE FROM serving_plan WHERE run_id = ?", "i",
                     rows->run_id);
    return kv__sql_end(rows->results, err, diag);
}

kv_err kv_serving_rows_begin(kv_serving_rows *rows, int number, kv_diag *diag)
{
    kv_err err = kv__sql_begin(rows->results, diag);
    if (err != KV_OK)
        return err;
    rows->begun = true;
    rows->number = number;
    return kv__sql_number(rows->results, 1, &rows->point_id, diag,
                          "SELECT coalesce(max(id), 0) + 1 FROM serving_point", "");
}

kv_err kv_serving_rows_request(kv_serving_rows *rows, const kv_request_row *row, kv_diag *diag)
{
    kv__sql_bind(rows->insert[REQUEST], 1, "iidddddiiit", rows->point_id, row->request,
                 row->arrival_s, row->ttft_s, row->tpot_s, row->e2e_s, row->queue_s,
                 row->cached_tokens, row->blended_tokens, row->preemptions, row->status);
    return kv__sql_run(rows->results, rows->insert[REQUEST], diag);
}

kv_err kv_serving_rows_sample(kv_serving_rows *rows, double time_s, const char *tier,
                              long long used_bytes, long long running, long long waiting,
                              kv_diag *diag)
{
    kv__sql_bind(rows->insert[TIMELINE], 1, "idtiii", rows->point_id, time_s, tier, used_bytes,
                 running, waiting);
    return kv__sql_run(rows->results, rows->insert[TIMELINE], diag);
}

static int bind_five(sqlite3_stmt *statement, int at, const kv_latency_row *l)
{
    return kv__sql_bind(statement, at, "ddddd", l->mean, l->p50, l->p90, l->p95, l->p99);
}

static kv_err put_point(kv_serving_rows *rows, const kv_serving_row *row, kv_diag *diag)
{
    sqlite3_stmt *s = rows->insert[POINT];
    int at = kv__sql_bind(s, 1, "iiitttdto", rows->point_id, rows->run_id, (long long)rows->number,
                          row->policy, row->params, row->label, row->keep, row->settings,
                          row->chunk_tokens);
    at = kv__sql_bind(s, at, "iiiiiiiiiiiii", row->requests, row->completed, row->rejected,
                      row->rejected_too_long, row->rejected_too_large, row->skipped,
                      row->preemptions, row->recomputed_tokens, row->prompt_tokens,
                      row->blended_tokens, row->blend_recomputed_tokens, row->output_tokens,
                      row->steps);
    at = kv__sql_bind(s, at, "ddd", row->duration_s, row->throughput_tok_s, row->throughput_req_s);
    at = bind_five(s, at, &row->ttft);
    at = bind_five(s, at, &row->tpot);
    at = bind_five(s, at, &row->itl);
    at = bind_five(s, at, &row->e2e);
    at = bind_five(s, at, &row->queue);
    kv__sql_bind(s, at, "ddddddddidddd", row->goodput, row->prefix_hit_ratio,
                 row->kv_capacity_bytes, row->kv_peak_bytes, row->kv_ideal_peak_bytes,
                 row->gpu_bytes_seconds, row->ideal_bytes_seconds, row->kv_read_bytes,
                 row->running_peak, row->running_mean, row->cpu_bytes_seconds, row->gpu_busy,
                 row->cost);
    return kv__sql_run(rows->results, s, diag);
}

kv_err kv_serving_rows_tier(kv_serving_rows *rows, const kv_tier_row *row, kv_diag *diag)
{
    kv__sql_bind(rows->insert[TIER], 1, "itdddddiiid", rows->point_id, row->tier,
                 row->capacity_bytes, row->peak_bytes, row->mean_bytes, row->bytes_in,
                 row->bytes_out, row->hits, row->blended_tokens, row->evictions, row->busy_s);
    return kv__sql_run(rows->results, rows->insert[TIER], diag);
}

static kv_err put_gpu(kv_serving_rows *rows, const kv_serving_row *row, kv_diag *diag)
{
    kv_tier_row gpu = {.tier = "gpu",
                       .capacity_bytes = row->kv_capacity_bytes,
                       .peak_bytes = row->kv_peak_bytes,
                       .mean_bytes =
                           row->duration_s > 0 ? row->gpu_bytes_seconds / row->duration_s : NAN,
                       .bytes_in = row->loaded_bytes,
                       .hits = row->gpu_hit_tokens,
                       .blended_tokens = row->gpu_blended_tokens,
                       .evictions = row->evictions,
                       .busy_s = row->gpu_busy * row->duration_s};
    return kv_serving_rows_tier(rows, &gpu, diag);
}

kv_err kv_serving_rows_end(kv_serving_rows *rows, const kv_serving_row *row, kv_diag *diag)
{
    kv_err err = row != NULL ? put_point(rows, row, diag) : KV_END;
    if (err == KV_OK)
        err = put_gpu(rows, row, diag);
    rows->begun = false;
    err = kv__sql_end(rows->results, err, diag);
    return err == KV_END ? KV_OK : err;
}

kv_err kv_request_trace_put(kv_run *run, const char *path, const char *format, const char *digest,
                            kv_diag *diag)
{
    long long others;
    kv_err err = kv__sql_number(kv__run_results(run), 0, &others, diag,
                                "SELECT count(*) FROM request_trace WHERE run_id = ? AND "
                                "digest <> ?",
                                "it", kv_run_id(run), digest);
    if (err == KV_OK && others > 0)
        err = kv_fail(diag, KV_ERR_INPUT, &(kv_mark){.path = path},
                      "is not what the run began with (its SHA-256 differs); bring that trace back "
                      "to resume, or begin anew with another -o");
    if (err != KV_OK)
        return err;
    return kv__sql_do(kv__run_results(run), diag,
                      "INSERT OR REPLACE INTO request_trace (run_id, path, format, digest) VALUES "
                      "(?, ?, ?, ?)",
                      "ittt", kv_run_id(run), path, format, digest);
}

/* --- The table on the terminal
 * -------------------------------------------------------------------- */

static const char summary_sql[] =
    "SELECT number, policy, coalesce(chunk_size, 'whole'), completed, rejected, throughput_tok_s, "
    "ttft_mean, ttft_p99, tpot_mean, tpot_p99, e2e_p99, prefix_hit_ratio, preemptions, keep, "
    "running_mean, (SELECT avg(accuracy) FROM serving_accuracy AS a WHERE a.point_id = p.id), "
    "label "
    "FROM serving_point AS p WHERE run_id = ? ORDER BY number";

/* A number in four digits; "-" if there is none. */
static void print_cell(FILE *out, int width, double value, double scale)
{
    if (isnan(value))
        fprintf(out, " %*s", width, "-");
    else
        fprintf(out, " %*.4g", width, value * scale);
}

/* Why requests were turned away, if any were: of the points the one that lost most to each reason.
 */
static kv_err explain_rejected(kv_results *results, long long run_id, FILE *out, kv_diag *diag)
{
    static const char *const reasons[] = {
        "longer than the context (prompt and answer against `max_context` or the model's)",
        "larger than the whole KV cache of a replica"};
    sqlite3_stmt *row;
    kv_err err = kv__sql_prepare(results,
                                 "SELECT max(rejected_too_long), max(rejected_too_large), "
                                 "max(requests) FROM serving_point WHERE run_id = ?",
                                 &row, diag);
    if (err != KV_OK)
        return err;
    kv__sql_bind(row, 1, "i", run_id);
    err = kv__sql_step(results, row, diag);
    for (int r = 0; err == KV_OK && r < 2; r++)
        if (sqlite3_column_int64(row, r) > 0)
            fprintf(out, "Rejected: up to %lld of %lld requests are %s.\n",
                    (long long)sqlite3_column_int64(row, r),
                    (long long)sqlite3_column_int64(row, 2), reasons[r]);
    sqlite3_finalize(row);
    return err == KV_END ? KV_OK : err;
}

kv_err kv_serving_summary(kv_results *results, long long run_id, FILE *out, kv_diag *diag)
{
    sqlite3_stmt *statement;
    kv_err err = kv__sql_prepare(results, summary_sql, &statement, diag);
    if (err != KV_OK)
        return err;
    kv__sql_bind(statement, 1, "i", run_id);
    for (bool first = true; (err = kv__sql_step(results, statement, diag)) == KV_OK;
         first = false) {
        if (first)
            fprintf(
                out,
                "point policy        keep  chunk  completed rejected running   tok/s    "
                "TTFT  p99 [s]    TPOT p99 [ms]  E2E p99 [s]  hits preempted accuracy  label\n");
        fprintf(out, "%5d %-12s", sqlite3_column_int(statement, 0),
                sqlite3_column_text(statement, 1));
        print_cell(out, 5, kv__sql_double(statement, 13), 1);
        fprintf(out, " %6s %10lld %8lld", sqlite3_column_text(statement, 2),
                sqlite3_column_int64(statement, 3), sqlite3_column_int64(statement, 4));
        print_cell(out, 7, kv__sql_double(statement, 14), 1);
        print_cell(out, 7, kv__sql_double(statement, 5), 1);
        print_cell(out, 7, kv__sql_double(statement, 6), 1);
        print_cell(out, 8, kv__sql_double(statement, 7), 1);
        print_cell(out, 7, kv__sql_double(statement, 8), 1e3);
        print_cell(out, 8, kv__sql_double(statement, 9), 1e3);
        print_cell(out, 12, kv__sql_double(statement, 10), 1);
        print_cell(out, 5, kv__sql_double(statement, 11), 1);
        fprintf(out, " %9lld", sqlite3_column_int64(statement, 12));
        print_cell(out, 8, kv__sql_double(statement, 15), 1);
        fputs("  ", out);
        kv__plain_write((const char *)sqlite3_column_text(statement, 16),
                        sqlite3_column_bytes(statement, 16), out);
        fputc('\n', out);
    }
    sqlite3_finalize(statement);
    return err == KV_END ? explain_rejected(results, run_id, out, diag) : err;
}
