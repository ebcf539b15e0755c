/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Checks what happens to files that are no results, or no longer: they are refused and stay as they
 * are, and what the system refuses is said. */
#include "tests/kv_test.h"
#include "tests/results_dump.h"
#include "tests/synthetic.h"

#include "analysis/schema.h"

#include <sqlite3.h>
#include <sys/stat.h>
#include <unistd.h>

static const char base[] = "results_file_test_base.db";

/* --- files that are not ours, or no longer ----------------------------------------- */

static void write_file(const char *path, const void *bytes, size_t count)
{
    FILE *out = fopen(path, "wb");
    assert_int_equal(fwrite(bytes, 1, count, out), count);
    fclose(out);
}

static void expect_refused(const char *path, const char *words)
{
    for (int mode = KV_RESULTS_READ; mode <= KV_RESULTS_WRITE; mode++) {
        kv_diag diag = {0};
        kv_results *results = NULL;
        struct stat before, after;
        stat(path, &before);
        assert_int_equal(kv_results_open(path, (kv_results_mode)mode, &results, &diag),
                         KV_ERR_INPUT);
        if (strstr(diag.text, words) == NULL)
            fail_msg("'%s' does not say '%s'", diag.text, words);
        stat(path, &after);
        assert_true(before.st_mtim.tv_sec == after.st_mtim.tv_sec &&
                    before.st_mtim.tv_nsec == after.st_mtim.tv_nsec &&
                    before.st_size == after.st_size);
        assert_int_not_equal(access("results_file_test_a.db-wal", F_OK), 0);
        assert_int_not_equal(access("results_file_test_a.db-journal", F_OK), 0);
    }
}

static void other_files_are_refused_untouched(void **state)
{
    const char *path = "results_file_test_a.db", *text = "task,policy\nkv_recall,full\n";
    db_remove(path);
    write_file(path, text, strlen(text));
    expect_refused(path, "no results database");
    db_remove(path);
    sqlite3 *db = NULL;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    sqlite3_exec(db, "CREATE TABLE run (id)", NULL, NULL, NULL);
    sqlite3_close(db);
    expect_refused(path, "of another program");
    db_remove(path);
    free(db_baseline(base));
    rename(base, path);
    db_execute(path, "PRAGMA user_version = 999; PRAGMA wal_checkpoint(TRUNCATE)");
    expect_refused(path, "schema version 999, this kvsim knows version");
    kv_diag diag = {0};
    kv_results *results = NULL;
    assert_int_equal(kv_results_open(".", KV_RESULTS_WRITE, &results, &diag), KV_ERR_INPUT);
    assert_non_null(strstr(diag.text, "folder"));
    kv_diag missing = {0};
    assert_int_equal(kv_results_open("no-such.db", KV_RESULTS_READ, &results, &missing),
                     KV_ERR_INPUT);
    assert_int_not_equal(access("no-such.db", F_OK), 0);
}

/* Files of the first schema version, and such as say that they are of this one but lack something:
 * nobody meets an SQL error. */
static void an_older_file_is_told_apart(void **state)
{
    const char *path = "results_file_test_o.db";
    kv_synthetic *s = kv_synthetic_new(KV_SYNTHETIC_SMALL);
    kv_diag diag = {0};
    static const struct {
        const char *sql, *words;
    } cases[] = {{"PRAGMA user_version = 1", "schema version 1, this kvsim knows version 2"},
                 {"ALTER TABLE request_trace DROP COLUMN digest",
                  "request_trace of the results has no column"},
                 {"DROP VIEW serving_accuracy", "no table serving_accuracy"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        db_remove(path);
        assert_int_equal(kv_synthetic_run(s, path, false, false, true, &diag), KV_OK);
        db_execute(path, cases[i].sql);
        db_execute(path, "PRAGMA wal_checkpoint(TRUNCATE)");
        expect_refused(path, cases[i].words);
    }
    db_remove(path);
    kv_synthetic_free(s);
}

static void copy_file(const char *from, const char *to)
{
    char bytes[4096];
    FILE *in = fopen(from, "rb"), *out = fopen(to, "wb");
    assert_true(in != NULL && out != NULL);
    for (size_t count; (count = fread(bytes, 1, sizeof bytes, in)) > 0;)
        assert_int_equal(fwrite(bytes, 1, count, out), count);
    fclose(in);
    fclose(out);
}

/* A kill while the file is made leaves it empty, blank, or half written beside a journal. */
static void a_kill_while_the_file_is_made_leaves_nothing(void **state)
{
    kv_synthetic *s = kv_synthetic_new(KV_SYNTHETIC_SMALL);
    const char *path = "results_file_test_a.db", *making = "results_file_test_b.db";
    char *create = kv_schema_create();
    kv_diag diag = {0};
    sqlite3 *db = NULL;
    db_remove(path);
    write_file(path, "", 0);
    assert_int_equal(kv_synthetic_run(s, path, true, false, true, &diag), KV_OK);
    assert_same_tables(path, db_baseline(base));
    db_remove(path);
    db_remove(making);
    assert_int_equal(sqlite3_open(making, &db), SQLITE_OK);
    sqlite3_exec(db, "PRAGMA auto_vacuum = INCREMENTAL", NULL, NULL, NULL);
    copy_file(making, path);
    assert_int_equal(kv_synthetic_run(s, path, true, false, true, &diag), KV_OK);
    assert_same_tables(path, db_baseline(base));
    db_remove(path);
    /* A cache of one page makes SQLite write before it commits. */
    sqlite3_exec(db, "PRAGMA cache_size = 1; BEGIN", NULL, NULL, NULL);
    char *identity = sqlite3_mprintf("PRAGMA application_id = 1802924909; PRAGMA user_version = %d",
                                     KV_SCHEMA_VERSION);
    sqlite3_exec(db, identity, NULL, NULL, NULL);
    sqlite3_free(identity);
    assert_int_equal(sqlite3_exec(db, create, NULL, NULL, NULL), SQLITE_OK);
    copy_file(making, path);
    copy_file("results_file_test_b.db-journal", "results_file_test_a.db-journal");
    sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
    sqlite3_close(db);
    struct stat half;
    assert_true(stat(path, &half) == 0 && half.st_size > 8192);
    assert_int_equal(kv_synthetic_run(s, path, true, false, true, &diag), KV_OK);
    assert_same_tables(path, db_baseline(base));
    free(create);
    kv_synthetic_free(s);
}

static void a_damaged_file_is_wrong_input(void **state)
{
    unsigned char page[4096];
    kv_synthetic *s = kv_synthetic_new(KV_SYNTHETIC_SMALL);
    memset(page, 0xa5, sizeof page);
    free(db_baseline(base));
    long pages = (long)db_number(base, "PRAGMA page_count");
    FILE *out = fopen(base, "r+b");
    for (long i = 1; i < pages; i++) {
        fseek(out, i * (long)sizeof page, SEEK_SET);
        fwrite(page, sizeof page, 1, out);
    }
    fclose(out);
    kv_diag diag = {0};
    assert_int_equal(kv_synthetic_run(s, base, true, false, true, &diag), KV_ERR_INPUT);
    assert_non_null(strstr(diag.text, "damaged"));
    kv_synthetic_free(s);
}

/* A limit on the pages of the file stands for a full disk. */
static void a_full_disk_is_reported_and_resumed(void **state)
{
    kv_synthetic *s = kv_synthetic_new(KV_SYNTHETIC_SMALL);
    kv_results *results = NULL;
    kv_run *run = NULL;
    kv_diag diag = {0}, later = {0};
    db_remove("results_file_test_a.db");
    assert_int_equal(kv_results_open("results_file_test_a.db", KV_RESULTS_WRITE, &results, &diag),
                     KV_OK);
    assert_int_equal(kv_run_begin(results, &s->info, false, &run, &diag), KV_OK);
    char limit[64]; /* a few pages more than the empty tables take */
    snprintf(limit, sizeof limit, "PRAGMA max_page_count = %.0f",
             db_number("results_file_test_a.db", "PRAGMA page_count") + 6);
    assert_int_equal(sqlite3_exec(kv_results_handle(results), limit, NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(kv_synthetic_points(s, run, false, true, &diag), KV_ERR_IO);
    assert_non_null(strstr(diag.text, "the disk is full"));
    kv_run_free(run);
    kv_results_close(results);
    assert_true(db_number("results_file_test_a.db", "SELECT count(*) FROM attention_unit") >= 1);
    assert_int_equal(kv_synthetic_run(s, "results_file_test_a.db", true, false, true, &later),
                     KV_OK);
    assert_same_tables("results_file_test_a.db", db_baseline(base));
    kv_synthetic_free(s);
}

static void a_missing_folder_is_the_systems_error(void **state)
{
    kv_diag diag = {0};
    kv_results *results = NULL;
    assert_int_equal(kv_results_open("no-such-folder/a.db", KV_RESULTS_WRITE, &results, &diag),
                     KV_ERR_IO);
    assert_non_null(strstr(diag.text, "No such file"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(other_files_are_refused_untouched),
        cmocka_unit_test(an_older_file_is_told_apart),
        cmocka_unit_test(a_kill_while_the_file_is_made_leaves_nothing),
        cmocka_unit_test(a_damaged_file_is_wrong_input),
        cmocka_unit_test(a_full_disk_is_reported_and_resumed),
        cmocka_unit_test(a_missing_folder_is_the_systems_error),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
