/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Rankings at a footprint; the numbers are worked by hand. */
#include "tests/kv_test.h"

#include "analysis/rank.h"

static const kv_sample points[] = {{0.2, 0.1}, {0.4, 0.5}, {0.8, 0.9}};

static void interpolates_between_neighbours(void **state)
{
    assert_true(fabs(kv_rank_at(points, 3, 0.3).accuracy - 0.3) < 1e-12);
    assert_true(fabs(kv_rank_at(points, 3, 0.5).accuracy - 0.6) < 1e-12);
    assert_true(kv_rank_at(points, 3, 0.4).accuracy == 0.5);
    assert_true(kv_rank_at(points, 3, 0.2).accuracy == 0.1);
    assert_true(kv_rank_at(points, 3, 0.5).amount == 0.5);
}

static void does_not_look_beyond_the_ends(void **state)
{
    assert_true(isnan(kv_rank_at(points, 3, 0.19).accuracy));
    assert_true(kv_rank_at(points, 3, 0.95).accuracy == 0.9);
    assert_true(kv_rank_at(points, 3, 0.95).amount == 0.8);
    assert_true(isnan(kv_rank_at(points, 0, 0.5).accuracy));
}

/* A point at so many entries; bytes and reads are as many. */
#define AT(share, right)                                                                           \
    {                                                                                              \
        .kv_footprint = share, .accuracy = right, .amount = { share, share, share, NAN }           \
    }

#define CURVE(name, of, where, count)                                                              \
    {                                                                                              \
        .task = of, .policy = name, .label = name, .title = name, .source = "proxy",               \
        .point = &at[where], .points = count, .has_critical = true, .threshold = 0.9,              \
        .full_accuracy = 1                                                                         \
    }

static char *table_of(kv_curve *curve, int count, double limit)
{
    kv_curves curves = {.curve = curve, .curves = count};
    kv_diag diag = {0};
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    assert_int_equal(kv_rank_write(&curves, limit, out, &diag), KV_OK);
    fclose(out);
    return text;
}

/* Means over two tasks at 0.4: a (0.5 + 0.7)/2 = 0.6, b (0.9 + 0.1)/2 = 0.5; c begins above it in
 * one task and has no rank; d has a's accuracy. Nine tenths of 1 are crossed by d between
 * (0.4, 0.6) and (0.8, 1), three quarters on, at 0.7, in both tasks, by the others not in both. */
static void ranks_by_the_mean_over_tasks(void **state)
{
    kv_curve_point at[] = {AT(0.4, 0.5), AT(0.4, 0.7), AT(0.4, 0.9), AT(0.4, 0.1),
                           AT(0.6, 1),   AT(0.4, 0.6), AT(0.8, 1)};
    kv_curve curve[] = {CURVE("c", "one", 0, 1), CURVE("b", "one", 2, 1), CURVE("a", "one", 0, 1),
                        CURVE("d", "one", 5, 2), CURVE("c", "two", 4, 1), CURVE("b", "two", 3, 1),
                        CURVE("a", "two", 1, 1), CURVE("d", "two", 5, 2)};
    char *text = table_of(curve, 8, 0.4);
    assert_non_null(strstr(text, "\n   1     0.600  entries    40.0      70.0  d\n"
                                 "   2     0.600  entries    40.0         -  a\n"
                                 "   3     0.500  entries    40.0         -  b\n"
                                 "   -         -  entries    50.0         -  c\n"));
    free(text);
}

/* Each by what it saves. k stores in 2, 4 and 8 bits: 25 and 40 % of the bytes are within the
 * limit, 55 is not, and the better of the two stands for it. r reads 30 %; e keeps 40 %. */
static void a_policy_is_compared_by_what_it_saves(void **state)
{
    kv_curve_point at[] = {{.amount = {1, 0.25, 1, NAN}, .accuracy = 0.2},
                           {.amount = {1, 0.4, 1, NAN}, .accuracy = 0.8},
                           {.amount = {1, 0.55, 1, NAN}, .accuracy = 0.95},
                           {.amount = {1, 1.1, 0.3, NAN}, .accuracy = 0.85},
                           AT(0.4, 0.5)};
    kv_curve curve[] = {CURVE("k", "one", 0, 1), CURVE("k", "one", 1, 1), CURVE("k", "one", 2, 1),
                        CURVE("r", "one", 3, 1), CURVE("e", "one", 4, 1)};
    static char *const bits[] = {"k 2", "k 4", "k 8"};
    for (int i = 0; i < 3; i++) {
        curve[i].label = bits[i];
        curve[i].saves = KV_AXIS_BYTES;
    }
    curve[3].saves = KV_AXIS_READS;
    char *text = table_of(curve, 5, 0.4);
    assert_non_null(strstr(text, "policy\n   1     0.850    reads    30.0         -  r\n"
                                 "   2     0.800    bytes    40.0         -  k 4\n"
                                 "   3     0.500  entries    40.0         -  e\n"));
    assert_null(strstr(text, "k 2"));
    assert_null(strstr(text, "k 8"));
    free(text);
}

/* At 0.4, worked by hand: late holds 95 and 97 % of the entries over the run, as it evicts after
 * the prompt, but its decode steps read 30 and 50 %, halfway between which 0.6 and 0.8 give 0.7.
 * Its nine tenths lie at 60 %, between 0.5 (0.8) and 0.7 (1). half comes down to the limit in one
 * task, in entries, and in the other in neither; early is compared by entries, whatever it reads.
 */
static void what_evicts_late_is_compared_by_reads(void **state)
{
    kv_curve_point at[] = {{.amount = {0.95, 0.95, 0.3, NAN}, .accuracy = 0.6},
                           {.amount = {0.97, 0.97, 0.5, NAN}, .accuracy = 0.8},
                           {.amount = {0.99, 0.99, 0.7, NAN}, .accuracy = 1},
                           {.amount = {0.9, 0.9, 0.6, NAN}, .accuracy = 0.5},
                           {.amount = {0.4, 0.4, 0.1, NAN}, .accuracy = 0.4}};
    kv_curve curve[] = {CURVE("late", "one", 0, 3),  CURVE("half", "one", 3, 1),
                        CURVE("early", "one", 4, 1), CURVE("late", "two", 0, 3),
                        CURVE("half", "two", 4, 1),  CURVE("early", "two", 4, 1)};
    char *text = table_of(curve, 6, 0.4);
    assert_non_null(strstr(text, "\n   1     0.700    reads    40.0      60.0  late\n"
                                 "   2     0.400  entries    40.0         -  early\n"
                                 "   -         -  entries    65.0         -  half\n"));
    free(text);
}

/* An oracle stands in its place and takes no rank. */
static void the_oracle_has_no_rank(void **state)
{
    kv_curve_point at[] = {AT(0.4, 1), AT(0.4, 0.7)};
    kv_curve curve[] = {CURVE("a", "one", 1, 1), CURVE("topk", "one", 0, 1)};
    curve[1].oracle = true;
    char *text = table_of(curve, 2, 0.4);
    assert_non_null(strstr(text, "\n   -     1.000  entries    40.0      40.0  topk\n"
                                 "   1     0.700  entries    40.0         -  a\n"));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(interpolates_between_neighbours),
                                       cmocka_unit_test(does_not_look_beyond_the_ends),
                                       cmocka_unit_test(ranks_by_the_mean_over_tasks),
                                       cmocka_unit_test(a_policy_is_compared_by_what_it_saves),
                                       cmocka_unit_test(what_evicts_late_is_compared_by_reads),
                                       cmocka_unit_test(the_oracle_has_no_rank)};
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
