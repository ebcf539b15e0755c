/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Tables of the database as CSV and JSON. */
#include "config.h"

#include "analysis/output.h"
#include "analysis/report.h"
#include "analysis/schema.h"
#include "analysis/sql.h"
#include "analysis/text.h"

#include <math.h>
#include <string.h>

/* --- CSV -------------------------------------------------------------------------------------- */

/* A text that is empty is quoted: NULL is not. */
static void write_csv_text(FILE *out, const char *text)
{
    if (*text != '\0' && strpbrk(text, ",\"\r\n") == NULL) {
        fputs(text, out);
        return;
    }
    fputc('"', out);
    for (; *text; text++) {
        if (*text == '"')
            fputc('"', out);
        fputc(*text, out);
    }
    fputc('"', out);
}

/* No notation of numbers has a word for infinity that all readers know; a number beyond all doubles
 * is read back as infinity by all. */
static void write_number(FILE *out, sqlite3_stmt *row, int c)
{
    double value = sqlite3_column_double(row, c);
    if (sqlite3_column_type(row, c) == SQLITE_INTEGER)
        fprintf(out, "%lld", (long long)sqlite3_column_int64(row, c));
    else if (isinf(value))
        fputs(value > 0 ? "9e999" : "-9e999", out);
    else
        fprintf(out, "%.17g", value);
}

static void write_csv_heading(FILE *out, sqlite3_stmt *rows)
{
    for (int c = 0; c < sqlite3_column_count(rows); c++) {
        fputs(c ? "," : "", out);
        write_csv_text(out, sqlite3_column_name(rows, c));
    }
    fputs("\n", out);
}

static void write_csv_row(FILE *out, sqlite3_stmt *row)
{
    for (int c = 0; c < sqlite3_column_count(row); c++) {
        int type = sqlite3_column_type(row, c);
        fputs(c ? "," : "", out);
        if (type == SQLITE_INTEGER || type == SQLITE_FLOAT)
            write_number(out, row, c);
        else if (type != SQLITE_NULL)
            write_csv_text(out, (const char *)sqlite3_column_text(row, c));
    }
    fputs("\n", out);
}

/* --- JSON ------------------------------------------------------------------------------------- */

static void write_json_text(FILE *out, const char *text)
{
    fputc('"', out);
    for (int bytes; *text; text += bytes) {
        bytes = kv__character(text);
        if (*text == '"' || *text == '\\')
            fprintf(out, "\\%c", *text);
        else if (bytes > 0)
            fwrite(text, 1, (size_t)bytes, out);
        else if ((unsigned char)*text < 0x80)
            fprintf(out, "\\u%04x", (unsigned)*text);
        else
            fputs("\\ufffd", out); /* not UTF-8, which JSON must be */
        bytes = bytes ? bytes : 1;
    }
    fputc('"', out);
}

static void write_json_row(FILE *out, sqlite3_stmt *row, long long number)
{
    fputs(number ? ",\n{" : "\n{", out);
    for (int c = 0; c < sqlite3_column_count(row); c++) {
        int type = sqlite3_column_type(row, c);
        fputs(c ? ", " : "", out);
        write_json_text(out, sqlite3_column_name(row, c));
        fputs(": ", out);
        if (type == SQLITE_NULL)
            fputs("null", out);
        else if (type == SQLITE_INTEGER || type == SQLITE_FLOAT)
            write_number(out, row, c);
        else
            write_json_text(out, (const char *)sqlite3_column_text(row, c));
    }
    fputs("}", out);
}

/* --- tables ----------------------------------------------------------------------------------- */

static kv_err find_table(const char *name, const kv_table **out, kv_diag *diag)
{
    enum { MOST = 64 };
    const char *names[MOST];
    int count = 0;
    for (const kv_table *const *part = kv_schema_parts(); *part != NULL; part++) {
        for (const kv_table *table = *part; table->name != NULL; table++) {
            if (kv_schema_is_work(table))
                continue;
            if (strcmp(table->name, name) == 0) {
                *out = table;
                return KV_OK;
            }
            if (count < MOST)
                names[count++] = table->name;
        }
    }
    const char *near = kv_nearest(name, names, count);
    return kv_fail(diag, KV_ERR_INPUT, NULL, "there is no table '%s'%s%s%s", name,
                   near ? ", did you mean '" : "; `kvsim report --help` lists them",
                   near ? near : "", near ? "'?" : "");
}

static kv_err write_rows(kv_results *results, const char *sql, kv_export_format format, FILE *out,
                         kv_diag *diag)
{
    sqlite3_stmt *rows = NULL;
    kv_err err = kv__sql_prepare(results, sql, &rows, diag);
    if (err != KV_OK)
        return err;
    if (format == KV_EXPORT_JSON)
        fputs("[", out);
    else
        write_csv_heading(out, rows);
    for (long long n = 0; (err = kv__sql_step(results, rows, diag)) == KV_OK; n++) {
        if (format == KV_EXPORT_JSON)
            write_json_row(out, rows, n);
        else
            write_csv_row(out, rows);
    }
    fputs(format == KV_EXPORT_JSON ? "\n]\n" : "", out);
    sqlite3_finalize(rows);
    return err == KV_END ? KV_OK : err;
}

kv_err kv_export_table(kv_results *results, const char *table, kv_export_format format,
                       const char *path, kv_diag *diag)
{
    const kv_table *found = NULL;
    kv_output output;
    kv_err err = find_table(table, &found, diag);
    if (err != KV_OK)
        return err;
    char *sql = sqlite3_mprintf("SELECT * FROM \"%w\"%s", found->name,
                                found->is_view || found->without_rowid ? "" : " ORDER BY rowid");
    if (sql == NULL)
        return kv_fail_memory(diag);
    err = kv__output_open(path, &output, diag);
    if (err == KV_OK) {
        err = write_rows(results, sql, format, output.file, diag);
        err = kv__output_close(&output, err, diag);
    }
    sqlite3_free(sql);
    return err;
}
