/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Looking into results databases: one number, or every table as text. All fail the test on an
 * error. */
#ifndef KVSIM_TESTS_RESULTS_DUMP_H
#define KVSIM_TESTS_RESULTS_DUMP_H

/* The first number that a query gives. */
double db_number(const char *path, const char *sql);

/* Runs statements. */
void db_execute(const char *path, const char *sql);

/* Every table, row by row in the order of all columns, without the columns that depend on the
 * clock; free it. */
char *db_dump(const char *path);

/* Removes a database with what SQLite keeps beside it. */
void db_remove(const char *path);

/* Writes the small made-up sweep with retained sets, in one uninterrupted run, and dumps it; free
 * it. */
char *db_baseline(const char *path);

/* Compares the tables of a file with a dump, which it frees. */
void assert_same_tables(const char *path, char *want);

#endif
