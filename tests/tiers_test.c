/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Tiers below the GPU, worked by hand: what is found, what is moved and when, and what is loaded or
 * computed. */
#include "tests/serving_fixture.h"

/* What all cases here have in common unless they say otherwise: blocks of 8 tokens, one tier of
 * 100, and whatever lies in it is loaded. */
static kv_serving_settings hand_settings(int64_t kv_blocks, double read_bandwidth,
                                         double write_bandwidth)
{
    uint64_t random = 1;
    kv_serving_settings settings = make_settings(&random);
    settings.kv_blocks = kv_blocks;
    settings.block_tokens = 8;
    settings.chunk_tokens = 0;
    settings.max_batched_tokens = 1000;
    settings.layers = 2;
    settings.load = KV_LOAD_ALWAYS;
    settings.tiers = 1;
    settings.tier[0] = (kv_tier_settings){.name = "cpu",
                                          .capacity_blocks = 100,
                                          .read_bandwidth = read_bandwidth,
                                          .write_bandwidth = write_bandwidth,
                                          .replacement = kv_replacement_find("lru")};
    return settings;
}

/* Appends a prompt for one token of answer, whose first blocks are named first_name and on. */
static void ask(workload *load, int64_t arrival_ns, int32_t prompt_tokens, int32_t blocks,
                uint64_t first_name)
{
    int i = load->count++;
    for (int b = 0; b < blocks; b++)
        load->name[i][b] = first_name + (uint64_t)b;
    load->want[i].in = (kv_request){.number = i,
                                    .arrival_ns = arrival_ns,
                                    .prompt_tokens = prompt_tokens,
                                    .output_tokens = 1,
                                    .blocks = load->name[i],
                                    .block_count = blocks,
                                    .block_tokens = 8,
                                    .session = KV_NO_SESSION};
}

/* The time of a step that computes the last token of a prompt alone. */
static int64_t last_token_ns(const hardware *h, int32_t prompt_tokens)
{
    kv_step_batch last = {.tokens = 1,
                          .sequences = 1,
                          .prefill_tokens = 1,
                          .prefill_square = 1,
                          .prefill_history = prompt_tokens - 1};
    return kv_step_time_step(h->time, &last) >> KV_FINE_BITS;
}

/* Three requests a second apart: the first and the last share six blocks, the one between fills the
 * cache. */
static workload *three_requests(void)
{
    workload *load = calloc(1, sizeof *load);
    for (int i = 0; i < 3; i++)
        ask(load, i * (int64_t)1000000000, i == 1 ? 80 : 41, i == 1 ? 0 : 6, 100);
    return load;
}

/* By hand: a prompt of 41 tokens in blocks of 8 leaves 5 named blocks. Another prompt takes all 10
 * blocks of the GPU, so that they go down one after the other, the end of the prompt first. Then
 * the prompt comes again: 5 blocks of 1000 bytes at 10^6 bytes per second and 3 us are 5,003,000
 * ns; the token that is left takes one step. A tier of 3 blocks has kept the first 3 only. */
static void test_tier(void **state)
{
    const hardware *h = *state;
    kv_serving_settings settings = hand_settings(10, 1e6, 1e9);
    settings.tier[0].latency_ns = 3000;
    workload *load = three_requests();
    int64_t step_ns = last_token_ns(h, 41);
    kv_serving_result result;
    serve(h, &settings, load, &result);
    assert_int_equal(load->got[2].cached_tokens, 40);
    assert_int_equal(load->got[2].ttft_ns, 5003000 + step_ns);
    assert_int_equal(result.tier[0].blocks_in, 5);
    assert_int_equal(result.tier[0].blocks_out, 5);
    assert_int_equal(result.tier[0].busy_ns, 5 * 1000 + 5003000); /* written at 1 us each */
    kv_serving_result_fini(&result);
    for (int i = 0; i < 3; i++) /* the same after eight months */
        load->want[i].in.arrival_ns += (int64_t)20000000000000000;
    serve(h, &settings, load, &result);
    assert_int_equal(load->got[2].ttft_ns, 5003000 + step_ns);
    assert_int_equal(result.itl.count, 0);
    kv_serving_result_fini(&result);
    settings.overlap =
        true; /* the step begins with the first of two layers: it ends with the load */
    serve(h, &settings, load, &result);
    assert_int_equal(load->got[2].ttft_ns,
                     5003000 > 2503000 + step_ns ? 5003000 : 2503000 + step_ns);
    kv_serving_result_fini(&result);
    settings.tier[0].capacity_blocks = 3;
    serve(h, &settings, load, &result);
    assert_int_equal(load->got[2].cached_tokens, 24);
    assert_int_equal(result.tier[0].evictions, 2);
    kv_serving_result_fini(&result);
    settings.load = KV_LOAD_NEVER;
    serve(h, &settings, load, &result);
    assert_int_equal(load->got[2].cached_tokens, 0);
    assert_int_equal(load->got[2].ttft_ns, load->got[0].ttft_ns);
    kv_serving_result_fini(&result);
    free(load);
}

/* By hand: as in test_tier, but a block takes 100 ms down and 1 us up. The second prompt takes the
 * memory of 5 blocks, so its step begins when they are copied: after 500 ms; written through they
 * were asked for at 0 and are copied at 500 ms, so a prompt that comes at 100 ms waits for 400, and
 * one that comes at 1 s for nothing. The third finds all of them. */
static void test_written_down(void **state)
{
    const hardware *h = *state;
    kv_serving_settings settings = hand_settings(10, 1e9, 1e4);
    workload *load = three_requests();
    kv_step_batch prompt = {
        .tokens = 80, .sequences = 1, .prefill_tokens = 80, .prefill_square = 6400};
    int64_t step_ns = kv_step_time_step(h->time, &prompt) >> KV_FINE_BITS;
    static const int64_t arrival_ns[] = {1000000000, 1000000000, 100000000};
    static const int64_t waits_ns[] = {500000000, 0, 400000000};
    for (int i = 0; i < 3; i++) {
        kv_serving_result result;
        settings.tier[0].write_through = i > 0;
        load->want[1].in.arrival_ns = arrival_ns[i];
        serve(h, &settings, load, &result);
        assert_int_equal(load->got[1].ttft_ns, waits_ns[i] + step_ns);
        assert_int_equal(load->got[1].queue_ns, 0);
        assert_int_equal(load->got[2].cached_tokens, 40);
        kv_serving_result_fini(&result);
    }
    free(load);
}

/* By hand: blocks of 8 tokens on a GPU of 7 that drops what came first. 101 comes with the first
 * prompt, 100, 107 and 102 with the second; the third takes 4 blocks, 3 are empty: 101 goes down.
 * The fourth prompt is 100, 101, 102: the GPU has the first and, behind the hole, the last, 16
 * tokens, the tier 8. */
static void test_hits_behind_a_hole(void **state)
{
    const hardware *h = *state;
    kv_serving_settings settings = hand_settings(7, 1e6, 1e6);
    settings.replacement = kv_replacement_find("fifo");
    static const uint64_t name[][3] = {{101}, {100, 107, 102}, {0}, {100, 101, 102}};
    static const int32_t prompt[] = {9, 25, 32, 25}, blocks[] = {1, 3, 0, 3};
    workload *load = calloc(1, sizeof *load);
    for (int i = 0; i < 4; i++) {
        ask(load, i * (int64_t)1000000000, prompt[i], blocks[i], 0);
        memcpy(load->name[i], name[i], sizeof name[i]);
    }
    kv_serving_result result;
    serve(h, &settings, load, &result);
    assert_int_equal(result.tier[0].blocks_in, 1);
    assert_int_equal(result.tier[0].blocks_out, 1);
    assert_int_equal(load->got[3].cached_tokens, 24);
    assert_int_equal(result.cached_tokens, 16);
    assert_int_equal(result.tier[0].hit_tokens, 8);
    check_hits(&result, load);
    kv_serving_result_fini(&result);
    free(load);
}

/* By hand: as in test_tier, but the first tier has room for 2 blocks, so the end of the prompt, 3
 * blocks, lies in the second. On links of their own the transfers of 2 and 3 ms overlap, on one
 * they add up. The GPU gives up the end of the prompt first, the first tier what came to it first.
 */
static void test_links(void **state)
{
    const hardware *h = *state;
    kv_serving_settings settings = hand_settings(10, 1e6, 1e9);
    settings.tiers = 2;
    settings.tier[1] = settings.tier[0];
    settings.tier[0].capacity_blocks = 2;
    workload *load = three_requests();
    int64_t step_ns = last_token_ns(h, 41);
    for (int i = 0; i < 6; i++) { /* on two links and on one; shared, in turns, one of each */
        int link = i % 2;
        kv_serving_result result;
        settings.tier[1].link = link;
        settings.tier[0].fair = i / 2 != 1;
        settings.tier[1].fair = i / 2 == 0;
        serve(h, &settings, load, &result);
        assert_int_equal(load->got[2].cached_tokens, 40);
        assert_int_equal(result.tier[0].blocks_out, 2);
        assert_int_equal(result.tier[1].blocks_out, 3);
        assert_int_equal(load->got[2].ttft_ns, (link == 1 ? 3000000 : 5000000) + step_ns);
        kv_serving_result_fini(&result);
    }
    free(load);
}

/* Compute-or-load: the front is computed while the end is loaded. The time is below that of either
 * alone, and what is loaded ends when the front is done, give or take a block. */
static void test_both_ends(void **state)
{
    const hardware *h = *state;
    kv_serving_settings settings = hand_settings(60, 3e5, 1e9);
    settings.tier[0].latency_ns = 3000;
    workload *load = calloc(1, sizeof *load);
    for (int i = 0; i < 3; i++)
        ask(load, i * (int64_t)10000000000, i == 1 ? 480 : 401, i == 1 ? 0 : 50, 100);
    int64_t ttft[KV_LOAD_BOTH_ENDS + 1];
    for (int mode = KV_LOAD_AUTO; mode <= KV_LOAD_BOTH_ENDS; mode++) {
        kv_serving_result result;
        settings.load = mode;
        serve(h, &settings, load, &result);
        ttft[mode] = load->got[2].ttft_ns;
        if (mode == KV_LOAD_BOTH_ENDS)
            assert_true(load->got[2].cached_tokens > 0 && load->got[2].cached_tokens < 400);
        kv_serving_result_fini(&result);
    }
    int64_t better =
        ttft[KV_LOAD_ALWAYS] < ttft[KV_LOAD_NEVER] ? ttft[KV_LOAD_ALWAYS] : ttft[KV_LOAD_NEVER];
    print_message("always %lld, never %lld, both ends %lld ns\n", (long long)ttft[KV_LOAD_ALWAYS],
                  (long long)ttft[KV_LOAD_NEVER], (long long)ttft[KV_LOAD_BOTH_ENDS]);
    assert_int_equal(ttft[KV_LOAD_AUTO], better);
    assert_true(ttft[KV_LOAD_BOTH_ENDS] < better);
    free(load);
}

/* By hand: prompts of 5 and 3 blocks that went down to a link of 1 ms a block come again, the
 * second 1 ms after the first. In turns they are here after 5 and 8 ms. In equal shares: at 1 ms 4
 * blocks are left of the first, so the second ends at 1 + 2 x 3 = 7 ms and the first at 8. Either
 * way the link is busy for 8 ms. A step begins when the one before has ended. */
static void test_sharing(void **state)
{
    const hardware *h = *state;
    static const int32_t prompt[] = {41, 25, 80, 41, 25}, blocks[] = {5, 3, 0, 5, 3};
    static const int64_t arrival_ns[] = {0, 1000000000, 2000000000, 3000000000, 3001000000};
    kv_serving_settings settings = hand_settings(10, 1e6, 1e9);
    settings.max_seqs = 9;
    workload *load = calloc(1, sizeof *load);
    for (int i = 0; i < 5; i++)
        ask(load, arrival_ns[i], prompt[i], blocks[i], prompt[i] == 41 ? 100 : 200);
    const int64_t step_ns[2] = {last_token_ns(h, 41), last_token_ns(h, 25)};
    for (int fair = 0; fair < 2; fair++) {
        kv_serving_result result;
        settings.tier[0].fair = fair == 1;
        serve(h, &settings, load, &result);
        int64_t first = fair ? 8000000 : 5000000, second = fair ? 7000000 : 8000000;
        int64_t *one = fair ? &second : &first, *other = fair ? &first : &second;
        *one += step_ns[fair];
        *other = (*one > *other ? *one : *other) + step_ns[!fair];
        assert_in_range(load->got[3].ttft_ns, first, first + 1);
        assert_in_range(load->got[4].ttft_ns + 1000000, second, second + 1);
        assert_int_equal(result.tier[0].busy_ns, 8 * 1000 + 8000000);
        kv_serving_result_fini(&result);
    }
    free(load);
}

/* A lone request with a prefix in the tier, over links from far slower to far faster than
 * computing, lengths, chunks and overlap: both ends are never more than a step's rounding later
 * than the better of loading and computing, and auto is that. */
static void test_best_of_both(void **state)
{
    const hardware *h = *state;
    static const int32_t chunks[] = {0, 64, 9};
    static const int32_t prompts[] = {41, 199, 401, 408};
    workload *load = calloc(1, sizeof *load);
    int mixed = 0;
    for (int i = 0; i < 3 * 4 * 2 * 13; i++) {
        kv_serving_settings settings = hand_settings(60, 1e4 * pow(2, i / 24), 1e12);
        settings.chunk_tokens = chunks[i % 3];
        settings.overlap = i / 12 % 2 == 1;
        settings.reserve_full_input = true;
        settings.tier[0].latency_ns = 3000;
        int32_t prompt = prompts[i / 3 % 4];
        *load = (workload){.count = 0};
        for (int r = 0; r < 3; r++)
            ask(load, r * (int64_t)10000000000, r == 1 ? 480 : prompt, r == 1 ? 0 : prompt / 8,
                100);
        int64_t ttft[KV_LOAD_BOTH_ENDS + 1];
        for (int mode = KV_LOAD_AUTO; mode <= KV_LOAD_BOTH_ENDS; mode++) {
            kv_serving_result result;
            settings.load = mode;
            serve(h, &settings, load, &result);
            ttft[mode] = load->got[2].ttft_ns;
            mixed += mode == KV_LOAD_BOTH_ENDS && load->got[2].cached_tokens > 0 &&
                     load->got[2].cached_tokens < (prompt - 1) / 8 * 8;
            kv_serving_result_fini(&result);
        }
        int64_t better =
            ttft[KV_LOAD_ALWAYS] < ttft[KV_LOAD_NEVER] ? ttft[KV_LOAD_ALWAYS] : ttft[KV_LOAD_NEVER];
        if (ttft[KV_LOAD_BOTH_ENDS] > better + 100 || ttft[KV_LOAD_AUTO] > better + 100)
            fail_msg("case %d: always %lld, never %lld, auto %lld, both ends %lld ns", i,
                     (long long)ttft[KV_LOAD_ALWAYS], (long long)ttft[KV_LOAD_NEVER],
                     (long long)ttft[KV_LOAD_AUTO], (long long)ttft[KV_LOAD_BOTH_ENDS]);
    }
    assert_true(mixed > 30);
    free(load);
}

typedef struct sampled {
    workload *load;
    int count;
    int64_t interval_ns, first_ns, last_ns, most_tier_bytes;
} sampled;

/* What a listener keeps: samples on the grid of the last interval. */
static kv_err take_sample(void *closure, const kv_serving_sample *sample, kv_diag *diag)
{
    sampled *s = closure;
    s->first_ns = s->count == 0 ? sample->time_ns : s->first_ns;
    if (sample->interval_ns != s->interval_ns)
        s->count = (s->count + 1) / 2;
    assert_int_equal((sample->time_ns - s->first_ns) % sample->interval_ns, 0);
    s->interval_ns = sample->interval_ns;
    s->last_ns = sample->time_ns;
    s->count++;
    assert_true(s->count <= KV_MOST_SAMPLES);
    if (sample->tier_bytes[0] > s->most_tier_bytes)
        s->most_tier_bytes = sample->tier_bytes[0];
    return KV_OK;
}

/* The three requests of test_tier take a little over 2 s. Every ns there are at most 65536 samples:
 * the interval doubles until 2 s are less than that, 2^15 ns (2e9 / 2^15 = 61035, 2e9 / 2^14 =
 * 122070), and they stay evenly spaced. The tier holds five blocks at the end. */
static void test_samples(void **state)
{
    const hardware *h = *state;
    kv_serving_settings settings = hand_settings(10, 1e9, 1e9);
    workload *load = three_requests();
    for (int64_t interval = 1; interval < 1000000000; interval *= 1000) {
        sampled s = {.load = load, .interval_ns = interval};
        kv_diag diag = {0};
        kv_serving_source source = {.closure = load, .next = next};
        kv_serving_listener listener = {.closure = &s, .sample = take_sample};
        kv_serving_result result = {0};
        load->next = 0;
        settings.timeline_ns = interval;
        assert_int_equal(
            kv_serving_run(&settings, h->time, h->entries, &source, &listener, &result, &diag),
            KV_OK);
        assert_int_equal(s.interval_ns, interval == 1      ? 32768
                                        : interval == 1000 ? 32000
                                                           : interval);
        assert_true(result.end_ns - s.last_ns <= s.interval_ns);
        assert_int_equal(s.count, (s.last_ns - s.first_ns) / s.interval_ns + 1);
        assert_int_equal(s.most_tier_bytes, 5000);
        kv_serving_result_fini(&result);
    }
    free(load);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tier),      cmocka_unit_test(test_written_down),
        cmocka_unit_test(test_links),     cmocka_unit_test(test_hits_behind_a_hole),
        cmocka_unit_test(test_both_ends), cmocka_unit_test(test_best_of_both),
        cmocka_unit_test(test_sharing),   cmocka_unit_test(test_samples),
    };
    return cmocka_run_group_tests_name("tiers", tests, open_hardware, close_hardware);
}
