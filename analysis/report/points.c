/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Points: every number behind the curves, and critical footprints turn by turn. */
#include "config.h"

#include "analysis/html.h"
#include "analysis/measure.h"
#include "analysis/report.h"

#include <stdlib.h>

static kv_err write_points(const kv_report *report, FILE *out, kv_diag *diag);

KV_SECTION_DEFINE(points) = {
    .name = "points",
    .title = "Numbers",
    .write = write_points,
};

#define COLUMNS(table) (int)(sizeof(table) / sizeof(table)[0])

static const char point_sql[] =
    "SELECT task, label, chunk_size, keep, kv_footprint, kv_footprint_bytes, kv_reads, "
    "kv_reads_prefill, kv_peak, attention_recall, "
    "evidence_recall, output_error, accuracy, accuracy_lo, accuracy_hi, accuracy_source, "
    "n_examples "
    "FROM footprint_point WHERE run_id = ? AND turn IS NULL ORDER BY id";

static const char turn_sql[] =
    "SELECT task, turn, label, chunk_size, kv_footprint, lo, hi, status, first_crossing, "
    "full_accuracy, accuracy_source FROM critical_footprint WHERE run_id = ? AND turn IS NOT NULL "
    "AND policy <> 'full' ORDER BY task, turn, rowid";

/* The page loads nothing and has no scripts of others, but a reader may want the rest as data. */
static const char export_words[] =
    "<p class=\"soft\">Everything there is, per example and turn too: <code>kvsim report "
    "RESULTS.db "
    "--format csv --table example_point</code>, or any SQLite client.</p>\n";

static kv_err write_table(const kv_report *report, const char *title, bool open, const char *sql,
                          const kv_html_column *columns, int count, FILE *out, long long *rows,
                          kv_diag *diag)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *aside = open_memstream(&text, &bytes);
    if (aside == NULL)
        return kv_fail_memory(diag);
    kv_err err =
        kv__html_table(report->results, sql, report->run_id, columns, count, aside, rows, diag);
    if (fclose(aside) != 0 && err == KV_OK)
        err = kv_fail_memory(diag);
    if (err == KV_OK && *rows > 0) {
        fprintf(out, "<details%s><summary>%s (%lld)</summary>\n", open ? " open" : "", title,
                *rows);
        fwrite(text, 1, bytes, out);
        fputs("</details>\n", out);
    }
    free(text);
    return err;
}

static kv_err write_points(const kv_report *report, FILE *out, kv_diag *diag)
{
    const kv_html_column points[] = {
        {"task", NULL, 't'},
        {"policy", NULL, 'l'},
        {"chunk", "tokens prefilled in one step", 'c'},
        {"keep", "fraction that the policy is told to keep", 'r'},
        {"footprint", kv_measure_get(KV_M_FOOTPRINT)->help, 'p'},
        {"in bytes", kv_measure_get(KV_M_FOOTPRINT_BYTES)->help, 'p'},
        {"reads", kv_measure_get(KV_M_READS)->help, 'p'},
        {"prefill", kv_measure_get(KV_M_READS_PREFILL)->help, 'p'},
        {"peak", kv_measure_get(KV_M_PEAK)->help, 'p'},
        {"recall", kv_measure_get(KV_M_RECALL)->help, 'r'},
        {"evidence recall", kv_measure_get(KV_M_EVIDENCE_RECALL)->help, 'r'},
        {"output error", kv_measure_get(KV_M_OUTPUT_ERROR)->help, 'r'},
        {"accuracy", NULL, 'r'},
        {"from", "lower end of its interval", 'r'},
        {"to", "upper end of its interval", 'r'},
        {"source", "where the accuracy comes from", 't'},
        {"examples", NULL, 'i'},
    };
    static const kv_html_column turns[] = {
        {"task", NULL, 't'},
        {"turn", NULL, 'i'},
        {"policy", NULL, 'l'},
        {"chunk", "tokens prefilled in one step", 'c'},
        {"critical footprint", NULL, 'p'},
        {"from", "lower end of its interval", 'p'},
        {"to", "upper end of its interval", 'p'},
        {"status", NULL, 't'},
        {"first crossing", "the crossing nearest the large end", 'p'},
        {"full accuracy", NULL, 'r'},
        {"source", "where the accuracy comes from", 't'},
    };
    long long point_rows = 0, turn_rows = 0;
    kv_err err = write_table(report, "Points of the curves, all turns together", false, point_sql,
                             points, COLUMNS(points), out, &point_rows, diag);
    if (err == KV_OK)
        err = write_table(report, "Critical footprints turn by turn", false, turn_sql, turns,
                          COLUMNS(turns), out, &turn_rows, diag);
    if (err == KV_OK && point_rows == 0)
        return KV_END;
    fputs(export_words, out);
    return err;
}
