/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "analysis/summary.h"

#include "analysis/text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { CELL = 64, GAP = 2, LEAST_LABEL = 12 };

/* The curves of one task as a grid: a row per title, a column per chunk size. */
typedef struct grid {
    const char **label; /* [rows] titles, borrowed */
    int rows;
    long long *chunk; /* [columns], ascending, whole last */
    int columns;
    const kv_curve **curve; /* [rows][columns], NULL: none */
    int label_width;
    int *width; /* [columns] of the cells */
} grid;

void kv_critical_text(const kv_curve *curve, char out[64])
{
    double smallest = 100 * curve->point[0].kv_footprint;
    double largest = 100 * curve->point[curve->points - 1].kv_footprint;
    if (!curve->has_critical) {
        strcpy(out, "-");
    } else if (curve->status == KV_CRITICAL_ALWAYS) {
        snprintf(out, 64, "<= %.1f", smallest);
    } else if (curve->status == KV_CRITICAL_NEVER) {
        snprintf(out, 64, "> %.1f", largest);
    } else {
        int at = snprintf(out, 64, "%.1f (", 100 * curve->kv_footprint);
        at += isnan(curve->lo) ? snprintf(out + at, 64 - (size_t)at, "<%.1f-", smallest)
                               : snprintf(out + at, 64 - (size_t)at, "%.1f-", 100 * curve->lo);
        if (isnan(curve->hi))
            snprintf(out + at, 64 - (size_t)at, "%.1f+)", largest);
        else
            snprintf(out + at, 64 - (size_t)at, "%.1f)", 100 * curve->hi);
    }
}

/* --- the grid ---------------------------------------------------------------------- */

/* The full policy is what the others are measured against, not a row of its own; and a setting that
 * saves bytes or reads alone is one point, which crosses nothing. */
static bool is_shown(const kv_curve *curve)
{
    return strcmp(curve->policy, "full") != 0 &&
           (curve->saves == KV_AXIS_ENTRIES || curve->points > 1);
}

/* Whole comes after every number. */
static int compare_chunks(const void *a, const void *b)
{
    unsigned long long x = *(const unsigned long long *)a - 1,
                       y = *(const unsigned long long *)b - 1;
    return (x > y) - (x < y);
}

static int find_label(const grid *g, const char *label)
{
    for (int r = 0; r < g->rows; r++)
        if (strcmp(g->label[r], label) == 0)
            return r;
    return -1;
}

static int find_chunk(const grid *g, long long chunk)
{
    for (int c = 0; c < g->columns; c++)
        if (g->chunk[c] == chunk)
            return c;
    return -1;
}

static void grid_fini(grid *g)
{
    free(g->label);
    free(g->chunk);
    free(g->curve);
    free(g->width);
}

/* Lays out curve[0..count), all of one task. */
static kv_err grid_init(grid *g, const kv_curve *curve, int count, kv_diag *diag)
{
    size_t most = (size_t)count + 1;
    *g = (grid){.label = calloc(most, sizeof *g->label),
                .chunk = calloc(most, sizeof *g->chunk),
                .curve = calloc(most * most, sizeof *g->curve),
                .width = calloc(most, sizeof *g->width)};
    if (!g->label || !g->chunk || !g->curve || !g->width) {
        grid_fini(g);
        return kv_fail_memory(diag);
    }
    for (int i = 0; i < count; i++) {
        if (is_shown(&curve[i]) && find_label(g, curve[i].title) < 0)
            g->label[g->rows++] = curve[i].title;
        if (is_shown(&curve[i]) && find_chunk(g, curve[i].chunk_tokens) < 0)
            g->chunk[g->columns++] = curve[i].chunk_tokens;
    }
    qsort(g->chunk, (size_t)g->columns, sizeof *g->chunk, compare_chunks);
    for (int i = 0; i < count; i++)
        if (is_shown(&curve[i]))
            g->curve[find_label(g, curve[i].title) * g->columns +
                     find_chunk(g, curve[i].chunk_tokens)] = &curve[i];
    return KV_OK;
}

static void cell_text(const grid *g, int row, int column, char out[CELL])
{
    const kv_curve *curve = g->curve[row * g->columns + column];
    if (curve != NULL)
        kv_critical_text(curve, out);
    else
        out[0] = '\0';
}

static void heading_text(const grid *g, int column, char out[CELL])
{
    char chunk[24];
    kv_chunk_text(g->chunk[column], chunk);
    snprintf(out, CELL, "%s", chunk);
}

static void find_widths(grid *g, int width)
{
    for (int r = 0; r < g->rows; r++) {
        int bytes = (int)strlen(g->label[r]);
        g->label_width = bytes > g->label_width ? bytes : g->label_width;
    }
    int most = width / 3 > LEAST_LABEL ? width / 3 : LEAST_LABEL;
    int heading = (int)strlen("chunk size");
    g->label_width = g->label_width > most ? most : g->label_width;
    g->label_width = g->label_width < heading ? heading : g->label_width;
    for (int c = 0; c < g->columns; c++) {
        char text[CELL];
        heading_text(g, c, text);
        g->width[c] = (int)strlen(text);
        for (int r = 0; r < g->rows; r++) {
            cell_text(g, r, c, text);
            g->width[c] = (int)strlen(text) > g->width[c] ? (int)strlen(text) : g->width[c];
        }
    }
}

/* --- writing ----------------------------------------------------------------------- */

/* Writes text in lines of at most `width` columns, broken at spaces. */
static void write_wrapped(FILE *out, const char *text, int width)
{
    int column = 0;
    while (*text) {
        int word = (int)strcspn(text, " ");
        bool fits = column + 1 + word <= width;
        if (column > 0)
            fputc(fits ? ' ' : '\n', out);
        column = column > 0 && fits ? column + 1 + word : word;
        kv__plain_write(text, word, out);
        text += word;
        text += strspn(text, " ");
    }
    fputc('\n', out);
}

/* Bytes of a label that fit one line, broken at a space where there is one. */
static int label_piece(const char *label, int width)
{
    int bytes = (int)strlen(label);
    if (bytes <= width)
        return bytes;
    for (int i = width; i > 0; i--)
        if (label[i] == ' ')
            return i;
    return width;
}

static void write_row(const grid *g, int row, int first, int end, FILE *out)
{
    const char *label = g->label[row];
    int piece = label_piece(label, g->label_width);
    fputs("  ", out);
    kv__plain_write(label, piece, out);
    fprintf(out, "%*s", g->label_width - piece, "");
    for (int c = first; c < end; c++) {
        char text[CELL];
        cell_text(g, row, c, text);
        fprintf(out, "%*s%*s", GAP, "", g->width[c], *text ? text : "-");
    }
    fputc('\n', out);
    for (label += piece; *label; label += piece) {
        label += strspn(label, " ");
        piece = label_piece(label, g->label_width - GAP);
        fputs("    ", out);
        kv__plain_write(label, piece, out);
        fputc('\n', out);
    }
}

/* Writes as many chunk sizes beside one another as fit, then the rest below. */
static void write_grid(const grid *g, int width, FILE *out)
{
    for (int first = 0, end; first < g->columns; first = end) {
        int used = 2 + g->label_width;
        for (end = first; end < g->columns; end++) {
            int more = GAP + g->width[end];
            if (end > first && used + more > width)
                break;
            used += more;
        }
        fprintf(out, "  %-*s", g->label_width, "chunk size");
        for (int c = first; c < end; c++) {
            char text[CELL];
            heading_text(g, c, text);
            fprintf(out, "%*s%*s", GAP, "", g->width[c], text);
        }
        fputc('\n', out);
        for (int r = 0; r < g->rows; r++) {
            bool any = false;
            for (int c = first; c < end; c++)
                any = any || g->curve[r * g->columns + c] != NULL;
            if (any)
                write_row(g, r, first, end, out);
        }
        if (end < g->columns)
            fputc('\n', out);
    }
}

/* --- what is saved beside entries ---------------------------------------------------- */

static void write_share(FILE *out, double share, int width)
{
    if (isnan(share))
        fprintf(out, "%*s", width, "-");
    else
        fprintf(out, "%*.1f", width, 100 * share);
}

static void write_saving(const kv_curve *curve, const kv_curve_point *point, FILE *out)
{
    char chunk[24], text[32] = "";
    if (isnan(point->accuracy))
        fprintf(out, "  %8s", "-");
    else
        fprintf(out, "  %8.3f", point->accuracy);
    write_share(out, point->amount[KV_AXIS_ENTRIES], 9);
    write_share(out, point->amount[KV_AXIS_BYTES], 8);
    write_share(out, point->amount[KV_AXIS_READS], 8);
    write_share(out, point->amount[KV_AXIS_PREFILL], 9);
    kv_chunk_text(curve->chunk_tokens, chunk);
    fprintf(out, "%8s  ", chunk);
    kv__plain_write(curve->label, (int)strlen(curve->label), out);
    if (!isnan(point->keep) && curve->points > 1)
        snprintf(text, sizeof text, ", keep %g", point->keep);
    fprintf(out, "%s\n", text);
}

/* A line per point of the curves whose policies save bytes or reads, if there are any. */
static void write_savings(const kv_curve *curve, int count, FILE *out)
{
    bool any = false;
    for (int c = 0; c < count; c++)
        for (int p = 0; p < curve[c].points && curve[c].saves != KV_AXIS_ENTRIES; p++) {
            if (!any)
                fprintf(out,
                        "\n  Of the full cache in %%: entries and bytes in memory, "
                        "reads of decode, scores of prefill\n  %8s%9s%8s%8s%9s%8s  policy\n",
                        "accuracy", "entries", "bytes", "reads", "prefill", "chunk");
            any = true;
            write_saving(&curve[c], &curve[c].point[p], out);
        }
}

/* Writes the curves of one task, curve[0..count). */
/* What predicted the accuracies of curve[0..count), of which some may have been measured. */
static const char *find_source(const kv_curve *curve, int count)
{
    for (int c = 0; c < count; c++)
        if (strcmp(curve[c].source, "measured") != 0)
            return curve[c].source;
    return "measured";
}

/* head_source: what the head says of accuracy. */
static kv_err write_task(const kv_curve *curve, int count, const char *head_source, int width,
                         FILE *out, kv_diag *diag)
{
    const char *source = find_source(curve, count);
    grid g;
    char title[512];
    const kv_curve *known = NULL;
    kv_err err = grid_init(&g, curve, count, diag);
    if (err != KV_OK)
        return err;
    for (int i = 0; i < count && known == NULL; i++)
        known = curve[i].has_critical ? &curve[i] : NULL;
    int at = snprintf(title, sizeof title, "%s: %d example%s", curve->task, curve->examples,
                      curve->examples == 1 ? "" : "s");
    if (known != NULL && at > 0 && (size_t)at < sizeof title)
        snprintf(title + at, sizeof title - (size_t)at, ", full accuracy %.3f",
                 known->full_accuracy);
    fputc('\n', out);
    write_wrapped(out, title, width);
    if (strcmp(source, head_source) != 0 && strcmp(source, "measured") != 0) {
        snprintf(title, sizeof title, "Here accuracy is %s.", kv_accuracy_source_text(source));
        write_wrapped(out, title, width);
    }
    if (g.rows > 0) {
        find_widths(&g, width);
        write_grid(&g, width, out);
    }
    grid_fini(&g);
    write_savings(curve, count, out);
    return KV_OK;
}

static void write_head(const kv_curves *curves, int width, FILE *out)
{
    char text[512];
    double threshold = 0.9;
    const char *source = find_source(curves->curve, curves->curves);
    for (int c = 0; c < curves->curves; c++)
        if (curves->curve[c].has_critical)
            threshold = curves->curve[c].threshold;
    snprintf(text, sizeof text,
             "Critical KV footprint in %% of full causal attention: the least at which accuracy "
             "stays at %g x full. In brackets its %g %% interval (%s). <= : stays at every budget; "
             "> : at none.",
             threshold, 100 * curves->confidence,
             curves->interval ? curves->interval : "not known");
    write_wrapped(out, text, width);
    snprintf(text, sizeof text, "Accuracy is %s.", kv_accuracy_source_text(source));
    write_wrapped(out, text, width);
}

/* The curves are those of all turns together. */
static void write_turns(const kv_curves *curves, int width, FILE *out)
{
    char text[256];
    if (curves->turns < 2)
        return;
    snprintf(text, sizeof text,
             "These are means over up to %d turns: `kvsim plot RESULTS turns` and `kvsim report "
             "RESULTS` show each.",
             curves->turns);
    fputc('\n', out);
    write_wrapped(out, text, width);
}

kv_err kv_summary_write(const kv_curves *curves, int width, FILE *out, kv_diag *diag)
{
    width = width < KV_SUMMARY_LEAST_WIDTH ? KV_SUMMARY_LEAST_WIDTH : width;
    write_head(curves, width, out);
    const char *source = find_source(curves->curve, curves->curves);
    kv_err err = KV_OK;
    for (int first = 0, end; first < curves->curves && err == KV_OK; first = end) {
        for (end = first; end < curves->curves; end++)
            if (strcmp(curves->curve[end].task, curves->curve[first].task) != 0)
                break;
        err = write_task(&curves->curve[first], end - first, source, width, out, diag);
    }
    if (err == KV_OK)
        write_turns(curves, width, out);
    return err;
}
