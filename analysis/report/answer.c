/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* What to run: the answer of a plan, how it changes, and why the others lost. */
#include "config.h"

#include "analysis/html.h"
#include "analysis/report.h"
#include "analysis/sql.h"

#include <math.h>

static kv_err write_plan(const kv_report *report, FILE *out, kv_diag *diag);

KV_SECTION_DEFINE(answer) = {
    .name = "answer",
    .title = "What to run",
    .write = write_plan,
};

/* Calls for each row of a query about the run; *rows counts them. */
static kv_err each(const kv_report *report, const char *sql,
                   void (*tell)(sqlite3_stmt *row, FILE *out), FILE *out, long long *rows,
                   kv_diag *diag)
{
    sqlite3_stmt *row = NULL;
    kv_err err = kv__sql_prepare(report->results, sql, &row, diag);
    if (err == KV_OK)
        kv__sql_bind(row, 1, "i", report->run_id);
    for (*rows = 0; err == KV_OK && (err = kv__sql_step(report->results, row, diag)) == KV_OK;
         ++*rows)
        tell(row, out);
    sqlite3_finalize(row);
    return err == KV_END ? KV_OK : err;
}

static void write_text(FILE *out, sqlite3_stmt *row, int column)
{
    const char *text = (const char *)sqlite3_column_text(row, column);
    kv__html_text(out, text != NULL ? text : "");
}

static void tell_answer(sqlite3_stmt *row, FILE *out)
{
    double cost = kv__sql_double(row, 3), largest = kv__sql_double(row, 5);
    int replicas = sqlite3_column_int(row, 1), devices = sqlite3_column_int(row, 2);
    fputs("<p class=\"answer\">Run <strong>", out);
    write_text(out, row, 0);
    fprintf(out, "</strong>: %d replica%s, <strong>%d device%s</strong>", replicas,
            replicas == 1 ? "" : "s", devices, devices == 1 ? "" : "s");
    if (!isnan(cost))
        fprintf(out, ", %.2f per hour", cost);
    fputs(".", out);
    if (!isnan(largest))
        fprintf(out, " Keeps the limits up to %s%.3g requests per second; the trace has %.3g.",
                sqlite3_column_int(row, 6) ? "more than " : "", largest, kv__sql_double(row, 4));
    fputs("</p>\n", out);
}

static void tell_rejected(sqlite3_stmt *row, FILE *out)
{
    if (sqlite3_column_int64(row, 0) > 0)
        fprintf(out,
                "<p class=\"note\">Of %lld requests %lld are longer than the context and are "
                "rejected: limits do not count them.</p>\n",
                (long long)sqlite3_column_int64(row, 1), (long long)sqlite3_column_int64(row, 0));
}

static void tell_limit(sqlite3_stmt *row, FILE *out)
{
    fputs("<li><code>", out);
    write_text(out, row, 0);
    fputs("</code>", out);
    if (sqlite3_column_type(row, 1) != SQLITE_NULL) {
        fprintf(out, ": nothing keeps it%s; nearest <code>",
                sqlite3_column_int(row, 3) ? " beside the others" : "");
        write_text(out, row, 1);
        fprintf(out, "</code>, with %d replica%s of ", sqlite3_column_int(row, 5),
                sqlite3_column_int(row, 5) == 1 ? "" : "s");
        write_text(out, row, 2);
    } else if (sqlite3_column_type(row, 4) != SQLITE_NULL) {
        fputs(": no value could be kept, for ", out);
        write_text(out, row, 4);
    }
    fputs("</li>\n", out);
}

static void tell_case(sqlite3_stmt *row, FILE *out)
{
    fputs("<li>If ", out);
    write_text(out, row, 0);
    fputs(": ", out);
    if (sqlite3_column_type(row, 1) == SQLITE_NULL) {
        fputs("nothing keeps the limits</li>\n", out);
        return;
    }
    if (sqlite3_column_int(row, 3))
        fputs("the same, ", out);
    write_text(out, row, 1);
    fprintf(out, ", %d device%s</li>\n", sqlite3_column_int(row, 2),
            sqlite3_column_int(row, 2) == 1 ? "" : "s");
}

static const char front_sql[] =
    "SELECT label, iif(answer, 'yes', NULL), replicas, devices, cost_per_hour, latency, "
    "ttft_p99, 1e3 * tpot_p99, accuracy_of_full FROM plan_front WHERE run_id = ?";

static const kv_html_column front_columns[] = {
    {"configuration", NULL, 'l'},
    {"answer", "the cheapest of them", 't'},
    {"replicas", NULL, 'i'},
    {"devices", NULL, 'i'},
    {"per hour", "of all devices", 'r'},
    {"latency",
     "of those that are limited the one nearest to its limit, as a share of it; if none is, p99 of "
     "the TTFT in seconds",
     'r'},
    {"TTFT p99 (s)", "99th percentile of the time to the first token", 'r'},
    {"TPOT p99 (ms)", "99th percentile of the time per further token", 'r'},
    {"accuracy", "share of the full cache's", 'p'},
};

static const char choice_sql[] =
    "SELECT rank, label, verdict, binding, replicas, devices, cost_per_hour, max_rate_req_s, "
    "ttft_p99, 1e3 * tpot_p99, accuracy_of_full, accuracy_source, replicas_fewer_blocks, "
    "replicas_more_blocks FROM plan_choice WHERE run_id = ? ORDER BY rank IS NULL, rank, number";

static const kv_html_column choice_columns[] = {
    {"rank", NULL, 'i'},
    {"configuration", NULL, 'l'},
    {"verdict", NULL, 't'},
    {"what binds",
     "the limit that a replica less misses or, if infeasible, that is missed; or why it cannot be "
     "run or judged",
     'l'},
    {"replicas", NULL, 'i'},
    {"devices", NULL, 'i'},
    {"per hour", "of all devices", 'r'},
    {"most requests/s", "at which the limits hold", 'r'},
    {"TTFT p99 (s)", "99th percentile of the time to the first token", 'r'},
    {"TPOT p99 (ms)", "99th percentile of the time per further token", 'r'},
    {"accuracy", "share of the full cache's", 'p'},
    {"source", "where the accuracy comes from", 't'},
    {"fewer blocks", "replicas with less KV capacity", 'i'},
    {"more blocks", "replicas with more KV capacity", 'i'},
};

static kv_err write_lists(const kv_report *report, FILE *out, kv_diag *diag)
{
    long long rows;
    fputs("<h3>Limits</h3>\n<ul class=\"words\">\n", out);
    kv_err err = each(report,
                      "SELECT l.text, l.nearest_text, c.label, l.alone, l.why_none, "
                      "l.nearest_replicas FROM plan_limit l LEFT JOIN "
                      "plan_choice c ON c.id = l.nearest_choice_id WHERE l.run_id = ? ORDER BY "
                      "l.number",
                      tell_limit, out, &rows, diag);
    if (err != KV_OK)
        return err;
    fputs("</ul>\n<h3>How sure is it?</h3>\n<ul class=\"words\">\n", out);
    err =
        each(report,
             "SELECT p.name, c.label, p.devices, p.choice_id = (SELECT f.choice_id FROM plan_case "
             "f WHERE f.run_id = p.run_id AND f.number = 0) FROM plan_case p LEFT JOIN "
             "plan_choice c ON c.id = p.choice_id WHERE p.run_id = ? AND p.number > 0 ORDER BY "
             "p.number",
             tell_case, out, &rows, diag);
    fputs("</ul>\n", out);
    return err;
}

static kv_err write_plan(const kv_report *report, FILE *out, kv_diag *diag)
{
    long long choices = 0, answers = 0, rows;
    kv_err err =
        kv__sql_number(report->results, 0, &choices, diag,
                       "SELECT count(*) FROM plan_choice WHERE run_id = ?", "i", report->run_id);
    if (err != KV_OK || choices == 0)
        return err == KV_OK ? KV_END : err;
    err = each(report,
               "SELECT label, replicas, devices, cost_per_hour, rate_req_s, max_rate_req_s, "
               "max_rate_open FROM plan_choice WHERE run_id = ? AND rank = 1",
               tell_answer, out, &answers, diag);
    if (err == KV_OK && answers == 0)
        fputs("<p class=\"answer\">Nothing that was tried keeps all limits.</p>\n", out);
    if (err == KV_OK)
        err = each(report,
                   "SELECT max(rejected_too_long), max(requests) FROM plan_point WHERE run_id = ?",
                   tell_rejected, out, &rows, diag);
    if (err == KV_OK)
        err = write_lists(report, out, diag);
    if (err != KV_OK)
        return err;
    if (answers > 0) {
        fputs(
            "<h3>Front</h3>\n<p>What keeps all limits and is beaten by nothing in accuracy, cost "
            "and latency together; of each configuration from its least replicas to twice as many, "
            "at most 8 more.</p>\n",
            out);
        err = kv__html_table(report->results, front_sql, report->run_id, front_columns,
                             sizeof front_columns / sizeof front_columns[0], out, &rows, diag);
    }
    if (err != KV_OK)
        return err;
    fputs("<h3>Configurations</h3>\n", out);
    return kv__html_table(report->results, choice_sql, report->run_id, choice_columns,
                          sizeof choice_columns / sizeof choice_columns[0], out, &rows, diag);
}
