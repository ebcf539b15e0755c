/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Checks critical footprints on curves worked by hand, and the bootstrap against the binomial
 * distribution. Not checked: curves whose points lie closer than rounding. */
#include "tests/kv_test.h"

#include "analysis/bootstrap.h"
#include "analysis/critical.h"

enum { MOST = 8 };

typedef struct curve_case {
    const char *what;
    kv_sample sample[MOST];
    int samples;
    double target;
    kv_critical_status status;
    double last, first; /* NaN: none */
    double smallest, largest;
} curve_case;

/* Every crossing below is x0 + (target - y0) / (y1 - y0) * (x1 - x0), worked by hand. */
static const curve_case cases[] = {
    {"one crossing between two points: 0.2 + 0.15 / 0.3 * 0.2",
     {{0.2, 0.75}, {0.4, 1.05}, {0.1, 0.5}, {0.6, 1.1}},
     4,
     0.9,
     KV_CRITICAL_OK,
     0.3,
     0.3,
     0.1,
     0.6},
    {"a dip: up in 0.1..0.2, down in 0.2..0.3, up in 0.3..0.4",
     {{0.1, 0.5}, {0.2, 1.0}, {0.3, 0.8}, {0.4, 1.0}},
     4,
     0.9,
     KV_CRITICAL_OK,
     0.18,
     0.35,
     0.1,
     0.4},
    {"the small end is above, then a dip",
     {{0.1, 1.0}, {0.2, 0.8}, {0.3, 1.0}},
     3,
     0.9,
     KV_CRITICAL_OK,
     0.15,
     0.25,
     0.1,
     0.3},
    {"the large end is below",
     {{0.1, 1.0}, {0.3, 0.8}},
     2,
     0.9,
     KV_CRITICAL_OK,
     0.2,
     0.2,
     0.1,
     0.3},
    {"a plateau on the target counts as above: its small end",
     {{0.1, 0.5}, {0.2, 0.9}, {0.3, 0.9}, {0.4, 1.0}},
     4,
     0.9,
     KV_CRITICAL_OK,
     0.2,
     0.2,
     0.1,
     0.4},
    {"all on the target", {{0.1, 0.9}, {0.2, 0.9}}, 2, 0.9, KV_CRITICAL_ALWAYS, NAN, NAN, 0.1, 0.2},
    {"all above", {{0.5, 1.0}, {0.2, 0.95}}, 2, 0.9, KV_CRITICAL_ALWAYS, NAN, NAN, 0.2, 0.5},
    {"none above", {{0.5, 0.8}, {0.2, 0.1}}, 2, 0.9, KV_CRITICAL_NEVER, NAN, NAN, 0.2, 0.5},
    {"one point above", {{0.25, 1.0}}, 1, 0.9, KV_CRITICAL_ALWAYS, NAN, NAN, 0.25, 0.25},
    {"one point below", {{0.25, 0.5}}, 1, 0.9, KV_CRITICAL_NEVER, NAN, NAN, 0.25, 0.25},
    {"ties become their mean: (0.2: 0.6 and 0.8) is 0.7; 0.2 + 0.2 / 0.3 * 0.3",
     {{0.2, 0.6}, {0.5, 1.0}, {0.2, 0.8}, {0.1, 0.3}},
     4,
     0.9,
     KV_CRITICAL_OK,
     0.4,
     0.4,
     0.1,
     0.5},
    {"points without a number are left out",
     {{0.1, 0.5}, {0.2, NAN}, {NAN, 1.0}, {0.3, 1.0}},
     4,
     0.75,
     KV_CRITICAL_OK,
     0.2,
     0.2,
     0.1,
     0.3},
    {"a target of zero is always met",
     {{0.1, 0.0}, {0.2, 0.0}},
     2,
     0.0,
     KV_CRITICAL_ALWAYS,
     NAN,
     NAN,
     0.1,
     0.2},
    {"a step at one footprint to the next",
     {{0.1, 0.0}, {0.2, 1.0}},
     2,
     1.0,
     KV_CRITICAL_OK,
     0.2,
     0.2,
     0.1,
     0.2},
};

static void assert_same(double got, double want)
{
    if (isnan(want))
        assert_true(isnan(got));
    else
        assert_close(got, want, 1e-12);
}

static void curves_worked_by_hand(void **state)
{
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const curve_case *c = &cases[i];
        kv_sample sample[MOST];
        kv_critical found;
        memcpy(sample, c->sample, sizeof sample);
        print_message("# %s\n", c->what);
        assert_true(kv_critical_find(sample, c->samples, c->target, &found));
        assert_int_equal(found.status, c->status);
        assert_same(found.last_crossing, c->last);
        assert_same(found.first_crossing, c->first);
        assert_same(found.smallest, c->smallest);
        assert_same(found.largest, c->largest);
    }
}

static void order_of_points_does_not_matter(void **state)
{
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const curve_case *c = &cases[i];
        kv_sample sample[MOST];
        kv_critical found;
        for (int s = 0; s < c->samples; s++)
            sample[s] = c->sample[c->samples - 1 - s];
        assert_true(kv_critical_find(sample, c->samples, c->target, &found));
        assert_int_equal(found.status, c->status);
        assert_same(found.last_crossing, c->last);
    }
}

static void nothing_known_is_no_curve(void **state)
{
    kv_sample sample[] = {{NAN, 1.0}, {0.2, NAN}};
    kv_critical found;
    assert_false(kv_critical_find(sample, 2, 0.9, &found));
    assert_false(kv_critical_find(sample, 0, 0.9, &found));
}

static void status_names_are_those_of_the_contract(void **state)
{
    assert_string_equal(kv_critical_status_name(KV_CRITICAL_OK), "ok");
    assert_string_equal(kv_critical_status_name(KV_CRITICAL_ALWAYS), "always");
    assert_string_equal(kv_critical_status_name(KV_CRITICAL_NEVER), "never");
}

/* --- intervals --------------------------------------------------------------------- */

static void interval_is_by_nearest_rank(void **state)
{
    double values[1000], lo, hi;
    for (int i = 0; i < 1000; i++)
        values[i] = (double)((i * 7 + 3) % 1000 + 1); /* 1..1000 in another order */
    kv_interval(values, 1000, 0.95, &lo, &hi);
    /* 2.5 % of 1000 ranks are 25: the 25th from either end. */
    assert_close(lo, 25, 0);
    assert_close(hi, 976, 0);
    double few[] = {3, NAN, 1, 2};
    kv_interval(few, 4, 0.95, &lo, &hi);
    assert_close(lo, 1, 0);
    assert_close(hi, 3, 0);
    double none[] = {NAN};
    kv_interval(none, 1, 0.95, &lo, &hi);
    assert_true(isnan(lo) && isnan(hi));
}

static void every_resample_draws_as_many_examples(void **state)
{
    kv_bootstrap bootstrap;
    kv_diag diag = {0};
    assert_int_equal(kv_bootstrap_init(&bootstrap, 200, 17, 42, &diag), KV_OK);
    for (int r = 0; r < 200; r++) {
        uint32_t sum = 0;
        for (int e = 0; e < 17; e++)
            sum += bootstrap.weight[r * 17 + e];
        assert_int_equal(sum, 17);
    }
    kv_bootstrap_fini(&bootstrap);
}

/* 100 answers, 60 of them right: the bootstrap of their mean is Binomial(100, 0.6) / 100, whose 2.5
 * % and 97.5 % points are 0.50 and 0.69 (tables of the binomial distribution). */
static void bootstrap_of_right_and_wrong_is_binomial(void **state)
{
    double value[100], replicate[20000], lo, hi;
    kv_bootstrap bootstrap;
    kv_diag diag = {0};
    for (int i = 0; i < 100; i++)
        value[i] = i % 5 < 3;
    assert_int_equal(kv_bootstrap_init(&bootstrap, 20000, 100, 7, &diag), KV_OK);
    for (int r = 0; r < 20000; r++)
        replicate[r] = kv_bootstrap_mean(&bootstrap, r, value);
    kv_interval(replicate, 20000, 0.95, &lo, &hi);
    kv_bootstrap_fini(&bootstrap);
    assert_true(fabs(lo - 0.50) < 0.011 && fabs(hi - 0.69) < 0.011);
    assert_int_equal(kv_bootstrap_binomial(0.6, 100, 7, replicate, 20000, &diag), KV_OK);
    kv_interval(replicate, 20000, 0.95, &lo, &hi);
    assert_true(fabs(lo - 0.50) < 0.011 && fabs(hi - 0.69) < 0.011);
}

static void means_leave_out_what_is_not_known(void **state)
{
    double value[] = {1, NAN, 2}, none[] = {NAN, NAN};
    assert_close(kv_mean(value, 3), 1.5, 0);
    assert_true(isnan(kv_mean(none, 2)));
    uint32_t weight[] = {2, 1, 0};
    kv_bootstrap bootstrap = {1, 3, weight};
    assert_close(kv_bootstrap_mean(&bootstrap, 0, value), 1.0, 0);
    uint32_t only_nan[] = {0, 3, 0};
    bootstrap.weight = only_nan;
    assert_true(isnan(kv_bootstrap_mean(&bootstrap, 0, value)));
}

static void streams_differ_by_seed_and_purpose(void **state)
{
    assert_true(kv_stream_seed(1, "a") != kv_stream_seed(1, "b"));
    assert_true(kv_stream_seed(1, "a") != kv_stream_seed(2, "a"));
    assert_true(kv_stream_seed(1, "a") == kv_stream_seed(1, "a"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(curves_worked_by_hand),
        cmocka_unit_test(order_of_points_does_not_matter),
        cmocka_unit_test(nothing_known_is_no_curve),
        cmocka_unit_test(status_names_are_those_of_the_contract),
        cmocka_unit_test(interval_is_by_nearest_rank),
        cmocka_unit_test(every_resample_draws_as_many_examples),
        cmocka_unit_test(bootstrap_of_right_and_wrong_is_binomial),
        cmocka_unit_test(means_leave_out_what_is_not_known),
        cmocka_unit_test(streams_differ_by_seed_and_purpose),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
