/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Checks that the result tables depend on the sweep alone, not on order or threads, and that
 * averages are what SQL says they are. Expected values come from SQLite's own avg() and from the
 * formulas of synthetic.c. */
#include "tests/kv_test.h"
#include "tests/results_dump.h"
#include "tests/synthetic.h"

#include "analysis/schema.h"

#include <pthread.h>
#include <unistd.h>

static const char base[] = "results_test_base.db";

/* --- tests ------------------------------------------------------------------------- */

static void a_new_file_says_what_it_is(void **state)
{
    free(db_baseline(base));
    const char *path = base;
    assert_close(db_number(path, "PRAGMA application_id"), KV_SCHEMA_APPLICATION, 0);
    assert_close(db_number(path, "PRAGMA user_version"), KV_SCHEMA_VERSION, 0);
    assert_close(db_number(path, "SELECT journal_mode = 'wal' FROM pragma_journal_mode"), 1, 0);
    assert_close(db_number(path, "SELECT count(*) FROM pragma_foreign_key_check"), 0, 0);
    assert_close(db_number(path, "SELECT integrity_check = 'ok' FROM pragma_integrity_check"), 1,
                 0);
    assert_close(db_number(path, "SELECT finished_at IS NOT NULL AND wall_seconds >= 0 FROM run"),
                 1, 0);
    assert_int_not_equal(access("results_test_base.db-wal", F_OK), 0);
}

static void work_tables_are_dropped(void **state)
{
    free(db_baseline(base));
    const char *path = base;
    assert_close(db_number(path, "SELECT count(*) FROM attention_unit"), 0, 0);
    assert_close(db_number(path, "SELECT count(*) FROM attention_set"), 0, 0);
    assert_close(db_number(path, "SELECT count(*) FROM attention_point"), 0, 0);
    assert_close(db_number(path, "PRAGMA freelist_count"), 0, 0);
}

static void averages_are_means_of_ratios(void **state)
{
    free(db_baseline(base));
    const char *path = base;
    /* 5 points on kv_multiturn (all, turn 1, turn 2) and kv_recall (all only). */
    assert_close(db_number(path, "SELECT count(*) FROM footprint_point"), 5 * 3 + 5, 0);
    assert_close(db_number(path, "SELECT count(*) FROM example_point"), 5 * 3 * 3 + 5 * 4, 0);
    for (int m = 0; m < KV_MEASURES; m++) {
        char sql[512];
        const char *name = kv_measure_get((kv_measure)m)->name;
        snprintf(sql, sizeof sql,
                 "SELECT max(abs(p.%s - (SELECT avg(%s) FROM example_point WHERE point_id = "
                 "p.id)) / max(1, p.%s)) FROM footprint_point p",
                 name, name, name);
        assert_true(db_number(path, sql) < 1e-12);
    }
    assert_close(db_number(path, "SELECT count(*) FROM footprint_point p WHERE n_examples <> "
                                 "(SELECT count(*) FROM example_point WHERE point_id = p.id)"),
                 0, 0);
    assert_close(db_number(path, "SELECT max(abs(p.accuracy - (SELECT avg(accuracy) FROM "
                                 "example_point WHERE point_id = p.id))) < 1e-12 "
                                 "FROM footprint_point p"),
                 1, 0);
}

/* docs/calibration.md: n(z; b, m), written down once more. */
static double link_curve(double z, double b, double m)
{
    double low = 1 / (1 + exp(b * m)), high = 1 / (1 + exp(-b * (1 - m)));
    double n = (1 / (1 + exp(-b * (z - m))) - low) / (high - low);
    return n < 0 ? 0 : n > 1 ? 1 : n;
}

/* full_score n(x; e^2.332, 0.383) n(q; 5, -0.357), turn by turn. */
static void the_proxy_follows_its_rule(void **state)
{
    kv_synthetic *s = kv_synthetic_new(KV_SYNTHETIC_SMALL);
    free(db_baseline(base));
    kv_record *records = kv_synthetic_records(s, 0);
    int slots = s->example[0].turns + 1, p = 2;
    double sum = 0;
    for (int t = 1; t < slots; t++) {
        const double *value = records[p * slots + t].value;
        sum += link_curve(value[KV_M_EVIDENCE_OUTPUT], exp(2.332), 0.383) *
               link_curve(value[KV_M_QUERY_INTACT], 5, -0.357);
    }
    double want = s->example[0].full_score * sum / s->example[0].turns;
    assert_close(db_number(base,
                           "SELECT e.accuracy FROM example_point e JOIN footprint_point p "
                           "ON p.id = e.point_id WHERE e.example = '0000' AND p.turn IS NULL AND "
                           "p.keep = 0.1"),
                 want, 1e-12);
    free(records);
    kv_synthetic_free(s);
    assert_close(
        db_number(base, "SELECT count(*) FROM footprint_point WHERE accuracy_source <> 'proxy' OR "
                        "NOT (accuracy_lo <= accuracy AND accuracy <= accuracy_hi)"),
        0, 0);
}

static void points_are_labelled(void **state)
{
    free(db_baseline(base));
    const char *path = base;
    assert_close(db_number(path, "SELECT count(*) FROM footprint_point WHERE policy = 'full' AND "
                                 "(chunk_size IS NOT NULL OR keep IS NOT NULL)"),
                 0, 0);
    assert_close(db_number(path, "SELECT count(*) FROM footprint_point WHERE policy = 'snapkv' AND "
                                 "chunk_size = 64 AND json_extract(params, '$.keep') = keep AND "
                                 "json_extract(curve, '$.keep') IS NULL"),
                 4 * 4, 0);
    assert_close(db_number(path, "SELECT min(id) = 1 AND max(id) = count(*) FROM footprint_point"),
                 1, 0);
    assert_close(db_number(path, "SELECT count(*) FROM critical_footprint"), 2 * (3 + 1), 0);
}

static void retained_sets_are_json(void **state)
{
    free(db_baseline(base));
    const char *path = base;
    /* Two heads of points 0 and 1 for each of 7 examples; of length (e + i) % 5. */
    assert_close(db_number(path, "SELECT count(*) FROM retained_set"), 7 * 4, 0);
    assert_close(db_number(path,
                           "SELECT positions = '[0,1,5]' FROM retained_set r JOIN "
                           "footprint_point p ON p.id = r.point_id WHERE example = '0003' AND "
                           "policy = 'snapkv' AND keep = 0.05 AND kv_head = 1"),
                 1, 0);
    assert_close(
        db_number(path, "SELECT count(*) FROM retained_set WHERE NOT json_valid(positions)"), 0, 0);
    assert_close(db_number(path, "SELECT count(*) FROM retained_set r JOIN footprint_point p ON "
                                 "p.id = r.point_id WHERE p.turn IS NOT NULL"),
                 0, 0);
}

static void order_of_arrival_does_not_matter(void **state)
{
    kv_synthetic *s = kv_synthetic_new(KV_SYNTHETIC_SMALL);
    kv_diag diag = {0};
    db_remove("results_test_a.db");
    assert_int_equal(kv_synthetic_run(s, "results_test_a.db", false, true, true, &diag), KV_OK);
    assert_same_tables("results_test_a.db", db_baseline(base));
    kv_synthetic_free(s);
}

/* --- threads ----------------------------------------------------------------------- */

typedef struct worker {
    const kv_synthetic *synthetic;
    kv_points *points;
    int first, step;
} worker;

static void *work(void *closure)
{
    worker *w = closure;
    kv_diag diag = {0};
    for (int e = w->first; e < w->synthetic->plan.examples; e += w->step) {
        kv_record *records = kv_synthetic_records(w->synthetic, e);
        kv_err err = kv_points_put(w->points, e, records, NULL, 0, &diag);
        free(records);
        if (err != KV_OK)
            return w;
    }
    return NULL;
}

static void threads_do_not_matter(void **state)
{
    kv_synthetic *s = kv_synthetic_new(KV_SYNTHETIC_LARGE);
    kv_diag diag = {0};
    kv_results *results;
    kv_run *run;
    kv_points *points;
    pthread_t thread[4];
    worker workers[4];
    s->plan.critical.resamples = 20;
    db_remove("results_test_a.db");
    db_remove("results_test_b.db");
    assert_int_equal(kv_results_open("results_test_a.db", KV_RESULTS_WRITE, &results, &diag),
                     KV_OK);
    assert_int_equal(kv_run_begin(results, &s->info, false, &run, &diag), KV_OK);
    assert_int_equal(kv_points_begin(run, &s->plan, &points, &diag), KV_OK);
    for (int i = 0; i < 4; i++) {
        workers[i] = (worker){s, points, i, 4};
        assert_int_equal(pthread_create(&thread[i], NULL, work, &workers[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        void *failed;
        pthread_join(thread[i], &failed);
        assert_null(failed);
    }
    assert_int_equal(kv_points_finish(points, &diag), KV_OK);
    assert_int_equal(kv_run_finish(run, &diag), KV_OK);
    kv_points_free(points);
    kv_run_free(run);
    kv_results_close(results);
    assert_int_equal(kv_synthetic_run(s, "results_test_b.db", false, false, false, &diag), KV_OK);
    assert_same_tables("results_test_a.db", db_dump("results_test_b.db"));
    kv_synthetic_free(s);
}

/* --- measured accuracy ------------------------------------------------------------- */

static void measured_points_are_taken_as_they_are(void **state)
{
    kv_synthetic *s = kv_synthetic_new(KV_SYNTHETIC_SMALL);
    const char *path = "results_test_a.db";
    kv_diag diag = {0};
    db_remove(path);
    s->plan.accuracy_model = "measured";
    /* full 0.8; snapkv at keep 0.05 to 0.3: 0.1, 0.5, 0.74 (without n), 0.79. */
    s->plan.accuracy_spec = "0,0,0.8,100,kv_recall\n1,0,0.1,100,kv_recall\n2,0,0.5,100,kv_recall\n"
                            "3,0,0.74,0,kv_recall\n4,0,0.79,100,kv_recall\n";
    assert_int_equal(kv_synthetic_run(s, path, false, false, false, &diag), KV_OK);
    assert_close(db_number(path, "SELECT count(*) FROM footprint_point WHERE accuracy IS NOT NULL"),
                 5, 0);
    assert_close(db_number(path, "SELECT count(*) FROM footprint_point WHERE accuracy_source <> "
                                 "'measured'"),
                 0, 0);
    /* The binomial with n = 100, p = 0.5 has its 2.5 % and 97.5 % points at 0.40 and 0.60. */
    assert_close(db_number(path,
                           "SELECT abs(accuracy_lo - 0.4) < 0.021 AND abs(accuracy_hi - 0.6) < "
                           "0.021 FROM footprint_point WHERE accuracy = 0.5"),
                 1, 0);
    assert_close(db_number(path, "SELECT accuracy_lo IS NULL AND accuracy_hi IS NULL FROM "
                                 "footprint_point WHERE accuracy = 0.74"),
                 1, 0);
    /* Target 0.9 x 0.8 = 0.72 lies between 0.5 and 0.74: 22/24 of the way. */
    double a = db_number(path, "SELECT kv_footprint FROM footprint_point WHERE accuracy = 0.5");
    double b = db_number(path, "SELECT kv_footprint FROM footprint_point WHERE accuracy = 0.74");
    assert_close(db_number(path,
                           "SELECT kv_footprint FROM critical_footprint WHERE policy = 'snapkv' "
                           "AND status = 'ok'"),
                 a + 22.0 / 24.0 * (b - a), 1e-12);
    kv_synthetic_free(s);
}

static void malformed_measurements_are_refused(void **state)
{
    kv_synthetic *s = kv_synthetic_new(KV_SYNTHETIC_SMALL);
    kv_diag diag = {0};
    db_remove("results_test_a.db");
    s->plan.accuracy_model = "measured";
    s->plan.accuracy_spec = "0,0,0.8,100,kv_recall\n1,0,x,kv_recall\n";
    assert_int_equal(kv_synthetic_run(s, "results_test_a.db", false, false, false, &diag),
                     KV_ERR_INPUT);
    kv_diag unknown = {0};
    s->plan.accuracy_model = "guess";
    assert_int_equal(kv_synthetic_run(s, "results_test_b.db", false, false, false, &unknown),
                     KV_ERR_INPUT);
    kv_synthetic_free(s);
}

static void calibration_only_is_in_no_table(void **state)
{
    kv_synthetic *s = kv_synthetic_new(KV_SYNTHETIC_SMALL);
    const char *path = "results_test_a.db";
    kv_diag diag = {0};
    db_remove(path);
    s->point[2].calibration_only = true;
    s->example[1].calibration_only = true; /* of kv_multiturn */
    s->point[3].task = "kv_recall";
    assert_int_equal(kv_synthetic_run(s, path, false, false, true, &diag), KV_OK);
    assert_close(db_number(path, "SELECT count(*) FROM footprint_point"), 4 * 1 + 3 * 3, 0);
    assert_close(db_number(path, "SELECT count(*) FROM example_point WHERE example = '0001'"), 0,
                 0);
    assert_close(db_number(path, "SELECT count(*) FROM footprint_point WHERE task = 'kv_multiturn' "
                                 "AND n_examples <> 2"),
                 0, 0);
    kv_synthetic_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_new_file_says_what_it_is),
        cmocka_unit_test(work_tables_are_dropped),
        cmocka_unit_test(averages_are_means_of_ratios),
        cmocka_unit_test(the_proxy_follows_its_rule),
        cmocka_unit_test(points_are_labelled),
        cmocka_unit_test(retained_sets_are_json),
        cmocka_unit_test(order_of_arrival_does_not_matter),
        cmocka_unit_test(threads_do_not_matter),
        cmocka_unit_test(measured_points_are_taken_as_they_are),
        cmocka_unit_test(malformed_measurements_are_refused),
        cmocka_unit_test(calibration_only_is_in_no_table),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
