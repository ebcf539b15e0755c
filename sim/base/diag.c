/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "sim/base/diag.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

kv_err(kv_fail)(kv_diag *diag, kv_err code, const kv_mark *mark, const char *format, ...)
{
    if (diag == NULL || diag->code != KV_OK)
        return code;
    diag->code = code;
    diag->path[0] = '\0';
    diag->line = diag->column = 0;
    if (mark != NULL) {
        if (mark->path != NULL)
            snprintf(diag->path, sizeof diag->path, "%s", mark->path);
        diag->line = mark->line;
        diag->column = mark->column;
    }
    va_list args;
    va_start(args, format);
    vsnprintf(diag->text, sizeof diag->text, format, args);
    va_end(args);
    return code;
}

kv_err(kv_fail_memory)(kv_diag *diag)
{
    return kv_fail(diag, KV_ERR_MEMORY, NULL, "memory is exhausted");
}

void kv_diag_format(const kv_diag *diag, char *out, unsigned long out_bytes)
{
    char place[32] = "";
    if (diag->line > 0 && diag->column > 0)
        snprintf(place, sizeof place, ":%d:%d", diag->line, diag->column);
    else if (diag->line > 0)
        snprintf(place, sizeof place, ":%d", diag->line);
    snprintf(out, out_bytes, "%s%s%s%s", diag->path, diag->path[0] ? place : "",
             diag->path[0] ? ": " : "", diag->text);
}

/* Levenshtein distance of two short words; words beyond 63 letters are never near. */
static int edit_distance(const char *a, const char *b)
{
    int row[64];
    int length_a = (int)strlen(a), length_b = (int)strlen(b);
    if (length_a > 63 || length_b > 63)
        return 64;
    for (int j = 0; j <= length_b; j++)
        row[j] = j;
    for (int i = 1; i <= length_a; i++) {
        int diagonal = row[0];
        row[0] = i;
        for (int j = 1; j <= length_b; j++) {
            int substitute = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            int shorter = row[j] < row[j - 1] ? row[j] + 1 : row[j - 1] + 1;
            row[j] = substitute < shorter ? substitute : shorter;
        }
    }
    return row[length_b];
}

const char *kv_nearest(const char *word, const char *const *names, int count)
{
    const char *best = NULL;
    int limit = (int)strlen(word) / 3 + 1, best_distance = limit + 1;
    for (int i = 0; i < count; i++) {
        int distance = edit_distance(word, names[i]);
        if (distance < best_distance) {
            best_distance = distance;
            best = names[i];
        }
    }
    return best;
}
