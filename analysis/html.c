/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "analysis/html.h"

#include "analysis/sql.h"
#include "analysis/text.h"

#include <string.h>

static const char *entity(char c)
{
    switch (c) {
    case '&':
        return "&amp;";
    case '<':
        return "&lt;";
    case '>':
        return "&gt;";
    case '"':
        return "&quot;";
    case '\'':
        return "&#39;";
    default:
        return NULL;
    }
}

static bool turns(const char *text)
{
    bool any = false;
    for (int bytes; *text && !any; text += bytes ? bytes : 1) {
        bytes = kv__character(text);
        any = kv__direction(text, bytes) != KV_DIRECTION_NONE;
    }
    return any;
}

static void write_character(FILE *out, const char *text, int bytes)
{
    if (bytes > 0 && entity(*text) != NULL)
        fputs(entity(*text), out);
    else if (bytes > 0 || *text == '\n' || *text == '\t')
        fwrite(text, 1, bytes ? (size_t)bytes : 1, out);
    else
        fputs("\xef\xbf\xbd", out); /* U+FFFD: something that is no character */
}

/* What begins in an isolated text ends in it, and it ends nothing that began before it. Embeddings
 * and isolates within it are written as isolates, so that one kind of end closes them all. */
static void write_isolated(FILE *out, const char *text)
{
    static const char begin[] = "\xe2\x81\xa8", end[] = "\xe2\x81\xa9"; /* U+2068, U+2069 */
    int open = 1;
    fputs(begin, out);
    for (int bytes; *text; text += bytes ? bytes : 1) {
        bytes = kv__character(text);
        switch (kv__direction(text, bytes)) {
        case KV_DIRECTION_EMBED:
        case KV_DIRECTION_ISOLATE:
            fputs(begin, out);
            open++;
            break;
        case KV_DIRECTION_END_EMBED:
        case KV_DIRECTION_END_ISOLATE:
            if (open > 1) {
                fputs(end, out);
                open--;
            }
            break;
        default:
            write_character(out, text, bytes);
        }
    }
    while (open-- > 0)
        fputs(end, out);
}

void kv__html_text(FILE *out, const char *text)
{
    if (turns(text)) {
        write_isolated(out, text);
        return;
    }
    for (int bytes; *text; text += bytes ? bytes : 1) {
        bytes = kv__character(text);
        write_character(out, text, bytes);
    }
}

static void write_heading(FILE *out, const kv_html_column *column)
{
    fprintf(out, "<th scope=\"col\"%s><button type=\"button\"",
            strchr("tl", column->format) != NULL ? "" : " class=\"n\"");
    if (column->help != NULL) {
        fputs(" title=\"", out);
        kv__html_text(out, column->help);
        fputs("\"", out);
    }
    fputs(">", out);
    kv__html_text(out, column->heading);
    fputs("</button></th>", out);
}

/* A whole prompt is longer than any chunk: it sorts last. */
static void write_chunk(FILE *out, sqlite3_stmt *row, int c)
{
    if (sqlite3_column_type(row, c) == SQLITE_NULL)
        fputs("<td class=\"n\" data-value=\"1e18\">whole</td>", out);
    else
        fprintf(out, "<td class=\"n\" data-value=\"%lld\">%lld</td>",
                (long long)sqlite3_column_int64(row, c), (long long)sqlite3_column_int64(row, c));
}

static void write_number(FILE *out, double value, char format)
{
    fprintf(out, "<td class=\"n\" data-value=\"%.12g\">", value);
    if (format == 'p')
        fprintf(out, "%.1f %%</td>", 100 * value);
    else
        fprintf(out, format == 'i' ? "%.0f</td>" : "%.4g</td>", value);
}

static void write_cell(FILE *out, sqlite3_stmt *row, int c, char format)
{
    if (format == 'c') {
        write_chunk(out, row, c);
    } else if (sqlite3_column_type(row, c) == SQLITE_NULL) {
        fputs("<td></td>", out);
    } else if (strchr("tl", format) != NULL) {
        fputs(format == 'l' ? "<td class=\"words\">" : "<td>", out);
        kv__html_text(out, (const char *)sqlite3_column_text(row, c));
        fputs("</td>", out);
    } else {
        write_number(out, sqlite3_column_double(row, c), format);
    }
}

kv_err kv__html_table(kv_results *results, const char *sql, long long value,
                      const kv_html_column *columns, int count, FILE *out, long long *rows,
                      kv_diag *diag)
{
    sqlite3_stmt *row = NULL;
    kv_err err = kv__sql_prepare(results, sql, &row, diag);
    if (err != KV_OK)
        return err;
    kv__sql_bind(row, 1, "i", value);
    fputs("<div class=\"scroll\" tabindex=\"0\"><table><thead><tr>", out);
    for (int c = 0; c < count; c++)
        write_heading(out, &columns[c]);
    fputs("</tr></thead><tbody>\n", out);
    *rows = 0;
    while ((err = kv__sql_step(results, row, diag)) == KV_OK) {
        fputs("<tr>", out);
        for (int c = 0; c < count; c++)
            write_cell(out, row, c, columns[c].format);
        fputs("</tr>\n", out);
        ++*rows;
    }
    fputs("</tbody></table></div>\n", out);
    sqlite3_finalize(row);
    return err == KV_END ? KV_OK : err;
}
