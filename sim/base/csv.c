/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "sim/base/csv.h"
#include "sim/base/json.h"
#include "sim/base/unit.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* The fields of one row stand one after another in `text`, each with its NUL. */
typedef struct row {
    char *text;
    size_t bytes, room;
    size_t *start; /* [KV_CSV_MAX_COLUMNS] of each field in text */
    int *line, *column;
    int fields;
} row;

struct kv_csv {
    FILE *stream;
    bool owned;
    char *path;
    row header, current;
    int line, column; /* of the next byte */
};

/* --- Bytes ------------------------------------------------------------------------------------ */

static kv_mark here(const kv_csv *csv)
{
    return (kv_mark){csv->path, csv->line, csv->column};
}

static int take(kv_csv *csv)
{
    int byte = getc(csv->stream);
    csv->column++;
    if (byte == '\n') {
        csv->line++;
        csv->column = 1;
    }
    return byte;
}

static int peek(kv_csv *csv)
{
    int byte = getc(csv->stream);
    if (byte != EOF)
        ungetc(byte, csv->stream);
    return byte;
}

/* A line end, of which `byte` was taken. */
static bool is_line_end(kv_csv *csv, int byte)
{
    if (byte == '\r' && peek(csv) == '\n')
        byte = take(csv);
    return byte == '\n';
}

static kv_err skip_mark(kv_csv *csv, kv_diag *diag)
{
    static const int mark[] = {0xef, 0xbb, 0xbf};
    if (peek(csv) != mark[0])
        return KV_OK;
    for (int i = 0; i < 3; i++)
        if (getc(csv->stream) != mark[i]) {
            kv_mark start = here(csv);
            return kv_fail(diag, KV_ERR_INPUT, &start, "expected text in UTF-8");
        }
    return KV_OK;
}

/* --- Rows ------------------------------------------------------------------------------------- */

static kv_err row_init(row *r, kv_diag *diag)
{
    r->room = 256;
    r->text = malloc(r->room);
    r->start = malloc(KV_CSV_MAX_COLUMNS * sizeof *r->start);
    r->line = malloc(KV_CSV_MAX_COLUMNS * sizeof *r->line);
    r->column = malloc(KV_CSV_MAX_COLUMNS * sizeof *r->column);
    return r->text && r->start && r->line && r->column ? KV_OK : kv_fail_memory(diag);
}

static void row_fini(row *r)
{
    free(r->text);
    free(r->start);
    free(r->line);
    free(r->column);
}

static kv_err append(kv_csv *csv, row *r, int byte, kv_diag *diag)
{
    kv_mark mark = here(csv);
    if (r->bytes == KV_CSV_MAX_ROW_BYTES)
        return kv_fail(diag, KV_ERR_INPUT, &mark,
                       "a row of more than %d bytes; is a quote of it not closed?",
                       KV_CSV_MAX_ROW_BYTES);
    if (r->bytes == r->room) {
        size_t room = r->room == 0 ? 256 : 2 * r->room;
        char *larger = realloc(r->text, room);
        if (larger == NULL)
            return kv_fail_memory(diag);
        r->text = larger;
        r->room = room;
    }
    r->text[r->bytes++] = (char)byte;
    return KV_OK;
}

static kv_err begin_field(kv_csv *csv, row *r, kv_diag *diag)
{
    kv_mark mark = here(csv);
    if (r->fields == KV_CSV_MAX_COLUMNS)
        return kv_fail(diag, KV_ERR_INPUT, &mark, "more than %d fields", KV_CSV_MAX_COLUMNS);
    r->start[r->fields] = r->bytes;
    r->line[r->fields] = csv->line;
    r->column[r->fields++] = csv->column;
    return KV_OK;
}

/* What follows the opening quote, up to and with the closing one. */
static kv_err read_quoted(kv_csv *csv, row *r, kv_diag *diag)
{
    int i = r->fields - 1;
    kv_mark opened = {csv->path, r->line[i], r->column[i]};
    r->column[i]++; /* the field begins behind the quote */
    for (;;) {
        int byte = take(csv);
        if (byte == EOF)
            return kv_fail(diag, KV_ERR_INPUT, &opened, "this quote is not closed");
        if (byte == '"' && peek(csv) != '"')
            return KV_OK;
        if (byte == '"')
            byte = take(csv);
        if (byte == '\0')
            return kv_fail(diag, KV_ERR_INPUT, &opened, "a NUL byte; expected text in UTF-8");
        kv_err err = append(csv, r, byte, diag);
        if (err != KV_OK)
            return err;
    }
}

/* Reads one field and what ends it; *more tells whether that was a comma. */
static kv_err read_field(kv_csv *csv, row *r, bool *more, kv_diag *diag)
{
    kv_err err = begin_field(csv, r, diag);
    bool quoted = err == KV_OK && peek(csv) == '"';
    if (quoted) {
        take(csv);
        err = read_quoted(csv, r, diag);
    }
    while (err == KV_OK) {
        kv_mark mark = here(csv);
        int byte = take(csv);
        *more = byte == ',';
        if (*more || byte == EOF || is_line_end(csv, byte))
            return append(csv, r, '\0', diag);
        if (quoted)
            return kv_fail(diag, KV_ERR_INPUT, &mark, "expected a comma after the closing quote");
        if (byte == '"')
            return kv_fail(diag, KV_ERR_INPUT, &mark,
                           "a quote within a field; write the whole field in quotes and double "
                           "those in it");
        if (byte == '\0' || byte == '\r')
            return kv_fail(diag, KV_ERR_INPUT, &mark,
                           "a control character; expected text in UTF-8 "
                           "with lines that end in LF or CRLF");
        err = append(csv, r, byte, diag);
    }
    return err;
}

static kv_err read_row(kv_csv *csv, row *r, kv_diag *diag)
{
    bool more = true;
    kv_err err = KV_OK;
    r->bytes = 0;
    r->fields = 0;
    for (int byte = peek(csv); byte == '\n' || byte == '\r'; byte = peek(csv))
        if (!is_line_end(csv, take(csv)))
            break;
    if (peek(csv) == EOF) {
        kv_mark mark = {csv->path, 0, 0};
        if (!ferror(csv->stream))
            return KV_END;
        return kv_fail(diag, errno == EISDIR ? KV_ERR_INPUT : KV_ERR_IO, &mark,
                       "cannot be read: %s", strerror(errno));
    }
    while (more && err == KV_OK)
        err = read_field(csv, r, &more, diag);
    return err;
}

/* Leaves the line that an error stands in, so that whoever passes over errors goes on with a row.
 */
static void leave_line(kv_csv *csv)
{
    while (csv->column != 1 && take(csv) != EOF)
        ;
}

/* --- Header ----------------------------------------------------------------------------------- */

static void trim(char *text)
{
    size_t skip = strspn(text, " \t"), bytes = strlen(text);
    while (bytes > skip && strchr(" \t", text[bytes - 1]))
        bytes--;
    memmove(text, text + skip, bytes - skip);
    text[bytes - skip] = '\0';
}

static const char *field_of(const row *r, int column)
{
    return r->text + r->start[column];
}

static kv_err read_header(kv_csv *csv, kv_diag *diag)
{
    kv_err err = skip_mark(csv, diag);
    if (err == KV_OK)
        err = read_row(csv, &csv->header, diag);
    if (err == KV_END) {
        kv_mark mark = {csv->path, 0, 0};
        return kv_fail(diag, KV_ERR_INPUT, &mark, "is empty; expected a line with column names");
    }
    for (int c = 0; c < csv->header.fields && err == KV_OK; c++) {
        kv_mark mark = {csv->path, csv->header.line[c], csv->header.column[c]};
        trim(csv->header.text + csv->header.start[c]);
        if (kv_csv_find(csv, field_of(&csv->header, c)) != c)
            err = kv_fail(diag, KV_ERR_INPUT, &mark, "a second column '%s'",
                          field_of(&csv->header, c));
    }
    return err;
}

kv_err kv_csv_attach(FILE *stream, const char *path, kv_csv **out, kv_diag *diag)
{
    kv_csv *csv = calloc(1, sizeof *csv);
    if (csv == NULL)
        return kv_fail_memory(diag);
    csv->stream = stream;
    csv->line = csv->column = 1;
    csv->path = strdup(path);
    kv_err err = csv->path ? row_init(&csv->header, diag) : kv_fail_memory(diag);
    if (err == KV_OK)
        err = row_init(&csv->current, diag);
    if (err == KV_OK)
        err = read_header(csv, diag);
    if (err == KV_OK)
        *out = csv;
    else
        kv_csv_close(csv);
    return err;
}

kv_err kv_csv_open(const char *path, kv_csv **out, kv_diag *diag)
{
    kv_mark mark = {path, 0, 0};
    FILE *stream = fopen(path, "rb");
    if (stream == NULL)
        return kv_fail(diag, KV_ERR_INPUT, &mark, "cannot be opened: %s", strerror(errno));
    kv_err err = kv_csv_attach(stream, path, out, diag);
    if (err == KV_OK)
        (*out)->owned = true;
    else
        fclose(stream);
    return err;
}

void kv_csv_close(kv_csv *csv)
{
    if (csv == NULL)
        return;
    if (csv->owned)
        fclose(csv->stream);
    row_fini(&csv->header);
    row_fini(&csv->current);
    free(csv->path);
    free(csv);
}

int kv_csv_columns(const kv_csv *csv)
{
    return csv->header.fields;
}

const char *kv_csv_column(const kv_csv *csv, int column)
{
    return field_of(&csv->header, column);
}

int kv_csv_find(const kv_csv *csv, const char *name)
{
    for (int c = 0; c < csv->header.fields; c++)
        if (strcmp(field_of(&csv->header, c), name) == 0)
            return c;
    return -1;
}

kv_mark kv_csv_column_mark(const kv_csv *csv, int column)
{
    return (kv_mark){csv->path, csv->header.line[column], csv->header.column[column]};
}

kv_err kv_csv_need(const kv_csv *csv, const char *name, int *column, kv_diag *diag)
{
    const char *names[KV_CSV_MAX_COLUMNS];
    kv_mark mark = {csv->path, csv->header.line[0], 0};
    *column = kv_csv_find(csv, name);
    if (*column >= 0)
        return KV_OK;
    for (int c = 0; c < csv->header.fields; c++)
        names[c] = field_of(&csv->header, c);
    const char *near = kv_nearest(name, names, csv->header.fields);
    return kv_fail(diag, KV_ERR_INPUT, &mark, "there is no column '%s'%s%s%s", name,
                   near ? "; is '" : "", near ? near : "", near ? "' meant to be it?" : "");
}

/* --- Fields ----------------------------------------------------------------------------------- */

kv_err kv_csv_next(kv_csv *csv, kv_diag *diag)
{
    kv_err err = read_row(csv, &csv->current, diag);
    if (err > KV_OK)
        leave_line(csv);
    if (err != KV_OK || csv->current.fields == csv->header.fields)
        return err;
    kv_mark mark = {csv->path, csv->current.line[0], 0};
    return kv_fail(diag, KV_ERR_INPUT, &mark,
                   "%d field%s, expected %d as in the header; a field with commas stands in quotes",
                   csv->current.fields, csv->current.fields == 1 ? "" : "s", csv->header.fields);
}

const char *kv_csv_field(const kv_csv *csv, int column)
{
    return column < 0 ? "" : field_of(&csv->current, column);
}

kv_mark kv_csv_mark(const kv_csv *csv, int column)
{
    int known = column < 0 ? 0 : column;
    return (kv_mark){csv->path, csv->current.line[known],
                     column < 0 ? 0 : csv->current.column[known]};
}

kv_err kv_csv_real(const kv_csv *csv, int column, double min, double max, double *out,
                   kv_diag *diag)
{
    double value;
    char low[KV_REAL_TEXT], high[KV_REAL_TEXT];
    kv_mark mark = kv_csv_mark(csv, column);
    const char *text = kv_csv_field(csv, column);
    if (kv_number_parse(text, &value, NULL) && value >= min && value <= max) {
        *out = value;
        return KV_OK;
    }
    kv_real_text(min, low);
    kv_real_text(max, high);
    return kv_fail(diag, KV_ERR_INPUT, &mark, "%s is '%s', expected a number from %s%s%s",
                   kv_csv_column(csv, column), text, low, isinf(max) ? "" : " to ",
                   isinf(max) ? "" : high);
}

kv_err kv_csv_int(const kv_csv *csv, int column, long long min, long long max, long long *out,
                  kv_diag *diag)
{
    kv_mark mark = kv_csv_mark(csv, column);
    const char *text = kv_csv_field(csv, column);
    size_t digits = strspn(text + (*text == '-'), "0123456789");
    errno = 0;
    long long value = strtoll(text, NULL, 10);
    if (digits > 0 && text[digits + (*text == '-')] == '\0' && errno == 0 && value >= min &&
        value <= max) {
        *out = value;
        return KV_OK;
    }
    return kv_fail(diag, KV_ERR_INPUT, &mark, "%s is '%s', expected a whole number from %lld%s",
                   kv_csv_column(csv, column), text, min, max == LLONG_MAX ? "" : " up");
}

void kv_csv_write(const char *field, FILE *out)
{
    if (field[strcspn(field, ",\"\r\n")] == '\0') {
        fputs(field, out);
        return;
    }
    putc('"', out);
    for (; *field; field++) {
        if (*field == '"')
            putc('"', out);
        putc(*field, out);
    }
    putc('"', out);
}
