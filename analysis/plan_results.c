/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "analysis/plan_results.h"

#include "analysis/sql.h"
#include "analysis/text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { CHOICE, LIMIT, POINT, CASE, TABLES };

enum { MOST_SHOWN = 40 /* configurations; the LIMIT of the query */ };

struct kv_plan_rows {
    kv_results *results;
    long long run_id, first_choice; /* id of choice 0 */
    int choices, limits, cases;
    sqlite3_stmt *insert[TABLES];
};

static void free_rows(kv_plan_rows *rows)
{
    for (int t = 0; t < TABLES; t++)
        sqlite3_finalize(rows->insert[t]);
    free(rows);
}

static kv_err prepare(kv_plan_rows *rows, kv_diag *diag)
{
    kv_err err = kv__sql_number(rows->results, 0, &rows->first_choice, diag,
                                "SELECT max(id) FROM plan_choice", "");
    rows->first_choice++;
    for (int t = 0; t < TABLES && err == KV_OK; t++) {
        char *sql = kv_schema_insert(&kv__plan_tables[t]);
        err = sql != NULL ? kv__sql_prepare(rows->results, sql, &rows->insert[t], diag)
                          : kv_fail_memory(diag);
        free(sql);
    }
    return err;
}

kv_err kv_plan_rows_open(kv_results *results, long long run_id, kv_plan_rows **out, kv_diag *diag)
{
    kv_plan_rows *rows = calloc(1, sizeof *rows);
    if (rows == NULL)
        return kv_fail_memory(diag);
    rows->results = results;
    rows->run_id = run_id;
    kv_err err = kv__sql_begin(results, diag);
    if (err == KV_OK && (err = prepare(rows, diag)) != KV_OK)
        err = kv__sql_end(results, err, diag);
    if (err != KV_OK) {
        free_rows(rows);
        return err;
    }
    *out = rows;
    return KV_OK;
}

/* 0 where there is no choice. */
static long long choice_id(const kv_plan_rows *rows, int choice)
{
    return choice < 0 ? 0 : rows->first_choice + choice;
}

kv_err kv_plan_rows_choice(kv_plan_rows *rows, const kv_plan_choice_row *r, kv_diag *diag)
{
    sqlite3_stmt *s = rows->insert[CHOICE];
    int at =
        kv__sql_bind(s, 1, "iiitttottott", choice_id(rows, rows->choices), rows->run_id,
                     (long long)rows->choices, r->policy, r->params, r->settings, r->chunk_tokens,
                     r->label, r->device, (long long)r->rank, r->verdict, r->binding);
    at = kv__sql_bind(s, at, "iidddi", (long long)r->replicas, (long long)r->devices,
                      r->cost_per_hour, r->rate_req_s, r->max_rate_req_s,
                      (long long)r->max_rate_open);
    at = kv__sql_bind(s, at, "ddddtt", r->accuracy, r->accuracy_of_full, r->accuracy_lo,
                      r->accuracy_hi, r->accuracy_source, r->accuracy_task);
    kv__sql_bind(s, at, "dddddoo", r->ttft_p99, r->tpot_p99, r->e2e_p99, r->goodput,
                 r->throughput_tok_s, (long long)r->replicas_fewer_blocks,
                 (long long)r->replicas_more_blocks);
    rows->choices++;
    return kv__sql_run(rows->results, s, diag);
}

kv_err kv_plan_rows_limit(kv_plan_rows *rows, const kv_plan_limit_row *r, kv_diag *diag)
{
    sqlite3_stmt *s = rows->insert[LIMIT];
    bool none = r->nearest_text == NULL;
    int at = kv__sql_bind(s, 1, "iitttd", rows->run_id, (long long)rows->limits++, r->text,
                          r->metric, r->relation, r->value);
    at = kv__sql_bind(s, at, "tdoo", r->nearest_text, none ? NAN : r->nearest,
                      none ? 0 : choice_id(rows, r->nearest_choice),
                      none ? 0 : (long long)r->nearest_replicas);
    at = kv__sql_bind(s, at, none ? "n" : "i", (long long)r->alone);
    kv__sql_bind(s, at, "t", r->why_none);
    return kv__sql_run(rows->results, s, diag);
}

kv_err kv_plan_rows_point(kv_plan_rows *rows, const kv_plan_point_row *r, kv_diag *diag)
{
    sqlite3_stmt *s = rows->insert[POINT];
    int at = kv__sql_bind(s, 1, "iiiddidd", choice_id(rows, r->choice), rows->run_id,
                          (long long)r->replicas, r->rate_factor, r->blocks_factor,
                          (long long)r->devices, r->rate_req_s, r->cost_per_hour);
    at = kv__sql_bind(s, at, "ddddddd", r->accuracy_of_full, r->ttft_p99, r->tpot_p99, r->e2e_p99,
                      r->goodput, r->throughput_tok_s, r->gpu_busy);
    kv__sql_bind(s, at, "iiitddi", r->requests, r->rejected_too_long, (long long)r->feasible,
                 r->binding, isfinite(r->excess) ? r->excess : NAN, r->latency,
                 (long long)r->pareto);
    return kv__sql_run(rows->results, s, diag);
}

kv_err kv_plan_rows_case(kv_plan_rows *rows, const kv_plan_case_row *r, kv_diag *diag)
{
    sqlite3_stmt *s = rows->insert[CASE];
    kv__sql_bind(s, 1, "iitoood", rows->run_id, (long long)rows->cases++, r->name,
                 choice_id(rows, r->choice), (long long)r->replicas, (long long)r->devices,
                 r->choice < 0 ? NAN : r->cost_per_hour);
    return kv__sql_run(rows->results, s, diag);
}

kv_err kv_plan_rows_close(kv_plan_rows *rows, kv_err err, kv_diag *diag)
{
    kv_results *results = rows->results;
    free_rows(rows);
    return kv__sql_end(results, err, diag);
}

/* --- summary ---------------------------------------------------------------------------------- */

/* Calls for each row of a query about a run. */
static kv_err each_row(kv_results *results, long long run_id, const char *sql,
                       void (*tell)(sqlite3_stmt *row, int number, FILE *out), FILE *out,
                       kv_diag *diag)
{
    sqlite3_stmt *rows = NULL;
    kv_err err = kv__sql_prepare(results, sql, &rows, diag);
    if (err == KV_OK)
        kv__sql_bind(rows, 1, "i", run_id);
    for (int number = 0; err == KV_OK && (err = kv__sql_step(results, rows, diag)) == KV_OK;
         number++)
        tell(rows, number, out);
    sqlite3_finalize(rows);
    return err == KV_END ? KV_OK : err;
}

static const char *text_at(sqlite3_stmt *row, int column)
{
    const char *text = (const char *)sqlite3_column_text(row, column);
    return text != NULL ? text : "";
}

static void tell_limit(sqlite3_stmt *row, int number, FILE *out)
{
    fprintf(out, "%s%s", number == 0 ? "Limits: " : "; ", text_at(row, 0));
}

/* "1.83 s", or "-" where no request has it. */
static void tell_time(FILE *out, const char *name, double value, double scale, const char *unit)
{
    if (isnan(value))
        fprintf(out, "%s -", name);
    else
        fprintf(out, "%s %.3g %s", name, scale * value, unit);
}

static void tell_answer(sqlite3_stmt *row, int number, FILE *out)
{
    double cost = kv__sql_double(row, 3), rate = kv__sql_double(row, 4);
    double largest = kv__sql_double(row, 5), accuracy = kv__sql_double(row, 7);
    (void)number;
    fprintf(out, "\n\nRun %s: %d replica%s, %d device%s", text_at(row, 0),
            sqlite3_column_int(row, 1), sqlite3_column_int(row, 1) == 1 ? "" : "s",
            sqlite3_column_int(row, 2), sqlite3_column_int(row, 2) == 1 ? "" : "s");
    if (!isnan(cost))
        fprintf(out, ", %.2f per hour", cost);
    fputs(".\n", out);
    if (!isnan(largest))
        fprintf(out, "  keeps the limits up to %s%.3g requests/s; the trace has %.3g\n",
                sqlite3_column_int(row, 6) ? "more than " : "", largest, rate);
    tell_time(out, "  TTFT p99", kv__sql_double(row, 8), 1, "s");
    tell_time(out, ", TPOT p99", kv__sql_double(row, 9), 1e3, "ms");
    if (!isnan(accuracy))
        fprintf(out, ", accuracy %.1f %% of the full cache's", 100 * accuracy);
    fputs("\n", out);
}

static void tell_rejected(sqlite3_stmt *row, int number, FILE *out)
{
    (void)number;
    if (sqlite3_column_int64(row, 0) > 0)
        fprintf(out,
                "  of %lld requests %lld are longer than the context%s and are rejected: limits do "
                "not count them\n",
                (long long)sqlite3_column_int64(row, 1), (long long)sqlite3_column_int64(row, 0),
                sqlite3_column_int(row, 2) ? " at most" : "");
}

/* Of a plan that nothing keeps: each limit with its nearest, then those that have none. */
static void tell_nearest(sqlite3_stmt *row, int number, FILE *out)
{
    bool reason = sqlite3_column_type(row, 4) != SQLITE_NULL;
    if (number == 0)
        fputs("\n\nNothing that was tried keeps all limits.\n", out);
    if (sqlite3_column_int(row, 3)) /* the first of its kind */
        fputs(reason                       ? "No value could be kept of\n"
              : sqlite3_column_int(row, 2) ? "Relaxing one of these is enough:\n"
                                           : "These together could be kept:\n",
              out);
    if (reason)
        fprintf(out, "  %s: %s\n", text_at(row, 5), text_at(row, 4));
    else
        fprintf(out, "  %s, with %d replica%s of %s\n", text_at(row, 0), sqlite3_column_int(row, 6),
                sqlite3_column_int(row, 6) == 1 ? "" : "s", text_at(row, 1));
}

/* The columns that both tables have: cost, rate or latency of the front, TTFT, TPOT, accuracy. */
enum { TOLD = 5, TPOT = 3 };
static const int told_width[TOLD] = {8, 8, 12, 13, 8};

/* third: what stands between the cost and the TTFT. */
static void tell_heading(FILE *out, const char *first, const char *third, const char *last)
{
    const char *const heading[TOLD] = {"per hour", third, "TTFT p99 [s]", "TPOT p99 [ms]",
                                       "accuracy"};
    fprintf(out, "%4s %7s", first, "devices");
    for (int c = 0; c < TOLD; c++)
        fprintf(out, " %*s", told_width[c], heading[c]);
    fprintf(out, "  %s\n", last);
}

/* Column c of these, "-" if it is not known. */
static void tell_number(FILE *out, int c, double value)
{
    if (isnan(value))
        fprintf(out, " %*s", told_width[c], "-");
    else
        fprintf(out, " %*.4g", told_width[c], value * (c == TPOT ? 1e3 : 1));
}

static void tell_choice(sqlite3_stmt *row, int number, FILE *out)
{
    if (number == 0) {
        fputs("\n", out);
        tell_heading(out, "rank", "req/s", "configuration; the limit that binds");
    }
    if (sqlite3_column_type(row, 0) == SQLITE_NULL)
        fputs("   -", out);
    else
        fprintf(out, "%4d", sqlite3_column_int(row, 0));
    fprintf(out, " %7d", sqlite3_column_int(row, 1));
    for (int c = 0; c < TOLD; c++)
        if (c == 1 && sqlite3_column_int(row, 9))
            fprintf(out, " %*s", told_width[c], "> tried");
        else
            tell_number(out, c, kv__sql_double(row, 2 + c));
    fprintf(out, "  %s", text_at(row, 7));
    if (*text_at(row, 8))
        fprintf(out,
                sqlite3_column_type(row, 0) != SQLITE_NULL ? "; a replica less misses %s"
                : sqlite3_column_int(row, 11)              ? "; misses %s"
                                                           : "; %s",
                text_at(row, 8));
    fputs("\n", out);
    if (number == MOST_SHOWN - 1 && sqlite3_column_int(row, 10) > MOST_SHOWN)
        fprintf(out, "     and %d more, in table plan_choice\n",
                sqlite3_column_int(row, 10) - MOST_SHOWN);
}

static void tell_front(sqlite3_stmt *row, int number, FILE *out)
{
    if (number == 0) {
        fprintf(out,
                "\nFront of accuracy, cost and latency%s; each from its least replicas to twice "
                "as many, at most 8 more\n",
                sqlite3_column_int(row, 7) ? " (the one nearest to its limit, as a share of it)"
                                           : "");
        tell_heading(out, "", "latency", "configuration");
    }
    fprintf(out, "%4s %7d", "", sqlite3_column_int(row, 0));
    for (int c = 0; c < TOLD; c++)
        tell_number(out, c, kv__sql_double(row, 1 + c));
    fprintf(out, "  %s%s\n", text_at(row, 6), sqlite3_column_int(row, 8) ? "; the answer" : "");
}

static void tell_case(sqlite3_stmt *row, int number, FILE *out)
{
    if (number == 0)
        fputs("\nIf\n", out);
    fprintf(out, "  %s: ", text_at(row, 0));
    if (sqlite3_column_type(row, 1) == SQLITE_NULL)
        fputs("nothing keeps the limits\n", out);
    else
        fprintf(out, "%s%s, %d device%s\n", sqlite3_column_int(row, 3) ? "the same, " : "",
                text_at(row, 1), sqlite3_column_int(row, 2),
                sqlite3_column_int(row, 2) == 1 ? "" : "s");
}

static kv_err tell_all(kv_results *results, long long run_id, FILE *out, kv_diag *diag)
{
    static const struct {
        const char *sql;
        void (*tell)(sqlite3_stmt *row, int number, FILE *out);
    } parts[] = {
        {"SELECT text FROM plan_limit WHERE run_id = ? ORDER BY number", tell_limit},
        {"SELECT label, replicas, devices, cost_per_hour, rate_req_s, max_rate_req_s, "
         "max_rate_open, accuracy_of_full, ttft_p99, tpot_p99 FROM plan_choice WHERE run_id = ? "
         "AND "
         "rank = 1",
         tell_answer},
        {"SELECT max(rejected_too_long), max(requests), min(rejected_too_long) < "
         "max(rejected_too_long) FROM plan_point WHERE run_id = ?",
         tell_rejected},
        {"SELECT nearest_text, label, alone, row_number() OVER (PARTITION BY why_none IS NULL "
         "ORDER "
         "BY plan_limit.number) = 1, why_none, text, nearest_replicas FROM plan_limit LEFT JOIN "
         "plan_choice ON "
         "plan_choice.id = nearest_choice_id WHERE plan_limit.run_id = ? AND (nearest_text IS NOT "
         "NULL OR why_none IS NOT NULL) ORDER BY why_none IS NOT NULL, plan_limit.number",
         tell_nearest},
        {"SELECT rank, devices, cost_per_hour, max_rate_req_s, ttft_p99, tpot_p99, "
         "accuracy_of_full, label, binding, max_rate_open, count(*) OVER (), EXISTS (SELECT 1 FROM "
         "plan_limit l WHERE l.run_id = c.run_id AND l.text = c.binding) FROM plan_choice c WHERE "
         "run_id = ? ORDER BY rank IS NULL, rank, number LIMIT 40",
         tell_choice},
        {"SELECT devices, cost_per_hour, latency, ttft_p99, tpot_p99, accuracy_of_full, label, "
         "EXISTS (SELECT 1 FROM plan_limit l WHERE l.run_id = f.run_id AND metric NOT IN "
         "('accuracy', 'goodput', 'throughput_tok_s', 'price')), answer FROM plan_front f WHERE "
         "run_id = ?",
         tell_front},
        {"SELECT plan_case.name, label, plan_case.devices, plan_case.choice_id = (SELECT choice_id "
         "FROM plan_case f WHERE f.run_id = plan_case.run_id AND f.number = 0) FROM plan_case LEFT "
         "JOIN plan_choice ON plan_choice.id = choice_id WHERE plan_case.run_id = ? AND "
         "plan_case.number > 0 ORDER BY plan_case.number",
         tell_case}};
    kv_err err = KV_OK;
    for (size_t p = 0; p < sizeof parts / sizeof parts[0] && err == KV_OK; p++)
        err = each_row(results, run_id, parts[p].sql, parts[p].tell, out, diag);
    return err;
}

kv_err kv_plan_summary(kv_results *results, long long run_id, FILE *out, kv_diag *diag)
{
    char *text = NULL;
    size_t bytes;
    FILE *told = open_memstream(&text, &bytes);
    kv_err err = told != NULL ? tell_all(results, run_id, told, diag) : KV_OK;
    if (told == NULL || fclose(told) != 0)
        err = kv_fail_memory(diag);
    for (const char *line = text; err == KV_OK && *line;) {
        size_t length = strcspn(line, "\n");
        kv__plain_write(line, (int)length, out);
        line += length;
        if (*line == '\n')
            fputc(*line++, out);
    }
    free(text);
    return err;
}
