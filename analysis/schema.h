/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* The tables of the results database, described once: the SQL that makes them, the statements that
 * fill them and docs/results.md all come from here. */
#ifndef KVSIM_ANALYSIS_SCHEMA_H
#define KVSIM_ANALYSIS_SCHEMA_H

#include <stdbool.h>
#include <stdio.h>

enum {
    /* PRAGMA user_version: one more whenever a table, a view or the meaning of a column changes
     * between releases. 2: what the first version had, with the columns that came to it since. */
    KV_SCHEMA_VERSION = 2,
    KV_SCHEMA_APPLICATION = 0x6b76736d /* PRAGMA application_id, "kvsm" */
};

typedef struct kv_column {
    const char *name; /* NULL ends the list; "*" stands for one column per measure */
    const char *type; /* SQL type and constraints */
    const char *unit; /* "" if it has none */
    const char *help; /* one sentence without its full stop */
} kv_column;

typedef struct kv_table {
    const char *name; /* NULL ends the list */
    const char *help; /* one sentence, or more */
    const kv_column
        *column;      /* of a view: what it answers, several names with ", " between where one
                         help is for all; "(as TABLE)" stands for the columns of a table */
    const char *rest; /* table: constraints of the whole; view: its SELECT */
    bool is_view;
    bool without_rowid;
} kv_table;

/* Every table and view, in the order in which they are made. A part of kvsim adds its tables as one
 * list in the array in schema.c. */
const kv_table *const *kv_schema_parts(void);
/* The table of that name, or NULL. */
const kv_table *kv_schema_find(const char *name);

/* True of tables that mean nothing outside a run that is not complete. */
bool kv_schema_is_work(const kv_table *table);

/* SQL text, to be freed with free(); NULL if memory is exhausted. */
char *kv_schema_create(void);                  /* makes everything */
char *kv_schema_insert(const kv_table *table); /* a row of all columns, in order, by position */

/* Writes metadata by which datasette(1) explains tables and columns of NAME.db, JSON. */
void kv_schema_datasette(const char *database, FILE *out);

/* Writes the tables as Markdown: the middle part of docs/results.md. */
void kv_schema_markdown(FILE *out);

#endif
