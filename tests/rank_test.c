/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Rankings at a footprint; the numbers are worked by hand. */
#include "tests/kv_test.h"

#include "analysis/rank.h"

static kv_curve_point points[] = {{.kv_footprint = 0.2, .accuracy = 0.1},
                                  {.kv_footprint = 0.4, .accuracy = 0.5},
                                  {.kv_footprint = 0.8, .accuracy = 0.9}};

static void interpolates_between_neighbours(void **state)
{
    kv_curve curve = {.point = points, .points = 3};
    assert_true(fabs(kv_rank_at(&curve, 0.3).accuracy - 0.3) < 1e-12);
    assert_true(fabs(kv_rank_at(&curve, 0.5).accuracy - 0.6) < 1e-12);
    assert_true(kv_rank_at(&curve, 0.4).accuracy == 0.5);
    assert_true(kv_rank_at(&curve, 0.2).accuracy == 0.1);
    assert_true(kv_rank_at(&curve, 0.5).kv_footprint == 0.5);
}

static void does_not_look_beyond_the_ends(void **state)
{
    kv_curve curve = {.point = points, .points = 3}, empty = {.points = 0};
    assert_true(isnan(kv_rank_at(&curve, 0.19).accuracy));
    assert_true(kv_rank_at(&curve, 0.95).accuracy == 0.9);
    assert_true(kv_rank_at(&curve, 0.95).kv_footprint == 0.8);
    assert_true(isnan(kv_rank_at(&empty, 0.5).accuracy));
}

/* Means over two tasks at 0.4: a (0.5 + 0.7)/2 = 0.6, b (0.9 + 0.1)/2 = 0.5; c begins above it in
 * one task and has no rank; d has a's accuracy and a smaller critical footprint. */
static void ranks_by_the_mean_over_tasks(void **state)
{
    kv_curve_point at[] = {
        {.kv_footprint = 0.4, .accuracy = 0.5}, {.kv_footprint = 0.4, .accuracy = 0.7},
        {.kv_footprint = 0.4, .accuracy = 0.9}, {.kv_footprint = 0.4, .accuracy = 0.1},
        {.kv_footprint = 0.6, .accuracy = 1},   {.kv_footprint = 0.4, .accuracy = 0.6}};
#define CURVE(name, of, where, critical)                                                           \
    {.task = of,                                                                                   \
     .policy = name,                                                                               \
     .label = name,                                                                                \
     .title = name,                                                                                \
     .source = "proxy",                                                                            \
     .point = &at[where],                                                                          \
     .points = 1,                                                                                  \
     .has_critical = true,                                                                         \
     .status = KV_CRITICAL_OK,                                                                     \
     .kv_footprint = critical}
    kv_curve curve[] = {CURVE("c", "one", 0, 0.1), CURVE("b", "one", 2, 0.2),
                        CURVE("a", "one", 0, 0.5), CURVE("d", "one", 5, 0.3),
                        CURVE("c", "two", 4, 0.1), CURVE("b", "two", 3, 0.2),
                        CURVE("a", "two", 1, 0.5), CURVE("d", "two", 5, 0.3)};
    kv_curves curves = {.curve = curve, .curves = 8};
    kv_diag diag = {0};
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    assert_int_equal(kv_rank_write(&curves, 0.4, out, &diag), KV_OK);
    fclose(out);
    assert_non_null(strstr(text, "\n   1     0.600       40.0      30.0  d\n"
                                 "   2     0.600       40.0      50.0  a\n"
                                 "   3     0.500       40.0      20.0  b\n"
                                 "   -         -       50.0      10.0  c\n"));
    free(text);
}

/* An oracle stands in its place and takes no rank. */
static void the_oracle_has_no_rank(void **state)
{
    kv_curve_point at[] = {{.kv_footprint = 0.4, .accuracy = 1},
                           {.kv_footprint = 0.4, .accuracy = 0.7}};
    kv_curve curve[] = {CURVE("a", "one", 1, 0.2), CURVE("topk", "one", 0, 0.1)};
    curve[1].oracle = true;
    kv_curves curves = {.curve = curve, .curves = 2};
    kv_diag diag = {0};
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    assert_int_equal(kv_rank_write(&curves, 0.4, out, &diag), KV_OK);
    fclose(out);
    assert_non_null(strstr(text, "\n   -     1.000       40.0      10.0  topk\n"
                                 "   1     0.700       40.0      20.0  a\n"));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(interpolates_between_neighbours),
                                       cmocka_unit_test(does_not_look_beyond_the_ends),
                                       cmocka_unit_test(ranks_by_the_mean_over_tasks),
                                       cmocka_unit_test(the_oracle_has_no_rank)};
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
