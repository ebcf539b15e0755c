/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Comma-separated tables (RFC 4180) with a header line, read row by row.
 *
 * Lines end in LF or CRLF, a byte order mark is skipped, blank lines count for nothing. A field
 * that holds a comma, a quote or a line end stands in quotes, its own quotes doubled. Whatever else
 * is wrong input: a quote elsewhere, an unclosed one, a NUL byte, a row that is longer or shorter
 * than the header, two columns of one name. Memory is bounded by one row. */
#ifndef KVSIM_BASE_CSV_H
#define KVSIM_BASE_CSV_H

#include "sim/base/diag.h"

#include <stdio.h>

enum { KV_CSV_MAX_ROW_BYTES = 1 << 20, KV_CSV_MAX_COLUMNS = 1024 };

typedef struct kv_csv kv_csv;

/* Opens a file and reads its header. */
kv_err kv_csv_open(const char *path, kv_csv **out, kv_diag *diag) KV_MUST_USE;
/* Reads from a stream that stays the caller's, a pipe for one. path only labels messages. */
kv_err kv_csv_attach(FILE *stream, const char *path, kv_csv **out, kv_diag *diag) KV_MUST_USE;
void kv_csv_close(kv_csv *csv);

/* Columns by place, from 0, in the order of the file. Names are borrowed. */
int kv_csv_columns(const kv_csv *csv);
const char *kv_csv_column(const kv_csv *csv, int column);
/* Where the name of a column stands in the header. */
kv_mark kv_csv_column_mark(const kv_csv *csv, int column);
/* The place of a column, or -1. */
int kv_csv_find(const kv_csv *csv, const char *name);
/* The same for a column that must be there. */
kv_err kv_csv_need(const kv_csv *csv, const char *name, int *column, kv_diag *diag) KV_MUST_USE;

/* Moves on to the next row; KV_END after the last. After wrong input the next row is that of the
 * next line. */
kv_err kv_csv_next(kv_csv *csv, kv_diag *diag) KV_MUST_USE;

/* A field of the current row, valid until the next; "" if it is empty or column is -1. */
const char *kv_csv_field(const kv_csv *csv, int column);
/* Where it begins. */
kv_mark kv_csv_mark(const kv_csv *csv, int column);

/* A field as a decimal number from min to max. */
kv_err kv_csv_real(const kv_csv *csv, int column, double min, double max, double *out,
                   kv_diag *diag) KV_MUST_USE;
/* A field as a whole number from min to max. */
kv_err kv_csv_int(const kv_csv *csv, int column, long long min, long long max, long long *out,
                  kv_diag *diag) KV_MUST_USE;

/* Writes a field, in quotes if it needs them. */
void kv_csv_write(const char *field, FILE *out);

#endif
