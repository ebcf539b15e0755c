/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Checks that a run which was killed, resumed or divided into shards ends with the tables of one
 * that was not, and that what is no such run is refused. */
#include "tests/kv_test.h"
#include "tests/results_dump.h"
#include "tests/synthetic.h"

#include <signal.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static const char base[] = "results_kill_test_base.db";

/* --- kills ------------------------------------------------------------------------- */

/* Dies in the middle of the commit that the countdown reaches. */
static int die_at_commit(void *closure)
{
    int *left = closure;
    if (--*left == 0)
        raise(SIGKILL);
    return 0;
}

/* In a child: the whole run, killed at commit number `at` after the file was opened. */
static void run_and_die(const kv_synthetic *s, const char *path, int at)
{
    kv_diag diag = {0};
    kv_results *results = NULL;
    kv_run *run = NULL;
    kv_points *points = NULL;
    if (kv_results_open(path, KV_RESULTS_WRITE, &results, &diag) != KV_OK)
        _exit(3);
    sqlite3_commit_hook(kv_results_handle(results), die_at_commit, &at);
    if (kv_run_begin(results, &s->info, true, &run, &diag) != KV_OK ||
        kv_points_begin(run, &s->plan, &points, &diag) != KV_OK)
        _exit(3);
    for (int e = 0; e < s->plan.examples; e++)
        if (kv_points_wants(points, e) && kv_synthetic_put(s, points, e, true, &diag) != KV_OK)
            _exit(3);
    if (kv_points_finish(points, &diag) != KV_OK || kv_run_finish(run, &diag) != KV_OK)
        _exit(3);
    _exit(0);
}

/* Answers false once the run ends before the kill. */
static bool killed_at(const kv_synthetic *s, const char *path, int at)
{
    int status;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0)
        run_and_die(s, path, at);
    assert_true(waitpid(child, &status, 0) == child);
    assert_true(WIFSIGNALED(status) || WEXITSTATUS(status) == 0);
    return WIFSIGNALED(status);
}

static void a_kill_at_any_commit_loses_nothing(void **state)
{
    kv_synthetic *s = kv_synthetic_new(KV_SYNTHETIC_SMALL);
    kv_diag diag = {0};
    int at = 0;
    do {
        db_remove("results_kill_test_a.db");
        at++;
        if (!killed_at(s, "results_kill_test_a.db", at))
            break;
        assert_int_equal(kv_synthetic_run(s, "results_kill_test_a.db", true, false, true, &diag),
                         KV_OK);
        assert_same_tables("results_kill_test_a.db", db_baseline(base));
    } while (at < 1000);
    /* run, plan, 7 examples, 10 points, the last: no fewer commits than that were cut. */
    assert_in_range(at, 20, 999);
    kv_synthetic_free(s);
}

static void kill_after_kill_gets_there(void **state)
{
    kv_synthetic *s = kv_synthetic_new(KV_SYNTHETIC_SMALL);
    int kills = 0;
    db_remove("results_kill_test_a.db");
    while (kills < 100 && killed_at(s, "results_kill_test_a.db", 3))
        kills++;
    assert_in_range(kills, 5, 99);
    assert_same_tables("results_kill_test_a.db", db_baseline(base));
    kv_synthetic_free(s);
}

/* --- resuming ---------------------------------------------------------------------- */

static void a_finished_run_has_nothing_left(void **state)
{
    kv_synthetic *s = kv_synthetic_new(KV_SYNTHETIC_SMALL);
    kv_diag diag = {0};
    kv_results *results;
    kv_run *run;
    kv_points *points;
    free(db_baseline(base));
    assert_int_equal(kv_results_open(base, KV_RESULTS_WRITE, &results, &diag), KV_OK);
    assert_int_equal(kv_run_begin(results, &s->info, true, &run, &diag), KV_OK);
    assert_true(kv_run_is_finished(run));
    assert_int_equal(kv_points_begin(run, &s->plan, &points, &diag), KV_OK);
    for (int e = 0; e < s->plan.examples; e++)
        assert_false(kv_points_wants(points, e));
    assert_int_equal(kv_points_finish(points, &diag), KV_OK);
    kv_points_free(points);
    kv_run_free(run);
    kv_results_close(results);
    kv_synthetic_free(s);
}

static void expect_resume_error(const kv_synthetic *s, const char *path, const char *words)
{
    kv_diag diag = {0};
    assert_int_equal(kv_synthetic_run(s, path, true, false, true, &diag), KV_ERR_INPUT);
    if (strstr(diag.text, words) == NULL)
        fail_msg("'%s' does not say '%s'", diag.text, words);
}

static void another_run_is_not_resumed(void **state)
{
    kv_synthetic *s = kv_synthetic_new(KV_SYNTHETIC_SMALL);
    const char *path = "results_kill_test_a.db", *experiment = s->info.experiment;
    db_remove(path);
    assert_true(killed_at(s, path, 5));
    s->info.experiment = "name: made-up sweep\nseed: 1\nattention:\n  traces: [other.h5]\n";
    expect_resume_error(s, path, "line 4 of the resolved text was '  traces: [made-up.h5]'");
    s->info.experiment = experiment;
    s->info.seed = 2;
    expect_resume_error(s, path, "has seed 1, not 2");
    s->info.seed = 1;
    s->info.version = "0.1";
    expect_resume_error(s, path, "by kvsim 0.0-test, this is 0.1");
    s->info.version = "0.0-test";
    s->info.shard = 1;
    s->info.shards = 2;
    expect_resume_error(s, path, "is shard 0 of 0, not 1 of 2");
    s->info.shard = s->info.shards = 0;
    s->example[3].digest = "f123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    expect_resume_error(s, path, "made-up.h5 is not the file the run was begun on");
    s->example[3].digest = s->example[0].digest;
    s->plan.examples--;
    expect_resume_error(s, path, "on 7 examples, now the traces have 6");
    s->plan.examples++;
    s->point[2].keep = 0.15;
    expect_resume_error(s, path, "as point 3");
    kv_synthetic_free(s);
}

static void a_file_holds_several_runs(void **state)
{
    kv_synthetic *s = kv_synthetic_new(KV_SYNTHETIC_SMALL);
    kv_diag diag = {0};
    free(db_baseline(base));
    const char *path = base;
    assert_int_equal(kv_synthetic_run(s, path, false, false, true, &diag), KV_OK);
    assert_close(db_number(path, "SELECT count(*) FROM run"), 2, 0);
    assert_close(db_number(path, "SELECT id FROM latest_run"), 2, 0);
    assert_close(db_number(path, "SELECT count(DISTINCT id) FROM footprint_point"), 40, 0);
    assert_close(db_number(path, "SELECT count(*) FROM footprint_point a JOIN footprint_point b ON "
                                 "b.id = a.id + 20 WHERE a.run_id = 1 AND b.run_id = 2 AND "
                                 "a.accuracy_lo = b.accuracy_lo AND a.params = b.params"),
                 20, 0);
    assert_close(db_number(path, "SELECT count(*) FROM curve WHERE run_id = 2"), 20, 0);
    kv_synthetic_free(s);
}

/* --- shards ------------------------------------------------------------------------ */

static const char *const shard_paths[] = {"results_kill_test_1.db", "results_kill_test_2.db",
                                          "results_kill_test_3.db"};

static void write_shards(kv_synthetic *s)
{
    for (int i = 0; i < 3; i++) {
        kv_diag diag = {0};
        db_remove(shard_paths[i]);
        s->info.shard = i + 1;
        s->info.shards = 3;
        assert_int_equal(kv_synthetic_run(s, shard_paths[i], false, i % 2, true, &diag), KV_OK);
    }
}

static void expect_merge_error(const char *const *paths, int count, const char *words)
{
    kv_diag diag = {0};
    assert_int_equal(kv_results_merge("results_kill_test_a.db", paths, count, false, &diag),
                     KV_ERR_INPUT);
    if (strstr(diag.text, words) == NULL)
        fail_msg("'%s' does not say '%s'", diag.text, words);
    assert_int_not_equal(access("results_kill_test_a.db", F_OK), 0);
}

static void shards_merge_into_the_same_tables(void **state)
{
    kv_synthetic *s = kv_synthetic_new(KV_SYNTHETIC_SMALL);
    kv_diag diag = {0};
    db_remove("results_kill_test_a.db");
    write_shards(s);
    assert_close(
        db_number(shard_paths[1], "SELECT count(*) FROM attention_unit WHERE number % 3 = 1"), 2,
        0);
    assert_close(db_number(shard_paths[1], "SELECT count(*) FROM footprint_point"), 0, 0);
    assert_int_equal(kv_results_merge("results_kill_test_a.db", shard_paths, 3, false, &diag),
                     KV_OK);
    assert_same_tables("results_kill_test_a.db", db_baseline(base));
    kv_synthetic_free(s);
}

static void merge_wants_every_example_once(void **state)
{
    kv_synthetic *s = kv_synthetic_new(KV_SYNTHETIC_SMALL);
    const char *twice[] = {shard_paths[0], shard_paths[1], shard_paths[2], shard_paths[1]};
    const char *whole[] = {base};
    db_remove("results_kill_test_a.db");
    write_shards(s);
    expect_merge_error(shard_paths, 2, "missing: 0002, 0005; run shard 3/3");
    expect_merge_error(twice, 4, "more than one of the files: 0001, 0004");
    free(db_baseline(base));
    expect_merge_error(whole, 1, "holds no shard");
    s->info.shard = 3;
    s->info.seed = 5;
    db_remove(shard_paths[2]);
    kv_diag diag = {0};
    assert_int_equal(kv_synthetic_run(s, shard_paths[2], false, false, true, &diag), KV_OK);
    expect_merge_error(shard_paths, 3, "has seed 5, results_kill_test_1.db has 1");
    kv_synthetic_free(s);
}

static void merge_replaces_nothing_unasked(void **state)
{
    kv_synthetic *s = kv_synthetic_new(KV_SYNTHETIC_SMALL);
    kv_diag diag = {0};
    free(db_baseline(base));
    write_shards(s);
    struct stat before, after;
    stat(base, &before);
    assert_int_equal(kv_results_merge(base, shard_paths, 3, false, &diag), KV_ERR_INPUT);
    assert_non_null(strstr(diag.text, "--force"));
    stat(base, &after);
    assert_true(before.st_ino == after.st_ino && before.st_mtime == after.st_mtime);
    kv_diag none = {0};
    assert_int_equal(kv_results_merge(base, shard_paths, 3, true, &none), KV_OK);
    assert_same_tables(base, db_baseline(base));
    kv_synthetic_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_kill_at_any_commit_loses_nothing),
        cmocka_unit_test(kill_after_kill_gets_there),
        cmocka_unit_test(a_finished_run_has_nothing_left),
        cmocka_unit_test(another_run_is_not_resumed),
        cmocka_unit_test(a_file_holds_several_runs),
        cmocka_unit_test(shards_merge_into_the_same_tables),
        cmocka_unit_test(merge_wants_every_example_once),
        cmocka_unit_test(merge_replaces_nothing_unasked),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
