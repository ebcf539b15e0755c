/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Checks that docs/results.md says what the tables are and that the tables and columns which the
 * contract names are there. `tables_test --print` writes the part of docs/results.md that is made
 * (`make update-docs` puts it there). */
#include "tests/kv_test.h"

#include "analysis/measure.h"
#include "analysis/schema.h"

#include <sqlite3.h>

static const char begin_mark[] = "<!-- made by `make update-docs`: begin -->\n\n";
static const char end_mark[] = "<!-- made by `make update-docs`: end -->\n";

static char *markdown(void)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    kv_schema_markdown(out);
    fclose(out);
    return text;
}

static char *read_docs(void)
{
    char path[1024];
    const char *srcdir = getenv("srcdir");
    snprintf(path, sizeof path, "%s/docs/results.md", srcdir ? srcdir : ".");
    FILE *in = fopen(path, "rb");
    if (in == NULL)
        fail_msg("cannot open %s", path);
    char *text = calloc(1, 1 << 20);
    assert_true(fread(text, 1, (1 << 20) - 1, in) > 0);
    fclose(in);
    return text;
}

static void the_manual_shows_these_tables(void **state)
{
    char *docs = read_docs(), *want = markdown();
    char *begin = strstr(docs, begin_mark), *end = strstr(docs, end_mark);
    assert_non_null(begin);
    assert_non_null(end);
    begin += strlen(begin_mark);
    if (strlen(want) != (size_t)(end - begin) || memcmp(begin, want, strlen(want)) != 0)
        fail_msg("docs/results.md is not what the tables are; run `make update-docs`");
    free(docs);
    free(want);
}

/* From the contract of the results database. */
static const char *const promised[] = {
    "SELECT id, name, experiment, seed, version, started_at, finished_at, wall_seconds FROM run",
    "SELECT id, run_id, task, turn, policy, params, chunk_size, keep, n_examples, kv_footprint, "
    "kv_peak, kv_bytes_seconds, attention_recall, evidence_recall, output_error, accuracy, "
    "accuracy_lo, accuracy_hi, accuracy_source FROM footprint_point",
    "SELECT point_id, example, turn, kv_footprint, kv_peak, attention_recall, evidence_recall, "
    "output_error FROM example_point",
    "SELECT id, run_id, policy, params, chunk_size, requests, completed, rejected, preemptions, "
    "duration_s, throughput_tok_s, ttft_mean, ttft_p50, ttft_p90, ttft_p95, ttft_p99, tpot_mean, "
    "itl_mean, e2e_p99, goodput, prefix_hit_ratio, kv_peak_bytes, gpu_bytes_seconds, "
    "cpu_bytes_seconds FROM serving_point",
    "SELECT point_id, tier, capacity_bytes, peak_bytes, mean_bytes, bytes_in, bytes_out, hits, "
    "evictions, busy_s FROM tier_stat",
    "SELECT point_id, request, arrival_s, ttft_s, tpot_s, e2e_s, cached_tokens, preemptions, "
    "status "
    "FROM request_result",
    "SELECT point_id, time_s, tier, used_bytes, running, waiting FROM timeline",
    "SELECT run_id, task, turn, policy, params, chunk_size, threshold, kv_footprint, lo, hi, "
    "status "
    "FROM critical_footprint",
    "SELECT point_id, example, layer, kv_head, positions FROM retained_set",
    "SELECT * FROM latest_run",
    "SELECT * FROM curve",
};

static sqlite3 *new_database(void)
{
    sqlite3 *db = NULL;
    char *create = kv_schema_create();
    assert_int_equal(sqlite3_open(":memory:", &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, create, NULL, NULL, NULL), SQLITE_OK);
    free(create);
    return db;
}

static void the_contract_is_kept(void **state)
{
    sqlite3 *db = new_database();
    for (size_t i = 0; i < sizeof promised / sizeof promised[0]; i++)
        if (sqlite3_exec(db, promised[i], NULL, NULL, NULL) != SQLITE_OK)
            fail_msg("%s", sqlite3_errmsg(db));
    sqlite3_close(db);
}

static void a_source_is_never_blank(void **state)
{
    sqlite3 *db = new_database();
    const char *run = "INSERT INTO run VALUES (1, 'n', 'e', 1, 'v', NULL, NULL, 'now', NULL, NULL)";
    assert_int_equal(sqlite3_exec(db, run, NULL, NULL, NULL), SQLITE_OK);
    static const char *const sources[] = {"NULL", "''", "'guess'", "'proxy'"};
    for (int i = 0; i < 4; i++) {
        char sql[512];
        snprintf(sql, sizeof sql,
                 "INSERT INTO footprint_point (run_id, task, policy, params, curve, label, "
                 "n_examples, accuracy_source, accuracy_interval) "
                 "VALUES (1, 't', 'p', '{}', '{}', 'l', 1, %s, '')",
                 sources[i]);
        int want = i < 3 ? SQLITE_CONSTRAINT : SQLITE_OK;
        assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), want);
    }
    sqlite3_close(db);
}

static void every_measure_has_a_name_of_its_own(void **state)
{
    for (int m = 0; m < KV_MEASURES; m++) {
        const kv_measure_info *info = kv_measure_get((kv_measure)m);
        assert_true(info->name && *info->name && info->unit && *info->unit && info->help);
        for (int other = 0; other < m; other++)
            assert_string_not_equal(info->name, kv_measure_get((kv_measure)other)->name);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_manual_shows_these_tables),
        cmocka_unit_test(the_contract_is_kept),
        cmocka_unit_test(a_source_is_never_blank),
        cmocka_unit_test(every_measure_has_a_name_of_its_own),
    };
    if (argc > 1 && strcmp(argv[1], "--print") == 0) {
        char *text = markdown();
        fputs(text, stdout);
        free(text);
        return 0;
    }
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
