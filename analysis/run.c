/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Runs: rows of table run, and which of them --resume takes up. */
#include "config.h"

#include "analysis/results.h"
#include "analysis/run.h"
#include "analysis/sql.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

struct kv_run {
    kv_results *results;
    kv_run_info info; /* texts are owned */
    long long id;
    bool finished, resumed;
    double begun_s; /* on a clock that does not jump */
};

static double monotonic_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

void kv_run_free(kv_run *run)
{
    if (run == NULL)
        return;
    free((char *)run->info.name);
    free((char *)run->info.experiment);
    free((char *)run->info.version);
    free(run);
}

static kv_err run_new(kv_results *results, const kv_run_info *info, kv_run **out, kv_diag *diag)
{
    kv_run *run = calloc(1, sizeof *run);
    if (run == NULL)
        return kv_fail_memory(diag);
    run->results = results;
    run->begun_s = monotonic_s();
    run->info = *info;
    if (info->shards <= 1)
        run->info.shard = run->info.shards = 0;
    run->info.name = strdup(info->name);
    run->info.experiment = strdup(info->experiment);
    run->info.version = strdup(info->version);
    if (run->info.name == NULL || run->info.experiment == NULL || run->info.version == NULL) {
        kv_run_free(run);
        return kv_fail_memory(diag);
    }
    *out = run;
    return KV_OK;
}

/* One line of a text, as far as a message shows it. */
typedef struct shown_line {
    const char *start;
    int bytes;
} shown_line;

static shown_line show_line(const char *start)
{
    size_t bytes = strcspn(start, "\n");
    return (shown_line){start, (int)(bytes > 200 ? 200 : bytes)};
}

/* The first line in which two texts differ, and its number from 1. */
static int differing_line(const char *old, const char *new, shown_line *was, shown_line *is)
{
    int line = 1;
    size_t start = 0;
    for (size_t i = 0; old[i] == new[i] && old[i] != '\0'; i++) {
        if (old[i] == '\n') {
            line++;
            start = i + 1;
        }
    }
    *was = show_line(old + start);
    *is = show_line(new + start);
    return line;
}

/* Says how a stored run (columns as in find_same) differs from the one that was asked for. */
static kv_err explain_difference(const kv_run *run, sqlite3_stmt *row, kv_diag *diag)
{
    kv_mark mark = {kv_results_path(run->results), 0, 0};
    const char *version = (const char *)sqlite3_column_text(row, 3);
    const char *experiment = (const char *)sqlite3_column_text(row, 1);
    const char *advice = "write to another file, or leave out --resume to add a run";
    if (version == NULL || experiment == NULL)
        return kv_fail_memory(diag);
    if (strcmp(experiment, run->info.experiment) != 0) {
        shown_line was, is;
        int line = differing_line(experiment, run->info.experiment, &was, &is);
        return kv_fail(diag, KV_ERR_INPUT, &mark,
                       "cannot resume: the file holds a run of another experiment (line %d of the "
                       "resolved text was '%.*s', now '%.*s'); %s",
                       line, was.bytes, was.start, is.bytes, is.start, advice);
    }
    if (sqlite3_column_int64(row, 2) != run->info.seed)
        return kv_fail(diag, KV_ERR_INPUT, &mark,
                       "cannot resume: the run in the file has seed %lld, not %lld; %s",
                       (long long)sqlite3_column_int64(row, 2), run->info.seed, advice);
    if (strcmp(version, run->info.version) != 0)
        return kv_fail(diag, KV_ERR_INPUT, &mark,
                       "cannot resume: the run in the file was begun by kvsim %s, this is %s; %s",
                       version, run->info.version, advice);
    return kv_fail(diag, KV_ERR_INPUT, &mark,
                   "cannot resume: the run in the file is shard %d of %d, not %d of %d; %s",
                   sqlite3_column_int(row, 4), sqlite3_column_int(row, 5), run->info.shard,
                   run->info.shards, advice);
}

static bool is_same(const kv_run *run, sqlite3_stmt *row)
{
    const char *experiment = (const char *)sqlite3_column_text(row, 1);
    const char *version = (const char *)sqlite3_column_text(row, 3);
    return experiment != NULL && version != NULL && strcmp(experiment, run->info.experiment) == 0 &&
           sqlite3_column_int64(row, 2) == run->info.seed &&
           strcmp(version, run->info.version) == 0 &&
           sqlite3_column_int(row, 4) == run->info.shard &&
           sqlite3_column_int(row, 5) == run->info.shards;
}

/* Looks for the latest run that is this one. run->id stays 0 if the file holds no run at all. */
static kv_err find_same(kv_run *run, kv_diag *diag)
{
    sqlite3_stmt *rows = NULL;
    kv_err err = kv__sql_prepare(run->results,
                                 "SELECT id, experiment, seed, version, coalesce(shard, 0), "
                                 "coalesce(shards, 0), finished_at IS NOT NULL FROM run "
                                 "ORDER BY id DESC",
                                 &rows, diag);
    bool any = false;
    while (err == KV_OK && (err = kv__sql_step(run->results, rows, diag)) == KV_OK) {
        any = true;
        if (is_same(run, rows)) {
            run->id = sqlite3_column_int64(rows, 0);
            run->finished = sqlite3_column_int(rows, 6) != 0;
            run->resumed = true;
            break;
        }
    }
    if (err == KV_END)
        err = KV_OK;
    if (err == KV_OK && any && run->id == 0) {
        sqlite3_reset(rows); /* compare with the latest */
        err = kv__sql_step(run->results, rows, diag);
        if (err == KV_OK)
            err = explain_difference(run, rows, diag);
    }
    sqlite3_finalize(rows);
    return err;
}

static kv_err insert_run(kv_run *run, kv_diag *diag)
{
    kv_err err =
        kv__sql_do(run->results, diag,
                   "INSERT INTO run (name, experiment, seed, version, shard, shards, "
                   "started_at) VALUES (?1, ?2, ?3, ?4, nullif(?5, 0), nullif(?6, 0), "
                   "strftime('%Y-%m-%dT%H:%M:%SZ', 'now'))",
                   "ttitii", run->info.name, run->info.experiment, run->info.seed,
                   run->info.version, (long long)run->info.shard, (long long)run->info.shards);
    if (err == KV_OK)
        run->id = sqlite3_last_insert_rowid(kv_results_handle(run->results));
    return err;
}

kv_err kv_run_begin(kv_results *results, const kv_run_info *info, bool resume, kv_run **out,
                    kv_diag *diag)
{
    kv_run *run = NULL;
    kv_err err = run_new(results, info, &run, diag);
    if (err != KV_OK)
        return err;
    err = kv__sql_begin(results, diag);
    if (err == KV_OK) {
        if (resume)
            err = find_same(run, diag);
        if (err == KV_OK && run->id == 0)
            err = insert_run(run, diag);
        err = kv__sql_end(results, err, diag);
    }
    if (err == KV_OK)
        *out = run;
    else
        kv_run_free(run);
    return err;
}

long long kv_run_id(const kv_run *run)
{
    return run->id;
}

bool kv_run_is_resumed(const kv_run *run)
{
    return run->resumed;
}

bool kv_run_is_finished(const kv_run *run)
{
    return run->finished;
}

kv_results *kv__run_results(const kv_run *run)
{
    return run->results;
}

const kv_run_info *kv__run_info(const kv_run *run)
{
    return &run->info;
}

kv_err kv_run_finish(kv_run *run, kv_diag *diag)
{
    if (run->finished)
        return KV_OK;
    bool whole = run->info.shards == 0;
    double wall_s = monotonic_s() - run->begun_s;
    kv_err err = kv__sql_do(run->results, diag,
                            whole ? "UPDATE run SET wall_seconds = ?2, finished_at = "
                                    "strftime('%Y-%m-%dT%H:%M:%SZ', 'now') WHERE id = ?1"
                                  : "UPDATE run SET wall_seconds = ?2 WHERE id = ?1",
                            "id", run->id, wall_s);
    if (err == KV_OK)
        err = kv__sql_exec(run->results,
                           "PRAGMA incremental_vacuum; "
                           "PRAGMA wal_checkpoint(TRUNCATE)",
                           diag);
    run->finished = err == KV_OK && whole;
    return err;
}

kv_err kv_run_warnings(kv_run *run, void (*each)(void *closure, const char *text), void *closure,
                       kv_diag *diag)
{
    kv_results *results = kv__run_results(run);
    sqlite3_stmt *rows = NULL;
    kv_err err = kv__sql_prepare(
        results, "SELECT text FROM warning WHERE run_id = ? ORDER BY number", &rows, diag);
    if (err == KV_OK)
        kv__sql_bind(rows, 1, "i", kv_run_id(run));
    while (err == KV_OK && (err = kv__sql_step(results, rows, diag)) == KV_OK)
        each(closure, (const char *)sqlite3_column_text(rows, 0));
    sqlite3_finalize(rows);
    return err == KV_END ? KV_OK : err;
}

/* --- Reading back --------------------------------------------------------------------- */

kv_err kv__run_row(kv_results *results, const char *sql, long long run_id, sqlite3_stmt **row,
                   kv_diag *diag)
{
    kv_mark mark = {kv_results_path(results), 0, 0};
    kv_err err = kv__sql_prepare(results, sql, row, diag);
    if (err != KV_OK)
        return err;
    kv__sql_bind(*row, 1, "i", run_id);
    err = kv__sql_step(results, *row, diag);
    if (err != KV_END)
        return err;
    return run_id ? kv_fail(diag, KV_ERR_INPUT, &mark, "there is no run %lld", run_id)
                  : kv_fail(diag, KV_ERR_INPUT, &mark, "there is no run in it");
}
