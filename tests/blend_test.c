/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Reuse of text that stands elsewhere: times worked by hand on a table of simple numbers; which
 * tokens are found and which computed, against a reference that knows lists of prompts and one
 * order of use only; what must hold on any workload. */
#include "tests/kv_test.h"

#include "tests/serving_check.h"

#include "models/model.h"
#include "sim/serving/contents.h"
#include "sim/serving/serving.h"

#include <sys/stat.h>
#include <unistd.h>

enum { MOST = 120, NAMES = 40, BLOCK = 16, LAYERS = 4 };

static const char device_yaml[] = "{name: unit, memory: 1GB, bandwidth: 1GB/s, fp16_tflops: 1, "
                                  "bf16_tflops: 1, fp8_tflops: 0, host_link: {bandwidth: 1GB/s, "
                                  "latency: 1us}, tensor_parallel_link: {bandwidth: 1GB/s, "
                                  "latency: 1us}}";
static const char model_yaml[] = "{name: small, layers: 4, hidden_size: 64, vocabulary: 100, "
                                 "dtype: bf16, attention: {heads: 4, kv_heads: 2, head_dim: 16}, "
                                 "mlp: {intermediate_size: 128}}";

/* Per layer 1 us for each token that is computed, and 1 ns for each that it finds before its chunk:
 * products are bilinear, so four corners hold them. A decode takes 1 us more per layer. */
static const char *const table[][2] = {
    {"dense.csv", "layer,tokens,time_us\nmlp,1,1\nmlp,1001,1001\n"},
    {"per_sequence.csv", "sequences,layer,time_us\n1,lm_head,0\n2,lm_head,0\n"},
    {"attention.csv", "prefill_chunk,kv_prefill,n_decode,kv_decode,time_us\n"
                      "1,0,0,0,0\n1,1000,0,0,1\n1001,0,0,0,0\n1001,1000,0,0,1001\n"
                      "1,0,1,10,0\n1,1000,1,10,1\n1001,0,1,10,0\n1001,1000,1,10,1001\n"
                      "0,0,1,10,0\n0,0,1,20,0\n"}};

typedef struct workload {
    kv_request in[MOST];
    kv_request_outcome got[MOST];
    uint64_t chained[MOST][NAMES], content[MOST][NAMES];
    int count, next;
    int64_t computed; /* tokens of all steps */
} workload;

typedef struct hardware {
    kv_model *model;
    kv_device *device;
    kv_step_time *table, *roofline;
    workload *load;
} hardware;

static void write_table(void)
{
    mkdir("blend_test.d", 0777);
    for (int i = 0; i < 3; i++) {
        char path[64];
        snprintf(path, sizeof path, "blend_test.d/%s", table[i][0]);
        FILE *file = fopen(path, "w");
        assert_non_null(file);
        fputs(table[i][1], file);
        assert_int_equal(fclose(file), 0);
    }
}

static int open_hardware(void **state)
{
    kv_diag diag = {0};
    hardware *h = calloc(1, sizeof *h);
    h->load = calloc(1, sizeof *h->load);
    write_table();
    kv_step_time_config by_table = {.model = 1, .path = "blend_test.d", .kernel_scale = 1};
    kv_step_time_config by_peaks = {.compute_efficiency = 0.6,
                                    .attention_efficiency = 0.4,
                                    .memory_efficiency = 0.8,
                                    .layer_overhead_ns = 1234};
    kv_step_hardware on = {.tensor_parallel = 1};
    if (kv_model_find(model_yaml, &h->model, &diag) == KV_OK &&
        kv_device_find(device_yaml, &h->device, &diag) == KV_OK) {
        on.model = h->model;
        on.device = h->device;
        on.format = kv_model_cache_format(h->model);
        *state = h;
        if (kv_step_time_new(&by_table, &on, &h->table, &diag) == KV_OK &&
            kv_step_time_new(&by_peaks, &on, &h->roofline, &diag) == KV_OK)
            return 0;
    }
    print_error("%s\n", diag.text);
    return -1;
}

static int close_hardware(void **state)
{
    hardware *h = *state;
    for (int i = 0; i < 3; i++) {
        char path[64];
        snprintf(path, sizeof path, "blend_test.d/%s", table[i][0]);
        unlink(path);
    }
    rmdir("blend_test.d");
    kv_step_time_free(h->table);
    kv_step_time_free(h->roofline);
    kv_device_free(h->device);
    kv_model_free(h->model);
    free(h->load);
    free(h);
    return 0;
}

/* --- Workloads --------------------------------------------------------------------- */

static kv_err next(void *closure, kv_request *out, kv_diag *diag)
{
    workload *load = closure;
    (void)diag;
    if (load->next == load->count)
        return KV_END;
    *out = load->in[load->next++];
    return KV_OK;
}

static kv_err outcome(void *closure, const kv_request_outcome *got, kv_diag *diag)
{
    (void)diag;
    ((workload *)closure)->got[got->number] = *got;
    return KV_OK;
}

static kv_err span(void *closure, const kv_serving_span *s, kv_diag *diag)
{
    (void)diag;
    ((workload *)closure)->computed += s->prefill_tokens + s->decodes * s->steps;
    return KV_OK;
}

/* Appends a request whose blocks hold `contents`, ended by 0; the rest of its prompt has no name.
 */
static kv_request *ask(workload *load, int64_t arrival_ns, int32_t prompt_tokens,
                       const uint64_t *contents)
{
    int i = load->count++;
    kv_request *r = &load->in[i];
    *r = (kv_request){.number = i,
                      .arrival_ns = arrival_ns,
                      .prompt_tokens = prompt_tokens,
                      .output_tokens = 1,
                      .session = KV_NO_SESSION,
                      .blocks = load->chained[i],
                      .contents = load->content[i],
                      .block_tokens = BLOCK};
    uint64_t chain = 0;
    for (; contents[r->block_count] != 0; r->block_count++) {
        load->content[i][r->block_count] = contents[r->block_count];
        chain = (chain + contents[r->block_count]) * UINT64_C(0x9e3779b97f4a7c15);
        load->chained[i][r->block_count] = chain ^= chain >> 31;
    }
    return r;
}

static kv_serving_settings settings_of(int64_t kv_blocks)
{
    return (kv_serving_settings){.kv_blocks = kv_blocks,
                                 .block_tokens = BLOCK,
                                 .block_bytes = 1000,
                                 .max_batched_tokens = 1000,
                                 .max_seqs = 20,
                                 .replicas = 1,
                                 .reserve_full_input = true,
                                 .prefix_cache = true,
                                 .blend = true,
                                 .recompute_millionths = 250000,
                                 .full_layers = 1,
                                 .layers = LAYERS,
                                 .replacement = kv_replacement_find("lru"),
                                 .order = kv_queue_order_find("fcfs"),
                                 .routing = kv_routing_find("round-robin")};
}

static kv_serving_result serve(const kv_step_time *time, const kv_model *model,
                               const kv_serving_settings *settings, workload *load)
{
    kv_diag diag = {0};
    kv_serving_result result = {0};
    kv_serving_source source = {.closure = load, .next = next};
    kv_serving_listener listener = {.closure = load, .request = outcome, .span = span};
    load->next = 0;
    load->computed = 0;
    if (kv_serving_run(settings, time, kv__entries_per_token(model), &source, &listener, &result,
                       &diag) != KV_OK)
        fail_msg("%s", diag.text);
    return result;
}

static const uint64_t ab[] = {1, 2, 3, 4, 0}, ba[] = {3, 4, 1, 2, 0}, acb[] = {1, 2, 9, 8, 3, 4, 0},
                      none[] = {0};

/* --- Known answers ----------------------------------------------------------------- */

/* 4 layers, the first in full and a quarter in the others: (1 + 3/4) / 4 = 7/16 of blended tokens.
 * Request 0: texts A B of two blocks each and 8 tokens, all computed: 4 x 72 us, no history.
 * Request 1: B A and 8. Blended 64 count as 28, computed 36. Pairs: 7/16 x 64 x 64 / 2 + 8 x (64 +
 * 4) = 896 + 544 = 1440 = 36 x (22 + 36 / 2): a history of 22. 4 x (36 + 0.036 x 22) = 147.168 us.
 * Request 2: A, two new blocks, B, 8. 32 found, 32 new, 32 blended as 14, 8: 54. Pairs: 32 x 48 + 7
 * / 16 x 32 x 80 + 8 x 100 = 1536 + 1120 + 800 = 3456 = 54 x 64: a history of 37. 4 x (54 + 0.054 x
 * 37) = 223.992 us. */
static void test_times(void **state)
{
    const hardware *h = *state;
    workload *load = h->load;
    kv_serving_settings settings = settings_of(1000);
    load->count = 0;
    ask(load, 0, 72, ab);
    ask(load, 1000000, 72, ba);
    ask(load, 2000000, 104, acb);
    kv_serving_result result = serve(h->table, h->model, &settings, load);
    assert_int_equal(load->got[0].ttft_ns, 288000);
    assert_int_equal(load->got[1].ttft_ns, 147168);
    assert_int_equal(load->got[1].cached_tokens, 0);
    assert_int_equal(load->got[1].blended_tokens, 64);
    assert_int_equal(load->got[2].ttft_ns, 223992);
    assert_int_equal(load->got[2].cached_tokens, 32);
    assert_int_equal(load->got[2].blended_tokens, 32);
    assert_int_equal(result.blended_tokens, 96);
    assert_int_equal(result.blend_recomputed_tokens, 28 + 14);
    assert_int_equal(load->computed, 72 + 36 + 54);
    kv_serving_result_fini(&result);
}

/* The same request 1 in steps of at most 20 computed tokens. Of 45 blended ones 19.6875 count, 20;
 * the 46th makes 20.125, 21. So 45 in the first, with pairs 20 / 45 x 45 x 45 / 2 = 450 = 20 x (h +
 * 10), h = 12.5; then 19 blended as 8 and 8: pairs 8 / 19 x 19 x (45 + 64) / 2 + 544 = 980 = 16 x
 * (h + 8), h = 53.25. 4 x (20.25 + 16.852) = 148.408 us. What is computed is what it was. */
static void test_chunks(void **state)
{
    const hardware *h = *state;
    workload *load = h->load;
    kv_serving_settings settings = settings_of(1000);
    settings.chunk_tokens = 20;
    load->count = 0;
    ask(load, 0, 72, ab);
    ask(load, 1000000, 72, ba);
    kv_serving_result result = serve(h->table, h->model, &settings, load);
    assert_int_equal(load->got[1].ttft_ns, 148408);
    assert_int_equal(load->computed, 72 + 36);
    assert_int_equal(result.steps, 4 + 2);
    kv_serving_result_fini(&result);
}

/* Texts that a request without names has driven into a tier: four blocks of 1000 bytes. At 100 MB/s
 * they take 2 us and 40 us, of which the last three of four layers 30. */
static int64_t ttft_from_tier(const hardware *h, double bandwidth, bool overlap, int load_mode,
                              kv_serving_result *result)
{
    workload *load = h->load;
    kv_serving_settings settings = settings_of(5);
    settings.tiers = 1;
    settings.tier[0] = (kv_tier_settings){.name = "cpu",
                                          .capacity_blocks = 100,
                                          .read_bandwidth = bandwidth,
                                          .write_bandwidth = 1e12,
                                          .latency_ns = 2000,
                                          .replacement = settings.replacement};
    settings.overlap = overlap;
    settings.load = load_mode;
    load->count = 0;
    ask(load, 0, 72, ab);
    ask(load, 1000000, 80, none);
    ask(load, 2000000, 72, ba);
    *result = serve(h->table, h->model, &settings, load);
    kv_serving_result_fini(result);
    return load->got[2].ttft_ns;
}

static void test_loads(void **state)
{
    const hardware *h = *state;
    kv_serving_result r;
    assert_int_equal(ttft_from_tier(h, 1e8, false, KV_LOAD_ALWAYS, &r), 42000 + 147168);
    assert_int_equal(r.tier[0].blended_tokens, 64);
    assert_int_equal(r.tier[0].blocks_out, 4);
    assert_int_equal(r.tier[0].hit_tokens, 0);
    assert_int_equal(r.blended_tokens, 64);
    assert_int_equal(ttft_from_tier(h, 1e8, true, KV_LOAD_ALWAYS, &r), 12000 + 147168);
    /* 402 us of load, which the step that begins at 102 does not outlast */
    assert_int_equal(ttft_from_tier(h, 1e7, true, KV_LOAD_ALWAYS, &r), 402000);
    assert_int_equal(ttft_from_tier(h, 1e7, true, KV_LOAD_NEVER, &r), 288000);
    assert_int_equal(r.blended_tokens, 0);
    /* 402 us are more than 288, 42 and 147.168 are less */
    assert_int_equal(ttft_from_tier(h, 1e7, true, KV_LOAD_AUTO, &r), 288000);
    assert_int_equal(ttft_from_tier(h, 1e8, true, KV_LOAD_BOTH_ENDS, &r), 12000 + 147168);
}

/* A tier takes one copy of a text: B A, other tokens, A B, other tokens leave four blocks there. */
static void test_one_copy(void **state)
{
    const hardware *h = *state;
    workload *load = h->load;
    kv_serving_settings settings = settings_of(5);
    settings.tiers = 1;
    settings.load = KV_LOAD_NEVER;
    settings.tier[0] = (kv_tier_settings){.name = "cpu",
                                          .capacity_blocks = 100,
                                          .read_bandwidth = 1e9,
                                          .write_bandwidth = 1e9,
                                          .replacement = settings.replacement};
    load->count = 0;
    for (int i = 0; i < 4; i++)
        ask(load, i * 1000000, i % 2 == 0 ? 72 : 80, i % 2 == 1 ? none : i == 0 ? ba : ab);
    kv_serving_result result = serve(h->table, h->model, &settings, load);
    assert_int_equal(result.tier[0].blocks_in, 4);
    kv_serving_result_fini(&result);
    settings.blend = false;
    result = serve(h->table, h->model, &settings, load);
    assert_int_equal(result.tier[0].blocks_in, 8);
    kv_serving_result_fini(&result);
}

/* --- Random workloads -------------------------------------------------------------- */

/* Prompts of texts of one to three blocks out of 12, some twice, behind which a question stands. */
static void make_workload(workload *load, uint64_t *random, int64_t gap_ns, int answers)
{
    int count = (int)between(random, 20, MOST);
    int64_t now = 0;
    load->count = 0;
    for (int i = 0; i < count; i++) {
        uint64_t contents[NAMES + 1];
        int n = 0, texts = (int)between(random, 0, 6);
        for (int t = 0; t < texts; t++) {
            uint64_t text = draw(random) % 12;
            for (uint64_t b = 0; b < 1 + text % 3; b++)
                contents[n++] = 100 * (text + 1) + b;
        }
        contents[n] = 0;
        now += gap_ns > 1000 ? gap_ns : between(random, 0, 1000 * gap_ns);
        kv_request *r = ask(load, now, n * BLOCK + (int32_t)between(random, n == 0, 40), contents);
        r->output_tokens = (int32_t)between(random, 0, answers);
    }
}

/* One order of use over the blocks of a cache, as lists say it. */
typedef struct reference {
    uint64_t chained[2000], content[2000];
    int64_t used[2000];
    bool pinned[2000];
    int count, capacity;
    int64_t clock;
} reference;

static int find(const reference *r, uint64_t chained)
{
    for (int i = 0; i < r->count; i++)
        if (r->chained[i] == chained)
            return i;
    return -1;
}

/* Room for so many blocks beside `own` private ones. */
static void evict(reference *r, int blocks, int own)
{
    while (r->count + own + blocks > r->capacity) {
        int oldest = -1;
        for (int i = 0; i < r->count; i++)
            if (!r->pinned[i] && (oldest < 0 || r->used[i] < r->used[oldest]))
                oldest = i;
        assert_true(oldest >= 0);
        r->count--;
        r->chained[oldest] = r->chained[r->count];
        r->content[oldest] = r->content[r->count];
        r->used[oldest] = r->used[r->count];
        r->pinned[oldest] = r->pinned[r->count];
    }
}

/* Serves one request alone in one step: what it finds, and what that does to the cache. Of several
 * blocks that hold a text the one that came last is used. */
static void serve_alone(reference *r, int64_t *came, const kv_request *in, int *found, int *blended)
{
    int most = (in->prompt_tokens - 1) / BLOCK, names = in->prompt_tokens / BLOCK, at, prefix = 0;
    names = names < in->block_count ? names : in->block_count;
    most = most < names ? most : names;
    *blended = 0;
    while (prefix < most && find(r, in->blocks[prefix]) >= 0)
        prefix++;
    *found = prefix * BLOCK;
    uint64_t source[NAMES];
    for (int b = prefix; b < most; b++) {
        int best = -1;
        for (int i = 0; i < r->count; i++)
            if (r->content[i] == in->contents[b] &&
                (best < 0 || came[r->chained[i] % 65536] > came[r->chained[best] % 65536]))
                best = i;
        source[b] = best >= 0 ? r->chained[best] : 0;
        *blended += best >= 0 ? BLOCK : 0;
    }
    for (int b = 0; b < prefix; b++) {
        at = find(r, in->blocks[b]);
        r->used[at] = r->clock++;
        r->pinned[at] = true;
    }
    for (int b = most; b-- > prefix;)
        if (source[b] != 0)
            r->used[find(r, source[b])] = r->clock++;
    for (int b = prefix; b < names; b++) {
        at = find(r, in->blocks[b]);
        if (at < 0) {
            evict(r, 1, 0);
            at = r->count++;
            r->chained[at] = in->blocks[b];
            r->content[at] = in->contents[b];
            came[in->blocks[b] % 65536] = r->clock;
        }
        r->used[at] = r->clock++;
        r->pinned[at] = true;
    }
    evict(r, 0, (in->prompt_tokens + BLOCK - 1) / BLOCK - names);
    for (int b = names; b-- > 0;) {
        at = find(r, in->blocks[b]);
        r->used[at] = r->clock++;
        r->pinned[at] = false;
    }
}

/* One request after the other, in a cache that is full after a while. */
static void test_reference(void **state)
{
    const hardware *h = *state;
    workload *load = h->load;
    reference *r = calloc(1, sizeof *r);
    int64_t *came = calloc(65536, sizeof *came), blended_tokens = 0, evictions = 0;
    uint64_t random = 4711;
    for (int round = 0; round < 60; round += kv_stride(3)) {
        kv_serving_settings settings = settings_of(between(&random, 24, 150));
        settings.recompute_millionths = between(&random, 0, 1000000);
        make_workload(load, &random, 1000000000, 1);
        *r = (reference){.capacity = (int)settings.kv_blocks};
        kv_serving_result result = serve(h->roofline, h->model, &settings, load);
        for (int i = 0; i < load->count; i++) {
            int found, blended;
            serve_alone(r, came, &load->in[i], &found, &blended);
            assert_int_equal(load->got[i].cached_tokens, found);
            assert_int_equal(load->got[i].blended_tokens, blended);
        }
        blended_tokens += result.blended_tokens;
        evictions += result.evictions;
        kv_serving_result_fini(&result);
    }
    assert_true(kv_is_under_valgrind() || /* the workloads do bite */
                (blended_tokens > 10000 && evictions > 1000));
    free(came);
    free(r);
}

/* Tokens of prompts are found as prefix, blended or computed, and steps compute what is left. */
static void check_tokens(const workload *load, const kv_serving_result *result)
{
    int64_t prompts = 0, answers = 0, found = 0, blended = 0, from_tiers = 0;
    for (int i = 0; i < load->count; i++) {
        const kv_request_outcome *got = &load->got[i];
        assert_int_equal(got->status, KV_REQUEST_COMPLETED);
        assert_true(got->cached_tokens + got->blended_tokens < got->prompt_tokens);
        prompts += got->prompt_tokens;
        found += got->cached_tokens;
        blended += got->blended_tokens;
        answers += got->output_tokens > 1 ? got->output_tokens - 1 : 0;
    }
    for (int t = 0; t < KV_MOST_TIERS; t++)
        from_tiers += result->tier[t].blended_tokens;
    assert_int_equal(result->prompt_tokens, prompts);
    assert_int_equal(result->cached_tokens + result->loaded_tokens, found);
    assert_int_equal(result->blended_tokens, blended);
    assert_true(from_tiers <= blended);
    assert_true(result->blend_recomputed_tokens <= blended);
    if (result->preemptions == 0)
        assert_int_equal(load->computed,
                         prompts - found - blended + result->blend_recomputed_tokens + answers);
}

static void test_conservation(void **state)
{
    const hardware *h = *state;
    workload *load = h->load;
    kv_request_outcome *jumped = calloc(MOST, sizeof *jumped);
    uint64_t random = 99;
    int64_t blended = 0, preemptions = 0, sent = 0, undisturbed = 0;
    const kv_queue_order *const *order = kv_queue_order_all();
    const kv_replacement *const *policy = kv_replacement_all();
    for (int round = 0; round < 300; round += kv_stride(6)) {
        kv_serving_settings settings = settings_of(between(&random, 60, round % 2 ? 80 : 600));
        settings.recompute_millionths = between(&random, 0, 20) * 50000;
        settings.full_layers = between(&random, 0, LAYERS);
        settings.max_batched_tokens = between(&random, 8, 300);
        settings.chunk_tokens = (int32_t)(draw(&random) % 2 * 37);
        settings.reserve_full_input = draw(&random) % 2 == 0;
        settings.block_tokens = (int32_t[]){8, 16, 32}[draw(&random) % 3];
        settings.replicas = (int)between(&random, 1, 2);
        settings.order = *order;
        settings.replacement = *policy;
        if ((settings.replacement->needs & KV_REPLACEMENT_FUTURE) != 0)
            settings.replacement = kv_replacement_find("lru");
        add_tiers(&settings, &random, 1e7, "lru");
        make_workload(load, &random, between(&random, 1, 400), 60);
        kv_serving_result result = serve(h->roofline, h->model, &settings, load);
        check_tokens(load, &result);
        memcpy(jumped, load->got, MOST * sizeof *jumped);
        settings.stepwise = true;
        kv_serving_result stepped = serve(h->roofline, h->model, &settings, load);
        for (int i = 0; i < load->count; i++)
            if (memcmp(&jumped[i], &load->got[i], sizeof *jumped) != 0)
                fail_msg("round %d: request %d", round, i);
        assert_int_equal(result.end_ns, stepped.end_ns);
        assert_int_equal(result.evictions, stepped.evictions);
        assert_int_equal(result.blend_recomputed_tokens, stepped.blend_recomputed_tokens);
        assert_true(result.byte_seconds == stepped.byte_seconds);
        blended += result.blended_tokens;
        preemptions += result.preemptions;
        undisturbed += result.preemptions == 0;
        for (int t = 0; t < settings.tiers; t++)
            sent += result.tier[t].blended_tokens;
        kv_serving_result_fini(&result);
        kv_serving_result_fini(&stepped);
        order = order[1] != NULL ? order + 1 : kv_queue_order_all();
        policy = policy[1] != NULL ? policy + 1 : kv_replacement_all();
    }
    assert_true(kv_is_under_valgrind() ||
                (blended > 100000 && preemptions > 1000 && sent > 10000 && undisturbed > 50));
    free(jumped);
}

/* All tokens computed again: nothing but bookkeeping is left, and where there is memory for
 * everyone each request takes as long as without. */
static void test_all_again(void **state)
{
    const hardware *h = *state;
    workload *load = h->load;
    kv_request_outcome *plain = calloc(MOST, sizeof *plain);
    uint64_t random = 31337;
    int64_t blended = 0;
    for (int round = 0; round < 60; round += kv_stride(3)) {
        kv_serving_settings settings = settings_of(10000);
        settings.max_batched_tokens = between(&random, 8, 300);
        settings.chunk_tokens = (int32_t)(draw(&random) % 2 * 37);
        settings.recompute_millionths = 1000000;
        make_workload(load, &random, between(&random, 1, 400), 60);
        settings.blend = false;
        kv_serving_result without = serve(h->table, h->model, &settings, load);
        memcpy(plain, load->got, MOST * sizeof *plain);
        settings.blend = true;
        kv_serving_result with = serve(h->table, h->model, &settings, load);
        for (int i = 0; i < load->count; i++) {
            assert_int_equal(plain[i].ttft_ns, load->got[i].ttft_ns);
            assert_int_equal(plain[i].e2e_ns, load->got[i].e2e_ns);
            assert_int_equal(plain[i].cached_tokens, load->got[i].cached_tokens);
        }
        assert_int_equal(with.blend_recomputed_tokens, with.blended_tokens);
        blended += with.blended_tokens;
        kv_serving_result_fini(&without);
        kv_serving_result_fini(&with);
    }
    assert_true(kv_is_under_valgrind() || blended > 10000);
    free(plain);
}

/* --- Contents ---------------------------------------------------------------------- */

static bool is_even(void *closure, uint64_t key)
{
    (void)closure;
    return key % 2 == 0;
}

/* 3000 blocks of 3 contents, of which every second leaves: tidied, and never tidied, the newest
 * that is there comes first, then older ones in order; used again a block is the newest. */
static void test_contents(void **state)
{
    kv__contents all = {0};
    (void)state;
    for (uint64_t key = 0; key < 3000; key++)
        assert_int_equal(kv__contents_add(&all, key, key % 3), KV_OK);
    assert_int_equal(kv__contents_add(&all, 0, 0), KV_OK);
    for (int tidied = 0; tidied < 2; tidied++) {
        const kv__content_block *block = kv__contents_newest(&all, 0);
        assert_int_equal(block->key, 0);
        uint64_t key = 2998, seen = 0;
        for (; (block = kv__contents_older(&all, block)) != NULL;) {
            if (block->key % 2 != 0)
                continue;
            key = key - key % 6;
            assert_int_equal(block->key, key);
            key--;
            seen++;
        }
        assert_int_equal(seen, 499);
        assert_int_equal(kv__contents_tidy(&all, is_even, NULL), KV_OK);
    }
    assert_int_equal(all.count, 1500);
    assert_null(kv__contents_newest(&all, 7));
    kv__contents_fini(&all);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_times),     cmocka_unit_test(test_chunks),
        cmocka_unit_test(test_loads),     cmocka_unit_test(test_one_copy),
        cmocka_unit_test(test_reference), cmocka_unit_test(test_conservation),
        cmocka_unit_test(test_all_again), cmocka_unit_test(test_contents),
    };
    return cmocka_run_group_tests_name("blend", tests, open_hardware, close_hardware);
}
