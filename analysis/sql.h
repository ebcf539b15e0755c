/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* SQLite as kvsim uses it: statements that report errors in a kv_diag. Internal to analysis. */
#ifndef KVSIM_ANALYSIS_SQL_H
#define KVSIM_ANALYSIS_SQL_H

#include "analysis/results.h"

#include <sqlite3.h>
#include <stdarg.h>

/* Turns SQLite's last error into ours: damaged files are wrong input, the rest is the system's. */
kv_err kv__sql_fail(kv_results *results, kv_diag *diag);

/* Runs statements that need no values and give no rows. */
kv_err kv__sql_exec(kv_results *results, const char *sql, kv_diag *diag) KV_MUST_USE;

/* Compiles one statement; sqlite3_finalize it. */
kv_err kv__sql_prepare(kv_results *results, const char *sql, sqlite3_stmt **out,
                       kv_diag *diag) KV_MUST_USE;
/* The same of a text that is put together as sqlite3_mprintf does (%w: a quoted name). Names of
 * columns and conditions are ours; what users write is bound. */
kv_err kv__sql_prepare_text(kv_results *results, sqlite3_stmt **out, kv_diag *diag,
                            const char *format, ...) KV_MUST_USE;

/* Binds values to the parameters first, first+1, ... by a letter each: i long long, o long
 * long (0 is NULL), d double (NaN is NULL), t text (NULL is NULL), b blob (const void *, size_t), n
 * NULL. Text and blobs are borrowed until the statement is stepped. Answers the next free
 * parameter. */
int kv__sql_bind(sqlite3_stmt *statement, int first, const char *letters, ...);

/* Steps a statement: KV_OK is a row, KV_END the end. */
kv_err kv__sql_step(kv_results *results, sqlite3_stmt *statement, kv_diag *diag) KV_MUST_USE;

/* Steps a statement that gives no rows to its end and makes it ready for the next values. */
kv_err kv__sql_run(kv_results *results, sqlite3_stmt *statement, kv_diag *diag) KV_MUST_USE;

/* Compiles, binds and runs one statement that gives no rows. */
kv_err kv__sql_do(kv_results *results, kv_diag *diag, const char *sql, const char *letters,
                  ...) KV_MUST_USE;

/* Compiles and binds a query and steps to its first row; KV_END: it gives none. *out is the
 * caller's to finalize, whatever comes back. */
kv_err kv__sql_first(kv_results *results, sqlite3_stmt **out, kv_diag *diag, const char *sql,
                     const char *letters, ...) KV_MUST_USE;

/* The one number that a query gives; `fallback` where it gives none or NULL. */
kv_err kv__sql_number(kv_results *results, long long fallback, long long *out, kv_diag *diag,
                      const char *sql, const char *letters, ...) KV_MUST_USE;

/* Columns of the current row: NULL is NaN, and an own copy of a text (NULL stays NULL). */
double kv__sql_double(sqlite3_stmt *statement, int column);
kv_err kv__sql_text(sqlite3_stmt *statement, int column, char **out, kv_diag *diag) KV_MUST_USE;

/* A transaction that takes the write lock at once. `end` commits if err is KV_OK and rolls back
 * otherwise; it answers the error of either. */
kv_err kv__sql_begin(kv_results *results, kv_diag *diag) KV_MUST_USE;
kv_err kv__sql_end(kv_results *results, kv_err err, kv_diag *diag) KV_MUST_USE;

#endif
