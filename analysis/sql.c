/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "analysis/sql.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

kv_err kv__sql_fail(kv_results *results, kv_diag *diag)
{
    sqlite3 *db = kv_results_handle(results);
    kv_mark mark = {kv_results_path(results), 0, 0};
    int system = sqlite3_system_errno(db);
    switch (sqlite3_errcode(db)) {
    case SQLITE_NOMEM:
        return kv_fail_memory(diag);
    case SQLITE_NOTADB:
    case SQLITE_CORRUPT:
        return kv_fail(diag, KV_ERR_INPUT, &mark,
                       "the results database is damaged (%s); restore it or write a new one",
                       sqlite3_errmsg(db));
    case SQLITE_FULL:
        return kv_fail(diag, KV_ERR_IO, &mark,
                       "the disk is full; make room, then run again with --resume");
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return kv_fail(diag, KV_ERR_IO, &mark, "another program keeps the results database locked");
    case SQLITE_READONLY:
        return kv_fail(diag, KV_ERR_IO, &mark,
                       "the results database cannot be written: it or its "
                       "folder is read-only");
    case SQLITE_CONSTRAINT:
    case SQLITE_ERROR:
    case SQLITE_MISUSE:
        return kv_fail(diag, KV_ERR_BUG, &mark, "SQLite: %s", sqlite3_errmsg(db));
    default:
        return kv_fail(diag, KV_ERR_IO, &mark, "%s%s%s", sqlite3_errmsg(db), system ? ": " : "",
                       system ? strerror(system) : "");
    }
}

kv_err kv__sql_exec(kv_results *results, const char *sql, kv_diag *diag)
{
    if (sqlite3_exec(kv_results_handle(results), sql, NULL, NULL, NULL) != SQLITE_OK)
        return kv__sql_fail(results, diag);
    return KV_OK;
}

kv_err kv__sql_prepare(kv_results *results, const char *sql, sqlite3_stmt **out, kv_diag *diag)
{
    if (sqlite3_prepare_v2(kv_results_handle(results), sql, -1, out, NULL) != SQLITE_OK)
        return kv__sql_fail(results, diag);
    return KV_OK;
}

kv_err kv__sql_prepare_text(kv_results *results, sqlite3_stmt **out, kv_diag *diag,
                            const char *format, ...)
{
    va_list values;
    va_start(values, format);
    char *sql = sqlite3_vmprintf(format, values);
    va_end(values);
    kv_err err = sql != NULL ? kv__sql_prepare(results, sql, out, diag) : kv_fail_memory(diag);
    sqlite3_free(sql);
    return err;
}

/* A failed bind shows as an error of the next step, so that callers check once. */
static int bind_list(sqlite3_stmt *statement, int at, const char *letters, va_list values)
{
    for (; *letters; letters++, at++) {
        if (*letters == 'i') {
            sqlite3_bind_int64(statement, at, va_arg(values, long long));
        } else if (*letters == 'o') {
            long long value = va_arg(values, long long);
            if (value != 0)
                sqlite3_bind_int64(statement, at, value);
            else
                sqlite3_bind_null(statement, at);
        } else if (*letters == 'd') {
            sqlite3_bind_double(statement, at, va_arg(values, double)); /* SQLite: NaN is NULL */
        } else if (*letters == 't') {
            sqlite3_bind_text(statement, at, va_arg(values, const char *), -1, SQLITE_STATIC);
        } else if (*letters == 'b') {
            const void *data = va_arg(values, const void *);
            sqlite3_bind_blob64(statement, at, data, va_arg(values, size_t), SQLITE_STATIC);
        } else {
            sqlite3_bind_null(statement, at);
        }
    }
    return at;
}

int kv__sql_bind(sqlite3_stmt *statement, int first, const char *letters, ...)
{
    va_list values;
    va_start(values, letters);
    int next = bind_list(statement, first, letters, values);
    va_end(values);
    return next;
}

kv_err kv__sql_step(kv_results *results, sqlite3_stmt *statement, kv_diag *diag)
{
    switch (sqlite3_step(statement)) {
    case SQLITE_ROW:
        return KV_OK;
    case SQLITE_DONE:
        return KV_END;
    default:
        return kv__sql_fail(results, diag);
    }
}

kv_err kv__sql_run(kv_results *results, sqlite3_stmt *statement, kv_diag *diag)
{
    kv_err err;
    while ((err = kv__sql_step(results, statement, diag)) == KV_OK)
        continue;
    sqlite3_reset(statement);
    return err == KV_END ? KV_OK : err;
}

static kv_err start(kv_results *results, sqlite3_stmt **out, kv_diag *diag, const char *sql,
                    const char *letters, va_list values)
{
    *out = NULL;
    kv_err err = kv__sql_prepare(results, sql, out, diag);
    if (err == KV_OK)
        bind_list(*out, 1, letters, values);
    return err;
}

kv_err kv__sql_do(kv_results *results, kv_diag *diag, const char *sql, const char *letters, ...)
{
    sqlite3_stmt *statement;
    va_list values;
    va_start(values, letters);
    kv_err err = start(results, &statement, diag, sql, letters, values);
    va_end(values);
    if (err == KV_OK)
        err = kv__sql_run(results, statement, diag);
    sqlite3_finalize(statement);
    return err;
}

kv_err kv__sql_first(kv_results *results, sqlite3_stmt **out, kv_diag *diag, const char *sql,
                     const char *letters, ...)
{
    va_list values;
    va_start(values, letters);
    kv_err err = start(results, out, diag, sql, letters, values);
    va_end(values);
    return err == KV_OK ? kv__sql_step(results, *out, diag) : err;
}

kv_err kv__sql_number(kv_results *results, long long fallback, long long *out, kv_diag *diag,
                      const char *sql, const char *letters, ...)
{
    sqlite3_stmt *statement;
    va_list values;
    va_start(values, letters);
    kv_err err = start(results, &statement, diag, sql, letters, values);
    va_end(values);
    if (err == KV_OK)
        err = kv__sql_step(results, statement, diag);
    bool found = err == KV_OK && sqlite3_column_type(statement, 0) != SQLITE_NULL;
    if (err == KV_OK || err == KV_END)
        *out = found ? sqlite3_column_int64(statement, 0) : fallback;
    sqlite3_finalize(statement);
    return err == KV_END ? KV_OK : err;
}

double kv__sql_double(sqlite3_stmt *statement, int column)
{
    if (sqlite3_column_type(statement, column) == SQLITE_NULL)
        return NAN;
    return sqlite3_column_double(statement, column);
}

kv_err kv__sql_text(sqlite3_stmt *statement, int column, char **out, kv_diag *diag)
{
    const unsigned char *text = sqlite3_column_text(statement, column);
    bool null = sqlite3_column_type(statement, column) == SQLITE_NULL;
    *out = text ? strdup((const char *)text) : NULL;
    return *out || null ? KV_OK : kv_fail_memory(diag);
}

kv_err kv__sql_begin(kv_results *results, kv_diag *diag)
{
    return kv__sql_exec(results, "BEGIN IMMEDIATE", diag);
}

kv_err kv__sql_end(kv_results *results, kv_err err, kv_diag *diag)
{
    if (err == KV_OK)
        err = kv__sql_exec(results, "COMMIT", diag);
    /* A rollback after a failure that ended the transaction by itself fails, and may. */
    if (err != KV_OK)
        sqlite3_exec(kv_results_handle(results), "ROLLBACK", NULL, NULL, NULL);
    return err;
}
