/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Merging shards. The plan and the examples of a shard are work tables, so that a merged run is
 * begun, filled and finished like any other. */
#include "config.h"

#include "analysis/merge_serving.h"
#include "analysis/plan.h"
#include "analysis/run.h"
#include "analysis/sql.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The run of one shard file. */
typedef struct shard {
    kv_results *results;
    kv_plan *plan; /* of the attention part; NULL: there is none */
    kv__serving_shard serving;
    kv_run_info info; /* texts are owned */
    long long run_id;
} shard;

static void shard_close(shard *s)
{
    kv__plan_free(s->plan);
    free((char *)s->info.name);
    free((char *)s->info.experiment);
    free((char *)s->info.version);
    kv_results_close(s->results);
    *s = (shard){0};
}

static kv_err read_run(shard *s, kv_diag *diag)
{
    kv_mark mark = {kv_results_path(s->results), 0, 0};
    sqlite3_stmt *row = NULL;
    kv_err err = kv__sql_prepare(s->results,
                                 "SELECT id, name, experiment, version, seed, shard, shards "
                                 "FROM run WHERE shards IS NOT NULL ORDER BY id DESC LIMIT 1",
                                 &row, diag);
    if (err == KV_OK)
        err = kv__sql_step(s->results, row, diag);
    if (err == KV_END)
        err = kv_fail(diag, KV_ERR_INPUT, &mark,
                      "holds no shard; shards are written by `kvsim run --shard I/N`");
    if (err == KV_OK)
        err = kv__sql_text(row, 1, (char **)&s->info.name, diag);
    if (err == KV_OK)
        err = kv__sql_text(row, 2, (char **)&s->info.experiment, diag);
    if (err == KV_OK)
        err = kv__sql_text(row, 3, (char **)&s->info.version, diag);
    if (err == KV_OK) {
        s->run_id = sqlite3_column_int64(row, 0);
        s->info.seed = sqlite3_column_int64(row, 4);
        s->info.shard = sqlite3_column_int(row, 5);
        s->info.shards = sqlite3_column_int(row, 6);
    }
    sqlite3_finalize(row);
    return err;
}

static kv_err shard_open(const char *path, shard *s, kv_diag *diag)
{
    kv_mark mark = {path, 0, 0};
    kv_err err = kv_results_open(path, KV_RESULTS_READ, &s->results, diag);
    if (err == KV_OK)
        err = read_run(s, diag);
    if (err == KV_OK)
        err = kv__plan_load(s->results, s->run_id, &s->plan, diag);
    s->serving = (kv__serving_shard){.results = s->results, .run_id = s->run_id};
    if (err == KV_OK)
        err = kv__serving_shard_read(&s->serving, diag);
    if (err == KV_OK && s->plan == NULL && s->serving.points == 0)
        err = kv_fail(diag, KV_ERR_INPUT, &mark, "the shard in it never began");
    return err;
}

static kv_err check_same(const shard *first, const shard *other, kv_diag *diag)
{
    const char *path = kv_results_path(other->results);
    const char *first_path = kv_results_path(first->results);
    kv_mark mark = {path, 0, 0};
    if (strcmp(first->info.experiment, other->info.experiment) != 0)
        return kv_fail(diag, KV_ERR_INPUT, &mark, "is a shard of another experiment than %s",
                       first_path);
    if (first->info.seed != other->info.seed)
        return kv_fail(diag, KV_ERR_INPUT, &mark, "has seed %lld, %s has %lld", other->info.seed,
                       first_path, first->info.seed);
    if (strcmp(first->info.version, other->info.version) != 0)
        return kv_fail(diag, KV_ERR_INPUT, &mark, "was written by kvsim %s, %s by %s",
                       other->info.version, first_path, first->info.version);
    if (first->info.shards != other->info.shards)
        return kv_fail(diag, KV_ERR_INPUT, &mark, "is one of %d shards, %s one of %d",
                       other->info.shards, first_path, first->info.shards);
    if (first->plan == NULL || other->plan == NULL)
        return first->plan == other->plan
                   ? KV_OK
                   : kv_fail(diag, KV_ERR_INPUT, &mark, "or %s never began its attention part",
                             first_path);
    return kv__plan_compare(first->plan, &other->plan->info, path, diag);
}

/* --- coverage ---------------------------------------------------------------------- */

/* Names the examples whose count is wrong: "a, b and 3 more". */
static void list_examples(const kv_plan *plan, const int *count, bool doubled, char *out,
                          size_t bytes)
{
    int named = 0, more = 0;
    size_t at = 0;
    for (int e = 0; e < plan->info.examples; e++) {
        if (doubled ? count[e] <= 1 : count[e] != 0)
            continue;
        size_t need = strlen(plan->example_name[e]) + 3;
        if (named >= 10 || at + need + 32 > bytes) {
            more++;
            continue;
        }
        at += (size_t)snprintf(out + at, bytes - at, "%s%s", named++ ? ", " : "",
                               plan->example_name[e]);
    }
    if (more)
        snprintf(out + at, bytes - at, "%s%d more", named ? " and " : "", more);
}

static kv_err check_coverage(const shard *shards, const int *times, kv_diag *diag)
{
    char names[512] = "";
    const kv_plan *plan = shards->plan;
    for (int e = 0; e < plan->info.examples; e++) {
        if (times[e] == 1)
            continue;
        bool doubled = times[e] > 1;
        list_examples(plan, times, doubled, names, sizeof names);
        if (doubled)
            return kv_fail(diag, KV_ERR_INPUT, NULL,
                           "examples are in more than one of the files: %s; give each shard once",
                           names);
        return kv_fail(diag, KV_ERR_INPUT, NULL,
                       "examples are missing: %s; run shard %d/%d to its end (--resume) and give "
                       "its file too",
                       names, e % shards->info.shards + 1, shards->info.shards);
    }
    return KV_OK;
}

static kv_err count_examples(const shard *s, int *times, kv_diag *diag)
{
    sqlite3_stmt *rows = NULL;
    kv_err err = kv__sql_prepare(s->results, "SELECT number FROM attention_unit WHERE run_id = ?",
                                 &rows, diag);
    if (err == KV_OK)
        kv__sql_bind(rows, 1, "i", s->run_id);
    while (err == KV_OK && (err = kv__sql_step(s->results, rows, diag)) == KV_OK) {
        int e = sqlite3_column_int(rows, 0);
        if (e >= 0 && e < s->plan->info.examples)
            times[e]++;
    }
    sqlite3_finalize(rows);
    return err == KV_END ? KV_OK : err;
}

static kv_err check_examples(const shard *shards, int count, kv_diag *diag)
{
    int *times = calloc((size_t)shards->plan->info.examples + 1, sizeof *times);
    kv_err err = times ? KV_OK : kv_fail_memory(diag);
    for (int i = 0; i < count && err == KV_OK; i++)
        err = count_examples(&shards[i], times, diag);
    if (err == KV_OK)
        err = check_coverage(shards, times, diag);
    free(times);
    return err;
}

/* The serving parts, in an array of their own; free it. NULL: no memory. */
static kv__serving_shard *serving_parts(const shard *shards, int count)
{
    kv__serving_shard *parts = calloc((size_t)count, sizeof *parts);
    for (int i = 0; parts != NULL && i < count; i++)
        parts[i] = shards[i].serving;
    return parts;
}

static kv_err check_shards(const shard *shards, int count, kv_diag *diag)
{
    kv__serving_shard *parts = serving_parts(shards, count);
    kv_err err = parts != NULL ? KV_OK : kv_fail_memory(diag);
    for (int i = 1; i < count && err == KV_OK; i++)
        err = check_same(&shards[0], &shards[i], diag);
    if (err == KV_OK && shards->plan != NULL)
        err = check_examples(shards, count, diag);
    if (err == KV_OK)
        err = kv__serving_shards_check(parts, count, shards->info.shards, diag);
    free(parts);
    return err;
}

/* --- copying ----------------------------------------------------------------------- */

/* Copies rows of a work table, whose first column is the run. Every other column is copied as is.
 */
static kv_err copy_rows(const shard *from, kv_results *to, long long run_id, const char *select,
                        const char *insert, kv_diag *diag)
{
    sqlite3_stmt *rows = NULL, *put = NULL;
    kv_err err = kv__sql_prepare(from->results, select, &rows, diag);
    if (err == KV_OK)
        err = kv__sql_prepare(to, insert, &put, diag);
    if (err == KV_OK)
        kv__sql_bind(rows, 1, "i", from->run_id);
    while (err == KV_OK && (err = kv__sql_step(from->results, rows, diag)) == KV_OK) {
        kv__sql_bind(put, 1, "i", run_id);
        for (int c = 0; c < sqlite3_column_count(rows); c++)
            sqlite3_bind_value(put, c + 2, sqlite3_column_value(rows, c));
        err = kv__sql_run(to, put, diag);
    }
    sqlite3_finalize(rows);
    sqlite3_finalize(put);
    return err == KV_END ? KV_OK : err;
}

static kv_err copy_shard(const shard *from, kv_results *to, long long run_id, kv_diag *diag)
{
    kv_err err =
        copy_rows(from, to, run_id, "SELECT number, records FROM attention_unit WHERE run_id = ?",
                  "INSERT INTO attention_unit (run_id, number, records) VALUES (?, ?, ?)", diag);
    if (err == KV_OK)
        err = copy_rows(from, to, run_id,
                        "SELECT point, example, sets FROM attention_set WHERE run_id = ?",
                        "INSERT INTO attention_set (run_id, point, example, sets) "
                        "VALUES (?, ?, ?, ?)",
                        diag);
    return err;
}

static kv_err copy_shards(const shard *shards, int count, kv_results *to, long long run_id,
                          kv_diag *diag)
{
    kv_err err = kv__sql_begin(to, diag);
    if (err != KV_OK)
        return err;
    for (int i = 0; i < count && err == KV_OK; i++)
        err = copy_shard(&shards[i], to, run_id, diag);
    return kv__sql_end(to, err, diag);
}

static kv_err copy_serving(const shard *shards, int count, kv_results *to, long long run_id,
                           kv_diag *diag)
{
    kv__serving_shard *parts = serving_parts(shards, count);
    kv_err err = parts != NULL ? kv__sql_begin(to, diag) : kv_fail_memory(diag);
    if (err == KV_OK)
        err = kv__sql_end(to, kv__serving_shards_copy(parts, count, to, run_id, diag), diag);
    free(parts);
    return err;
}

static kv_err fill_attention(const shard *shards, int count, kv_results *to, kv_run *run,
                             kv_diag *diag)
{
    kv_points *points = NULL;
    kv_err err = kv_points_begin(run, &shards->plan->info, &points, diag);
    if (err == KV_OK)
        err = copy_shards(shards, count, to, kv_run_id(run), diag);
    kv_points_free(points); /* begun again, it finds what was copied */
    points = NULL;
    if (err == KV_OK)
        err = kv_points_begin(run, &shards->plan->info, &points, diag);
    if (err == KV_OK)
        err = kv_points_finish(points, diag);
    kv_points_free(points);
    return err;
}

static kv_err fill(const shard *shards, int count, kv_results *to, kv_diag *diag)
{
    kv_run_info info = shards->info;
    kv_run *run = NULL;
    info.shard = info.shards = 0;
    kv_err err = kv_run_begin(to, &info, false, &run, diag);
    if (err == KV_OK && shards->plan != NULL)
        err = fill_attention(shards, count, to, run, diag);
    if (err == KV_OK)
        err = copy_serving(shards, count, to, kv_run_id(run), diag);
    if (err == KV_OK)
        err = kv_run_finish(run, diag);
    kv_run_free(run);
    return err;
}

/* --- the file ---------------------------------------------------------------------- */

/* Gives the finished file its name; without force never in the place of another. */
static kv_err publish(const char *made, const char *path, bool force, kv_diag *diag)
{
    kv_mark mark = {path, 0, 0};
    if (!force && link(made, path) == 0) {
        unlink(made);
        return KV_OK;
    }
    if (!force && errno == EEXIST)
        return kv_fail(diag, KV_ERR_INPUT, &mark, "exists already; --force replaces it");
    if (rename(made, path) != 0)
        return kv_fail(diag, KV_ERR_IO, &mark, "cannot write: %s", strerror(errno));
    return KV_OK;
}

/* Removes an unfinished file with what SQLite keeps beside it. */
static void remove_part(const char *made)
{
    static const char *const endings[] = {"", "-wal", "-shm", "-journal"};
    for (size_t i = 0; i < sizeof endings / sizeof endings[0]; i++) {
        char *path = sqlite3_mprintf("%s%s", made, endings[i]);
        if (path != NULL)
            unlink(path);
        sqlite3_free(path);
    }
}

static kv_err make_file(const char *path, const shard *shards, int count, bool force, kv_diag *diag)
{
    kv_results *results = NULL;
    char *made = sqlite3_mprintf("%s.%ld.part", path, (long)getpid());
    if (made == NULL)
        return kv_fail_memory(diag);
    remove_part(made);
    kv_err err = kv_results_open(made, KV_RESULTS_WRITE, &results, diag);
    if (err == KV_OK)
        err = fill(shards, count, results, diag);
    kv_results_close(results);
    if (err == KV_OK)
        err = publish(made, path, force, diag);
    if (err != KV_OK)
        remove_part(made);
    sqlite3_free(made);
    return err;
}

kv_err kv_results_merge(const char *out_path, const char *const *shard_paths, int shards,
                        bool force, kv_diag *diag)
{
    kv_mark mark = {out_path, 0, 0};
    if (!force && access(out_path, F_OK) == 0)
        return kv_fail(diag, KV_ERR_INPUT, &mark, "exists already; --force replaces it");
    shard *shard_list = calloc((size_t)shards + 1, sizeof *shard_list);
    kv_err err = shard_list ? KV_OK : kv_fail_memory(diag);
    for (int i = 0; i < shards && err == KV_OK; i++)
        err = shard_open(shard_paths[i], &shard_list[i], diag);
    if (err == KV_OK)
        err = check_shards(shard_list, shards, diag);
    if (err == KV_OK)
        err = make_file(out_path, shard_list, shards, force, diag);
    for (int i = 0; i < shards && shard_list != NULL; i++)
        shard_close(&shard_list[i]);
    free(shard_list);
    return err;
}
