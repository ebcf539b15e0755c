/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Taking in finished examples. Each is one row of the work table attention_unit, written at once,
 * so that a kill loses no more than the examples in flight. */
#include "config.h"

#include "analysis/points.h"

#include "analysis/accuracy.h"
#include "analysis/finish.h"
#include "analysis/plan.h"
#include "analysis/run.h"
#include "analysis/sql.h"

#include <assert.h>
#include <endian.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct kv_points {
    kv_run *run;
    kv_results *results;
    kv_plan *plan;
    bool *stored; /* [examples] the database has them */
    pthread_mutex_t mutex;
};

/* Marks the examples that are in the database. */
static kv_err find_stored(kv_points *points, kv_diag *diag)
{
    sqlite3_stmt *rows = NULL;
    kv_err err = kv__sql_prepare(points->results,
                                 "SELECT number FROM attention_unit WHERE run_id = ?", &rows, diag);
    if (err == KV_OK)
        kv__sql_bind(rows, 1, "i", kv_run_id(points->run));
    while (err == KV_OK && (err = kv__sql_step(points->results, rows, diag)) == KV_OK) {
        int e = sqlite3_column_int(rows, 0);
        if (e >= 0 && e < points->plan->info.examples)
            points->stored[e] = true;
    }
    sqlite3_finalize(rows);
    return err == KV_END ? KV_OK : err;
}

/* Stores the plan of a new run, or checks it against that of a resumed one. */
static kv_err take_plan(kv_points *points, const kv_points_plan *plan, kv_diag *diag)
{
    long long id = kv_run_id(points->run);
    kv_err err = kv__plan_load(points->results, id, &points->plan, diag);
    if (err != KV_OK)
        return err;
    if (points->plan != NULL)
        return kv__plan_compare(points->plan, plan, kv_results_path(points->results), diag);
    err = kv__sql_begin(points->results, diag);
    if (err == KV_OK) {
        err = kv__plan_store(points->run, plan, diag);
        err = kv__sql_end(points->results, err, diag);
    }
    return err == KV_OK ? kv__plan_load(points->results, id, &points->plan, diag) : err;
}

kv_err kv_points_begin(kv_run *run, const kv_points_plan *plan, kv_points **out, kv_diag *diag)
{
    if (kv_accuracy_find(plan->accuracy_model) == NULL)
        return kv_fail(diag, KV_ERR_INPUT, NULL, "there is no accuracy model '%s'",
                       plan->accuracy_model);
    kv_points *points = calloc(1, sizeof *points);
    if (points == NULL)
        return kv_fail_memory(diag);
    points->run = run;
    points->results = kv__run_results(run);
    pthread_mutex_init(&points->mutex, NULL);
    kv_err err = take_plan(points, plan, diag);
    if (err == KV_OK) {
        points->stored = calloc((size_t)plan->examples + 1, sizeof *points->stored);
        err = points->stored ? find_stored(points, diag) : kv_fail_memory(diag);
    }
    if (err == KV_OK)
        *out = points;
    else
        kv_points_free(points);
    return err;
}

void kv_points_free(kv_points *points)
{
    if (points == NULL)
        return;
    kv__plan_free(points->plan);
    pthread_mutex_destroy(&points->mutex);
    free(points->stored);
    free(points);
}

bool kv_points_wants(const kv_points *points, int example)
{
    const kv_run_info *info = kv__run_info(points->run);
    bool ours = info->shards == 0 || example % info->shards == info->shard - 1;
    return ours && !points->plan->done && !points->stored[example];
}

/* --- one example ------------------------------------------------------------------- */

/* Doubles as the database has them; free it. */
static unsigned char *encode_records(const kv_record *records, size_t count)
{
    unsigned char *bytes = malloc(count * sizeof *records + 1);
    for (size_t i = 0; bytes != NULL && i < count; i++) {
        for (int m = 0; m < KV_MEASURES; m++) {
            uint64_t bits;
            memcpy(&bits, &records[i].value[m], sizeof bits);
            bits = htole64(bits);
            memcpy(bytes + (i * KV_MEASURES + (size_t)m) * sizeof bits, &bits, sizeof bits);
        }
    }
    return bytes;
}

/* By point, layer, KV head: the order of the database. */
static int compare_sets(const void *a, const void *b)
{
    const kv_retained_set *x = a, *y = b;
    if (x->point != y->point)
        return x->point < y->point ? -1 : 1;
    if (x->layer != y->layer)
        return x->layer < y->layer ? -1 : 1;
    return (x->kv_head > y->kv_head) - (x->kv_head < y->kv_head);
}

/* Writes the sets of one point; those at sets[0..count) have it. */
static kv_err store_sets(kv_points *points, int example, const kv_retained_set *sets, int count,
                         sqlite3_stmt *insert, kv_diag *diag)
{
    size_t words = 0, at = 0;
    for (int i = 0; i < count; i++)
        words += 3 + (size_t)sets[i].positions;
    uint32_t *word = malloc(words * sizeof *word + 1);
    if (word == NULL)
        return kv_fail_memory(diag);
    for (int i = 0; i < count; i++) {
        word[at++] = htole32((uint32_t)sets[i].layer);
        word[at++] = htole32((uint32_t)sets[i].kv_head);
        word[at++] = htole32((uint32_t)sets[i].positions);
        for (int p = 0; p < sets[i].positions; p++)
            word[at++] = htole32((uint32_t)sets[i].position[p]);
    }
    kv__sql_bind(insert, 1, "iiib", kv_run_id(points->run), (long long)sets->point,
                 (long long)example, (const void *)word, words * sizeof *word);
    kv_err err = kv__sql_run(points->results, insert, diag);
    free(word);
    return err;
}

static kv_err store_all_sets(kv_points *points, int example, const kv_retained_set *sets,
                             int set_count, kv_diag *diag)
{
    kv_retained_set *sorted = malloc((size_t)set_count * sizeof *sorted + 1);
    sqlite3_stmt *insert = NULL;
    if (sorted == NULL)
        return kv_fail_memory(diag);
    memcpy(sorted, sets, (size_t)set_count * sizeof *sorted);
    qsort(sorted, (size_t)set_count, sizeof *sorted, compare_sets);
    kv_err err = kv__sql_prepare(points->results,
                                 "INSERT INTO attention_set (run_id, point, example, sets) "
                                 "VALUES (?, ?, ?, ?)",
                                 &insert, diag);
    for (int i = 0, end; i < set_count && err == KV_OK; i = end) {
        for (end = i; end < set_count && sorted[end].point == sorted[i].point; end++)
            continue;
        err = store_sets(points, example, sorted + i, end - i, insert, diag);
    }
    sqlite3_finalize(insert);
    free(sorted);
    return err;
}

kv_err kv_points_put(kv_points *points, int example, const kv_record *records,
                     const kv_retained_set *sets, int set_count, kv_diag *diag)
{
    assert(kv_points_wants(points, example));
    size_t count =
        (size_t)points->plan->info.points * (size_t)(points->plan->info.example[example].turns + 1);
    unsigned char *bytes = encode_records(records, count);
    if (bytes == NULL)
        return kv_fail_memory(diag);
    pthread_mutex_lock(&points->mutex);
    kv_err err = kv__sql_begin(points->results, diag);
    if (err == KV_OK) {
        err = kv__sql_do(points->results, diag,
                         "INSERT INTO attention_unit (run_id, number, records) VALUES (?, ?, ?)",
                         "iib", kv_run_id(points->run), (long long)example, (const void *)bytes,
                         count * sizeof *records);
        if (err == KV_OK && sets != NULL && set_count > 0)
            err = store_all_sets(points, example, sets, set_count, diag);
        err = kv__sql_end(points->results, err, diag);
    }
    points->stored[example] = err == KV_OK;
    pthread_mutex_unlock(&points->mutex);
    free(bytes);
    return err;
}

kv_err kv_points_finish(kv_points *points, kv_diag *diag)
{
    if (points->plan->done || kv__run_info(points->run)->shards > 0)
        return KV_OK;
    for (int e = 0; e < points->plan->info.examples; e++)
        if (!points->stored[e])
            return kv_fail(diag, KV_ERR_BUG, NULL, "example %d was never put", e);
    kv_err err = kv__finish(points->run, points->plan, diag);
    points->plan->done = err == KV_OK;
    return err;
}
