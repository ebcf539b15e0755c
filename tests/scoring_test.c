/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Parts that scores are made of: which entries are pinned, and that draws follow the softmax. */
#include "tests/kv_test.h"

#include "policies/read.h"
#include "policies/scoring.h"

/* Worked by hand: the three best of these, the tie at 4 going to the lower index. */
static void pins_the_best(void **state)
{
    double score[] = {1, 4, 9, 4, -3, 4}, scratch[6];
    kv_score_pin_best(score, 6, 2, scratch);
    assert_true(isinf(score[2]) && isinf(score[1]));
    assert_true(score[0] == 1 && score[3] == 4 && score[4] == -3 && score[5] == 4);
    double all[] = {2, 1}, none[] = {2, 1};
    kv_score_pin_best(all, 2, 7, scratch);
    kv_score_pin_best(none, 2, 0, scratch);
    assert_true(isinf(all[0]) && isinf(all[1]) && none[0] == 2);
}

/* Against a selection by sorting, over all counts of pseudo-random scores with many ties. */
static void pins_as_sorting_does(void **state)
{
    enum { N = 97 };
    double first[N], score[N], scratch[N];
    unsigned lcg = 5;
    for (int k = 0; k < N; k++) {
        lcg = lcg * 1103515245u + 12345u;
        first[k] = (lcg >> 16) % 11;
    }
    for (int count = 0; count <= N; count++) {
        memcpy(score, first, sizeof score);
        kv_score_pin_best(score, N, count, scratch);
        for (int k = 0; k < N; k++) {
            int better = 0;
            for (int j = 0; j < N; j++)
                better += first[j] > first[k] || (first[j] == first[k] && j < k);
            assert_int_equal(isinf(score[k]) != 0, better < count);
        }
    }
}

/* Of three candidates with probabilities 1/7, 2/7, 4/7 the best is each as often; the order of the
 * first two is that of drawing without replacement: 4/7 then 1/3 is 4/21. Within 4 sigma. */
static void samples_without_replacement(void **state)
{
    enum { DRAWS = 20000 };
    kv_retention_config config = {.seed = 3};
    kv_view view = {.stream = 99};
    int best[3] = {0}, second_first = 0;
    for (int i = 0; i < DRAWS; i++) {
        int32_t candidate[3] = {3 * i, 3 * i + 1, 3 * i + 2};
        kv_event event = {.view = &view, .config = &config, .candidate = candidate, .scored = 3};
        double score[3] = {0, 2 * log(2), 2 * log(4)}; /* temperature 2 */
        kv_score_sample(&event, 2, score);
        int top = score[0] > score[1] ? 0 : 1;
        top = score[2] > score[top] ? 2 : top;
        best[top]++;
        second_first += top == 2 && score[0] > score[1];
    }
    for (int k = 0; k < 3; k++) {
        double p = (1 << k) / 7.0;
        assert_true(fabs(best[k] - DRAWS * p) < 4 * sqrt(DRAWS * p * (1 - p)));
    }
    double p = 4.0 / 21;
    assert_true(fabs(second_first - DRAWS * p) < 4 * sqrt(DRAWS * p * (1 - p)));
}

/* 0.07 * 100, 0.28 * 75 and 0.56 * 75 are above 7, 21 and 42 in doubles; 10.4 and 0.3 are no whole
 * numbers. */
static void shares_are_rounded_up_from_what_they_say(void **state)
{
    static const struct {
        double share;
        int n, want;
    } cases[] = {{0.07, 100, 7}, {0.28, 75, 21}, {0.56, 75, 42}, {0.29, 100, 29}, {0.13, 80, 11},
                 {0.3, 1, 1},    {1, 79, 79},    {0, 80, 0},     {0.5, 7, 4}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(kv_read_share(cases[i].share, cases[i].n), cases[i].want);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(pins_the_best),
                                       cmocka_unit_test(pins_as_sorting_does),
                                       cmocka_unit_test(samples_without_replacement),
                                       cmocka_unit_test(shares_are_rounded_up_from_what_they_say)};
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
