/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "analysis/plan_accuracy.h"

#include "analysis/sql.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* A task's full accuracy is that of policy full, else what critical footprints were measured
 * against. */
static const char point_sql[] =
    "SELECT p.task, p.chunk_size, p.accuracy, p.accuracy_lo, p.accuracy_hi, p.accuracy_source, "
    "coalesce((SELECT f.accuracy FROM footprint_point f WHERE f.run_id = p.run_id AND f.turn IS "
    "NULL AND f.task = p.task AND f.policy = 'full' LIMIT 1), (SELECT full_accuracy FROM "
    "critical_footprint c WHERE c.run_id = p.run_id AND c.task = p.task AND c.turn IS NULL LIMIT "
    "1)) FROM footprint_point p WHERE p.run_id = CASE ?1 WHEN 0 THEN (SELECT id FROM latest_run) "
    "ELSE ?1 END AND p.turn IS NULL AND p.policy = ?2 AND (?2 = 'full' OR p.params = ?3) ORDER BY "
    "p.id";

/* Octaves between two chunk sizes; the whole prompt is far from any number. */
static double distance(double a, double b)
{
    return fabs(log2(a > 0 ? a : 1e12) - log2(b > 0 ? b : 1e12));
}

static kv_err nearest_chunk(kv_results *results, sqlite3_stmt *rows, double wanted, bool *any,
                            double *out, kv_diag *diag)
{
    kv_err err;
    *any = false;
    while ((err = kv__sql_step(results, rows, diag)) == KV_OK) {
        double chunk = sqlite3_column_double(rows, 1); /* NULL is 0 */
        if (!*any || distance(chunk, wanted) < distance(*out, wanted))
            *out = chunk;
        *any = true;
    }
    sqlite3_reset(rows);
    return err == KV_END ? KV_OK : err;
}

/* True if it is the least so far, and then kept. */
static bool lower(double value, double *least)
{
    bool less = !isnan(value) && (isnan(*least) || value < *least);
    if (less)
        *least = value;
    return less;
}

/* The task that is worst in one number need not be worst in another: each is the least of its own.
 * A task without an interval is at both ends where it is. */
static void take(sqlite3_stmt *row, bool full, kv_plan_accuracy *out)
{
    double value = kv__sql_double(row, 2), of = full ? NAN : kv__sql_double(row, 6);
    double lo = kv__sql_double(row, 3), hi = kv__sql_double(row, 4);
    if (isnan(value))
        return;
    if (isnan(lo) || isnan(hi))
        lo = hi = value;
    else
        out->has_interval = true;
    bool worst = lower(value, &out->value);
    lower(lo, &out->lo);
    lower(hi, &out->hi);
    if (of > 0) {
        worst = lower(value / of, &out->of_full);
        lower(lo / of, &out->lo_of_full);
        lower(hi / of, &out->hi_of_full);
    } else {
        worst = worst && isnan(out->of_full);
    }
    if (worst) {
        snprintf(out->source, sizeof out->source, "%s", sqlite3_column_text(row, 5));
        snprintf(out->task, sizeof out->task, "%s", sqlite3_column_text(row, 0));
    }
    out->chunk_tokens = sqlite3_column_int64(row, 1);
    out->known = true;
}

/* Without any interval its ends are not known. */
static void end_interval(kv_plan_accuracy *out)
{
    if (!out->has_interval)
        out->lo = out->hi = out->lo_of_full = out->hi_of_full = NAN;
}

kv_err kv_plan_accuracy_find(kv_results *results, long long run_id, const char *policy,
                             const char *params, double chunk_tokens, kv_plan_accuracy *out,
                             kv_diag *diag)
{
    bool full = strcmp(policy, "full") == 0, any = false;
    double chunk = 0;
    sqlite3_stmt *rows = NULL;
    *out = (kv_plan_accuracy){
        .value = NAN, .lo = NAN, .hi = NAN, .of_full = NAN, .lo_of_full = NAN, .hi_of_full = NAN};
    if (full && results == NULL)
        *out = (kv_plan_accuracy){.known = true,
                                  .value = NAN,
                                  .lo = NAN,
                                  .hi = NAN,
                                  .of_full = 1,
                                  .lo_of_full = 1,
                                  .hi_of_full = 1};
    if (results == NULL)
        return KV_OK;
    kv_err err = kv__sql_prepare(results, point_sql, &rows, diag);
    if (err == KV_OK) {
        kv__sql_bind(rows, 1, "itt", run_id, policy, params);
        err = nearest_chunk(results, rows, chunk_tokens, &any, &chunk, diag);
    }
    while (err == KV_OK && any && (err = kv__sql_step(results, rows, diag)) == KV_OK)
        if (sqlite3_column_double(rows, 1) == chunk)
            take(rows, full, out);
    sqlite3_finalize(rows);
    end_interval(out);
    if (full) {
        out->known = true;
        out->of_full = out->lo_of_full = out->hi_of_full = 1;
    }
    return err == KV_END ? KV_OK : err;
}
