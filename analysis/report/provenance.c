/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Provenance: what was run, on what, by which version. */
#include "config.h"

#include "analysis/html.h"
#include "analysis/report.h"
#include "analysis/sql.h"

#include <stdlib.h>

static kv_err write_provenance(const kv_report *report, FILE *out, kv_diag *diag);

KV_SECTION_DEFINE(provenance) = {
    .name = "provenance",
    .title = "Where this comes from",
    .write = write_provenance,
};

static void write_fact(FILE *out, const char *name, const char *value)
{
    if (value == NULL)
        return;
    fprintf(out, "<dt>%s</dt><dd>", name);
    kv__html_text(out, value);
    fputs("</dd>\n", out);
}

/* Columns of the row, in order, as facts; the last is the experiment. */
static const char run_sql[] =
    "SELECT version, seed, started_at, finished_at, printf('%.1f s', wall_seconds), "
    "attention_run.accuracy_model, CASE WHEN threshold IS NOT NULL THEN printf('%g x full "
    "accuracy', threshold) END, "
    "CASE WHEN resamples IS NOT NULL THEN printf('%g %%, %d resamples of the examples', "
    "100 * confidence, resamples) END, experiment "
    "FROM run LEFT JOIN attention_run ON run_id = id WHERE id = ?";

static const char *const fact_names[] = {"kvsim",      "seed",           "started", "finished",
                                         "time taken", "accuracy model", "target",  "intervals"};
enum { FACTS = sizeof fact_names / sizeof fact_names[0] };

static kv_err write_run(const kv_report *report, FILE *out, kv_diag *diag)
{
    sqlite3_stmt *row = NULL;
    kv_err err = kv__sql_prepare(report->results, run_sql, &row, diag);
    if (err != KV_OK)
        return err;
    kv__sql_bind(row, 1, "i", report->run_id);
    err = kv__sql_step(report->results, row, diag);
    if (err == KV_OK) {
        fputs("<dl>\n", out);
        for (int f = 0; f < FACTS; f++)
            write_fact(out, fact_names[f], (const char *)sqlite3_column_text(row, f));
        fputs("</dl>\n<h3>Experiment as resolved</h3>\n<pre tabindex=\"0\">", out);
        const char *experiment = (const char *)sqlite3_column_text(row, FACTS);
        kv__html_text(out, experiment ? experiment : "");
        fputs("</pre>\n", out);
    }
    sqlite3_finalize(row);
    return err == KV_END ? KV_OK : err;
}

/* A table, under its title if it has rows. */
static kv_err write_traces(const kv_report *report, const char *title, const char *sql,
                           const kv_html_column *columns, int count, FILE *out, kv_diag *diag)
{
    char *text = NULL;
    size_t bytes = 0;
    long long rows = 0;
    FILE *aside = open_memstream(&text, &bytes);
    if (aside == NULL)
        return kv_fail_memory(diag);
    kv_err err =
        kv__html_table(report->results, sql, report->run_id, columns, count, aside, &rows, diag);
    if (fclose(aside) != 0 && err == KV_OK)
        err = kv_fail_memory(diag);
    if (err == KV_OK && rows > 0) {
        fprintf(out, "<h3>%s</h3>\n", title);
        fwrite(text, 1, bytes, out);
    }
    free(text);
    return err;
}

static kv_err write_provenance(const kv_report *report, FILE *out, kv_diag *diag)
{
    static const kv_html_column traces[] = {
        {"trace", NULL, 't'},    {"task", NULL, 't'},
        {"examples", NULL, 'i'}, {"mean full score", "of the model with the full cache", 'r'},
        {"SHA-256", NULL, 't'},
    };
    static const kv_html_column requests[] = {
        {"trace", NULL, 't'}, {"format", NULL, 't'}, {"SHA-256", NULL, 't'}};
    kv_err err = write_run(report, out, diag);
    if (err == KV_OK)
        err = write_traces(report, "Traces",
                           "SELECT trace, task, count(*), avg(full_score), digest FROM example "
                           "WHERE run_id = ? GROUP BY trace, digest, task ORDER BY min(number)",
                           traces, 5, out, diag);
    if (err == KV_OK)
        err = write_traces(report, "Request traces",
                           "SELECT path, format, digest FROM request_trace WHERE run_id = ?",
                           requests, 3, out, diag);
    return err;
}
