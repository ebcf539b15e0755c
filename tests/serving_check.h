/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* What random tests of serving have in common: tiers, and when two results are the same. */
#ifndef KVSIM_TESTS_SERVING_CHECK_H
#define KVSIM_TESTS_SERVING_CHECK_H

#include "tests/draw.h"
#include "tests/kv_test.h"

#include "sim/serving/serving.h"

/* None to two tiers, whose links carry 1 to 99 units of bandwidth (bytes per second); where
 * replacement is a coin's other side it is `rare`. */
static inline void add_tiers(kv_serving_settings *settings, uint64_t *random, double unit,
                             const char *rare)
{
    settings->tiers = (int)between(random, 0, 2);
    settings->load = (int)between(random, KV_LOAD_AUTO, KV_LOAD_BOTH_ENDS);
    settings->overlap = draw(random) % 2 == 0;
    for (int t = 0; t < settings->tiers; t++)
        settings->tier[t] = (kv_tier_settings){
            .name = "tier",
            .capacity_blocks = between(random, 5, 200),
            .read_bandwidth = unit * (double)between(random, 1, 99),
            .write_bandwidth = unit * (double)between(random, 1, 99),
            .latency_ns = between(random, 0, 50000),
            .link = t > 0 && draw(random) % 2 == 0 ? 0 : t,
            .shared_link = draw(random) % 2 == 0,
            .fair = draw(random) % 2 == 0,
            .replacement = kv_replacement_find(draw(random) % 4 == 0 ? rare : "lru"),
            .write_through = draw(random) % 2 == 0};
}

/* Two runs of the same, told apart by nothing that is reported; gaps between tokens are sorted. */
static inline void check_equal(kv_serving_result *a, kv_serving_result *b)
{
    assert_int_equal(a->completed, b->completed);
    assert_int_equal(a->preemptions, b->preemptions);
    assert_int_equal(a->recomputed_tokens, b->recomputed_tokens);
    assert_int_equal(a->end_ns, b->end_ns);
    assert_int_equal(a->steps, b->steps);
    assert_int_equal(a->peak_bytes, b->peak_bytes);
    assert_int_equal(a->ideal_peak_bytes, b->ideal_peak_bytes);
    assert_int_equal(a->peak_running, b->peak_running);
    assert_int_equal(a->evictions, b->evictions);
    assert_true(a->byte_seconds == b->byte_seconds);
    assert_true(a->ideal_byte_seconds == b->ideal_byte_seconds);
    assert_true(a->running_seconds == b->running_seconds);
    assert_true(a->read_bytes == b->read_bytes);
    assert_memory_equal(a->tier, b->tier, sizeof a->tier);
    assert_true(a->itl.count == b->itl.count && a->itl.sum == b->itl.sum);
    if (a->itl.count > 0)
        for (int p = 0; p <= 100; p++)
            assert_true(kv_samples_quantile(&a->itl, p / 100.0) ==
                        kv_samples_quantile(&b->itl, p / 100.0));
}

#endif
