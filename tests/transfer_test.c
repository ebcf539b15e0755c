/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* A link that its transfers share, by hand and against a simulation that carries one nanosecond at
 * a time. */
#include "tests/kv_test.h"

#include "tests/draw.h"

#include "sim/serving/link.h"

static uint64_t begin(kv__link *link, int64_t now_ns, int64_t work_ns, int64_t rest_ns)
{
    kv__transfer t = {.left_ns = work_ns, .rest_ns = rest_ns};
    return kv__link_begin(link, now_ns, &t);
}

static void check(kv__link *link, uint64_t id, int64_t ready_ns, int64_t end_ns)
{
    kv__link_expect(link);
    const kv__transfer *t = kv__link_find(link, id);
    assert_non_null(t);
    assert_int_equal(t->ready_ns, ready_ns);
    assert_int_equal(t->end_ns, end_ns);
}

/* 600 alone from 0. At 200 it has 400 left and 300 come: both have half, so these end at 200 + 600
 * = 800, and the 100 that are left of the first at 900, when 900 were carried. At 400 each has gone
 * on by 100: 300 and 200 are left, and 50 come. They have a third each: the 50 end at 550, the 150
 * left of the second at 550 + 300 = 850, the first's last 100 at 950, when 950 were carried. Half
 * of a transfer of 300 and a quarter of one of 50 may come late: they can be used when 150 are
 * left, at 550, and when 12 are, at 400 + 3 x 38 = 514. */
static void by_hand(void **state)
{
    kv__link link = {0};
    uint64_t first = begin(&link, 0, 600, 0);
    check(&link, first, 600, 600);
    uint64_t second = begin(&link, 200, 300, 150);
    check(&link, first, 900, 900);
    check(&link, second, 500, 800);
    uint64_t third = begin(&link, 400, 50, 12);
    check(&link, first, 950, 950);
    check(&link, second, 550, 850);
    check(&link, third, 514, 550);
    assert_true(kv__link_busy(&link, 949));
    assert_false(kv__link_busy(&link, 950));
    /* 10 at 900: the first has 50 left and shares with them: 920, and 960 when 960 were carried */
    uint64_t fourth = begin(&link, 900, 10, 0);
    assert_null(kv__link_find(&link, second));
    check(&link, fourth, 920, 920);
    check(&link, first, 960, 960);
    kv__link_fini(&link);
}

/* 7 ns among 3: three, two and two, so that 7 were carried. Then all is exact again. */
static void remainders(void **state)
{
    kv__link link = {0};
    uint64_t a = begin(&link, 0, 10, 0), b = begin(&link, 0, 10, 0), c = begin(&link, 0, 10, 0);
    uint64_t d = begin(&link, 7, 100, 0);
    assert_int_equal(kv__link_find(&link, a)->left_ns, 7);
    assert_int_equal(kv__link_find(&link, b)->left_ns, 8);
    assert_int_equal(kv__link_find(&link, c)->left_ns, 8);
    check(&link, a, 7 + 4 * 7, 7 + 4 * 7);
    check(&link, c, 7 + 4 * 7 + 3, 7 + 4 * 7 + 3);
    check(&link, d, 130, 130);
    kv__link_fini(&link);
}

enum { MOST = 12 };

/* Random begins, every transfer's end against sharing in exact fractions (doubles): within a
 * nanosecond per begin and neighbour; the last end of a busy time to the nanosecond, as the sum of
 * what was carried. An estimate before a begin is what comes of it. */
static void random_begins(void **state)
{
    uint64_t random = 5;
    for (int round = 0; round < 2000; round++) {
        kv__link link = {0};
        double left[MOST], now = 0;
        int64_t time = 0, busy_until = 0;
        int count = 1 + (int)(draw(&random) % MOST);
        uint64_t id[MOST];
        for (int i = 0; i < count; i++) {
            int64_t work = 1 + (int64_t)(draw(&random) % 1000);
            time += (int64_t)(draw(&random) % 400);
            for (int active; now < (double)time;) { /* fractions up to now */
                double least = 1e18;
                active = 0;
                for (int j = 0; j < i; j++)
                    if (left[j] > 1e-9) {
                        least = left[j] < least ? left[j] : least;
                        active++;
                    }
                double passed = active > 0 && least * active < (double)time - now
                                    ? least * active
                                    : (double)time - now;
                for (int j = 0; j < i && active > 0; j++)
                    left[j] -= left[j] > 1e-9 ? passed / active : 0;
                now += passed;
            }
            left[i] = (double)work;
            int64_t estimate = kv__link_estimate(&link, time, work);
            id[i] = begin(&link, time, work, 0);
            busy_until = (busy_until > time ? busy_until : time) + work;
            kv__link_expect(&link);
            int64_t last = 0;
            for (int j = 0; j <= i; j++) {
                const kv__transfer *t = kv__link_find(&link, id[j]);
                double want = now;
                for (int k = 0; k <= i; k++)
                    want += left[k] < left[j] ? (left[k] > 0 ? left[k] : 0) : left[j];
                if (t == NULL) {
                    assert_true(left[j] <= 2 * MOST);
                    continue;
                }
                assert_true(fabs((double)t->end_ns - want) <= 2.0 * MOST * MOST);
                last = t->end_ns > last ? t->end_ns : last;
                if (j == i)
                    assert_true(llabs(t->end_ns - estimate) <= MOST * MOST);
            }
            assert_int_equal(last, busy_until);
        }
        kv__link_fini(&link);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(by_hand),
        cmocka_unit_test(remainders),
        cmocka_unit_test(random_begins),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
