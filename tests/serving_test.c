/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* The scheduler on random workloads: every request's times against an independent reference that
 * takes one step at a time, and jumps against steps to the bit. Known answers are worked by hand.
 */
#include "tests/serving_fixture.h"

static void test_reference(void **state)
{
    const hardware *h = *state;
    workload *load = calloc(1, sizeof *load);
    uint64_t random = 4711;
    int64_t preemptions = 0, hits = 0, rejected = 0;
    for (int round = 0; round < 150; round += kv_stride(3)) {
        kv_serving_settings settings = make_settings(&random);
        make_workload(load, &random, settings.block_tokens, NAMES * settings.block_tokens / 2);
        for (int i = 0; i < load->count; i++)
            load->want[i].cached = load->want[i].preemptions = 0;
        reference_run(&settings, h->time, h->entries, load->want, load->count);
        kv_serving_result result;
        serve(h, &settings, load, &result);
        assert_int_equal(load->finished, load->count); /* nothing is lost, nothing hangs */
        for (int i = 0; i < load->count; i++) {
            const reference_request *want = &load->want[i];
            const kv_request_outcome *got = &load->got[i];
            assert_int_equal(got->status == KV_REQUEST_TOO_LARGE, want->rejected);
            if (want->rejected)
                continue;
            if (want->in.output_tokens > 0)
                assert_int_equal(got->ttft_ns, want->first_ns - want->in.arrival_ns);
            assert_int_equal(got->e2e_ns, want->last_ns - want->in.arrival_ns);
            assert_int_equal(got->cached_tokens, want->cached);
            assert_int_equal(got->preemptions, want->preemptions);
            hits += got->cached_tokens;
        }
        preemptions += result.preemptions;
        rejected += result.rejected_large;
        kv_serving_result_fini(&result);
    }
    assert_true(kv_is_under_valgrind() || /* the workloads do bite */
                (preemptions > 100 && hits > 1000 && rejected > 10));
    free(load);
}

static void add_tiers_and_swap(kv_serving_settings *settings, uint64_t *random)
{
    add_tiers(settings, random, 1e6, "belady");
    settings->layers = 2;
    settings->swap = settings->tiers > 0 && draw(random) % 2 == 0;
}

static void check_swaps(const kv_serving_result *result, bool all)
{
    const kv_tier_result *tier = &result->tier[0];
    assert_int_equal(tier->blocks_in, tier->blocks_out); /* what went down came up again */
    assert_int_equal(tier->hit_tokens, 0);
    if (all) { /* nothing was computed twice */
        assert_int_equal(result->recomputed_tokens, 0);
        assert_true((tier->blocks_in > 0) == (result->preemptions > 0));
    }
}

/* Preemption by swap against the reference: in a tier with room for all, and in one that is full at
 * times, when preempted requests compute again. */
static void test_swap(void **state)
{
    const hardware *h = *state;
    workload *load = calloc(1, sizeof *load);
    uint64_t random = 31337;
    int64_t swapped = 0, recomputed = 0;
    for (int round = 0; round < 150; round += kv_stride(3)) {
        kv_serving_settings settings = make_settings(&random);
        make_workload(load, &random, settings.block_tokens, NAMES * settings.block_tokens / 2);
        add_tiers_and_swap(&settings, &random);
        settings.tiers = 1;
        settings.tier[0].name = "tier";
        settings.tier[0].fair = false; /* the reference knows turns */
        settings.tier[0].read_bandwidth = 1e6 * (double)between(&random, 1, 99);
        settings.tier[0].write_bandwidth = 1e6 * (double)between(&random, 1, 99);
        settings.tier[0].latency_ns = between(&random, 0, 50000);
        settings.tier[0].replacement = settings.replacement;
        settings.swap = true;
        settings.prefix_cache = round % 2 == 0;
        settings.tier[0].capacity_blocks = settings.prefix_cache ? 100000 : between(&random, 1, 60);
        for (int i = 0; i < load->count; i++) {
            load->want[i].in.block_count = 0;
            load->want[i].cached = load->want[i].preemptions = 0;
        }
        reference_run(&settings, h->time, h->entries, load->want, load->count);
        kv_serving_result result;
        serve(h, &settings, load, &result);
        for (int i = 0; i < load->count; i++) {
            const reference_request *want = &load->want[i];
            if (want->rejected)
                continue;
            if (want->in.output_tokens > 0)
                assert_int_equal(load->got[i].ttft_ns, want->first_ns - want->in.arrival_ns);
            assert_int_equal(load->got[i].e2e_ns, want->last_ns - want->in.arrival_ns);
            assert_int_equal(load->got[i].preemptions, want->preemptions);
        }
        check_swaps(&result, settings.prefix_cache);
        swapped += result.tier[0].blocks_in;
        recomputed += result.recomputed_tokens;
        kv_serving_result_fini(&result);
    }
    assert_true(kv_is_under_valgrind() || (swapped > 1000 && recomputed > 1000));
    free(load);
}

/* Every replacement policy, order and routing, several replicas, tiers: jumps equal steps. */
static void test_jumps_equal_steps(void **state)
{
    const hardware *h = *state;
    workload *load = calloc(1, sizeof *load);
    kv_request_outcome *jumped = calloc(MOST, sizeof *jumped);
    uint64_t random = 99;
    int64_t jumps = 0, steps = 0, loaded = 0;
    const kv_replacement *const *policy = kv_replacement_all();
    const kv_queue_order *const *order = kv_queue_order_all();
    const kv_routing *const *routing = kv_routing_all();
    const int rounds = kv_is_under_valgrind() ? 100 : 500;
    for (int round = 0; round < rounds; round++) {
        kv_serving_settings settings = make_settings(&random);
        make_workload(load, &random, settings.block_tokens, NAMES * settings.block_tokens);
        settings.replacement = *policy;
        settings.order = *order;
        settings.routing = *routing;
        settings.replicas = (int)between(&random, 1, 3);
        add_tiers_and_swap(&settings, &random);
        kv_serving_result result, stepped;
        serve(h, &settings, load, &result);
        memcpy(jumped, load->got, MOST * sizeof *jumped);
        settings.stepwise = true;
        serve(h, &settings, load, &stepped);
        for (int i = 0; i < load->count; i++)
            if (memcmp(&jumped[i], &load->got[i], sizeof *jumped) != 0)
                fail_msg("round %d: request %d under %s, %s, %s, %d replicas", round, i,
                         settings.replacement->name, settings.order->name, settings.routing->name,
                         settings.replicas);
        check_equal(&result, &stepped);
        check_hits(&result, load);
        assert_memory_equal(result.tier, stepped.tier, sizeof result.tier);
        assert_int_equal(load->finished, load->count);
        loaded += result.loaded_tokens;
        jumps += result.jumps;
        steps += result.steps;
        kv_serving_result_fini(&result);
        kv_serving_result_fini(&stepped);
        order = *++order != NULL ? order : kv_queue_order_all();
        if (*++policy == NULL) { /* every policy meets every routing */
            policy = kv_replacement_all();
            routing = *++routing != NULL ? routing : kv_routing_all();
        }
    }
    print_message("%lld steps in %lld jumps\n", (long long)steps, (long long)jumps);
    assert_true(loaded > 1000);
    assert_true(5 * jumps < 4 * steps); /* there was something to jump over */
    free(jumped);
    free(load);
}

/* One request alone, by hand: prompt 40 in chunks of 17 (17, 17, 6), 3 answers: 5 steps, the first
 * token after the third; blocks of 8 tokens: 42 stored tokens are 6 blocks. */
static void test_alone(void **state)
{
    const hardware *h = *state;
    uint64_t random = 1;
    kv_serving_settings settings = make_settings(&random);
    settings.kv_blocks = 6;
    settings.block_tokens = 8;
    settings.chunk_tokens = 17;
    settings.max_batched_tokens = 100;
    workload *load = calloc(1, sizeof *load);
    load->count = 1;
    load->want[0].in = (kv_request){
        .arrival_ns = 5, .prompt_tokens = 40, .output_tokens = 3, .session = KV_NO_SESSION};
    kv_serving_result result;
    serve(h, &settings, load, &result);
    assert_int_equal(result.steps, 5);
    assert_int_equal(result.peak_bytes, 6 * 1000);
    assert_int_equal(result.itl.count, 2);
    assert_int_equal(load->got[0].queue_ns, 0);
    assert_int_equal(result.end_ns - 5, load->got[0].e2e_ns);
    kv_serving_result_fini(&result);
    settings.kv_blocks = 5; /* one block short: it could never end */
    serve(h, &settings, load, &result);
    assert_int_equal(result.rejected_large, 1);
    kv_serving_result_fini(&result);
    free(load);
}

/* Two requests, the second a nanosecond behind the first, that name the same blocks. */
static void serve_twins(const hardware *h, int32_t chunk, int32_t size, int32_t prompt,
                        workload *load, kv_serving_result *result)
{
    uint64_t random = 1;
    kv_serving_settings settings = make_settings(&random);
    settings.kv_blocks = 100;
    settings.block_tokens = size;
    settings.chunk_tokens = chunk;
    settings.max_batched_tokens = 1000;
    settings.max_seqs = 8;
    load->count = 2;
    for (int i = 0; i < 2; i++) {
        load->want[i].in = (kv_request){.number = i,
                                        .arrival_ns = i,
                                        .prompt_tokens = prompt,
                                        .output_tokens = 1,
                                        .session = KV_NO_SESSION,
                                        .blocks = load->name[i],
                                        .block_count = prompt / size,
                                        .block_tokens = size};
        for (int b = 0; b < prompt / size; b++)
            load->name[i][b] = (uint64_t)b + 1;
    }
    serve(h, &settings, load, result);
}

/* By vLLM's rules: a block of 512 tokens of which the first step computes 64 is not found by the
 * request that the second step admits. */
static void test_not_found_before_computed(void **state)
{
    workload *load = calloc(1, sizeof *load);
    kv_serving_result result;
    serve_twins(*state, 64, 512, 520, load, &result);
    assert_int_equal(load->got[1].cached_tokens, 0);
    kv_serving_result_fini(&result);
    free(load);
}

/* Chunks and blocks of 16, prompts of 160. In its step k the first request computes block k. The
 * second is admitted in step 2, where blocks 1 and 2 are full, shares these and computes block k +
 * 1 in step k: it is over with step 9, when it uses 10 blocks and the first request 9 of which 7
 * are copies. */
static void test_copies(void **state)
{
    workload *load = calloc(1, sizeof *load);
    kv_serving_result result;
    serve_twins(*state, 16, 16, 160, load, &result);
    assert_int_equal(load->got[1].cached_tokens, 32);
    assert_int_equal(result.peak_bytes, 17 * 1000);
    kv_serving_result_fini(&result);
    free(load);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_alone),  cmocka_unit_test(test_not_found_before_computed),
        cmocka_unit_test(test_copies), cmocka_unit_test(test_reference),
        cmocka_unit_test(test_swap),   cmocka_unit_test(test_jumps_equal_steps),
    };
    return cmocka_run_group_tests_name("serving", tests, open_hardware, close_hardware);
}
