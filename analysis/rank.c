/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "analysis/rank.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* One policy under one chunk size, all tasks together. */
typedef struct line {
    const kv_curve *curve;                   /* of the first task */
    double accuracy, kv_footprint, critical; /* means over tasks; NaN: not known in one of them */
    double least;                            /* least footprint of its curve, mean over tasks */
    int tasks, order;
} line;

/* Full, which the others are measured against, and the oracle, which bounds them, have no rank. */
static bool is_reference(const kv_curve *curve)
{
    return curve->oracle || strcmp(curve->policy, "full") == 0;
}

kv_ranked kv_rank_at(const kv_curve *curve, double kv_footprint)
{
    const kv_curve_point *p = curve->point;
    int n = curve->points;
    if (n == 0 || p[0].kv_footprint > kv_footprint)
        return (kv_ranked){NAN, NAN};
    for (int i = 0; i + 1 < n; i++)
        if (p[i + 1].kv_footprint > kv_footprint) {
            double along =
                (kv_footprint - p[i].kv_footprint) / (p[i + 1].kv_footprint - p[i].kv_footprint);
            return (kv_ranked){p[i].accuracy + along * (p[i + 1].accuracy - p[i].accuracy),
                               kv_footprint};
        }
    return (kv_ranked){p[n - 1].accuracy, p[n - 1].kv_footprint};
}

static double critical_of(const kv_curve *curve)
{
    if (!curve->has_critical || curve->status == KV_CRITICAL_NEVER)
        return NAN;
    return curve->status == KV_CRITICAL_ALWAYS ? curve->point[0].kv_footprint : curve->kv_footprint;
}

static line *find_line(line *lines, int *count, const kv_curve *curve)
{
    for (int i = 0; i < *count; i++)
        if (strcmp(lines[i].curve->label, curve->label) == 0 &&
            lines[i].curve->chunk_tokens == curve->chunk_tokens)
            return &lines[i];
    lines[*count] = (line){.curve = curve, .order = *count};
    return &lines[(*count)++];
}

static int gather(const kv_curves *curves, double kv_footprint, line *lines)
{
    int count = 0;
    for (int c = 0; c < curves->curves; c++) {
        const kv_curve *curve = &curves->curve[c];
        bool is_full =
            strcmp(curve->policy, "full") == 0; /* what the others are measured against */
        kv_ranked at = kv_rank_at(curve, is_full ? 1 : kv_footprint);
        line *l = find_line(lines, &count, curve);
        l->accuracy += at.accuracy;
        l->kv_footprint += at.kv_footprint;
        l->critical += is_full ? NAN : critical_of(curve);
        l->least += curve->points > 0 ? curve->point[0].kv_footprint : NAN;
        l->tasks++;
    }
    for (int i = 0; i < count; i++) {
        lines[i].accuracy /= lines[i].tasks;
        lines[i].kv_footprint /= lines[i].tasks;
        lines[i].critical /= lines[i].tasks;
        lines[i].least /= lines[i].tasks;
    }
    return count;
}

/* NaN after every number; larger first if descending. */
static int compare_numbers(double x, double y, bool descending)
{
    if (isnan(x) || isnan(y))
        return isnan(x) - isnan(y);
    return descending ? (x < y) - (x > y) : (x > y) - (x < y);
}

static int compare_lines(const void *a, const void *b)
{
    const line *x = a, *y = b;
    int by_accuracy = compare_numbers(x->accuracy, y->accuracy, true);
    int by_critical = compare_numbers(x->critical, y->critical, false);
    return by_accuracy ? by_accuracy : by_critical ? by_critical : x->order - y->order;
}

static void write_number(double value, double scale, int width, int digits, FILE *out)
{
    if (isnan(value))
        fprintf(out, "%*s", width, "-");
    else
        fprintf(out, "%*.*f", width, digits, scale * value);
}

static void write_line(const line *l, int rank, bool many_chunks, FILE *out)
{
    char chunk[24];
    if (rank > 0)
        fprintf(out, "%4d", rank);
    else
        fprintf(out, "%4s", "-");
    write_number(l->accuracy, 1, 10, 3, out);
    write_number(isnan(l->accuracy) ? l->least : l->kv_footprint, 100, 11, 1, out);
    write_number(l->critical, 100, 10, 1, out);
    fprintf(out, "  %s", l->curve->label);
    kv_chunk_text(l->curve->chunk_tokens, chunk);
    if (many_chunks)
        fprintf(out, ", chunk %s", chunk);
    fputc('\n', out);
}

static bool has_many_chunks(const kv_curves *curves)
{
    for (int c = 1; c < curves->curves; c++)
        if (curves->curve[c].chunk_tokens != curves->curve[0].chunk_tokens)
            return true;
    return false;
}

kv_err kv_rank_write(const kv_curves *curves, double kv_footprint, FILE *out, kv_diag *diag)
{
    line *lines = calloc((size_t)curves->curves + 1, sizeof *lines);
    if (lines == NULL)
        return kv_fail_memory(diag);
    int count = gather(curves, kv_footprint, lines), rank = 0;
    bool many_chunks = has_many_chunks(curves);
    qsort(lines, (size_t)count, sizeof *lines, compare_lines);
    const char *source = curves->curves > 0 ? curves->curve[0].source : "proxy";
    fprintf(out,
            "At a KV footprint of %g %%, by accuracy (the mean over tasks).\n"
            "Accuracy is %s.\n"
            "Footprint: what the accuracy is for, or where a curve that does not come down to it\n"
            "begins. Critical: the critical footprint. Both in %% of full causal attention.\n\n"
            "%4s%10s%11s%10s  %s\n",
            100 * kv_footprint, kv_accuracy_source_text(source), "rank", "accuracy", "footprint",
            "critical", "policy");
    for (int i = 0; i < count; i++) {
        bool ranked = !isnan(lines[i].accuracy) && !is_reference(lines[i].curve);
        write_line(&lines[i], ranked ? ++rank : 0, many_chunks, out);
    }
    free(lines);
    return KV_OK;
}
