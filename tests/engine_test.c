/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* The event queue against a sorted list, and pools: order, reuse, no allocation once warm. Expected
 * orders come from qsort over all three keys. */
#include "tests/kv_test.h"

#include "tests/draw.h"

#include "sim/engine/events.h"
#include "sim/engine/pool.h"

static int by_order(const void *left, const void *right)
{
    const kv_event_entry *a = left, *b = right;
    if (a->time_ns != b->time_ns)
        return a->time_ns < b->time_ns ? -1 : 1;
    if (a->class_ != b->class_)
        return a->class_ < b->class_ ? -1 : 1;
    return a->sequence < b->sequence ? -1 : 1;
}

static void test_total_order(void **state)
{
    enum { COUNT = 5000 };
    kv_events events = {0};
    kv_event_entry *want = calloc(COUNT, sizeof *want), got;
    assert_non_null(want);
    uint64_t random = 7;
    for (int i = 0; i < COUNT; i++) { /* few times and classes, so that ties abound */
        want[i] = (kv_event_entry){.time_ns = (int64_t)(draw(&random) % 50),
                                   .class_ = (uint32_t)(draw(&random) % 4),
                                   .sequence = (uint64_t)i,
                                   .payload = (uint64_t)i * 3};
        assert_int_equal(kv_events_put(&events, want[i].time_ns, want[i].class_, want[i].payload),
                         KV_OK);
    }
    qsort(want, COUNT, sizeof *want, by_order);
    for (int i = 0; i < COUNT; i++) {
        assert_true(kv_events_take(&events, &got));
        assert_int_equal(by_order(&got, &want[i]), 1); /* 1: neither comes before the other */
        assert_int_equal(by_order(&want[i], &got), 1);
        assert_int_equal(got.payload, want[i].payload);
    }
    assert_false(kv_events_take(&events, &got));
    assert_null(kv_events_next(&events));
    free(want);
    kv_events_fini(&events);
}

/* Hold model: take one, put one later. Time never goes back and the heap stops growing. */
static void test_hold(void **state)
{
    kv_events events = {0};
    kv_event_entry got = {0};
    uint64_t random = 11;
    for (int i = 0; i < 100; i++)
        assert_int_equal(kv_events_put(&events, (int64_t)(draw(&random) % 1000), 0, 0), KV_OK);
    size_t room = events.room;
    int64_t last = 0;
    for (int i = 0; i < 20000; i++) {
        assert_true(kv_events_take(&events, &got));
        assert_true(got.time_ns >= last);
        last = got.time_ns;
        int64_t later = got.time_ns + (int64_t)(draw(&random) % 1000);
        assert_int_equal(kv_events_put(&events, later, 1, 0), KV_OK);
    }
    assert_int_equal(events.room, room);
    assert_int_equal(events.count, 100);
    kv_events_fini(&events);
}

static void test_pool(void **state)
{
    enum { LIVE = 200 };
    kv_pool pool = {.object_bytes = 40};
    unsigned char *object[LIVE];
    for (int i = 0; i < LIVE; i++) {
        object[i] = kv_pool_take(&pool);
        assert_non_null(object[i]);
        assert_int_equal((uintptr_t)object[i] % _Alignof(max_align_t), 0);
        memset(object[i], i, 40);
    }
    for (int i = 0; i < LIVE; i++) /* objects do not overlap */
        for (int b = 0; b < 40; b++)
            assert_int_equal(object[i][b], (unsigned char)i);
    size_t slabs = pool.slab_count;
    for (int round = 0; round < 50; round++) {
        for (int i = 0; i < LIVE; i++)
            kv_pool_give(&pool, object[i]);
        for (int i = 0; i < LIVE; i++)
            object[i] = kv_pool_take(&pool);
    }
    assert_int_equal(pool.slab_count, slabs); /* warm: nothing was allocated */
    assert_int_equal(pool.live, LIVE);
    void *last = object[LIVE - 1];
    kv_pool_give(&pool, last);
    assert_ptr_equal(kv_pool_take(&pool), last);
    kv_pool_fini(&pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_total_order),
        cmocka_unit_test(test_hold),
        cmocka_unit_test(test_pool),
    };
    return cmocka_run_group_tests_name("engine", tests, NULL, NULL);
}
