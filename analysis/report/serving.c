/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Serving: what each server did with the requests, and what its tiers did. */
#include "config.h"

#include "analysis/html.h"
#include "analysis/report.h"
#include "analysis/serving_points.h"
#include "analysis/sql.h"

static kv_err write_serving(const kv_report *report, FILE *out, kv_diag *diag);

KV_SECTION_DEFINE(serving) = {
    .name = "serving",
    .title = "Serving",
    .write = write_serving,
};

static const char point_sql[] =
    "SELECT p.number, p.label, chunk_size, completed, rejected, throughput_tok_s, ttft_p50, "
    "ttft_p99, "
    "1e3 * tpot_p50, 1e3 * tpot_p99, e2e_p99, goodput, prefix_hit_ratio, preemptions, "
    "kv_peak_bytes / kv_capacity_bytes, gpu_busy, (SELECT avg(accuracy) FROM serving_accuracy a "
    "WHERE a.point_id = p.id), cost FROM serving_point p "
    "WHERE p.run_id = ?1 ORDER BY p.number";

static const kv_html_column point_columns[] = {
    {"point", "number in the sweep", 'i'},
    {"server", "its policy and the settings that differ", 'l'},
    {"chunk", "tokens of one request in one step", 'c'},
    {"completed", "requests", 'i'},
    {"rejected", "requests that could never be served", 'i'},
    {"tokens/s", "of answers", 'r'},
    {"TTFT p50 (s)", "time to the first token, median", 'r'},
    {"p99 (s)", "the same, 99th percentile", 'r'},
    {"TPOT p50 (ms)", "time per further token, median", 'r'},
    {"p99 (ms)", "the same, 99th percentile", 'r'},
    {"E2E p99 (s)", "time to the last token, 99th percentile", 'r'},
    {"goodput (1/s)", "requests within the limits of `goodput`", 'r'},
    {"hits", "prompt tokens that were found in the cache", 'p'},
    {"preempted", "times that a request lost its memory", 'i'},
    {"peak", "most of the KV cache in use by running requests", 'p'},
    {"busy", "share of the time spent in steps", 'p'},
    {"accuracy",
     "of the same policy, settings and chunk size in the attention replay, mean of tasks", 'r'},
    {"cost", "of the whole run", 'r'},
};

static const char tier_sql[] =
    "SELECT p.number, tier, capacity_bytes / 1073741824, peak_bytes / 1073741824, mean_bytes / "
    "1073741824, bytes_in / 1073741824, bytes_out / 1073741824, hits, evictions, busy_s / "
    "duration_s FROM tier_stat t JOIN serving_point p ON p.id = t.point_id WHERE p.run_id = ? "
    "ORDER "
    "BY p.number, t.tier <> 'gpu', t.tier";

static const kv_html_column tier_columns[] = {
    {"point", "number in the sweep", 'i'},
    {"tier", NULL, 't'},
    {"capacity (GiB)", NULL, 'r'},
    {"peak (GiB)", "most in use", 'r'},
    {"mean (GiB)", "in use", 'r'},
    {"in (GiB)", "moved into it", 'r'},
    {"out (GiB)", "moved out of it to a higher one", 'r'},
    {"hits (tokens)", "prompt tokens that were found there", 'i'},
    {"evictions", "blocks that left it for others", 'i'},
    {"link busy", "share of the time", 'p'},
};

#define COLUMNS(table) (int)(sizeof(table) / sizeof(table)[0])

static void write_best(const kv_serving_list *list, FILE *out)
{
    const kv_serving_item *fast = &list->item[0], *first = &list->item[0];
    char text[512];
    for (int i = 1; i < list->items; i++) {
        if (list->item[i].throughput_tok_s > fast->throughput_tok_s)
            fast = &list->item[i];
        if (list->item[i].ttft_p99 < first->ttft_p99)
            first = &list->item[i];
    }
    kv__serving_text(fast, text, sizeof text);
    fputs("<ul class=\"words\">\n<li>Most answer tokens per second: <strong>", out);
    kv__html_text(out, text);
    fprintf(out, "</strong>, %.4g</li>\n<li>Shortest p99 of the time to the first token: <strong>",
            fast->throughput_tok_s);
    kv__serving_text(first, text, sizeof text);
    kv__html_text(out, text);
    fprintf(out, "</strong>, %.3g s</li>\n</ul>\n", first->ttft_p99);
}

static kv_err write_serving(const kv_report *report, FILE *out, kv_diag *diag)
{
    kv_plot_options all = {.filter = {.run_id = report->run_id}};
    kv_serving_list list;
    long long rows;
    kv_err err = kv__serving_list_load(report->results, &all, NULL, &list, diag);
    if (err != KV_OK)
        return err;
    if (list.items == 0) {
        kv__serving_list_fini(&list);
        return KV_END;
    }
    if (list.items > 1)
        write_best(&list, out);
    kv__serving_list_fini(&list);
    err = kv__html_table(report->results, point_sql, report->run_id, point_columns,
                         COLUMNS(point_columns), out, &rows, diag);
    if (err != KV_OK)
        return err;
    fputs("<details><summary>Levels of memory</summary>\n", out);
    err = kv__html_table(report->results, tier_sql, report->run_id, tier_columns,
                         COLUMNS(tier_columns), out, &rows, diag);
    fputs("</details>\n", out);
    return err;
}
