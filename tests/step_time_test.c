/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Step times against numbers worked by hand, and ramps against single steps. */
#include "tests/kv_test.h"

#include "models/step_time.h"
#include "models/step_time_grid.h"

#include <sys/stat.h>

/* Unit device: 10^9 FLOP/s and 10^9 B/s, so a FLOP or byte is a nanosecond. */
static const char device_yaml[] =
    "{name: unit, memory: 1GB, bandwidth: 1GB/s, fp16_tflops: 0.001, bf16_tflops: 0.001, "
    "fp8_tflops: 0, host_link: {bandwidth: 1GB/s, latency: 1us}, "
    "tensor_parallel_link: {bandwidth: 1GB/s, latency: 1us}}";
static const char model_yaml[] =
    "{name: small, layers: 3, hidden_size: 64, vocabulary: 100, dtype: bf16,"
    " attention: {heads: 4, kv_heads: 2, head_dim: 16}, mlp: {intermediate_size: 128}}";

typedef struct fixture {
    kv_model *model;
    kv_device *device;
    kv_step_hardware on;
} fixture;

static int open_fixture(void **state)
{
    kv_diag diag = {0};
    fixture *f = calloc(1, sizeof *f);
    if (kv_model_find(model_yaml, &f->model, &diag) != KV_OK ||
        kv_device_find(device_yaml, &f->device, &diag) != KV_OK) {
        print_error("%s\n", diag.text);
        return -1;
    }
    f->on = (kv_step_hardware){.model = f->model,
                               .device = f->device,
                               .format = kv_model_cache_format(f->model),
                               .tensor_parallel = 1,
                               .link = {1e9, 1000}};
    *state = f;
    return 0;
}

static int close_fixture(void **state)
{
    fixture *f = *state;
    kv_device_free(f->device);
    kv_model_free(f->model);
    free(f);
    return 0;
}

static double ns(int64_t fine)
{
    return ldexp((double)fine, -KV_FINE_BITS);
}

static kv_step_time *open_time(const fixture *f, kv_step_time_config config)
{
    kv_step_time *time;
    kv_diag diag = {0};
    if (kv_step_time_new(&config, &f->on, &time, &diag) != KV_OK)
        fail_msg("%s:%d: %s", diag.path, diag.line, diag.text);
    return time;
}

static kv_step_batch decodes(int64_t n, int64_t keys, int64_t longest, int64_t entries)
{
    return (kv_step_batch){.tokens = n,
                           .sequences = n,
                           .decodes = n,
                           .decode_entries = keys * entries,
                           .decode_longest = longest * entries,
                           .decode_growth = n * entries,
                           .longest_growth = entries};
}

/* By hand. Per layer: q and o 64 x 64, k and v 64 x 32, MLP 3 x 64 x 128, so 36,864 weights in the
 * matrices, 73,728 FLOPs per token; weights with two norms 36,992 x 2 B = 73,984 B. One token:
 * bytes win, 3 x 73,984. Output matrix 100 x 64 x 2 B = 12,800 (12,800 FLOPs: equal). Attention of
 * one decode over 10 keys: an entry is 2 x 16 x 2 B = 64 B, 6 per token: 10 x 6 x 64 = 3,840 B. Its
 * FLOPs: 4 heads x 16 x 2 (scores) + the same (values) = 256 per key and layer, 7,680: they win. */
static void test_roofline(void **state)
{
    const fixture *f = *state;
    kv_step_time *time = open_time(f, (kv_step_time_config){.compute_efficiency = 1,
                                                            .attention_efficiency = 1,
                                                            .memory_efficiency = 1,
                                                            .layer_overhead_ns = 7,
                                                            .step_overhead_ns = 50});
    kv_step_batch batch = decodes(1, 10, 10, 6);
    assert_int_equal(kv__entries_per_token(f->model), 6);
    assert_close(ns(kv_step_time_step(time, &batch)), 3 * 73984.0 + 12800 + 7680 + 3 * 7 + 50,
                 1e-9);
    /* A chunk of 4 after 8: FLOPs win. 4 x 73,728 x 3; each token sees 8 + 2.5 keys. */
    kv_step_batch chunk = {.tokens = 4,
                           .sequences = 1,
                           .prefill_tokens = 4,
                           .prefill_square = 16,
                           .prefill_history = 32};
    assert_close(ns(kv_step_time_step(time, &chunk)),
                 3 * 4 * 73728.0 + 12800 + 3 * 4 * 10.5 * 256 + 3 * 7 + 50, 1e-9);
    kv_step_time_free(time);
}

/* Attention reads a cache with copies: what one device reads of it bounds. */
static void test_copies(void **state)
{
    const fixture *f = *state;
    int heads = kv_model_kv_heads(f->on.model);
    assert_close(kv_model_kv_copies(f->on.model, 1), 1, 0);
    assert_close(kv_model_kv_copies(f->on.model, heads), 1, 0);
    assert_close(kv_model_kv_copies(f->on.model, 4 * heads), 4, 0);
    assert_close(kv_model_kv_copies(f->on.model, 2 * heads - 1), (2.0 * heads - 1) / heads, 1e-12);
}

/* Ring all-reduce of 1000 bytes over 4 devices: 6 rounds of 250 bytes at 1 B/ns and 1000 ns each.
 */
static void test_all_reduce(void **state)
{
    kv_step_hardware on = ((const fixture *)*state)->on;
    on.tensor_parallel = 4;
    assert_close(kv__all_reduce_ns(&on, 1000), 6 * 1250.0, 1e-12);
    on.tensor_parallel = 1;
    assert_close(kv__all_reduce_ns(&on, 1000), 0, 0);
}

static void write_file(const char *name, const char *text)
{
    FILE *file = fopen(name, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void write_profile(void)
{
    mkdir("step_time_test.d", 0777);
    write_file("step_time_test.d/dense.csv", "layer,tokens,time_us\r\n"
                                             "embedding,1,2\nembedding,101,4\n"
                                             "layernorm,1,1\nlayernorm,51,2\nlayernorm,101,4\n"
                                             "qkv_proj,101,30\nqkv_proj,1,10\n");
    write_file("step_time_test.d/per_sequence.csv",
               "sequences,layer,time_us\n1,lm_head,5\n11,lm_head,25\n1,sampler,1\n11,sampler,2\n");
    write_file("step_time_test.d/attention.csv",
               "prefill_chunk,kv_prefill,n_decode,kv_decode,time_us\n"
               "0,0,1,10,3\n0,0,1,20,4\n0,0,1,40,8\n0,0,3,10,5\n0,0,3,20,8\n0,0,3,40,16\n"
               "8,0,0,0,6\n8,16,0,0,9\n16,0,0,0,14\n16,16,0,0,20\n"
               "8,0,1,10,8\n8,0,1,20,9\n8,0,1,40,13\n8,16,1,10,11\n8,16,1,20,12\n8,16,1,40,16\n"
               "8,0,3,10,10\n8,0,3,20,13\n8,0,3,40,21\n8,16,3,10,13\n8,16,3,20,16\n8,16,3,40,24\n"
               "16,0,1,10,16\n16,0,1,20,17\n16,0,1,40,21\n16,16,1,10,22\n16,16,1,20,23\n"
               "16,16,1,40,27\n16,0,3,10,18\n16,0,3,20,21\n16,0,3,40,29\n16,16,3,10,24\n"
               "16,16,3,20,27\n16,16,3,40,35\n");
}

/* By hand on the files above, 3 layers. Two decodes with keys 12 and 18, mean 15: attention
 * between (1: 3.5) and (3: 6.5) is 5; longest 18: (1: 3.8), (3: 7.4), 5.6. dense at 2 tokens:
 * embedding 2.02, 3 x 2 norms of 1.02, 3 x qkv 10.2; per sequence at 2: 7 + 1.1. */
static void test_table(void **state)
{
    const fixture *f = *state;
    double around = 2.02 + 6 * 1.02 + 3 * 10.2 + 7 + 1.1;
    kv_step_time_config config = {.model = 1, .path = "step_time_test.d", .kernel_scale = 1};
    write_profile();
    remove("step_time_test.d/skew.csv");
    kv_step_time *time = open_time(f, config);
    kv_step_batch batch = decodes(2, 30, 18, 6);
    assert_close(ns(kv_step_time_step(time, &batch)), 1e3 * (around + 3 * 5), 1e-6);
    kv_step_time_free(time);
    /* alpha 0.2 with weight 10 / 12 and 0.05 with 20 / 31: half of the weight is at 0.2. */
    write_file("step_time_test.d/skew.csv", "t_mean_us,t_max_us,t_skew_us\n10,20,12\n30,50,31\n");
    time = open_time(f, config);
    assert_close(ns(kv_step_time_step(time, &batch)), 1e3 * (around + 3 * (5 + 0.2 * 0.6)), 1e-6);
    /* Chunks of 8 and 8, the second after 16: typical chunk 8 with history 8: 7.5 with no decodes;
     * a further chunk adds 7.5 - 6 (the launch is there already). */
    kv_step_batch chunks = {.tokens = 16,
                            .sequences = 2,
                            .prefill_tokens = 16,
                            .prefill_square = 128,
                            .prefill_history = 128};
    around = 2.3 + 6 * 1.3 + 3 * 13 + 7 + 1.1;
    assert_close(ns(kv_step_time_step(time, &chunks)), 1e3 * (around + 3 * (7.5 + 1.5)), 1e-6);
    assert_string_equal(kv_step_time_warning(time), "");
    batch = decodes(2, 200, 110, 6);
    kv_step_time_step(time, &batch);
    assert_true(strlen(kv_step_time_warning(time)) > 0);
    kv_step_time_free(time);
}

/* By hand. One layer's attention costs 3.5 at keys 15 and 3.8 at 18 for one decode, 6.5 and 7.4 for
 * three, as in test_table. Measured alpha is 0.1 for one decode and 0.5 for four, so 0.3 for two,
 * half way on a scale of logarithms; rows with prefill are a curve of their own; meta.yaml can say
 * that none of it is to be used. */
static void test_skew(void **state)
{
    const fixture *f = *state;
    double around = 2.02 + 6 * 1.02 + 3 * 10.2 + 7 + 1.1;
    kv_step_time_config config = {.model = 1, .path = "step_time_test.d", .kernel_scale = 1};
    const struct {
        const char *meta;
        double alpha;
    } cases[] = {{"skew_fit:\n  enabled: true\n", 0.3},
                 {"skew_fit:\n  enabled: false\n", 0},
                 {"skew_profile: {enabled: false}\n", 0.3},
                 {"skew_fit: [\n", 0.3}};
    write_profile();
    write_file("step_time_test.d/skew.csv", "n,pc,t_skew_us,t_max_us,t_mean_us\n1,0,11,20,10\n"
                                            "4,0,15,20,10\n2,8,19,20,10\n2,0,11,10,12\n");
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        write_file("step_time_test.d/meta.yaml", cases[c].meta);
        kv_step_time *time = open_time(f, config);
        kv_step_batch batch = decodes(2, 30, 18, 6);
        assert_close(ns(kv_step_time_step(time, &batch)),
                     1e3 * (around + 3 * (5 + cases[c].alpha * 0.6)), 1e-6);
        kv_step_time_free(time);
    }
    remove("step_time_test.d/meta.yaml");
    remove("step_time_test.d/skew.csv");
}

/* The same attention times in the form of later profilers, whose rows give the mean keys that a
 * chunk's tokens see (the keys before it and half of the chunk) and decodes of several tokens; and
 * a mixture measured for several divisions of its experts. Nothing changes but for the model's
 * layers, none of which is a mixture. */
static void test_later_tables(void **state)
{
    const fixture *f = *state;
    kv_step_time_config config = {.model = 1, .path = "step_time_test.d", .kernel_scale = 1};
    kv_step_batch chunk = {.tokens = 12,
                           .sequences = 1,
                           .prefill_tokens = 12,
                           .prefill_square = 144,
                           .prefill_history = 96};
    kv_step_batch two = decodes(2, 30, 18, 6);
    int64_t was[2], is[2];
    write_profile();
    kv_step_time *time = open_time(f, config);
    was[0] = kv_step_time_step(time, &chunk);
    was[1] = kv_step_time_step(time, &two);
    kv_step_time_free(time);
    write_file("step_time_test.d/attention.csv",
               "layer,prefill_chunk,prefill_key,n_decode,kv_decode,decode_q_len,time_us\n"
               "a,0,0,1,10,1,3\na,0,0,1,20,1,4\na,0,0,1,40,1,8\na,0,0,3,10,1,5\n"
               "a,0,0,3,20,1,8\na,0,0,3,40,1,16\na,0,0,3,40,4,99\n"
               "a,8,4,0,0,1,6\na,8,20,0,0,1,9\na,16,8,0,0,1,14\na,16,24,0,0,1,20\n"
               "a,8,4,1,10,1,8\na,8,4,3,10,1,10\na,8,20,1,10,1,11\na,8,20,3,10,1,13\n"
               "a,16,8,1,10,1,16\na,16,8,3,10,1,18\na,16,24,1,10,1,22\na,16,24,3,10,1,24\n");
    write_file("step_time_test.d/moe.csv", "ep,tokens,activated_experts,time_us\n"
                                           "2,1,1,5\n1,1,1,7\n1,9,1,9\n");
    write_file("step_time_test.d/skew.csv", "n_prefill,requests_json,t_skew_us\n"
                                            "0,\"[[1,8],[1,9]]\",7\n");
    time = open_time(f, config);
    is[0] = kv_step_time_step(time, &chunk);
    is[1] = kv_step_time_step(time, &two);
    kv_step_time_free(time);
    assert_memory_equal(is, was, sizeof is);
    write_file("step_time_test.d/moe.csv", "ep,tokens,activated_experts,time_us\n2,1,1,5\n");
    kv_diag diag = {0}; /* of no use here: it must not pass for a model without a mixture */
    assert_int_equal(kv_step_time_new(&config, &f->on, &time, &diag), KV_ERR_UNSUPPORTED);
    assert_non_null(strstr(diag.text, "ep above 1"));
    remove("step_time_test.d/moe.csv");
    remove("step_time_test.d/skew.csv");
}

/* Step j of a ramp is the step that the batch gives once it has grown j times, to the bit. */
static void test_ramps(void **state)
{
    const fixture *f = *state;
    kv_step_time_config config[] = {
        {.model = 1, .path = "step_time_test.d", .kernel_scale = 0.9, .step_overhead_ns = 12345},
        {.compute_efficiency = 0.7, .attention_efficiency = 0.3, .memory_efficiency = 0.9}};
    write_profile();
    for (int c = 0; c < 2; c++) {
        kv_step_time *time = open_time(f, config[c]);
        for (int64_t n = 1; n <= 4; n++)
            for (int64_t keys = n * 5; keys < n * 60; keys += 7) {
                kv_step_batch batch = decodes(n, keys, keys / n + 3, 6);
                kv_step_ramp ramp;
                kv_step_time_ramp(time, &batch, &ramp);
                assert_true(ramp.steps >= 1);
                for (int64_t j = 0; j < ramp.steps && j < 50; j++) {
                    assert_int_equal(kv_step_time_step(time, &batch), ramp.first + j * ramp.slope);
                    batch.decode_entries += batch.decode_growth;
                    batch.decode_longest += batch.longest_growth;
                }
            }
        kv_step_time_free(time);
    }
}

static void expect_error(const fixture *f, const char *file, const char *text, int line,
                         const char *words)
{
    kv_diag diag = {0};
    kv_step_time *time;
    kv_step_time_config config = {.model = 1, .path = "step_time_test.d", .kernel_scale = 1};
    write_profile();
    char path[200];
    snprintf(path, sizeof path, "step_time_test.d/%s", file);
    write_file(path, text);
    assert_int_equal(kv_step_time_new(&config, &f->on, &time, &diag), KV_ERR_INPUT);
    assert_non_null(strstr(diag.path, file));
    assert_int_equal(diag.line, line);
    assert_non_null(strstr(diag.text, words));
}

static void test_errors(void **state)
{
    const fixture *f = *state;
    expect_error(f, "dense.csv", "layer,time_us\na,1\n", 1, "tokens");
    expect_error(f, "dense.csv", "layer,tokens,time_us\na,1,2\na,-1,3\n", 3, "-1");
    expect_error(f, "dense.csv", "layer,tokens,time_us\na,1,x\n", 2, "x");
    expect_error(f, "dense.csv", "layer,tokens,time_us\na,1\n", 2, "early");
    expect_error(f, "dense.csv", "", 1, "empty");
    expect_error(f, "per_sequence.csv", "layer,sequences,time_us\n", 1, "no rows");
    expect_error(f, "attention.csv",
                 "prefill_chunk,kv_prefill,n_decode,kv_decode,time_us\n0,0,1,16,3\n", 0, "gaps");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_roofline),   cmocka_unit_test(test_copies),
        cmocka_unit_test(test_all_reduce), cmocka_unit_test(test_table),
        cmocka_unit_test(test_skew),       cmocka_unit_test(test_later_tables),
        cmocka_unit_test(test_ramps),      cmocka_unit_test(test_errors),
    };
    return cmocka_run_group_tests_name("step_time", tests, open_fixture, close_fixture);
}
