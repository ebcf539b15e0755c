/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "tests/kv_test.h"

#include "tests/results_dump.h"
#include "tests/synthetic.h"

#include <sqlite3.h>
#include <unistd.h>

static sqlite3 *open_raw(const char *path)
{
    sqlite3 *db = NULL;
    assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL), SQLITE_OK);
    return db;
}

double db_number(const char *path, const char *sql)
{
    sqlite3 *db = open_raw(path);
    sqlite3_stmt *row = NULL;
    assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &row, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(row), SQLITE_ROW);
    double value = sqlite3_column_double(row, 0);
    sqlite3_finalize(row);
    sqlite3_close(db);
    return value;
}

void db_execute(const char *path, const char *sql)
{
    sqlite3 *db = open_raw(path);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
}

/* Columns that depend on the clock. */
static bool is_clock(const char *column)
{
    return strcmp(column, "started_at") == 0 || strcmp(column, "finished_at") == 0 ||
           strcmp(column, "wall_seconds") == 0;
}

static void dump_table(sqlite3 *db, const char *table, FILE *out)
{
    char *count_sql = sqlite3_mprintf("SELECT count(*) FROM pragma_table_info('%q')", table);
    sqlite3_stmt *rows = NULL;
    assert_int_equal(sqlite3_prepare_v2(db, count_sql, -1, &rows, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(rows), SQLITE_ROW);
    int columns = sqlite3_column_int(rows, 0);
    sqlite3_finalize(rows);
    char *sql = sqlite3_mprintf("SELECT * FROM \"%w\" ORDER BY 1", table);
    for (int c = 2; c <= columns; c++)
        sql = sqlite3_mprintf("%z, %d", sql, c);
    assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &rows, NULL), SQLITE_OK);
    while (sqlite3_step(rows) == SQLITE_ROW) {
        fprintf(out, "%s", table);
        for (int c = 0; c < columns; c++) {
            if (is_clock(sqlite3_column_name(rows, c)))
                continue;
            if (sqlite3_column_type(rows, c) == SQLITE_FLOAT)
                fprintf(out, "|%a", sqlite3_column_double(rows, c));
            else
                fprintf(out, "|%s",
                        (const char *)sqlite3_column_text(rows, c)
                            ? (const char *)sqlite3_column_text(rows, c)
                            : "NULL");
        }
        fputc('\n', out);
    }
    sqlite3_finalize(rows);
    sqlite3_free(sql);
    sqlite3_free(count_sql);
}

char *db_dump(const char *path)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    sqlite3 *db = open_raw(path);
    sqlite3_stmt *tables = NULL;
    assert_int_equal(sqlite3_prepare_v2(db,
                                        "SELECT name FROM sqlite_schema WHERE type = 'table' "
                                        "ORDER BY name",
                                        -1, &tables, NULL),
                     SQLITE_OK);
    while (sqlite3_step(tables) == SQLITE_ROW)
        dump_table(db, (const char *)sqlite3_column_text(tables, 0), out);
    sqlite3_finalize(tables);
    sqlite3_close(db);
    fclose(out);
    return text;
}

void db_remove(const char *path)
{
    char beside[256];
    unlink(path);
    snprintf(beside, sizeof beside, "%s-wal", path);
    unlink(beside);
    snprintf(beside, sizeof beside, "%s-shm", path);
    unlink(beside);
}

char *db_baseline(const char *path)
{
    kv_synthetic *s = kv_synthetic_new(KV_SYNTHETIC_SMALL);
    kv_diag diag = {0};
    db_remove(path);
    assert_int_equal(kv_synthetic_run(s, path, false, false, true, &diag), KV_OK);
    kv_synthetic_free(s);
    return db_dump(path);
}

void assert_same_tables(const char *path, char *want)
{
    char *got = db_dump(path);
    assert_string_equal(got, want);
    free(got);
    free(want);
}
