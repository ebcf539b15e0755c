/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* The scheduler on random workloads: every request's times against an independent reference that
 * takes one step at a time, and jumps against steps to the bit. Known answers are worked by hand.
 */
#include "tests/kv_test.h"

#include "sim/serving/foresight.h"

#include "tests/serving_reference.h"

enum { MOST = 160, NAMES = 64 };

static const char device_yaml[] =
    "{name: unit, memory: 1GB, bandwidth: 1GB/s, fp16_tflops: 0.001, "
    "bf16_tflops: 0.001, fp8_tflops: 0, host_link: {bandwidth: 1GB/s, "
    "latency: 1us}, tensor_parallel_link: {bandwidth: 1GB/s, "
    "latency: 1us}}";
static const char model_yaml[] =
    "{name: small, layers: 2, hidden_size: 64, vocabulary: 100, dtype: bf16,"
    " attention: {heads: 4, kv_heads: 2, head_dim: 16},"
    " mlp: {intermediate_size: 128}}";

static uint64_t draw(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static int64_t between(uint64_t *state, int64_t low, int64_t high)
{
    return low + (int64_t)(draw(state) % (uint64_t)(high - low + 1));
}

typedef struct workload {
    reference_request want[MOST];
    kv_request_outcome got[MOST];
    uint64_t name[MOST][NAMES];
    int count, next, finished;
} workload;

typedef struct hardware {
    kv_model *model;
    kv_device *device;
    kv_step_time *time;
    int64_t entries;
} hardware;

static int open_hardware(void **state)
{
    kv_diag diag = {0};
    hardware *h = calloc(1, sizeof *h);
    if (kv_model_find(model_yaml, &h->model, &diag) != KV_OK ||
        kv_device_find(device_yaml, &h->device, &diag) != KV_OK) {
        print_error("%s\n", diag.text);
        return -1;
    }
    kv_step_time_config config = {.compute_efficiency = 0.6,
                                  .attention_efficiency = 0.4,
                                  .memory_efficiency = 0.8,
                                  .layer_overhead_ns = 1234,
                                  .step_overhead_ns = 777};
    kv_step_hardware on = {.model = h->model,
                           .device = h->device,
                           .format = kv_model_cache_format(h->model),
                           .tensor_parallel = 1};
    h->entries = kv__entries_per_token(h->model);
    *state = h;
    return kv_step_time_new(&config, &on, &h->time, &diag) == KV_OK ? 0 : -1;
}

static int close_hardware(void **state)
{
    hardware *h = *state;
    kv_step_time_free(h->time);
    kv_device_free(h->device);
    kv_model_free(h->model);
    free(h);
    return 0;
}

static kv_err next(void *closure, kv_request *out, kv_diag *diag)
{
    workload *load = closure;
    if (load->next == load->count)
        return KV_END;
    *out = load->want[load->next++].in;
    return KV_OK;
}

static kv_err outcome(void *closure, const kv_request_outcome *got, kv_diag *diag)
{
    workload *load = closure;
    load->got[got->number] = *got;
    load->finished++;
    return KV_OK;
}

static void make_workload(workload *load, uint64_t *random, int32_t block_tokens,
                          int64_t most_tokens)
{
    memset(load, 0, sizeof *load);
    load->count = (int)between(random, 20, MOST);
    int64_t now = 0, gap = between(random, 1, 400) * 100000;
    for (int i = 0; i < load->count; i++) {
        kv_request *r = &load->want[i].in;
        now += draw(random) % 3 == 0 ? 0 : between(random, 0, gap);
        *r = (kv_request){.number = i,
                          .arrival_ns = now,
                          .prompt_tokens = (int32_t)between(random, 1, most_tokens),
                          .output_tokens = (int32_t)between(random, 0, most_tokens),
                          .session = KV_NO_SESSION,
                          .blocks = load->name[i],
                          .block_tokens = block_tokens};
        if (draw(random) % 2 == 0) /* a chain of names that branches: many share beginnings */
            r->block_count = (r->prompt_tokens + block_tokens - 1) / block_tokens;
        uint64_t chain = draw(random) % 3 + 1;
        for (int b = 0; b < r->block_count; b++) {
            load->name[i][b] = chain << 8 | (uint64_t)b;
            chain = chain * 31 + (draw(random) % 8 == 0 ? draw(random) % 2 : 0);
            chain &= 0xffffff;
        }
    }
}

static kv_serving_settings make_settings(uint64_t *random)
{
    return (kv_serving_settings){.kv_blocks = between(random, 20, 120),
                                 .block_tokens = (int32_t)between(random, 1, 16),
                                 .block_bytes = 1000,
                                 .max_batched_tokens = between(random, 8, 200),
                                 .max_seqs = (int32_t)between(random, 2, 40),
                                 .chunk_tokens = (int32_t)(draw(random) % 2 * 17),
                                 .replicas = 1,
                                 .reserve_full_input = draw(random) % 2 == 0,
                                 .prefix_cache = true,
                                 .replacement = kv_replacement_find("lru"),
                                 .order = kv_queue_order_find("fcfs"),
                                 .routing = kv_routing_find("round-robin")};
}

static void serve(const hardware *h, const kv_serving_settings *settings, workload *load,
                  kv_serving_result *result)
{
    kv_diag diag = {0};
    kv_serving_source source = {.closure = load, .next = next};
    kv_serving_listener listener = {.closure = load, .request = outcome};
    kv_serving_settings foreseen = *settings;
    load->next = load->finished = 0;
    if (kv_foresight_needed(settings) &&
        kv_foresight_read(settings, &source, false, &foreseen.foresight, &diag) != KV_OK)
        fail_msg("%s", diag.text);
    load->next = 0;
    *result = (kv_serving_result){0};
    if (kv_serving_run(&foreseen, h->time, h->entries, &source, &listener, result, &diag) != KV_OK)
        fail_msg("%s", diag.text);
    kv_foresight_free(foreseen.foresight);
}

static void test_reference(void **state)
{
    const hardware *h = *state;
    workload *load = calloc(1, sizeof *load);
    uint64_t random = 4711;
    int64_t preemptions = 0, hits = 0, rejected = 0;
    for (int round = 0; round < 150; round++) {
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
    assert_true(preemptions > 100 && hits > 1000 && rejected > 10); /* the workloads do bite */
    free(load);
}

static void check_equal(kv_serving_result *a, kv_serving_result *b)
{
    assert_int_equal(a->completed, b->completed);
    assert_int_equal(a->preemptions, b->preemptions);
    assert_int_equal(a->recomputed_tokens, b->recomputed_tokens);
    assert_int_equal(a->end_ns, b->end_ns);
    assert_int_equal(a->steps, b->steps);
    assert_int_equal(a->peak_bytes, b->peak_bytes);
    assert_int_equal(a->evictions, b->evictions);
    assert_true(a->byte_seconds == b->byte_seconds);
    assert_true(a->itl.count == b->itl.count && a->itl.sum == b->itl.sum);
    if (a->itl.count > 0)
        for (int p = 0; p <= 100; p++)
            assert_true(kv_samples_quantile(&a->itl, p / 100.0) ==
                        kv_samples_quantile(&b->itl, p / 100.0));
}

static void add_tiers(kv_serving_settings *settings, uint64_t *random)
{
    settings->tiers = (int)between(random, 0, 2);
    settings->load = (int)between(random, KV_LOAD_AUTO, KV_LOAD_BOTH_ENDS);
    settings->overlap = draw(random) % 2 == 0;
    settings->layers = 2;
    for (int t = 0; t < settings->tiers; t++)
        settings->tier[t] = (kv_tier_settings){
            .name = "tier",
            .capacity_blocks = between(random, 5, 200),
            .read_bandwidth = 1e6 * (double)between(random, 1, 99),
            .write_bandwidth = 1e6 * (double)between(random, 1, 99),
            .latency_ns = between(random, 0, 50000),
            .link = t > 0 && draw(random) % 2 == 0 ? 0 : t,
            .shared_link = draw(random) % 2 == 0,
            .replacement = kv_replacement_find(draw(random) % 4 == 0 ? "belady" : "lru"),
            .write_through = draw(random) % 2 == 0};
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
    for (int round = 0; round < 150; round++) {
        kv_serving_settings settings = make_settings(&random);
        make_workload(load, &random, settings.block_tokens, NAMES * settings.block_tokens / 2);
        add_tiers(&settings, &random);
        settings.tiers = 1;
        settings.tier[0].name = "tier";
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
    assert_true(swapped > 1000 && recomputed > 1000);
    free(load);
}

/* What the tiers say they found is what requests say was found for them, to the token. */
static void check_hits(const kv_serving_result *result, const workload *load)
{
    int64_t found = 0, loaded = 0;
    for (int i = 0; i < load->count; i++)
        found += load->got[i].status == KV_REQUEST_COMPLETED ? load->got[i].cached_tokens : 0;
    for (int t = 0; t < KV_MOST_TIERS; t++)
        loaded += result->tier[t].hit_tokens;
    assert_int_equal(result->loaded_tokens, loaded);
    assert_int_equal(result->cached_tokens + loaded, found);
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
    for (int round = 0; round < 200; round++) {
        kv_serving_settings settings = make_settings(&random);
        make_workload(load, &random, settings.block_tokens, NAMES * settings.block_tokens);
        settings.replacement = *policy;
        settings.order = *order;
        settings.routing = *routing;
        settings.replicas = (int)between(&random, 1, 3);
        add_tiers(&settings, &random);
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
        policy = *++policy != NULL ? policy : kv_replacement_all();
        order = *++order != NULL ? order : kv_queue_order_all();
        routing = *++routing != NULL ? routing : kv_routing_all();
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

/* Three requests a second apart: the first and the last share six blocks, the one between fills the
 * cache. */
static workload *three_requests(void)
{
    workload *load = calloc(1, sizeof *load);
    load->count = 3;
    for (int i = 0; i < 3; i++) {
        for (int b = 0; b < 6; b++)
            load->name[i][b] = 100 + (uint64_t)b;
        load->want[i].in = (kv_request){.number = i,
                                        .arrival_ns = i * (int64_t)1000000000,
                                        .prompt_tokens = i == 1 ? 80 : 41,
                                        .output_tokens = 1,
                                        .blocks = load->name[i],
                                        .block_count = i == 1 ? 0 : 6,
                                        .block_tokens = 8,
                                        .session = KV_NO_SESSION};
    }
    return load;
}

/* By hand: a prompt of 41 tokens in blocks of 8 leaves 5 named blocks. Another prompt takes all 10
 * blocks of the GPU, so that they go down one after the other, the end of the prompt first. Then
 * the prompt comes again: 5 blocks of 1000 bytes at 10^6 bytes per second and 3 us are 5,003,000
 * ns; the token that is left takes one step. A tier of 3 blocks has kept the first 3 only. */
static void test_tier(void **state)
{
    const hardware *h = *state;
    uint64_t random = 1;
    kv_serving_settings settings = make_settings(&random);
    settings.kv_blocks = 10;
    settings.block_tokens = 8;
    settings.chunk_tokens = 0;
    settings.max_batched_tokens = 1000;
    settings.tiers = 1;
    settings.layers = 2;
    settings.load = KV_LOAD_ALWAYS;
    settings.tier[0] = (kv_tier_settings){.name = "cpu",
                                          .capacity_blocks = 100,
                                          .read_bandwidth = 1e6,
                                          .write_bandwidth = 1e9,
                                          .latency_ns = 3000,
                                          .replacement = kv_replacement_find("lru")};
    workload *load = three_requests();
    kv_step_batch rest = {.tokens = 1,
                          .sequences = 1,
                          .prefill_tokens = 1,
                          .prefill_square = 1,
                          .prefill_history = 40};
    int64_t step_ns = kv_step_time_step(h->time, &rest) >> KV_FINE_BITS;
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

/* By hand: blocks of 8 tokens on a GPU of 7 that drops what came first. 101 comes with the first
 * prompt, 100, 107 and 102 with the second; the third takes 4 blocks, 3 are empty: 101 goes down.
 * The fourth prompt is 100, 101, 102: the GPU has the first and, behind the hole, the last, 16
 * tokens, the tier 8. */
static void test_hits_behind_a_hole(void **state)
{
    const hardware *h = *state;
    uint64_t random = 1;
    kv_serving_settings settings = make_settings(&random);
    settings.kv_blocks = 7;
    settings.block_tokens = 8;
    settings.chunk_tokens = 0;
    settings.max_batched_tokens = 1000;
    settings.replacement = kv_replacement_find("fifo");
    settings.tiers = 1;
    settings.layers = 2;
    settings.load = KV_LOAD_ALWAYS;
    settings.tier[0] = (kv_tier_settings){.name = "cpu",
                                          .capacity_blocks = 100,
                                          .read_bandwidth = 1e6,
                                          .write_bandwidth = 1e6,
                                          .replacement = kv_replacement_find("lru")};
    static const uint64_t name[][3] = {{101}, {100, 107, 102}, {0}, {100, 101, 102}};
    static const int32_t prompt[] = {9, 25, 32, 25}, blocks[] = {1, 3, 0, 3};
    workload *load = calloc(1, sizeof *load);
    load->count = 4;
    for (int i = 0; i < 4; i++) {
        memcpy(load->name[i], name[i], sizeof name[i]);
        load->want[i].in = (kv_request){.number = i,
                                        .arrival_ns = i * (int64_t)1000000000,
                                        .prompt_tokens = prompt[i],
                                        .output_tokens = 1,
                                        .blocks = load->name[i],
                                        .block_count = blocks[i],
                                        .block_tokens = 8,
                                        .session = KV_NO_SESSION};
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

/* By hand: as in test_tier, but a block takes 100 ms down and 1 us up. The second prompt takes the
 * memory of 5 blocks, so its step begins when they are copied: after 500 ms; written through they
 * were asked for at 0 and are copied at 500 ms, so a prompt that comes at 100 ms waits for 400, and
 * one that comes at 1 s for nothing. The third finds all of them. */
static void test_written_down(void **state)
{
    const hardware *h = *state;
    uint64_t random = 1;
    kv_serving_settings settings = make_settings(&random);
    settings.kv_blocks = 10;
    settings.block_tokens = 8;
    settings.chunk_tokens = 0;
    settings.max_batched_tokens = 1000;
    settings.tiers = 1;
    settings.layers = 2;
    settings.load = KV_LOAD_ALWAYS;
    settings.tier[0] = (kv_tier_settings){.name = "cpu",
                                          .capacity_blocks = 100,
                                          .read_bandwidth = 1e9,
                                          .write_bandwidth = 1e4,
                                          .replacement = kv_replacement_find("lru")};
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

/* By hand: as in test_tier, but the first tier has room for 2 blocks, so the end of the prompt, 3
 * blocks, lies in the second. On links of their own the transfers of 2 and 3 ms overlap, on one
 * they add up. The GPU gives up the end of the prompt first, the first tier what came to it first.
 */
static void test_links(void **state)
{
    const hardware *h = *state;
    uint64_t random = 1;
    kv_serving_settings settings = make_settings(&random);
    settings.kv_blocks = 10;
    settings.block_tokens = 8;
    settings.chunk_tokens = 0;
    settings.max_batched_tokens = 1000;
    settings.tiers = 2;
    settings.layers = 2;
    settings.load = KV_LOAD_ALWAYS;
    for (int t = 0; t < 2; t++)
        settings.tier[t] = (kv_tier_settings){.name = "tier",
                                              .capacity_blocks = t == 0 ? 2 : 100,
                                              .read_bandwidth = 1e6,
                                              .write_bandwidth = 1e9,
                                              .link = t,
                                              .replacement = kv_replacement_find("lru")};
    workload *load = three_requests();
    kv_step_batch rest = {.tokens = 1,
                          .sequences = 1,
                          .prefill_tokens = 1,
                          .prefill_square = 1,
                          .prefill_history = 40};
    int64_t step_ns = kv_step_time_step(h->time, &rest) >> KV_FINE_BITS;
    for (int link = 1; link >= 0; link--) {
        kv_serving_result result;
        settings.tier[1].link = link;
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
    uint64_t random = 1;
    kv_serving_settings settings = make_settings(&random);
    settings.kv_blocks = 60;
    settings.block_tokens = 8;
    settings.chunk_tokens = 0;
    settings.max_batched_tokens = 1000;
    settings.tiers = 1;
    settings.layers = 2;
    settings.tier[0] = (kv_tier_settings){.name = "cpu",
                                          .capacity_blocks = 100,
                                          .read_bandwidth = 3e5,
                                          .write_bandwidth = 1e9,
                                          .latency_ns = 3000,
                                          .replacement = kv_replacement_find("lru")};
    workload *load = calloc(1, sizeof *load);
    load->count = 3;
    for (int i = 0; i < 3; i++) {
        for (int b = 0; b < 50; b++)
            load->name[i][b] = 100 + (uint64_t)b;
        load->want[i].in = (kv_request){.number = i,
                                        .arrival_ns = i * (int64_t)10000000000,
                                        .prompt_tokens = i == 1 ? 480 : 401,
                                        .output_tokens = 1,
                                        .blocks = load->name[i],
                                        .block_count = i == 1 ? 0 : 50,
                                        .block_tokens = 8,
                                        .session = KV_NO_SESSION};
    }
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
    uint64_t random = 1;
    kv_serving_settings settings = make_settings(&random);
    settings.kv_blocks = 10;
    settings.block_tokens = 8;
    settings.chunk_tokens = 0;
    settings.max_batched_tokens = 1000;
    settings.tiers = 1;
    settings.layers = 2;
    settings.load = KV_LOAD_ALWAYS;
    settings.tier[0] = (kv_tier_settings){.name = "cpu",
                                          .capacity_blocks = 100,
                                          .read_bandwidth = 1e9,
                                          .write_bandwidth = 1e9,
                                          .replacement = kv_replacement_find("lru")};
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

/* A lone request with a prefix in the tier, over links from far slower to far faster than
 * computing, lengths, chunks and overlap: both ends are never more than a step's rounding later
 * than the better of loading and computing, and auto is that. */
static void test_best_of_both(void **state)
{
    const hardware *h = *state;
    static const int32_t chunks[] = {0, 64, 9};
    static const int32_t prompts[] = {41, 199, 401, 408};
    uint64_t random = 1;
    workload *load = calloc(1, sizeof *load);
    int mixed = 0;
    for (int i = 0; i < 3 * 4 * 2 * 13; i++) {
        kv_serving_settings settings = make_settings(&random);
        settings.kv_blocks = 60;
        settings.block_tokens = 8;
        settings.chunk_tokens = chunks[i % 3];
        settings.max_batched_tokens = 1000;
        settings.overlap = i / 12 % 2 == 1;
        settings.tiers = 1;
        settings.layers = 2;
        settings.reserve_full_input = true;
        settings.tier[0] = (kv_tier_settings){.name = "cpu",
                                              .capacity_blocks = 100,
                                              .read_bandwidth = 1e4 * pow(2, i / 24),
                                              .write_bandwidth = 1e12,
                                              .latency_ns = 3000,
                                              .replacement = kv_replacement_find("lru")};
        *load = (workload){.count = 3};
        for (int r = 0; r < 3; r++) {
            for (int b = 0; b < 51; b++)
                load->name[r][b] = 100 + (uint64_t)b;
            int32_t prompt = prompts[i / 3 % 4];
            load->want[r].in = (kv_request){.number = r,
                                            .arrival_ns = r * (int64_t)10000000000,
                                            .prompt_tokens = r == 1 ? 480 : prompt,
                                            .output_tokens = 1,
                                            .blocks = load->name[r],
                                            .block_count = r == 1 ? 0 : prompt / 8,
                                            .block_tokens = 8,
                                            .session = KV_NO_SESSION};
        }
        int64_t ttft[KV_LOAD_BOTH_ENDS + 1];
        for (int mode = KV_LOAD_AUTO; mode <= KV_LOAD_BOTH_ENDS; mode++) {
            kv_serving_result result;
            settings.load = mode;
            serve(h, &settings, load, &result);
            ttft[mode] = load->got[2].ttft_ns;
            mixed += mode == KV_LOAD_BOTH_ENDS && load->got[2].cached_tokens > 0 &&
                     load->got[2].cached_tokens < (prompts[i / 3 % 4] - 1) / 8 * 8;
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_alone),
        cmocka_unit_test(test_tier),
        cmocka_unit_test(test_written_down),
        cmocka_unit_test(test_hits_behind_a_hole),
        cmocka_unit_test(test_samples),
        cmocka_unit_test(test_links),
        cmocka_unit_test(test_both_ends),
        cmocka_unit_test(test_best_of_both),
        cmocka_unit_test(test_reference),
        cmocka_unit_test(test_swap),
        cmocka_unit_test(test_jumps_equal_steps),
    };
    return cmocka_run_group_tests_name("serving", tests, open_hardware, close_hardware);
}
