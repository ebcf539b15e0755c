/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Checks the calibration on made-up measures whose accuracies follow a link that is computed here,
 * so that what must be found is known: fits, held-out predictions, what happens with few points,
 * and what reaches the results database. How good predictions are on real attention is the matter
 * of fit_test.sh. */
#include "tests/kv_test.h"

#include "analysis/calibration.h"
#include "tests/synthetic.h"

#include <gsl/gsl_errno.h>
#include <sqlite3.h>

/* --- A world in which the truth is known --------------------------------------------------------
 */

enum { POLICIES = 5, BUDGETS = 5, POINTS = 1 + POLICIES * BUDGETS, EXAMPLES = 24, TURNS = 3 };

typedef struct world {
    kv_points_plan plan;
    kv_point_info point[POINTS];
    kv_example_info example[EXAMPLES];
    kv_measurement row[4 * POINTS * (TURNS + 1)];
    kv_measurements measured;
    bool without_values, without_evidence;
    double error_of_last_policy; /* added to its accuracies */
    int reads;
} world;

static const char *const policies[POLICIES] = {"h2o", "knorm", "random", "snapkv", "tova"};

static double noise(unsigned a, unsigned b, unsigned c)
{
    unsigned h = a * 2654435761u ^ b * 2246822519u ^ (c + 77) * 3266489917u;
    h = (h ^ h >> 15) * 2246822519u;
    h = (h ^ h >> 13) * 3266489917u;
    return (double)(h >> 8) / 16777216.0;
}

/* x falls with the budget, q with the policy. */
static void truth_features(int point, int example, int turn, double *x, double *q)
{
    int policy = (point - 1) / BUDGETS, budget = (point - 1) % BUDGETS;
    double u = noise((unsigned)point, (unsigned)example, (unsigned)turn);
    *x = point == 0 ? 1 : fmin(1, 0.05 + 0.2 * budget + 0.25 * u);
    *q = point == 0 ? 1 : 1 - 0.2 * policy * (1 - 0.2 * budget) * (0.5 + 0.5 * u);
}

static double logistic(double z)
{
    return 1 / (1 + exp(-z));
}

static double truth_curve(double z, double b, double m)
{
    return (logistic(b * (z - m)) - logistic(-b * m)) / (logistic(b * (1 - m)) - logistic(-b * m));
}

static double truth_pass(double x, double q)
{
    return truth_curve(x, 9, 0.45) * truth_curve(q, 5, 0.2);
}

static kv_err read_truth(void *closure, int point, int example, kv_record *records, kv_diag *diag)
{
    world *w = closure;
    w->reads++;
    for (int t = 0; t <= w->example[example].turns; t++) {
        double x, q;
        truth_features(point, example, t, &x, &q);
        for (int m = 0; m < KV_MEASURES; m++)
            records[t].value[m] = NAN;
        records[t].value[KV_M_FOOTPRINT] = point == 0 ? 1 : 0.2 + 0.15 * ((point - 1) % BUDGETS);
        records[t].value[KV_M_RECALL] = x;
        if (!w->without_values)
            records[t].value[KV_M_OUTPUT_ERROR] = 1 - x;
        if (!w->without_evidence) {
            records[t].value[KV_M_EVIDENCE_OUTPUT] = x;
            records[t].value[KV_M_QUERY_INTACT] = q;
        }
    }
    return KV_OK;
}

/* The accuracy that the truth gives a point: mean over turns, then examples. turn 0: all. */
static double truth_accuracy(const world *w, int point, const char *task, int turn)
{
    double sum = 0;
    int count = 0;
    for (int e = 0; e < EXAMPLES; e++) {
        const kv_example_info *example = &w->example[e];
        if (strcmp(example->task, task) != 0)
            continue;
        double pass = 0;
        int first = turn ? turn : 1, last = turn ? turn : example->turns;
        for (int t = first; t <= last; t++) {
            double x, q;
            truth_features(point, e, t, &x, &q);
            pass += truth_pass(x, w->without_evidence ? 1 : q) / (last - first + 1);
        }
        sum += example->full_score * pass;
        count++;
    }
    bool last_policy = point > BUDGETS * (POLICIES - 1);
    return fmax(0, sum / count + (last_policy ? w->error_of_last_policy : 0));
}

static void add_row(world *w, int point, char *task, int turn)
{
    w->row[w->measured.count++] =
        (kv_measurement){{point}, 1, turn, truth_accuracy(w, point, task, turn), 100, task};
}

/* Examples of two tasks, a and b; nothing is measured yet. */
static world *new_world(void)
{
    world *w = calloc(1, sizeof *w);
    for (int p = 0; p < POINTS; p++)
        w->point[p] = (kv_point_info){.policy = p ? policies[(p - 1) / BUDGETS] : "full",
                                      .params_json = "{}",
                                      .curve_json = "{}",
                                      .label = "made up",
                                      .keep = NAN};
    for (int e = 0; e < EXAMPLES; e++)
        w->example[e] = (kv_example_info){.trace = "a.h5",
                                          .digest = "0",
                                          .name = "0000",
                                          .task = e % 2 ? "b" : "a",
                                          .turns = e % 2 ? 1 : TURNS,
                                          .full_score = e % 4 == 2 ? 0.75 : 1,
                                          .calibrates = true};
    w->plan = (kv_points_plan){.point = w->point,
                               .points = POINTS,
                               .example = w->example,
                               .examples = EXAMPLES,
                               .critical = {0.9, 0.95, 400}};
    w->measured.row = w->row;
    return w;
}

static kv_calibration *calibrate(world *w)
{
    kv_record_source source = {&w->plan, read_truth, w};
    kv_calibration *c = NULL;
    assert_int_equal(kv_calibration_new(&source, &w->measured, 1, &c, NULL), KV_OK);
    return c;
}

static const kv_calibration_task *task_of(const kv_calibration *c, const char *name)
{
    int tasks;
    const kv_calibration_task *task = kv_calibration_tasks(c, &tasks);
    for (int t = 0; t < tasks; t++)
        if (strcmp(task[t].name, name) == 0)
            return &task[t];
    fail_msg("no task %s", name);
    return NULL;
}

/* --- Fits ---------------------------------------------------------------------------------------
 */

static void the_truth_is_found(void **state)
{
    world *w = new_world();
    for (int p = 0; p < POINTS; p++)
        add_row(w, p, "a", 0);
    kv_calibration *c = calibrate(w);
    const kv_calibration_task *task = task_of(c, "a");
    assert_int_equal(task->kind, KV_CALIBRATION_OWN);
    assert_int_equal(task->points, POINTS - 1);
    assert_int_equal(task->policies, POLICIES);
    assert_int_equal(task->examples, EXAMPLES / 2);
    assert_int_equal(task->fit.parameters, 3);
    assert_true(task->full_measured);
    assert_close(task->full_accuracy, 0.875, 1e-12); /* half of the scores are 1, half 3/4 */
    assert_close(exp(task->fit.theta[KV_LINK_STEEPNESS]), 9, 0.02);
    assert_close(task->fit.theta[KV_LINK_MIDPOINT], 0.45, 0.005);
    assert_close(task->fit.theta[KV_LINK_QUERY_MIDPOINT], 0.2, 0.05);
    assert_true(task->fit.residual_rms < 0.002);
    assert_true(task->mae < 0.005);
    assert_true(task->coverage == 1);
    assert_int_equal(task->critical_curves, POLICIES);
    assert_int_equal(task->critical_differ, 0);
    assert_true(task->critical_mae < 0.005);
    kv_calibration_free(c);
    free(w);
}

static void every_record_is_read_once(void **state)
{
    world *w = new_world();
    for (int t = 0; t <= TURNS; t++)
        for (int p = 0; p < POINTS; p++)
            add_row(w, p, "a", t);
    kv_calibration_free(calibrate(w));
    assert_int_equal(w->reads, POINTS * EXAMPLES / 2);
    free(w);
}

/* Two points that are draws of one policy are one measured point; its measures are their means. */
static void draws_are_averaged(void **state)
{
    world *w = new_world();
    double mean = 0;
    int points;
    for (int p = 0; p < POINTS; p++)
        add_row(w, p, "b", 0);
    w->row[3].point[1] = 4; /* point 4 serves as a further draw of point 3, too */
    w->row[3].points = 2;
    kv_calibration *c = calibrate(w);
    const kv_calibration_point *point = kv_calibration_points(c, &points);
    for (int e = 1; e < EXAMPLES; e += 2)
        for (int p = 3; p <= 4; p++) {
            double x, q;
            truth_features(p, e, 1, &x, &q);
            mean += x / EXAMPLES;
        }
    assert_int_equal(points, POINTS);
    assert_int_equal(point[3].point, 3);
    assert_close(point[3].output, mean, 1e-12);
    assert_int_equal(w->reads, (POINTS + 1) * EXAMPLES / 2);
    kv_calibration_free(c);
    free(w);
}

/* A policy that does not follow the link is found out, and makes intervals wide. */
static void errors_of_a_held_out_policy(void **state)
{
    world *w = new_world();
    w->error_of_last_policy = -0.08;
    for (int p = 0; p < POINTS; p++)
        add_row(w, p, "b", 0);
    kv_calibration *c = calibrate(w);
    int points;
    const kv_calibration_point *point = kv_calibration_points(c, &points);
    const kv_calibration_task *task = task_of(c, "b");
    double bias = 0;
    int count = 0;
    assert_int_equal(points, POINTS);
    for (int i = 0; i < points; i++) {
        if (point[i].full) {
            assert_true(isnan(point[i].held_out));
            continue;
        }
        assert_true(point[i].held_out_lo <= point[i].held_out + 1e-9);
        assert_true(point[i].held_out_hi >= point[i].held_out - 1e-9);
        if (strcmp(w->point[point[i].point].policy, "tova") == 0 && point[i].accuracy > 0) {
            bias += point[i].held_out - point[i].accuracy;
            count++;
        }
    }
    assert_close(bias / count, 0.08, 0.02);
    assert_true(task->max > 0.06);
    assert_true(task->spread > 0.05);
    assert_true(task->coverage < 1);
    kv_calibration_free(c);
    free(w);
}

static void turns_are_compared_but_not_fitted(void **state)
{
    world *w = new_world();
    for (int p = 0; p < POINTS; p++) {
        add_row(w, p, "a", 0);
        add_row(w, p, "a", 2);
    }
    kv_calibration *c = calibrate(w);
    int points, fitted_to = 0;
    const kv_calibration_point *point = kv_calibration_points(c, &points);
    for (int i = 0; i < points; i++) {
        assert_true(point[i].fitted_to == (point[i].turn == 0));
        fitted_to += point[i].fitted_to;
        assert_close(point[i].fitted, point[i].accuracy, 0.01);
    }
    assert_int_equal(fitted_to, POINTS);
    assert_true(task_of(c, "a")->turn_mae < 0.01);
    assert_int_equal(task_of(c, "a")->points, POINTS - 1);
    kv_calibration_free(c);
    free(w);
}

/* Where a point has accuracies of single turns only, these are fitted. */
static void turns_alone_are_fitted(void **state)
{
    world *w = new_world();
    for (int p = 0; p < POINTS; p++)
        add_row(w, p, "a", 1 + p % TURNS);
    kv_calibration *c = calibrate(w);
    assert_int_equal(task_of(c, "a")->kind, KV_CALIBRATION_OWN);
    assert_int_equal(task_of(c, "a")->points, POINTS - 1);
    assert_true(task_of(c, "a")->fit.residual_rms < 0.002);
    kv_calibration_free(c);
    free(w);
}

static void few_points_share_a_fit(void **state)
{
    world *w = new_world();
    for (int p = 0; p < POINTS; p++)
        add_row(w, p, "a", 0);
    for (int p = 0; p < 4; p++) /* full and three budgets of one policy */
        add_row(w, p, "b", 0);
    kv_calibration *c = calibrate(w);
    assert_int_equal(task_of(c, "a")->kind, KV_CALIBRATION_OWN);
    assert_int_equal(task_of(c, "b")->kind, KV_CALIBRATION_SHARED);
    assert_int_equal(task_of(c, "b")->points, POINTS - 1 + 3);
    assert_true(task_of(c, "b")->mae < 0.01);
    kv_calibration_free(c);
    free(w);
}

static void too_few_points_are_not_fitted(void **state)
{
    static const int rows[][4] = {{1, 2, 3, 4}, {1, 6, 11, 16}, {0, 0, 0, 0}};
    for (size_t k = 0; k < sizeof rows / sizeof rows[0]; k++) {
        world *w = new_world();
        for (int i = 0; i < 4 && (i == 0 || rows[k][i] > 0); i++)
            add_row(w, rows[k][i], "a", 0);
        kv_calibration *c = calibrate(w);
        assert_int_equal(task_of(c, "a")->kind, KV_CALIBRATION_NONE);
        assert_true(isnan(task_of(c, "a")->mae));
        kv_calibration_free(c);
        free(w);
    }
}

/* Six points of two policies are enough, but not if they all say the same. */
static void equal_accuracies_are_not_fitted(void **state)
{
    for (int same = 0; same < 2; same++) {
        world *w = new_world();
        for (int p = 1; p <= 8; p++) {
            add_row(w, p, "a", 0);
            if (same)
                w->row[w->measured.count - 1].accuracy = 0.5;
        }
        kv_calibration *c = calibrate(w);
        assert_int_equal(task_of(c, "a")->kind, same ? KV_CALIBRATION_NONE : KV_CALIBRATION_OWN);
        kv_calibration_free(c);
        free(w);
    }
}

static void without_values_there_is_a_guess(void **state)
{
    world *w = new_world();
    w->without_values = true;
    for (int p = 0; p < POINTS; p++)
        add_row(w, p, "a", 0);
    kv_calibration *c = calibrate(w);
    assert_int_equal(task_of(c, "a")->fit.parameters, 4);
    assert_true(task_of(c, "a")->mae < 0.03);
    kv_calibration_free(c);
    free(w);
}

/* Without evidence what is left of all outputs is all that is known. */
static void without_evidence_outputs_serve(void **state)
{
    world *w = new_world();
    w->without_evidence = true;
    for (int p = 0; p < POINTS; p++)
        add_row(w, p, "b", 0);
    for (int p = 0; p < 3; p++)
        add_row(w, p, "a", 0);
    kv_calibration *c = calibrate(w);
    assert_int_equal(task_of(c, "b")->kind, KV_CALIBRATION_OWN);
    assert_true(task_of(c, "b")->mae < 0.01);
    assert_int_equal(task_of(c, "a")->kind, KV_CALIBRATION_NONE); /* shares with nobody */
    kv_calibration_free(c);
    free(w);
}

static void other_examples_do_not_calibrate(void **state)
{
    world *w = new_world();
    for (int p = 0; p < POINTS; p++)
        add_row(w, p, "a", 0);
    for (int e = 12; e < EXAMPLES; e++)
        w->example[e].calibrates = false;
    kv_calibration *c = calibrate(w);
    assert_int_equal(task_of(c, "a")->examples, 6);
    assert_int_equal(w->reads, POINTS * 6);
    kv_calibration_free(c);
    w->reads = 0;
    for (int e = 0; e < EXAMPLES; e++)
        w->example[e].calibrates = false;
    c = calibrate(w);
    int tasks, points;
    kv_calibration_tasks(c, &tasks);
    kv_calibration_points(c, &points);
    assert_int_equal(tasks, 0);
    assert_int_equal(points, 0);
    assert_int_equal(w->reads, 0);
    kv_calibration_free(c);
    free(w);
}

/* Full scores move to the measured accuracy and stay within 0 and 1. */
static void full_scores_are_corrected(void **state)
{
    kv_calibration_task task = {.mean_score = 0.8, .full_accuracy = 0.6};
    assert_close(kv_calibration_full(&task, 1), 0.75, 1e-15);
    assert_close(kv_calibration_full(&task, 0.4), 0.3, 1e-15);
    task.full_accuracy = 0.9; /* half of what was wrong is right */
    assert_close(kv_calibration_full(&task, 1), 1, 1e-15);
    assert_close(kv_calibration_full(&task, 0), 0.5, 1e-15);
    task.full_accuracy = task.mean_score = 1;
    assert_close(kv_calibration_full(&task, 1), 1, 1e-15);
    task.full_accuracy = task.mean_score = 0;
    assert_close(kv_calibration_full(&task, 0), 0, 1e-15);
    task.full_accuracy = 0.8; /* 0.8 sqrt(0.25 + 0.005) at half of it */
    assert_close(kv_calibration_scale(&task, 0.4), 0.403980197534483, 1e-12);
    assert_close(kv_calibration_scale(&task, 0.8), 0.0565685424949238, 1e-12);
}

static void the_same_twice(void **state)
{
    world *w = new_world();
    int points;
    w->error_of_last_policy = -0.05;
    for (int p = 0; p < POINTS; p++)
        for (int t = 0; t <= TURNS; t++)
            add_row(w, p, "a", t);
    kv_calibration *c = calibrate(w);
    for (int i = 0, j = w->measured.count - 1; i < j; i++, j--) {
        kv_measurement row = w->row[i];
        w->row[i] = w->row[j];
        w->row[j] = row;
    }
    kv_calibration *again = calibrate(w);
    assert_memory_equal(task_of(c, "a"), task_of(again, "a"), sizeof(kv_calibration_task));
    const kv_calibration_point *point = kv_calibration_points(c, &points);
    assert_memory_equal(point, kv_calibration_points(again, &points),
                        (size_t)points * sizeof *point);
    kv_calibration_free(c);
    kv_calibration_free(again);
    free(w);
}

/* --- Results ------------------------------------------------------------------------------------
 */

static sqlite3 *open_results(const char *path)
{
    sqlite3 *db;
    assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
    return db;
}

static double number(sqlite3 *db, const char *sql)
{
    sqlite3_stmt *row;
    assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &row, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(row), SQLITE_ROW);
    double value = sqlite3_column_type(row, 0) == SQLITE_NULL ? NAN : sqlite3_column_double(row, 0);
    sqlite3_finalize(row);
    return value;
}

/* Measures a made-up sweep: every point of three policies on task kv_recall by the truth above, two
 * points of kv_multiturn's and none of the other tasks'. */
static kv_synthetic *measured_sweep(char **spec)
{
    kv_synthetic *s = kv_synthetic_new(KV_SYNTHETIC_LARGE);
    size_t bytes;
    FILE *out = open_memstream(spec, &bytes);
    for (int e = 0; e < s->plan.examples; e++)
        s->example[e].calibrates = true;
    for (int p = 0; p < s->plan.points; p++) {
        double sum = 0;
        int count = 0;
        if (strcmp(s->point[p].policy, "h2o") == 0 || strcmp(s->point[p].policy, "keydiff") == 0)
            continue;
        for (int e = 0; e < s->plan.examples; e++) {
            if (strcmp(s->example[e].task, "kv_recall") != 0)
                continue;
            kv_record *records = kv_synthetic_records(s, e);
            const double *value = records[p * 2 + 1].value;
            sum += s->example[e].full_score *
                   truth_pass(value[KV_M_EVIDENCE_OUTPUT], value[KV_M_QUERY_INTACT]);
            count++;
            free(records);
        }
        fprintf(out, "%d,0,%.17g,160,kv_recall\n", p, sum / count);
    }
    fprintf(out, "1,0,0.3,160,lm\n2,0,0.4,160,lm\n");
    fclose(out);
    s->plan.accuracy_model = "calibrated";
    s->plan.accuracy_spec = *spec;
    return s;
}

static void run_sweep(const kv_synthetic *s, const char *path, bool reverse)
{
    kv_diag diag = {0};
    remove(path);
    if (kv_synthetic_run(s, path, false, reverse, false, &diag) != KV_OK)
        fail_msg("%s", diag.text);
}

static void sources_are_labelled(void **state)
{
    char *spec;
    kv_synthetic *s = measured_sweep(&spec);
    run_sweep(s, "calibration_test.db", false);
    sqlite3 *db = open_results("calibration_test.db");
    /* 14 points of h2o and keydiff are predicted, the other 64 were measured. */
    assert_close(number(db, "SELECT count(*) FROM footprint_point WHERE task = 'kv_recall' AND "
                            "accuracy_source = 'calibrated' AND policy IN ('h2o', 'keydiff')"),
                 14, 0);
    assert_close(number(db, "SELECT count(*) FROM footprint_point WHERE task = 'kv_recall' AND "
                            "accuracy_source = 'measured'"),
                 64, 0);
    /* lm has two measured points, too few; icl and kv_multiturn have none. */
    assert_close(number(db, "SELECT count(*) FROM footprint_point WHERE task = 'lm' AND "
                            "accuracy_source = 'measured'"),
                 2, 0);
    assert_close(number(db, "SELECT count(*) FROM footprint_point WHERE task <> 'kv_recall' AND "
                            "accuracy_source = 'calibrated'"),
                 0, 0);
    assert_close(number(db, "SELECT count(*) FROM critical_footprint WHERE task = 'icl' AND "
                            "accuracy_source <> 'proxy'"),
                 0, 0);
    assert_close(number(db, "SELECT count(*) FROM footprint_point WHERE accuracy_source <> "
                            "'measured' AND (accuracy_lo > accuracy OR accuracy_hi < accuracy OR "
                            "accuracy_lo < 0 OR accuracy_hi > 1)"),
                 0, 0);
    assert_close(number(db, "SELECT fit = 'own' FROM calibration WHERE task = 'kv_recall'"), 1, 0);
    assert_close(number(db, "SELECT fit = 'none' AND steepness IS NULL FROM calibration "
                            "WHERE task = 'lm'"),
                 1, 0);
    assert_close(number(db, "SELECT count(*) FROM calibration_point WHERE task = 'kv_recall'"), 64,
                 0);
    assert_close(number(db, "SELECT abs(b.midpoint - 0.45) < 0.02 FROM calibration b "
                            "WHERE task = 'kv_recall'"),
                 1, 0);
    assert_close(number(db, "SELECT count(*) FROM calibration_policy WHERE task = 'kv_recall'"), 3,
                 0);
    assert_close(number(db, "SELECT count(*) FROM warning WHERE text LIKE 'icl: accuracy is a "
                            "proxy%' OR text LIKE 'lm: accuracy is a proxy%'"),
                 2, 0);
    sqlite3_close(db);
    kv_synthetic_free(s);
    free(spec);
}

/* Predictions of policies that were not measured, against the truth. */
static void predictions_are_right(void **state)
{
    char *spec;
    kv_synthetic *s = measured_sweep(&spec);
    run_sweep(s, "calibration_test.db", false);
    sqlite3 *db = open_results("calibration_test.db");
    for (int p = 0; p < s->plan.points; p++) {
        char sql[256];
        double sum = 0;
        int count = 0;
        if (strcmp(s->point[p].policy, "h2o") != 0)
            continue;
        for (int e = 0; e < s->plan.examples; e++) {
            if (strcmp(s->example[e].task, "kv_recall") != 0)
                continue;
            kv_record *records = kv_synthetic_records(s, e);
            const double *value = records[p * 2 + 1].value;
            sum += s->example[e].full_score *
                   truth_pass(value[KV_M_EVIDENCE_OUTPUT], value[KV_M_QUERY_INTACT]);
            count++;
            free(records);
        }
        snprintf(sql, sizeof sql,
                 "SELECT accuracy FROM footprint_point WHERE task = 'kv_recall' AND policy = 'h2o' "
                 "AND keep = %g",
                 s->point[p].keep);
        assert_close(number(db, sql), sum / count, 0.005);
    }
    sqlite3_close(db);
    kv_synthetic_free(s);
    free(spec);
}

static void order_of_arrival_does_not_matter(void **state)
{
    static const char *const totals[] = {
        "SELECT total(accuracy) + total(accuracy_lo) + total(accuracy_hi) FROM footprint_point",
        "SELECT total(kv_footprint) + total(lo) + total(hi) FROM critical_footprint",
        "SELECT total(held_out_lo) + total(held_out_hi) FROM calibration_point",
        "SELECT total(steepness) + total(coverage) FROM calibration"};
    char *spec;
    kv_synthetic *s = measured_sweep(&spec);
    run_sweep(s, "calibration_test.db", false);
    run_sweep(s, "calibration_test_b.db", true);
    sqlite3 *a = open_results("calibration_test.db"), *b = open_results("calibration_test_b.db");
    for (size_t i = 0; i < sizeof totals / sizeof totals[0]; i++)
        assert_true(number(a, totals[i]) == number(b, totals[i]));
    sqlite3_close(a);
    sqlite3_close(b);
    kv_synthetic_free(s);
    free(spec);
}

static void extrapolation_is_told(void **state)
{
    char *spec;
    kv_synthetic *s = measured_sweep(&spec);
    char *few = spec; /* without the points that lost most: 8 points of keep 0.5 and 0.9 */
    char kept[4096] = "";
    for (char *line = strtok(few, "\n"); line != NULL; line = strtok(NULL, "\n"))
        if (strstr(line, "kv_recall") && (s->point[atoi(line)].keep >= 0.5 || atoi(line) == 0))
            snprintf(kept + strlen(kept), sizeof kept - strlen(kept), "%s\n", line);
    s->plan.accuracy_spec = kept;
    run_sweep(s, "calibration_test.db", false);
    sqlite3 *db = open_results("calibration_test.db");
    assert_close(number(db, "SELECT count(*) FROM warning WHERE text LIKE 'kv_recall: % points of "
                            "h2o lie outside what was measured%'"),
                 1, 0);
    sqlite3_close(db);
    kv_synthetic_free(s);
    free(spec);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_truth_is_found),
        cmocka_unit_test(every_record_is_read_once),
        cmocka_unit_test(draws_are_averaged),
        cmocka_unit_test(errors_of_a_held_out_policy),
        cmocka_unit_test(turns_are_compared_but_not_fitted),
        cmocka_unit_test(turns_alone_are_fitted),
        cmocka_unit_test(few_points_share_a_fit),
        cmocka_unit_test(too_few_points_are_not_fitted),
        cmocka_unit_test(equal_accuracies_are_not_fitted),
        cmocka_unit_test(without_values_there_is_a_guess),
        cmocka_unit_test(without_evidence_outputs_serve),
        cmocka_unit_test(other_examples_do_not_calibrate),
        cmocka_unit_test(full_scores_are_corrected),
        cmocka_unit_test(the_same_twice),
        cmocka_unit_test(sources_are_labelled),
        cmocka_unit_test(predictions_are_right),
        cmocka_unit_test(order_of_arrival_does_not_matter),
        cmocka_unit_test(extrapolation_is_told),
    };
    gsl_set_error_handler_off();
    return cmocka_run_group_tests_name("calibration", tests, NULL, NULL);
}
