/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Writing HTML. Whatever comes from a database goes through kv__html_text. Internal. */
#ifndef KVSIM_ANALYSIS_HTML_H
#define KVSIM_ANALYSIS_HTML_H

#include "analysis/results.h"

#include <stdio.h>

/* Writes text so that it stands for itself, between tags or in a quoted attribute. Text that runs
 * from the right, or has characters that turn the direction, is isolated by characters (which do in
 * attributes, too, what <bdi> does between tags), so that nothing around it moves. */
void kv__html_text(FILE *out, const char *text);

/* A column of a table made from a query. */
typedef struct kv_html_column {
    const char *heading;
    const char *help; /* shown when pointed at; NULL: none */
    char format; /* t text, l text of several words, c chunk size (NULL is whole), i whole number, p
                    percent, r number */
} kv_html_column;

/* Writes the rows of a query, whose one parameter is `value`, as a table that readers can sort.
 * *rows counts them. */
kv_err kv__html_table(kv_results *results, const char *sql, long long value,
                      const kv_html_column *columns, int count, FILE *out, long long *rows,
                      kv_diag *diag) KV_MUST_USE;

#endif
