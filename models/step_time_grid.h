/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Tables of measured kernel times: CSV files of numbers, curves over one axis, and the grid of the
 * attention kernel over four. Between points everything is linear; beyond the ends the outermost
 * piece goes on. Internal to models/step_time_table*.c. */
#ifndef KVSIM_MODELS_STEP_TIME_GRID_H
#define KVSIM_MODELS_STEP_TIME_GRID_H

#include "sim/base/diag.h"

#include <stdbool.h>
#include <stddef.h>

enum { KV__CSV_COLUMNS = 8 };

/* The rows of a CSV file under the columns that were asked for. */
typedef struct kv__csv {
    size_t rows;
    double *value; /* [rows][number of numeric columns asked for] */
    char **label;  /* [rows] of the label column; NULL if none was asked for */
    unsigned has;  /* bit c: the header has column c of those asked for */
} kv__csv;

/* Reads a CSV file with a header. label_column may be NULL; columns ends with NULL, at most
 * KV__CSV_COLUMNS. All must be there, but for those with a '?' before their name, which are 0 where
 * they are not; others are passed over. *absent (may be NULL) tells that
 * there is no such file, which is else an error. */
kv_err kv__csv_read(const char *path, const char *label_column, const char *const *columns,
                    kv__csv *out, bool *absent, kv_diag *diag) KV_MUST_USE;
void kv__csv_fini(kv__csv *csv);

/* A function of one variable, linear between points. */
typedef struct kv__curve {
    double *x, *y; /* [points], x ascending */
    size_t points;
} kv__curve;

void kv__curve_fini(kv__curve *curve);
/* Adds weight times the function through the points (any order, x without doubles) to a curve. */
kv_err kv__curve_add(kv__curve *curve, double *x, double *y, size_t points,
                     double weight) KV_MUST_USE;
double kv__curve_at(const kv__curve *curve, double x);

/* The piece of an axis that a value lies in: between lo and lo + 1, `part` of the way; part leaves
 * 0..1 outside of the axis. */
typedef struct kv__bracket {
    size_t lo;
    double part;
} kv__bracket;

/* axis[0..count) ascending; from counts the points that may be used (1: all but the first). */
kv__bracket kv__bracket_find(const double *axis, size_t count, size_t from, double value);

/* A function of two variables: curves over x at ascending values of z, linear in between. */
typedef struct kv__sheet {
    double *z;        /* [curves] */
    kv__curve *curve; /* [curves] */
    size_t curves;    /* 0: the function is 0 */
} kv__sheet;

/* rows: x, z, value. */
kv_err kv__sheet_make(const kv__csv *csv, kv__sheet *out) KV_MUST_USE;
void kv__sheet_fini(kv__sheet *sheet);
double kv__sheet_at(const kv__sheet *sheet, double x, double z);

enum { KV__CHUNK, KV__HISTORY, KV__DECODES, KV__KEYS, KV__AXES };

/* The attention kernel: time over (prefill chunk, keys before it, decodes, keys per decode). */
typedef struct kv__grid4 {
    double *axis[KV__AXES]; /* ascending; chunk, decodes and keys begin with 0 */
    size_t size[KV__AXES];
    double *time; /* in nested order of the axes; what was not measured is filled in */
} kv__grid4;

/* rows: chunk, history, decodes, keys, time. What the measurement left out is continued linearly
 * over the number of decodes, else taken from the nearest point. path names the file in messages.
 */
kv_err kv__grid4_make(const kv__csv *csv, const char *path, kv__grid4 *out,
                      kv_diag *diag) KV_MUST_USE;
void kv__grid4_fini(kv__grid4 *grid);
double kv__grid4_at(const kv__grid4 *grid, double chunk, double history, double decodes,
                    double keys);

#endif
