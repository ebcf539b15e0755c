/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "models/step_time_grid.h"
#include "sim/base/file.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST_FILE_BYTES = 1 << 28 };

/* --- CSV --------------------------------------------------------------------------- */

typedef struct reading {
    const char *path;
    int line;
    int column_of[KV__CSV_COLUMNS]; /* place in the row of each number that is wanted; -1: none */
    int columns;
    int label_at; /* -1: none */
    kv_diag *diag;
} reading;

static kv_err complain(const reading *at, const char *what, const char *text)
{
    kv_mark mark = {at->path, at->line, 0};
    return kv_fail(at->diag, KV_ERR_INPUT, &mark, "%s '%s'", what, text);
}

/* Cuts a line at its commas, but for those in quotes, in place. Returns the number of cells, at
 * most `most`. */
static int split(char *line, char **cell, int most)
{
    int count = 0;
    for (char *at = line; at != NULL && count < most; count++) {
        cell[count] = at;
        while (*at == '"' && strchr(at + 1, '"') != NULL)
            at = strchr(at + 1, '"') + 1;
        at = strchr(at, ',');
        if (at != NULL)
            *at++ = '\0';
    }
    return count;
}

static kv_err read_header(reading *at, char *line, const char *label, const char *const *columns)
{
    enum { MOST = 64 };
    char *cell[MOST];
    int cells = split(line, cell, MOST);
    at->label_at = -1;
    for (int c = 0; label != NULL && c < cells; c++)
        if (strcmp(cell[c], label) == 0)
            at->label_at = c;
    if (label != NULL && at->label_at < 0)
        return complain(at, "the header lacks the column", label);
    for (at->columns = 0; columns[at->columns] != NULL; at->columns++) {
        bool optional = *columns[at->columns] == '?';
        const char *name = columns[at->columns] + optional;
        at->column_of[at->columns] = -1;
        for (int c = 0; c < cells; c++)
            if (strcmp(cell[c], name) == 0)
                at->column_of[at->columns] = c;
        if (at->column_of[at->columns] < 0 && !optional)
            return complain(at, "the header lacks the column", name);
    }
    return KV_OK;
}

static kv_err read_row(const reading *at, char *line, kv__csv *out)
{
    enum { MOST = 64 };
    char *cell[MOST];
    int cells = split(line, cell, MOST);
    for (int c = 0; c < at->columns; c++) {
        if (at->column_of[c] < 0)
            continue;
        if (at->column_of[c] >= cells)
            return complain(at, "the row ends too early:", line);
        char *end, *text = cell[at->column_of[c]];
        double value = strtod(text, &end);
        if (end == text || *end != '\0' || !isfinite(value) || value < 0)
            return complain(at, "expected a number of at least 0, not", text);
        out->value[out->rows * (size_t)at->columns + (size_t)c] = value;
    }
    if (at->label_at >= 0) {
        if (at->label_at >= cells)
            return complain(at, "the row ends too early:", line);
        out->label[out->rows] = strdup(cell[at->label_at]);
        if (out->label[out->rows] == NULL)
            return kv_fail_memory(at->diag);
    }
    out->rows++;
    return KV_OK;
}

/* The next line of *text without its end, or NULL; moves on. */
static char *next_line(char **text)
{
    char *line = *text;
    if (*line == '\0')
        return NULL;
    char *end = line + strcspn(line, "\n");
    *text = *end == '\n' ? end + 1 : end;
    *end = '\0';
    size_t length = strlen(line);
    if (length > 0 && line[length - 1] == '\r')
        line[length - 1] = '\0';
    return line;
}

static kv_err read_lines(reading *at, char *text, const char *label, const char *const *columns,
                         kv__csv *out)
{
    size_t most = 1;
    for (const char *c = text; *c != '\0'; c++)
        most += *c == '\n';
    char *line = next_line(&text);
    at->line = 1;
    kv_err err = line == NULL ? complain(at, "the file is empty:", at->path)
                              : read_header(at, line, label, columns);
    if (err != KV_OK)
        return err;
    for (int c = 0; c < at->columns; c++)
        out->has |= at->column_of[c] >= 0 ? 1u << c : 0;
    out->value = calloc(most * (size_t)at->columns, sizeof *out->value);
    out->label = at->label_at >= 0 ? calloc(most, sizeof *out->label) : NULL;
    if (out->value == NULL || (at->label_at >= 0 && out->label == NULL))
        return kv_fail_memory(at->diag);
    while (err == KV_OK && (line = next_line(&text)) != NULL) {
        at->line++;
        if (*line != '\0')
            err = read_row(at, line, out);
    }
    if (err == KV_OK && out->rows == 0)
        return complain(at, "there are no rows in", at->path);
    return err;
}

kv_err kv__csv_read(const char *path, const char *label_column, const char *const *columns,
                    kv__csv *out, bool *absent, kv_diag *diag)
{
    *out = (kv__csv){0};
    if (absent != NULL) {
        *absent = access(path, F_OK) != 0;
        if (*absent)
            return KV_OK;
    }
    char *text;
    size_t bytes;
    kv_err err = kv_file_read(path, MOST_FILE_BYTES, &text, &bytes, diag);
    if (err != KV_OK)
        return err;
    reading at = {.path = path, .diag = diag};
    err = read_lines(&at, text, label_column, columns, out);
    free(text);
    if (err != KV_OK)
        kv__csv_fini(out);
    return err;
}

void kv__csv_fini(kv__csv *csv)
{
    for (size_t i = 0; csv->label != NULL && i < csv->rows; i++)
        free(csv->label[i]);
    free(csv->label);
    free(csv->value);
    *csv = (kv__csv){0};
}

/* --- Curves ------------------------------------------------------------------------ */

kv__bracket kv__bracket_find(const double *axis, size_t count, size_t from, double value)
{
    size_t lo = from, hi = count - 1; /* axis[lo] <= value < axis[hi] if it lies inside */
    if (hi <= from)
        return (kv__bracket){from, 0};
    while (hi - lo > 1) {
        size_t middle = (lo + hi) / 2;
        if (axis[middle] <= value)
            lo = middle;
        else
            hi = middle;
    }
    return (kv__bracket){lo, (value - axis[lo]) / (axis[lo + 1] - axis[lo])};
}

void kv__curve_fini(kv__curve *curve)
{
    free(curve->x);
    free(curve->y);
    *curve = (kv__curve){0};
}

double kv__curve_at(const kv__curve *curve, double x)
{
    if (curve->points == 0)
        return 0;
    kv__bracket at = kv__bracket_find(curve->x, curve->points, 0, x);
    double y = curve->y[at.lo];
    return at.part == 0 ? y : y + at.part * (curve->y[at.lo + 1] - y);
}

/* Insertion sort of points by x: tables come nearly sorted. */
static void sort_points(double *x, double *y, size_t points)
{
    for (size_t i = 1; i < points; i++) {
        double xi = x[i], yi = y[i];
        size_t j = i;
        for (; j > 0 && x[j - 1] > xi; j--) {
            x[j] = x[j - 1];
            y[j] = y[j - 1];
        }
        x[j] = xi;
        y[j] = yi;
    }
}

/* Both axes in one, ascending, without doubles. */
static size_t merge_axes(const double *a, size_t as, const double *b, size_t bs, double *out)
{
    size_t count = 0;
    for (size_t i = 0, j = 0; i < as || j < bs;) {
        double next = j >= bs || (i < as && a[i] <= b[j]) ? a[i] : b[j];
        i += i < as && a[i] == next;
        j += j < bs && b[j] == next;
        out[count++] = next;
    }
    return count;
}

kv_err kv__curve_add(kv__curve *curve, double *x, double *y, size_t points, double weight)
{
    if (points == 0)
        return KV_OK;
    sort_points(x, y, points);
    kv__curve added = {x, y, points};
    kv__curve sum = {calloc(curve->points + points, sizeof *x),
                     calloc(curve->points + points, sizeof *y), 0};
    if (sum.x == NULL || sum.y == NULL) {
        kv__curve_fini(&sum);
        return KV_ERR_MEMORY;
    }
    sum.points = merge_axes(curve->x, curve->points, x, points, sum.x);
    for (size_t i = 0; i < sum.points; i++)
        sum.y[i] = kv__curve_at(curve, sum.x[i]) + weight * kv__curve_at(&added, sum.x[i]);
    kv__curve_fini(curve);
    *curve = sum;
    return KV_OK;
}

/* --- Sheets ------------------------------------------------------------------------ */

static int ascending(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

/* Sorts values and drops doubles; returns how many are left. */
static size_t distinct(double *value, size_t values)
{
    size_t count = 1;
    qsort(value, values, sizeof *value, ascending);
    for (size_t i = 1; i < values; i++)
        if (value[i] != value[count - 1])
            value[count++] = value[i];
    return count;
}

/* The curve of the rows at one z; x and y are room for all rows. */
static kv_err make_curve(const kv__csv *csv, double z, double *x, double *y, kv__curve *out)
{
    size_t points = 0;
    for (size_t r = 0; r < csv->rows; r++)
        if (csv->value[3 * r + 1] == z) {
            x[points] = csv->value[3 * r];
            y[points++] = csv->value[3 * r + 2];
        }
    return kv__curve_add(out, x, y, points, 1);
}

kv_err kv__sheet_make(const kv__csv *csv, kv__sheet *out)
{
    *out = (kv__sheet){.z = calloc(csv->rows, sizeof *out->z)};
    double *x = calloc(csv->rows, sizeof *x), *y = calloc(csv->rows, sizeof *y);
    size_t values = 0;
    kv_err err = KV_ERR_MEMORY;
    if (out->z != NULL && x != NULL && y != NULL) {
        for (size_t r = 0; r < csv->rows; r++)
            out->z[r] = csv->value[3 * r + 1];
        values = distinct(out->z, csv->rows);
        out->curve = calloc(values, sizeof *out->curve);
        err = out->curve != NULL ? KV_OK : KV_ERR_MEMORY;
    }
    for (; err == KV_OK && out->curves < values; out->curves++)
        err = make_curve(csv, out->z[out->curves], x, y, &out->curve[out->curves]);
    free(x);
    free(y);
    if (err != KV_OK)
        kv__sheet_fini(out);
    return err;
}

void kv__sheet_fini(kv__sheet *sheet)
{
    for (size_t i = 0; i < sheet->curves; i++)
        kv__curve_fini(&sheet->curve[i]);
    free(sheet->curve);
    free(sheet->z);
    *sheet = (kv__sheet){0};
}

double kv__sheet_at(const kv__sheet *sheet, double x, double z)
{
    if (sheet->curves == 0)
        return 0;
    kv__bracket at = kv__bracket_find(sheet->z, sheet->curves, 0, z);
    double low = kv__curve_at(&sheet->curve[at.lo], x);
    if (at.part == 0)
        return low;
    return low + at.part * (kv__curve_at(&sheet->curve[at.lo + 1], x) - low);
}

/* --- The grid of attention --------------------------------------------------------- */

static size_t cell_of(const kv__grid4 *grid, size_t c, size_t h, size_t d, size_t k)
{
    return ((c * grid->size[KV__HISTORY] + h) * grid->size[KV__DECODES] + d) *
               grid->size[KV__KEYS] +
           k;
}

/* The distinct values of a column and 0. */
static kv_err make_axis(const kv__csv *csv, int column, double **axis, size_t *size)
{
    double *value = calloc(csv->rows + 1, sizeof *value);
    if (value == NULL)
        return KV_ERR_MEMORY;
    for (size_t r = 0; r < csv->rows; r++)
        value[r + 1] = csv->value[r * (KV__AXES + 1) + (size_t)column];
    *axis = value;
    *size = distinct(value, csv->rows + 1);
    return KV_OK;
}

static size_t index_of(const double *axis, size_t size, double value)
{
    return (size_t)((const double *)bsearch(&value, axis, size, sizeof value, ascending) - axis);
}

/* A point that was not measured, continued over the number of decodes from the two below it. */
static double continued(const kv__grid4 *grid, size_t c, size_t h, size_t d, size_t k)
{
    const double *decodes = grid->axis[KV__DECODES];
    if (d >= 3) {
        double a = grid->time[cell_of(grid, c, h, d - 2, k)];
        double b = grid->time[cell_of(grid, c, h, d - 1, k)];
        if (!isnan(a) && !isnan(b))
            return b + (b - a) * (decodes[d] - decodes[d - 1]) / (decodes[d - 1] - decodes[d - 2]);
    }
    for (size_t lower = h; lower-- > 0;)
        if (!isnan(grid->time[cell_of(grid, c, lower, d, k)]))
            return grid->time[cell_of(grid, c, lower, d, k)];
    for (size_t lower = k; lower-- > 0;)
        if (!isnan(grid->time[cell_of(grid, c, h, d, lower)]))
            return grid->time[cell_of(grid, c, h, d, lower)];
    return NAN;
}

/* Without a chunk its history does not matter; without decodes their keys do not. */
static void spread_zeros(kv__grid4 *grid)
{
    const size_t *size = grid->size;
    grid->time[cell_of(grid, 0, 0, 0, 0)] = 0;
    for (size_t c = 0; c < size[KV__CHUNK]; c++)
        for (size_t h = 0; h < size[KV__HISTORY]; h++)
            for (size_t d = 0; d < size[KV__DECODES]; d++)
                for (size_t k = 0; k < size[KV__KEYS]; k++) {
                    double *time = &grid->time[cell_of(grid, c, h, d, k)];
                    if (isnan(*time) && (c == 0 || d == 0))
                        *time = grid->time[cell_of(grid, c, c == 0 ? 0 : h, d, d == 0 ? 0 : k)];
                }
}

/* Fills the gaps; false if a point cannot be told from any other. */
static bool fill_gaps(kv__grid4 *grid)
{
    const size_t *size = grid->size;
    bool all = true;
    for (size_t c = 0; c < size[KV__CHUNK]; c++)
        for (size_t h = 0; h < size[KV__HISTORY]; h++)
            for (size_t d = 0; d < size[KV__DECODES]; d++)
                for (size_t k = d > 0; k < size[KV__KEYS]; k++) {
                    double *time = &grid->time[cell_of(grid, c, h, d, k)];
                    if (isnan(*time))
                        *time = continued(grid, c, h, d, k);
                    all = all && !isnan(*time);
                }
    return all;
}

static kv_err fill(kv__grid4 *grid, const kv__csv *csv, const char *path, kv_diag *diag)
{
    size_t cells = 1;
    for (int a = 0; a < KV__AXES; a++)
        cells *= grid->size[a];
    grid->time = calloc(cells, sizeof *grid->time);
    if (grid->time == NULL)
        return kv_fail_memory(diag);
    for (size_t i = 0; i < cells; i++)
        grid->time[i] = NAN;
    for (size_t r = 0; r < csv->rows; r++) {
        size_t at[KV__AXES];
        const double *row = &csv->value[r * (KV__AXES + 1)];
        for (int a = 0; a < KV__AXES; a++)
            at[a] = index_of(grid->axis[a], grid->size[a], row[a]);
        grid->time[cell_of(grid, at[0], at[1], at[2], at[3])] = row[KV__AXES];
    }
    spread_zeros(grid);
    bool whole = grid->size[KV__CHUNK] > 1 && grid->size[KV__DECODES] > 1 &&
                 grid->size[KV__KEYS] > 1 && fill_gaps(grid);
    if (!whole) {
        kv_mark mark = {path, 0, 0};
        return kv_fail(
            diag, KV_ERR_INPUT, &mark,
            "the grid has gaps that cannot be filled: measure prefill chunks and decodes, "
            "alone and together");
    }
    return KV_OK;
}

kv_err kv__grid4_make(const kv__csv *csv, const char *path, kv__grid4 *out, kv_diag *diag)
{
    *out = (kv__grid4){0};
    kv_err err = KV_OK;
    for (int a = 0; a < KV__AXES && err == KV_OK; a++)
        err = make_axis(csv, a, &out->axis[a], &out->size[a]);
    err = err != KV_OK ? kv_fail_memory(diag) : fill(out, csv, path, diag);
    if (err != KV_OK)
        kv__grid4_fini(out);
    return err;
}

void kv__grid4_fini(kv__grid4 *grid)
{
    for (int a = 0; a < KV__AXES; a++)
        free(grid->axis[a]);
    free(grid->time);
    *grid = (kv__grid4){0};
}

double kv__grid4_at(const kv__grid4 *grid, double chunk, double history, double decodes,
                    double keys)
{
    double value[KV__AXES] = {chunk, history, decodes, keys};
    kv__bracket at[KV__AXES];
    for (int a = 0; a < KV__AXES; a++)
        at[a] = kv__bracket_find(grid->axis[a], grid->size[a], a == KV__KEYS && decodes > 0 ? 1 : 0,
                                 value[a]);
    double sum = 0;
    for (unsigned corner = 0; corner < 1u << KV__AXES; corner++) {
        double weight = 1;
        size_t index[KV__AXES];
        for (int a = 0; a < KV__AXES; a++) {
            bool high = (corner >> a & 1) != 0;
            weight *= high ? at[a].part : 1 - at[a].part;
            index[a] = at[a].lo + high;
        }
        if (weight != 0)
            sum += weight * grid->time[cell_of(grid, index[0], index[1], index[2], index[3])];
    }
    return sum;
}
