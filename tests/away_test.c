/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Serving under read policies that keep entries in host memory: room, bytes and times worked by
 * hand. That jumps equal steps under them is in keep_test.
 *
 * 4 layers of 4 KV heads are 16 heads. An entry has 125 bytes, a page 8 entries of one head. A head
 * keeps 8 entries on the device and fetches 4 per step; the link moves 10^6 bytes per second each
 * way and takes 3 us to begin. */
#include "tests/kv_test.h"

#include "sim/policy_spec.h"
#include "sim/serving/serving.h"

enum { COUNT = 2 };

static const char model_yaml[] =
    "{name: small, layers: 4, hidden_size: 64, vocabulary: 100, dtype: bf16,"
    " attention: {heads: 8, kv_heads: 4, head_dim: 16}, mlp: {intermediate_size: 128}}";
static const char device_yaml[] =
    "{name: unit, memory: 1GB, bandwidth: 1GB/s, fp16_tflops: 0.001, bf16_tflops: 0.001, "
    "fp8_tflops: 0, host_link: {bandwidth: 1GB/s, latency: 1us}, "
    "tensor_parallel_link: {bandwidth: 1GB/s, latency: 1us}}";

typedef struct bench {
    kv_model *model;
    kv_device *device;
    kv_step_time *time;
    kv_point_list full;
    kv_keep *keep;
    kv_serving_settings settings;
    kv_request request;
    int count, made;
    kv_request_outcome out[COUNT];
    kv_serving_result result;
} bench;

static kv_err next(void *closure, kv_request *out, kv_diag *diag)
{
    bench *b = closure;
    if (b->made == b->count)
        return KV_END;
    *out = b->request;
    out->number = b->made++;
    return KV_OK;
}

static kv_err outcome(void *closure, const kv_request_outcome *got, kv_diag *diag)
{
    ((bench *)closure)->out[got->number] = *got;
    return KV_OK;
}

/* chunk 0: whole prompts; away: entries lie in the tier. */
static void open_bench(bench *b, long long chunk, bool away)
{
    static const kv_read read = {.name = "by_hand"};
    kv_diag diag = {0};
    kv_mark mark = {"test", 1, 1};
    kv_step_time_config config = {
        .compute_efficiency = 0.6, .attention_efficiency = 0.4, .memory_efficiency = 0.8};
    *b = (bench){.count = 1};
    assert_int_equal(kv_model_find(model_yaml, &b->model, &diag), KV_OK);
    assert_int_equal(kv_device_find(device_yaml, &b->device, &diag), KV_OK);
    kv_step_hardware on = {.model = b->model,
                           .device = b->device,
                           .format = kv_model_cache_format(b->model),
                           .tensor_parallel = 1};
    assert_int_equal(kv_step_time_new(&config, &on, &b->time, &diag), KV_OK);
    assert_int_equal(kv_policy_parse_text("full", &mark, "", &b->full, &diag), KV_OK);
    kv_keep_spec make = {
        .rule = {.policy = b->full.point[0].policy, .config = b->full.point[0].config},
        .format = kv_model_cache_format(b->model),
        .chunk_tokens = chunk,
        .page_tokens = 8,
        .step_tokens = 100,
        .read_share = 1,
        .prefill_share = 1};
    if (away)
        make.away = (kv_keep_away){.read = &read, .home_entries = 8, .fetch_entries = 4};
    assert_int_equal(kv_keep_new(b->model, &make, &b->keep, &diag), KV_OK);
    b->settings = (kv_serving_settings){.kv_blocks = 10,
                                        .block_tokens = 8,
                                        .block_bytes = 16000,
                                        .entry_bytes = 125,
                                        .max_batched_tokens = 100,
                                        .max_seqs = 9,
                                        .chunk_tokens = (int32_t)chunk,
                                        .replicas = 1,
                                        .reserve_full_input = true,
                                        .keep = b->keep,
                                        .layers = 4,
                                        .tiers = 1,
                                        .replacement = kv_replacement_find("lru"),
                                        .order = kv_queue_order_find("fcfs"),
                                        .routing = kv_routing_find("round-robin")};
    b->settings.tier[0] = (kv_tier_settings){.name = "cpu",
                                             .capacity_blocks = 100,
                                             .read_bandwidth = 1e6,
                                             .write_bandwidth = 1e6,
                                             .latency_ns = 3000,
                                             .replacement = kv_replacement_find("lru")};
    b->request = (kv_request){.prompt_tokens = 40, .output_tokens = 4, .session = KV_NO_SESSION};
}

static void serve(bench *b)
{
    kv_diag diag = {0};
    kv_serving_source source = {.closure = b, .next = next};
    kv_serving_listener listener = {.closure = b, .request = outcome};
    kv_serving_result_fini(&b->result);
    b->result = (kv_serving_result){0};
    b->made = 0;
    if (kv_serving_run(&b->settings, b->time, kv__entries_per_token(b->model), &source, &listener,
                       &b->result, &diag) != KV_OK)
        fail_msg("%s", diag.text);
}

static void close_bench(bench *b)
{
    kv_serving_result_fini(&b->result);
    kv_keep_free(b->keep);
    kv_point_list_fini(&b->full);
    kv_step_time_free(b->time);
    kv_device_free(b->device);
    kv_model_free(b->model);
}

/* What the GPU takes for a step that decodes: 8 entries and the new token's, and 4 fetched. */
static int64_t decode_ns(const bench *b)
{
    kv_step_batch batch = {.tokens = 1,
                           .sequences = 1,
                           .decodes = 1,
                           .decode_entries = 16 * 13,
                           .decode_longest = 16 * 13};
    return kv_step_time_step(b->time, &batch) >> KV_FINE_BITS;
}

static void near_ns(int64_t got, int64_t want)
{
    if (got < want - 4 || got > want + 4) /* parts of a ns, of four steps */
        fail_msg("%lld ns, expected %lld", (long long)got, (long long)want);
}

/* A prompt of 40 tokens takes 5 pages in each of 16 heads. When it ends 32 entries of a head leave:
 * 512 x 125 bytes are 64 ms. A step of the answer fetches 4 x 16 entries, 8 ms and a latency for
 * each of 4 layers, and 16 leave, 2 ms: 10.012 ms. In its third step 35 x 16 entries are away, 4.4
 * blocks of 128. */
static void whole_prompt(void **state)
{
    bench b;
    open_bench(&b, 0, true);
    for (int stepwise = 0; stepwise < 2; stepwise++) {
        b.settings.stepwise = stepwise == 1;
        serve(&b);
        near_ns(b.out[0].e2e_ns - b.out[0].ttft_ns, 64000000 + 3 * (decode_ns(&b) + 10012000));
        assert_int_equal(b.result.peak_bytes, 80000);
        assert_close(b.result.read_bytes, 16 * 125.0 * (40 + 3 * 13), 1e-12);
        assert_int_equal(b.result.tier[0].entries_in, 512 + 3 * 16);
        assert_int_equal(b.result.tier[0].entries_out, 3 * 64);
        assert_int_equal(b.result.tier[0].peak_blocks, 5);
        near_ns(b.result.tier[0].busy_ns, 64000000 + 3 * 10012000);
    }
    close_bench(&b);
}

/* A link that reads ten times as slowly adds 3 x 72 ms to the answer. */
static void slow_link(void **state)
{
    bench b;
    open_bench(&b, 0, true);
    serve(&b);
    int64_t before_ns = b.out[0].e2e_ns;
    b.settings.tier[0].read_bandwidth = 1e5;
    serve(&b);
    near_ns(b.out[0].e2e_ns - before_ns, 3 * 72000000);
    close_bench(&b);
}

/* With overlap the 64 ms begin with the prompt's step, and the last of 4 layers, 16 ms, comes after
 * it. A step of the answer takes what its link does, 10.012 ms, if that is more than computing from
 * the first layer's 2 ms and 3 us on. */
static void overlapped(void **state)
{
    bench b;
    open_bench(&b, 0, true);
    b.settings.overlap = true;
    serve(&b);
    int64_t prompt_ns = b.out[0].ttft_ns, computed_ns = 2003000 + decode_ns(&b);
    int64_t wait_ns = 64000000 - prompt_ns > 16000000 ? 64000000 - prompt_ns : 16000000;
    int64_t step_ns = computed_ns > 10012000 ? computed_ns : 10012000;
    near_ns(b.out[0].e2e_ns - prompt_ns, wait_ns + 3 * step_ns);
    close_bench(&b);
}

/* In chunks of 10 there are 8 + 10 entries on the device, 3 pages in 16 heads, and in the last
 * chunk the 22 that are away come into 3 pages for each of a layer's 4 heads. The chunks fetch 0,
 * 2, 12 and 22 entries of a head. */
static void chunks(void **state)
{
    bench b;
    open_bench(&b, 10, true);
    serve(&b);
    assert_int_equal(b.result.peak_bytes, (16 * 3 + 4 * 3) * 1000);
    assert_int_equal(b.result.tier[0].entries_out, 16 * (2 + 12 + 22) + 3 * 64);
    assert_int_equal(b.result.tier[0].entries_in, 512 + 3 * 16);
    close_bench(&b);
}

/* Of two prompts of 6 of 10 blocks one runs at a time; when a prompt leaves 2 pages a head and a
 * buffer, both do. */
static void more_requests(void **state)
{
    for (int away = 0; away < 2; away++) {
        bench b;
        open_bench(&b, 0, away == 1);
        b.count = 2;
        b.request.prompt_tokens = 48;
        serve(&b);
        assert_int_equal(b.result.peak_running, away == 1 ? 2 : 1);
        close_bench(&b);
    }
}

/* 35 x 16 entries are more than 4 blocks of 128 hold: rejected and counted. In a tier of 9 blocks
 * two such requests, 8.75 blocks, run together; in one of 8 the second begins when the first has
 * ended. */
static void no_room(void **state)
{
    bench b;
    open_bench(&b, 0, true);
    b.settings.tier[0].capacity_blocks = 4;
    serve(&b);
    assert_int_equal(b.result.rejected_large, 1);
    assert_int_equal(b.result.completed, 0);
    b.count = 2;
    b.settings.kv_blocks = 20;
    b.settings.tier[0].capacity_blocks = 9;
    serve(&b);
    assert_int_equal(b.result.preemptions, 0);
    assert_int_equal(b.result.peak_running, 2);
    assert_int_equal(b.result.tier[0].peak_blocks, 9);
    b.settings.tier[0].capacity_blocks = 8;
    serve(&b);
    assert_int_equal(b.result.completed, 2);
    assert_true(b.result.preemptions > 0);
    assert_true(b.out[1].e2e_ns > b.out[0].e2e_ns);
    assert_true(b.result.tier[0].peak_blocks <= 8);
    close_bench(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_prompt),  cmocka_unit_test(slow_link),
        cmocka_unit_test(overlapped),    cmocka_unit_test(chunks),
        cmocka_unit_test(more_requests), cmocka_unit_test(no_room),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
