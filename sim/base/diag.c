/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "sim/base/diag.h"

#include <stdarg.h>
#include <stdbool.h>
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

/* ":line:column", as much of it as is known. */
static void format_place(int line, int column, char out[32])
{
    out[0] = '\0';
    if (line > 0 && column > 0)
        snprintf(out, 32, ":%d:%d", line, column);
    else if (line > 0)
        snprintf(out, 32, ":%d", line);
}

kv_err kv_fail_at(kv_diag *diag, const kv_mark *mark)
{
    if (diag->path[0] == '\0' && mark->path != NULL) {
        snprintf(diag->path, sizeof diag->path, "%s", mark->path);
        diag->line = mark->line;
        diag->column = mark->column;
    }
    return diag->code;
}

kv_err kv_fail_from(kv_diag *diag, const kv_mark *mark)
{
    char place[32];
    size_t length = strlen(diag->text);
    if (mark->path == NULL || length + 1 >= sizeof diag->text)
        return diag->code;
    format_place(mark->line, mark->column, place);
    snprintf(diag->text + length, sizeof diag->text - length, " (asked for at %s%s)", mark->path,
             place);
    return diag->code;
}

void kv_diag_format(const kv_diag *diag, char *out, unsigned long out_bytes)
{
    char place[32];
    format_place(diag->line, diag->column, place);
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

/* Whether the letters of word stand in name, in their order. */
static bool is_within(const char *word, const char *name)
{
    for (; *word != '\0' && *name != '\0'; name++)
        word += *word == *name;
    return *word == '\0';
}

const char *kv_nearest(const char *word, const char *const *names, int count)
{
    const char *best = NULL;
    int limit = (int)strlen(word) / 3 + 1, best_distance = 2 * limit + 1;
    for (int i = 0; i < count && strlen(word) >= 3; i++) /* h100 is h100-sxm rather than h200 */
        if (strncmp(names[i], word, strlen(word)) == 0 && strchr("-_", names[i][strlen(word)]))
            return names[i];
    for (int i = 0; i < count; i++) {
        int distance = 2 * edit_distance(word, names[i]) - is_within(word, names[i]);
        if (distance < best_distance) {
            best_distance = distance;
            best = names[i];
        }
    }
    return best;
}
