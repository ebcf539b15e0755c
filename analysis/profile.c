/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "analysis/profile.h"

#include "analysis/sql.h"

#include <math.h>
#include <stdlib.h>

kv_err kv_profile_latest(kv_results *results, long long *run_id, kv_diag *diag)
{
    return kv__sql_number(results, 0, run_id, diag, "SELECT max(id) FROM run", "");
}

/* Positions are a JSON array of numbers: one more than it has commas, none if it is empty. */
static const char heads_sql[] =
    "SELECT s.layer, s.kv_head, e.prompt_tokens, CASE s.positions WHEN '[]' THEN 0 ELSE "
    "length(s.positions) - length(replace(s.positions, ',', '')) + 1 END "
    "FROM retained_set AS s JOIN footprint_point AS p ON p.id = s.point_id "
    "JOIN example AS e ON e.run_id = p.run_id AND e.example = s.example "
    "WHERE p.run_id = ? AND p.turn IS NULL AND p.policy = ? AND p.params = ? "
    "AND p.chunk_size IS ? ORDER BY s.point_id, s.example, s.layer, s.kv_head";

kv_err kv_profile_heads(kv_results *results, long long run_id, const kv_profile_key *key,
                        kv_profile_head **out, int *count, kv_diag *diag)
{
    sqlite3_stmt *rows = NULL;
    kv_profile_head *head = NULL;
    int n = 0;
    kv_err err = kv__sql_prepare(results, heads_sql, &rows, diag);
    if (err == KV_OK)
        kv__sql_bind(rows, 1, "itto", run_id, key->policy, key->params, key->chunk_tokens);
    while (err == KV_OK && (err = kv__sql_step(results, rows, diag)) == KV_OK) {
        if ((n & (n - 1)) == 0) { /* room is doubled at powers of two */
            size_t room = n == 0 ? 1 : 2 * (size_t)n;
            kv_profile_head *grown = realloc(head, room * sizeof *grown);
            if (grown == NULL) {
                err = kv_fail_memory(diag);
                break;
            }
            head = grown;
        }
        head[n++] = (kv_profile_head){
            .layer = sqlite3_column_int(rows, 0),
            .kv_head = sqlite3_column_int(rows, 1),
            .prompt_tokens = sqlite3_column_int(rows, 2),
            .entries = sqlite3_column_int(rows, 3),
        };
    }
    sqlite3_finalize(rows);
    if (err != KV_END) {
        free(head);
        return err;
    }
    *out = head;
    *count = n;
    return KV_OK;
}

kv_err kv_profile_mean(kv_results *results, long long run_id, const kv_profile_key *key,
                       const char *column, double *out, kv_diag *diag)
{
    sqlite3_stmt *rows = NULL;
    kv_err err = kv__sql_prepare_text(
        results, &rows, diag,
        "SELECT sum(\"%w\" * n_examples) / sum(CASE WHEN \"%w\" IS NULL THEN 0 ELSE n_examples "
        "END) "
        "FROM footprint_point WHERE run_id = ? AND turn IS NULL AND policy = ? AND params = ? "
        "AND chunk_size IS ?",
        column, column);
    if (err != KV_OK)
        return err;
    kv__sql_bind(rows, 1, "itto", run_id, key->policy, key->params, key->chunk_tokens);
    err = kv__sql_step(results, rows, diag);
    *out = err == KV_OK ? kv__sql_double(rows, 0) : NAN;
    sqlite3_finalize(rows);
    return err == KV_END ? KV_OK : err;
}

kv_err kv_profile_context(kv_results *results, long long run_id, double *out, kv_diag *diag)
{
    sqlite3_stmt *rows = NULL;
    kv_err err = kv__sql_prepare(results,
                                 "SELECT avg(prompt_tokens) FROM example WHERE run_id = ? AND NOT "
                                 "calibration_only",
                                 &rows, diag);
    if (err != KV_OK)
        return err;
    kv__sql_bind(rows, 1, "i", run_id);
    err = kv__sql_step(results, rows, diag);
    *out = err == KV_OK ? kv__sql_double(rows, 0) : NAN;
    sqlite3_finalize(rows);
    return err == KV_END ? KV_OK : err;
}
