/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Checks the link from measures to accuracy: its values against hand-worked ones, its derivatives
 * against differences, and its fit against SciPy and against parameters that are known. */
#include "tests/kv_test.h"

#include "analysis/link.h"

#include <gsl/gsl_errno.h>

enum { ROWS = 24, EXAMPLES = 8 };

/* Measured accuracies (a part of those of a small model on kv_recall) and x and q of 8 examples,
 * rounded. */
static const double accuracies[ROWS] = {0.706, 0.706, 0.969, 0.494, 0.769, 0.975, 0.525, 0.975,
                                        0.412, 0.544, 0.1,   0.112, 0.125, 0.094, 0.012, 0.069,
                                        0,     0,     0,     0.1,   0.006, 0.312, 0.669, 0.006};
static const double features[ROWS][EXAMPLES][2] = {
    {{0.999, 0.995},
     {0.994, 0.864},
     {0.01, 0.994},
     {0.991, 0.997},
     {0.022, 0.992},
     {0.004, 0.994},
     {0.999, 0.942},
     {0.981, 0.995}},
    {{0.998, 0.994},
     {0.993, 0.864},
     {0.01, 0.981},
     {0.99, 0.996},
     {0.021, 0.984},
     {0.004, 0.994},
     {0.999, 0.942},
     {0.98, 0.995}},
    {{0.787, 0.989},
     {0.962, 0.868},
     {0.826, 0.966},
     {0.63, 0.998},
     {0.793, 0.986},
     {0.78, 0.999},
     {0.774, 0.943},
     {0.745, 0.997}},
    {{0.589, 0.987},
     {0.979, 0.866},
     {0.996, 0.976},
     {0.249, 0.983},
     {0.358, 0.987},
     {0.044, 0.985},
     {0.002, 0.94},
     {0.813, 0.991}},
    {{0.997, 0.998},
     {0.981, 0.997},
     {0.998, 0.978},
     {0.022, 0.987},
     {0.554, 0.996},
     {0.991, 0.997},
     {0.607, 0.998},
     {0.815, 0.996}},
    {{1, 1}, {1, 1}, {1, 1}, {1, 1}, {1, 1}, {1, 1}, {1, 1}, {1, 1}},
    {{0.43, 0.992},
     {0.978, 0.994},
     {0.993, 0.975},
     {0.453, 0.984},
     {0.009, 0.948},
     {0.978, 0.975},
     {0.002, 0.979},
     {0.814, 0.887}},
    {{1, 1}, {1, 1}, {1, 1}, {1, 1}, {1, 1}, {1, 1}, {1, 1}, {1, 1}},
    {{0.994, 0.993},
     {0.195, 0.863},
     {0.996, 0.779},
     {0.423, 0.985},
     {0.514, 0.993},
     {0.06, 0.992},
     {0.268, 0.993},
     {0.185, 0.788}},
    {{0.995, 0.993},
     {0.557, 0.991},
     {0.996, 0.995},
     {0.424, 0.986},
     {0.553, 0.994},
     {0.612, 0.995},
     {0.997, 0.994},
     {0.186, 0.99}},
    {{0.001, 0.984},
     {0.555, 0.858},
     {0.003, 0.956},
     {0.009, 0.979},
     {0, 0.936},
     {0.002, 0.971},
     {0.001, 0.936},
     {0.185, 0.883}},
    {{0.001, 0.984},
     {0.557, 0.858},
     {0.003, 0.956},
     {0.013, 0.98},
     {0.001, 0.936},
     {0.002, 0.985},
     {0.001, 0.936},
     {0.185, 0.883}},
    {{0.003, 0.984},
     {0.559, 0.859},
     {0.002, 0.957},
     {0.006, 0.982},
     {0.001, 0.937},
     {0.002, 0.985},
     {0.001, 0.938},
     {0.186, 0.985}},
    {{0.003, 0.994},
     {0.963, 0.993},
     {0.4, 0.965},
     {0.253, 0.992},
     {0.045, 0.985},
     {0.021, 0.974},
     {0.078, 0.996},
     {0.002, 0.885}},
    {{0.013, 0.247},
     {0.001, 0.036},
     {0.013, 0.736},
     {0.004, 0.242},
     {0.001, 0.247},
     {0.006, 0.128},
     {0.001, 0.681},
     {0.002, 0.448}},
    {{0.038, 0.466},
     {0.003, 0.713},
     {0.008, 0.738},
     {0.005, 0.485},
     {0.03, 0.505},
     {0.035, 0.765},
     {0.058, 0.682},
     {0.001, 0.717}},
    {{0, 0.247},
     {0.001, 0.035},
     {0.003, 0.002},
     {0, 0.004},
     {0, 0.002},
     {0.002, 0.128},
     {0.001, 0.126},
     {0.002, 0.25}},
    {{0.004, 0.247},
     {0.001, 0.036},
     {0.003, 0.217},
     {0, 0.242},
     {0.005, 0.247},
     {0.002, 0.128},
     {0.001, 0.371},
     {0.009, 0.25}},
    {{0.004, 0.247},
     {0.001, 0.036},
     {0.003, 0.48},
     {0.005, 0.242},
     {0.001, 0.247},
     {0.003, 0.332},
     {0.005, 0.681},
     {0.001, 0.448}},
    {{0.048, 0.27},
     {0.194, 0.158},
     {0.392, 0.475},
     {0.152, 0.249},
     {0.002, 0.003},
     {0.134, 0.344},
     {0.001, 0.128},
     {0.001, 0.521}},
    {{0.005, 0.004},
     {0.025, 0.029},
     {0.002, 0.258},
     {0.008, 0.004},
     {0, 0.489},
     {0.002, 0.135},
     {0.001, 0.126},
     {0, 0.008}},
    {{0.647, 0.226},
     {0.976, 0.72},
     {0.007, 0.257},
     {0.425, 0.506},
     {0.138, 0.251},
     {0.771, 0.352},
     {0.241, 0.188},
     {0.408, 0.527}},
    {{0.408, 0.736},
     {0.991, 0.711},
     {0.526, 0.78},
     {0.305, 0.254},
     {0.559, 0.992},
     {0.302, 0.782},
     {0.782, 0.942},
     {0.999, 0.796}},
    {{0.01, 0.004},
     {0.185, 0.307},
     {0, 0.004},
     {0.002, 0.004},
     {0.016, 0.259},
     {0.107, 0.346},
     {0.001, 0.127},
     {0.033, 0.01}},
};

/* A link with b = 2 ln 3, m = 1/2: s(-b m) = 1/4 and s(b (1 - m)) = 3/4. */
static kv_link by_hand(void)
{
    double theta[KV_LINK_PARAMETERS] = {log(2 * log(3)), 0.5, 1.0, 0};
    kv_link link;
    kv_link_init(&link, theta, 3);
    return link;
}

static void values_worked_by_hand(void **state)
{
    kv_link link = by_hand();
    assert_close(kv_link_pass(&link, 0, 1, NULL), 0, 1e-15);
    assert_close(kv_link_pass(&link, 1, 1, NULL), 1, 1e-15);
    assert_close(kv_link_pass(&link, 1, 0, NULL), 0, 1e-15);
    assert_close(kv_link_pass(&link, 0.5, 1, NULL), 0.5, 1e-15);
    /* s(ln 3 / 2) = sqrt 3 / (1 + sqrt 3), so n(3/4) = 2 (0.633974596 - 1/4). */
    assert_close(kv_link_pass(&link, 0.75, 1, NULL), 0.767949192431123, 1e-14);
    /* t = 1: n(q; 5, 1) = (s(5 (q - 1)) - s(-5)) / (1/2 - s(-5)); s(-2.5) = 0.0758581800212435,
     * s(-5) = 0.00669285092428486. */
    assert_close(kv_link_pass(&link, 1, 0.5, NULL), 0.1402074331, 1e-9);
}

static void a_guess_lifts_the_lowest(void **state)
{
    double theta[KV_LINK_PARAMETERS] = {2, 0.4, 0, 0}; /* g = 1/2 */
    kv_link link;
    kv_link_init(&link, theta, 4);
    assert_close(kv_link_pass(&link, 0, 1, NULL), 0.5, 1e-15);
    assert_close(kv_link_pass(&link, 1, 1, NULL), 1, 1e-15);
    kv_link_init(&link, theta, 3);
    assert_close(kv_link_pass(&link, 0, 1, NULL), 0, 1e-15);
}

static void derivatives_are_differences(void **state)
{
    static const double step = 1e-6;
    const double theta[KV_LINK_PARAMETERS] = {2.1, 0.37, -0.42, -1.3};
    double gradient[KV_LINK_PARAMETERS];
    kv_link link;
    kv_link_init(&link, theta, 4);
    kv_link_pass(&link, 0.31, 0.83, gradient);
    for (int i = 0; i < KV_LINK_PARAMETERS; i++) {
        double value[2];
        for (int side = 0; side < 2; side++) {
            double moved[KV_LINK_PARAMETERS];
            memcpy(moved, theta, sizeof moved);
            moved[i] += side ? step : -step;
            kv_link_init(&link, moved, 4);
            value[side] = kv_link_pass(&link, 0.31, 0.83, NULL);
        }
        assert_close(gradient[i], (value[1] - value[0]) / (2 * step), 1e-8);
    }
}

static void a_bound_has_no_slope(void **state)
{
    const double theta[KV_LINK_PARAMETERS] = {9, 0.4, -0.2, 0};
    double gradient[KV_LINK_PARAMETERS];
    kv_link beyond, at;
    kv_link_init(&beyond, theta, 3);
    kv_link_init(&at, (const double[KV_LINK_PARAMETERS]){3.5, 0.4, -0.2, 0}, 3);
    assert_true(kv_link_pass(&beyond, 0.4, 0.9, gradient) == kv_link_pass(&at, 0.4, 0.9, NULL));
    assert_true(gradient[KV_LINK_STEEPNESS] == 0);
    assert_true(gradient[KV_LINK_MIDPOINT] != 0);
    assert_true(gradient[KV_LINK_GUESS] == 0);
}

/* Rows over all examples, each of the same weight. */
typedef struct rows {
    kv_link_cell cell[ROWS][EXAMPLES];
    kv_link_row row[ROWS];
    const kv_link_row *list[ROWS];
} rows;

static void fill(rows *r, const kv_link *truth)
{
    for (int i = 0; i < ROWS; i++) {
        for (int e = 0; e < EXAMPLES; e++)
            r->cell[i][e] = (kv_link_cell){e, features[i][e][0], features[i][e][1], 1.0 / EXAMPLES};
        r->row[i] = (kv_link_row){r->cell[i], EXAMPLES, accuracies[i]};
        if (truth != NULL)
            r->row[i].accuracy = kv_link_predict(truth, &r->row[i]);
        r->list[i] = &r->row[i];
    }
}

/* scipy.optimize.least_squares 1.17 on the same numbers, residuals and pull. */
static void the_fit_is_scipys(void **state)
{
    static const struct {
        int parameters;
        double theta[4], rms, deviation[4];
    } want[] = {
        {3,
         {2.24214313, 0.50685311, -0.21061773},
         0.05245364418,
         {0.34038587, 0.02766826, 0.83194242}},
        {4,
         {2.41395691, 0.52639346, -0.17290603, -3.63924009},
         0.05026167977,
         {0.36435148, 0.02804776, 0.7488768, 0.68859033}},
    };
    rows *r = calloc(1, sizeof *r);
    fill(r, NULL);
    for (int k = 0; k < 2; k++) {
        kv_link_fit fit;
        assert_int_equal(kv_link_fit_rows(r->list, ROWS, want[k].parameters, &fit, NULL), KV_OK);
        assert_int_equal(fit.parameters, want[k].parameters);
        assert_close(fit.residual_rms, want[k].rms, 1e-7);
        for (int i = 0; i < want[k].parameters; i++) {
            assert_close(fit.theta[i], want[k].theta[i], 1e-4);
            assert_close(sqrt(fit.covariance[i][i]), want[k].deviation[i], 1e-3);
        }
    }
    free(r);
}

static void known_parameters_are_found(void **state)
{
    static const double known[][KV_LINK_PARAMETERS] = {
        {2.1, 0.5, 0.3, 0}, {2.7, 0.3, 0.6, 0}, {1.4, 0.6, 0.1, -1.5}};
    rows *r = calloc(1, sizeof *r);
    for (int k = 0; k < 3; k++) {
        int parameters = known[k][KV_LINK_GUESS] != 0 ? 4 : 3;
        kv_link truth;
        kv_link_fit fit;
        kv_link_init(&truth, known[k], parameters);
        fill(r, &truth);
        assert_int_equal(kv_link_fit_rows(r->list, ROWS, parameters, &fit, NULL), KV_OK);
        /* The pull moves parameters a little; predictions hardly. */
        assert_true(fit.residual_rms < 0.003);
        for (int i = 0; i < parameters; i++)
            assert_close(fit.theta[i], known[k][i], 0.15);
    }
    free(r);
}

static void order_of_rows_does_not_matter(void **state)
{
    rows *r = calloc(1, sizeof *r);
    const kv_link_row *reverse[ROWS];
    kv_link_fit a, b;
    fill(r, NULL);
    for (int i = 0; i < ROWS; i++)
        reverse[i] = r->list[ROWS - 1 - i];
    assert_int_equal(kv_link_fit_rows(r->list, ROWS, 3, &a, NULL), KV_OK);
    assert_int_equal(kv_link_fit_rows(reverse, ROWS, 3, &b, NULL), KV_OK);
    for (int i = 0; i < 3; i++)
        assert_close(a.theta[i], b.theta[i], 1e-6);
    assert_int_equal(kv_link_fit_rows(r->list, ROWS, 3, &b, NULL), KV_OK);
    assert_memory_equal(&a, &b, sizeof a);
    free(r);
}

/* Nothing can be learnt from rows that agree whatever the parameters: the usual values stay. */
static void rows_that_tell_nothing(void **state)
{
    const kv_link_cell cell = {0, 1, 1, 1};
    const kv_link_row row = {&cell, 1, 1};
    const kv_link_row *list[] = {&row, &row};
    kv_link_fit fit;
    assert_int_equal(kv_link_fit_rows(list, 2, 3, &fit, NULL), KV_OK);
    assert_close(fit.theta[0], 2.3, 1e-9);
    assert_close(fit.theta[1], 0.42, 1e-9);
    assert_close(fit.theta[2], -0.1, 1e-9);
    assert_close(fit.residual_rms, 0, 1e-12);
}

static void features_of_a_record(void **state)
{
    kv_record record;
    double x, q;
    for (int m = 0; m < KV_MEASURES; m++)
        record.value[m] = NAN;
    assert_false(kv_link_features(&record, &x, &q));
    record.value[KV_M_RECALL] = 0.7;
    assert_true(kv_link_features(&record, &x, &q));
    assert_true(x == 0.7 && q == 1);
    record.value[KV_M_OUTPUT_ERROR] = 1.25; /* no evidence: what is left of all outputs */
    assert_true(kv_link_features(&record, &x, &q));
    assert_true(x == 0 && q == 1);
    record.value[KV_M_EVIDENCE_OUTPUT] = 0.4;
    record.value[KV_M_QUERY_INTACT] = 1.0000001;
    assert_true(kv_link_features(&record, &x, &q));
    assert_true(x == 0.4 && q == 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_worked_by_hand),
        cmocka_unit_test(a_guess_lifts_the_lowest),
        cmocka_unit_test(derivatives_are_differences),
        cmocka_unit_test(a_bound_has_no_slope),
        cmocka_unit_test(the_fit_is_scipys),
        cmocka_unit_test(known_parameters_are_found),
        cmocka_unit_test(order_of_rows_does_not_matter),
        cmocka_unit_test(rows_that_tell_nothing),
        cmocka_unit_test(features_of_a_record),
    };
    gsl_set_error_handler_off();
    return cmocka_run_group_tests_name("link", tests, NULL, NULL);
}
