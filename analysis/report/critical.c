/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Critical footprints: in words for each task, then as a table of policies and tasks. */
#include "config.h"

#include "analysis/figure.h"
#include "analysis/html.h"
#include "analysis/report.h"
#include "analysis/report_curves.h"

#include <limits.h>
#include <math.h>
#include <string.h>

static kv_err write_critical(const kv_report *report, FILE *out, kv_diag *diag);

KV_SECTION_DEFINE(critical) = {
    .name = "critical",
    .title = "Critical footprints",
    .write = write_critical,
};

/* What a curve is ranked by: its critical footprint or the bound it is below; none ranks last. */
static double rank_of(const kv_curve *curve)
{
    if (curve == NULL || !curve->has_critical || curve->points == 0 ||
        curve->status == KV_CRITICAL_NEVER)
        return INFINITY;
    return curve->status == KV_CRITICAL_OK ? curve->kv_footprint : curve->point[0].kv_footprint;
}

/* The series that ranks best on a task, -1 if none reaches the target. An oracle is no choice. */
static int best_series(const kv_figure *figure, int task)
{
    int best = -1;
    double least = INFINITY;
    for (int i = 0; i < figure->count; i++) {
        double rank = rank_of(kv__figure_curve(figure, task, i));
        if (rank < least && !figure->series[i].oracle) {
            best = i;
            least = rank;
        }
    }
    return best;
}

/* --- words ------------------------------------------------------------------------------------ */

/* "23.1 to 28.3 %", with open ends said. */
static void write_interval(FILE *out, const kv_curve *curve)
{
    if (isnan(curve->lo))
        fprintf(out, "below %.1f", 100 * curve->point[0].kv_footprint);
    else
        fprintf(out, "%.1f", 100 * curve->lo);
    if (isnan(curve->hi))
        fprintf(out, " to above %.1f %%", 100 * curve->point[curve->points - 1].kv_footprint);
    else
        fprintf(out, " to %.1f %%", 100 * curve->hi);
}

static void count_status(const kv_figure *figure, int task, int count[3])
{
    for (int i = 0; i < figure->count; i++) {
        const kv_curve *curve = kv__figure_curve(figure, task, i);
        if (curve != NULL && curve->has_critical)
            count[curve->status]++;
    }
}

static void write_best(const kv_figure *figure, int task, int best, FILE *out)
{
    const kv_curve *curve = kv__figure_curve(figure, task, best);
    char series[512];
    kv__series_text(&figure->series[best], 0, series, sizeof series);
    if (curve->status == KV_CRITICAL_OK) {
        fprintf(out, "down to <strong>%.1f %%</strong> of the KV footprint with <strong>",
                100 * curve->kv_footprint);
        kv__html_text(out, series);
        fprintf(out, "</strong> (%g %% interval ", 100 * figure->curves->confidence);
        write_interval(out, curve);
        fputs(")", out);
    } else {
        fprintf(out, "even at the least footprint tried, <strong>%.1f %%</strong>, with <strong>",
                100 * curve->point[0].kv_footprint);
        kv__html_text(out, series);
        fputs("</strong>", out);
    }
}

/* "All 11 curves cross that line." or "Of 11 curves 8 cross that line, 3 never reach it." */
static void write_counts(FILE *out, const int count[3])
{
    static const char *const one[] = {"crosses that line", "stays above it", "never reaches it"};
    static const char *const several[] = {"cross that line", "stay above it", "never reach it"};
    int all = count[0] + count[1] + count[2], written = 0;
    for (int s = 0; s < 3; s++) {
        if (count[s] == all && all > 1)
            fprintf(out, " All %d curves %s.", all, several[s]);
        else if (count[s] > 0 && all > 1)
            fprintf(out, written++ ? ", %d %s" : " Of all curves %d %s", count[s],
                    (count[s] == 1 ? one : several)[s]);
    }
    fputs(written ? "." : "", out);
}

static void write_words(const kv_figure *figure, int task, FILE *out)
{
    const kv_curve *known = kv__figure_known(figure, task);
    int best = best_series(figure, task), count[3] = {0};
    count_status(figure, task, count);
    fputs("<li><strong>", out);
    kv__html_text(out, figure->task[task]);
    fputs("</strong>: ", out);
    if (known == NULL || count[0] + count[1] + count[2] == 0) {
        fputs("nothing is known of its accuracy.</li>\n", out);
        return;
    }
    fprintf(out, "%g %% of the full accuracy (%.3f) stays ", 100 * known->threshold,
            known->full_accuracy);
    if (best >= 0)
        write_best(figure, task, best, out);
    else
        fputs("with no policy at any budget tried", out);
    fputs(".", out);
    write_counts(out, count);
    fputs("</li>\n", out);
}

/* --- table ------------------------------------------------------------------------------------ */

static void write_cell(const kv_curve *curve, bool best, FILE *out)
{
    if (curve == NULL || !curve->has_critical) {
        fputs("<td></td>", out);
        return;
    }
    double smallest = curve->point[0].kv_footprint;
    double largest = curve->point[curve->points - 1].kv_footprint;
    double value = curve->status == KV_CRITICAL_OK       ? curve->kv_footprint
                   : curve->status == KV_CRITICAL_ALWAYS ? smallest
                                                         : 1 + largest; /* sorts after any other */
    fprintf(out, "<td class=\"n%s\" data-value=\"%.12g\">", best ? " best" : "", value);
    if (curve->status == KV_CRITICAL_ALWAYS) {
        fprintf(out, "&le; %.1f %%<small>always</small></td>", 100 * smallest);
    } else if (curve->status == KV_CRITICAL_NEVER) {
        fprintf(out, "&gt; %.1f %%<small>never</small></td>", 100 * largest);
    } else {
        fprintf(out, "%.1f %%<small>", 100 * curve->kv_footprint);
        write_interval(out, curve);
        fputs("</small></td>", out);
    }
}

/* attribute: of the cell, with a space before it. */
static void write_heading(const char *text, const char *attribute, FILE *out)
{
    fprintf(out, "<th scope=\"col\"%s><button type=\"button\">", attribute);
    kv__html_text(out, text);
    fputs("</button></th>", out);
}

static void write_table(const kv_figure *figure, FILE *out)
{
    fputs("<div class=\"scroll\" tabindex=\"0\"><table id=\"critical-table\"><thead><tr>", out);
    write_heading("policy", "", out);
    write_heading("chunk size", " class=\"n\"", out);
    for (int t = 0; t < figure->tasks; t++)
        write_heading(figure->task[t], " class=\"n\"", out);
    fputs("</tr></thead><tbody>\n", out);
    for (int i = 0; i < figure->count; i++) {
        const kv_series *series = &figure->series[i];
        char chunk[24];
        kv_chunk_text(series->chunk_tokens, chunk);
        fputs("<tr><th scope=\"row\">", out);
        kv__html_text(out, series->label);
        fprintf(out, "</th><td class=\"n\" data-value=\"%g\">%s</td>",
                series->chunk_tokens ? (double)series->chunk_tokens : 1e18, chunk);
        for (int t = 0; t < figure->tasks; t++)
            write_cell(kv__figure_curve(figure, t, i), best_series(figure, t) == i, out);
        fputs("</tr>\n", out);
    }
    fputs("</tbody></table></div>\n", out);
}

/* --- what is saved beside entries ------------------------------------------------------------- */

static void write_share(double share, FILE *out)
{
    if (isnan(share))
        fputs("<td></td>", out);
    else
        fprintf(out, "<td class=\"n\" data-value=\"%.12g\">%.1f %%</td>", share, 100 * share);
}

static void write_saving(const kv_curve *curve, const kv_curve_point *point, FILE *out)
{
    char chunk[24];
    fputs("<tr><td>", out);
    kv__html_text(out, curve->task);
    fputs("</td><th scope=\"row\">", out);
    kv__html_text(out, curve->label);
    if (!isnan(point->keep) && curve->points > 1)
        fprintf(out, ", keep %g", point->keep);
    kv_chunk_text(curve->chunk_tokens, chunk);
    fprintf(out, "</th><td class=\"n\" data-value=\"%g\">%s</td>",
            curve->chunk_tokens ? (double)curve->chunk_tokens : 1e18, chunk);
    if (isnan(point->accuracy))
        fputs("<td></td>", out);
    else
        fprintf(out, "<td class=\"n\" data-value=\"%.12g\">%.3f</td>", point->accuracy,
                point->accuracy);
    for (int axis = 0; axis < KV_AXES; axis++)
        write_share(point->amount[axis], out);
    fputs("</tr>\n", out);
}

/* A row per point of the curves whose policies save bytes, reads or scores, if there are any: what
 * they need cannot be said in entries. */
static void write_savings(const kv_curves *curves, FILE *out)
{
    static const char *const headings[] = {"entries", "bytes", "reads", "prefill"};
    bool any = false;
    for (int c = 0; c < curves->curves; c++) {
        const kv_curve *curve = &curves->curve[c];
        for (int p = 0; p < curve->points && curve->saves != KV_AXIS_ENTRIES; p++) {
            if (!any) {
                fputs("<h3>What else is saved</h3>\n<p class=\"soft\">Of the full cache: entries "
                      "and bytes in memory, entries that decode steps read, scores that prefill "
                      "computes.</p>\n<div class=\"scroll\" tabindex=\"0\"><table "
                      "id=\"savings-table\"><thead><tr>",
                      out);
                write_heading("task", "", out);
                write_heading("policy", "", out);
                write_heading("chunk size", " class=\"n\"", out);
                write_heading("accuracy", " class=\"n\"", out);
                for (int axis = 0; axis < KV_AXES; axis++)
                    write_heading(headings[axis], " class=\"n\"", out);
                fputs("</tr></thead><tbody>\n", out);
            }
            any = true;
            write_saving(curve, &curve->point[p], out);
        }
    }
    fputs(any ? "</tbody></table></div>\n" : "", out);
}

static void write_notes(const kv_figure *figure, FILE *out)
{
    const kv_curves *curves = figure->curves;
    fputs("<p class=\"soft\">The least KV footprint, in percent of full causal attention, at which "
          "accuracy is still at least the threshold times the full accuracy; on a curve that "
          "crosses more than once, the crossing nearest the small end. The best of each task is "
          "marked. ",
          out);
    fprintf(out, "Small print: %g %% interval (", 100 * curves->confidence);
    kv__html_text(out, curves->interval ? curves->interval : "not known");
    fputs("); <em>always</em>: every budget tried stays above, <em>never</em>: none does.</p>\n",
          out);
}

static kv_err write_critical(const kv_report *report, FILE *out, kv_diag *diag)
{
    kv_curves *curves = NULL;
    kv_figure figure;
    kv_err err = kv__report_curves(report, &curves, diag);
    if (err != KV_OK)
        return err;
    err = kv__figure_init(&figure, curves, INT_MAX, diag);
    if (err == KV_OK) {
        const char *source = kv__figure_source(&figure);
        fprintf(out, "<p%s>Accuracy is %s.</p>\n",
                strcmp(source, "proxy") == 0 ? " class=\"note\"" : "",
                kv_accuracy_source_text(source));
        fputs("<ul class=\"words\">\n", out);
        for (int t = 0; t < figure.tasks; t++)
            write_words(&figure, t, out);
        fputs("</ul>\n", out);
        write_table(&figure, out);
        write_notes(&figure, out);
        write_savings(curves, out);
        kv__figure_fini(&figure);
    }
    kv_curves_free(curves);
    return err;
}
