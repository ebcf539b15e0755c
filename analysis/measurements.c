/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "analysis/measurements.h"
#include "sim/base/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool in_range(const kv_measurement *row, int points)
{
    for (int i = 0; i < row->points; i++)
        if (row->point[i] < 0 || row->point[i] >= points)
            return false;
    return row->turn >= 0 && row->accuracy >= 0 && row->accuracy <= 1 && row->n >= 0;
}

/* Reads "3+17+18"; answers what follows, or NULL. */
static const char *read_points(kv_measurement *row, const char *text)
{
    do {
        int bytes = 0;
        if (row->points == KV_MEASUREMENT_MOST_POINTS ||
            sscanf(text, "%d%n", &row->point[row->points++], &bytes) < 1)
            return NULL;
        text += bytes;
    } while (*text++ == '+');
    return text[-1] == ',' ? text : NULL;
}

/* Reads one line of `bytes` bytes. */
static kv_err read_row(kv_measurement *row, const char *line, size_t bytes, int points,
                       kv_diag *diag)
{
    int read = 0, at = 0;
    const char *rest = read_points(row, line);
    if (rest != NULL)
        read = sscanf(rest, "%d,%lf,%lf,%n", &row->turn, &row->accuracy, &row->n, &at);
    if (rest != NULL)
        at += (int)(rest - line);
    if (read < 3 || (size_t)at >= bytes || !in_range(row, points))
        return kv_fail(diag, KV_ERR_INPUT, NULL, "measured accuracy '%.*s' is malformed",
                       (int)bytes, line);
    row->task = strndup(line + at, bytes - (size_t)at);
    return row->task ? KV_OK : kv_fail_memory(diag);
}

kv_err kv_measurements_parse(const char *spec, int points, kv_measurements *out, kv_diag *diag)
{
    const char *line = spec ? spec : "";
    kv_err err = KV_OK;
    size_t lines = 1;
    for (const char *at = line; *at; at++)
        lines += *at == '\n';
    *out = (kv_measurements){.row = calloc(lines, sizeof *out->row)};
    if (out->row == NULL)
        return kv_fail_memory(diag);
    while (*line && err == KV_OK) {
        size_t bytes = strcspn(line, "\n");
        err = read_row(&out->row[out->count++], line, bytes, points, diag);
        line += bytes + (line[bytes] == '\n');
    }
    if (err != KV_OK)
        kv_measurements_fini(out);
    return err;
}

void kv_measurements_fini(kv_measurements *list)
{
    for (int i = 0; i < list->count; i++)
        free(list->row[i].task);
    free(list->row);
    *list = (kv_measurements){0};
}

char *kv_measurements_write(const kv_measurements *list)
{
    char *text = NULL, accuracy[KV_REAL_TEXT], n[KV_REAL_TEXT];
    size_t bytes;
    FILE *out = open_memstream(&text, &bytes);
    if (out == NULL)
        return NULL;
    for (int i = 0; i < list->count; i++) {
        const kv_measurement *row = &list->row[i];
        kv_real_text(row->accuracy, accuracy);
        kv_real_text(row->n, n);
        for (int p = 0; p < row->points; p++)
            fprintf(out, "%s%d", p ? "+" : "", row->point[p]);
        fprintf(out, ",%d,%s,%s,%s\n", row->turn, accuracy, n, row->task);
    }
    if (fclose(out) == 0)
        return text;
    free(text);
    return NULL;
}

const kv_measurement *kv_measurements_find(const kv_measurements *list, int point, const char *task,
                                           int turn)
{
    for (int i = 0; i < list->count; i++) {
        const kv_measurement *row = &list->row[i];
        if (row->point[0] == point && row->turn == turn && strcmp(row->task, task) == 0)
            return row;
    }
    return NULL;
}
