/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Checks the catalogue: every description parses, bytes and FLOPs equal numbers worked by hand from
 * the shapes (the working stands beside each), parameters equal the totals that the makers publish
 * within 1 %. And wrong descriptions: each is refused at its place. Not checked: whether the shapes
 * are those of the real models, beyond what their totals tell. */
#include "tests/kv_test.h"

#include "models/catalogue.h"
#include "models/device.h"

#include <sys/stat.h>
#include <unistd.h>

static kv_model *model(const char *text)
{
    kv_model *m = NULL;
    kv_diag diag = {0};
    if (kv_model_find(text, &m, &diag) != KV_OK)
        fail_msg("%s: %s", text, diag.text);
    return m;
}

static double token_bytes(const char *name)
{
    kv_model *m = model(name);
    double bytes = kv_model_token_bytes(m, kv_model_cache_format(m));
    kv_model_free(m);
    return bytes;
}

/* 2 (K and V) x KV heads x head size x 2 bytes x layers, unless said otherwise. */
static void bytes_per_token_worked_by_hand(void **state)
{
    assert_true(token_bytes("llama-2-7b") == 2 * 32 * 128 * 2 * 32);  /* 524288 */
    assert_true(token_bytes("llama-3.1-8b") == 131072);               /* 2*8*128*2*32 */
    assert_true(token_bytes("llama-3.1-70b") == 327680);              /* 2*8*128*2*80 */
    assert_true(token_bytes("llama-3.1-405b") == 516096);             /* 2*8*128*2*126 */
    assert_true(token_bytes("mistral-7b") == 131072);                 /* 2*8*128*2*32 */
    assert_true(token_bytes("mixtral-8x7b") == 131072);               /* 2*8*128*2*32 */
    assert_true(token_bytes("qwen3-8b") == 147456);                   /* 2*8*128*2*36 */
    assert_true(token_bytes("qwen3-32b") == 262144);                  /* 2*8*128*2*64 */
    assert_true(token_bytes("qwen3-30b-a3b") == 98304);               /* 2*4*128*2*48 */
    assert_true(token_bytes("deepseek-v3") == (512 + 64) * 2 * 61);   /* latent: 70272 */
    assert_true(token_bytes("gemma-3-27b") == 2 * 16 * 128 * 2 * 62); /* below the window */
    assert_true(token_bytes("mixattention-like") ==
                2 * 16 * 128 * 2 * 4);                             /* 4 caches of 24 layers */
    assert_true(token_bytes("jamba-like") == 2 * 8 * 128 * 2 * 4); /* 4 attention layers */
    assert_true(token_bytes("gla-1.3b") == 0);
}

static void sequences_worked_by_hand(void **state)
{
    kv_model *gemma = model("gemma-3-27b"), *jamba = model("jamba-like"), *gla = model("gla-1.3b");
    /* 62 layers: 10 whole periods of six and two more local ones, so 10 global and 52 local. At
     * 5000 tokens a global layer holds 5000 of them, a local one 1024; 8192 bytes each
     * (2*16*128*2). */
    assert_true(kv_model_sequence_bytes(gemma, kv_model_cache_format(gemma), 5000) ==
                8192.0 * (10 * 5000 + 52 * 1024));
    /* 28 Mamba layers: 8192 channels x (16 x 4 bytes + 3 inputs x 2 bytes) = 573440 bytes. */
    assert_true(kv_model_state_bytes(jamba) == 28 * 573440.0);
    assert_true(kv_model_sequence_bytes(jamba, kv_model_cache_format(jamba), 1000) ==
                28 * 573440.0 + 1000 * 16384.0);
    /* 24 layers x 4 heads x 256 x 512 x 4 bytes = 48 MiB. */
    assert_true(kv_model_state_bytes(gla) == 48.0 * 1024 * 1024);
    kv_model_free(gemma);
    kv_model_free(jamba);
    kv_model_free(gla);
}

/* KIVI: 2 bits and a 16-bit scale and zero for 32 numbers are 3 bits, 3/16 of fp16 (policies.md);
 * the newest 32 tokens stay in 16 bits. */
static void quantised_bytes_worked_by_hand(void **state)
{
    kv_model *m = model("llama-3.1-8b");
    kv_cache_format kivi = {.dtype = KV_DTYPE_INT2, .group = 32, .residual_tokens = 32};
    kv_cache_format fp8 = {.dtype = KV_DTYPE_FP8};
    assert_close(kv_model_token_bytes(m, kivi), 131072 * 3.0 / 16, 1e-15);
    assert_close(kv_model_token_bytes(m, fp8), 65536, 1e-15);
    assert_close(kv_model_sequence_bytes(m, kivi, 1032), 131072 * (1000 * 3.0 / 16 + 32), 1e-15);
    assert_close(kv_model_sequence_bytes(m, kivi, 20), 131072 * 20.0, 1e-15);
    kv_model_free(m);
}

static void parameters_equal_what_makers_publish(void **state)
{
    int compared = 0;
    for (const kv_catalogue_entry *e = kv_catalogue_all(KV_SHELF_MODELS); e->name != NULL; e++) {
        kv_model *m = model(e->name);
        assert_string_equal(m->name, e->name);
        double ours = (double)kv_model_parameters(m), theirs = (double)m->published_parameters;
        if (theirs > 0) {
            compared++;
            print_message("# %s: %.0f parameters, published %.0f\n", e->name, ours, theirs);
            assert_true(fabs(ours - theirs) <= 0.01 * theirs);
        }
        kv_model_free(m);
    }
    assert_int_equal(compared, 12);
}

/* Of mixtures their papers state what a token meets: 12.9B (Mixtral), 37B (DeepSeek-V3), 3.3B
 * (Qwen3 30B-A3B), 12B (Jamba), to the digits given. */
static void active_parameters_equal_what_papers_state(void **state)
{
    const struct {
        const char *name;
        double stated, digit;
    } rows[] = {{"mixtral-8x7b", 12.9e9, 0.1e9},
                {"deepseek-v3", 37e9, 1e9},
                {"qwen3-30b-a3b", 3.3e9, 0.1e9},
                {"jamba-like", 12e9, 1e9}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        kv_model *m = model(rows[i].name);
        assert_true(fabs((double)kv_model_active_parameters(m) - rows[i].stated) <= rows[i].digit);
        kv_model_free(m);
    }
}

static void flops_worked_by_hand(void **state)
{
    kv_model *llama = model("llama-3.1-8b"), *deepseek = model("deepseek-v3");
    kv_model *gemma = model("gemma-3-27b");
    /* One layer: q and o 4096 x 4096, k and v 4096 x 1024, three of 4096 x 14336, times 2. */
    assert_true(kv_model_layer_flops(llama, 0) ==
                2.0 * (2 * 4096.0 * 4096 + 2 * 4096.0 * 1024 + 3 * 4096.0 * 14336));
    /* Scores and values: 2 x 2 x 32 heads x 128 per key. */
    assert_true(kv_model_layer_attention_flops(llama, 0, 1000, true) == 4 * 32 * 128 * 1000.0);
    assert_true(kv_model_head_flops(llama) == 2.0 * 4096 * 128256);
    assert_true(kv_model_token_flops(llama, 1000, true) ==
                32 * (kv_model_layer_flops(llama, 0) + 4 * 32 * 128 * 1000.0));
    /* Absorbed: 512 + 64 for a score, 512 for a value; full: 128 + 64 and 128. 128 heads. */
    assert_true(kv_model_layer_attention_flops(deepseek, 5, 1, true) == 2 * 128 * (576 + 512.0));
    assert_true(kv_model_layer_attention_flops(deepseek, 5, 1, false) == 2 * 128 * (192 + 128.0));
    /* A local layer sees 1024 keys, the sixth layer all. */
    assert_true(kv_model_layer_attention_flops(gemma, 0, 5000, true) == 4 * 32 * 128 * 1024.0);
    assert_true(kv_model_layer_attention_flops(gemma, 5, 5000, true) == 4 * 32 * 128 * 5000.0);
    kv_model_free(llama);
    kv_model_free(deepseek);
    kv_model_free(gemma);
}

static void layers_are_laid_out_as_described(void **state)
{
    kv_model *mix = model("mixattention-like"), *deepseek = model("deepseek-v3");
    const int first[] = {0, 1, 1, 1, 1, 1, 1, 1, 0, 9, 9, 9, 9, 9, 9, 9, 0, 17};
    for (size_t l = 0; l < sizeof first / sizeof *first; l++)
        assert_int_equal(mix->layer[l].cache_of, first[l]);
    assert_int_equal(deepseek->layer[2].mlp, KV_MLP_DENSE);
    assert_int_equal(deepseek->layer[3].mlp, KV_MLP_MOE);
    assert_int_equal(kv_model_kv_heads(deepseek), 1);
    /* 671B in fp8 are as many bytes as parameters. */
    assert_true(kv_model_weight_bytes(deepseek) == (double)kv_model_parameters(deepseek));
    kv_model_free(mix);
    kv_model_free(deepseek);
}

static void devices_are_plausible(void **state)
{
    for (const kv_catalogue_entry *e = kv_catalogue_all(KV_SHELF_DEVICES); e->name != NULL; e++) {
        kv_device *d = NULL;
        kv_diag diag = {0};
        assert_int_equal(kv_device_find(e->name, &d, &diag), KV_OK);
        assert_string_equal(d->name, e->name);
        assert_true(d->price_per_hour < 0);
        assert_true(d->fp8_tflops == 0 || d->fp8_tflops >= 1.9 * d->bf16_tflops);
        assert_true(d->tensor_parallel_link.bandwidth >= 0.9 * d->host_link.bandwidth);
        kv_device_free(d);
    }
    kv_device *h100 = NULL, *a100 = NULL;
    kv_diag diag = {0};
    assert_int_equal(kv_device_find("h100-sxm", &h100, &diag), KV_OK);
    assert_int_equal(kv_device_find("a100-80", &a100, &diag), KV_OK);
    assert_true(h100->memory_bytes == 81559LL << 20 && h100->bandwidth == 3.35e12);
    assert_true(h100->tensor_parallel_link.latency_ns == 5000);
    assert_true(kv_device_flops(h100, KV_DTYPE_FP8) == 1979e12);
    assert_true(kv_device_flops(h100, KV_DTYPE_BF16) == 989.5e12);
    assert_true(kv_device_flops(a100, KV_DTYPE_FP8) == 312e12);
    kv_device_free(h100);
    kv_device_free(a100);
}

#define SMALL "name: x, layers: 2, hidden_size: 8, vocabulary: 10, "
#define HEADS "attention: {heads: 4, kv_heads: 2, head_dim: 2}, "

static void wrong_descriptions_are_refused(void **state)
{
    const struct {
        const char *text, *words;
    } rows[] = {
        {"llama-3.1-8", "did you mean 'llama-3.1-8b'"},
        {"./no-such-file.yaml", "no-such-file"},
        {"{" SMALL "mlp: {intermediate_size: 4}}", "attention is missing"},
        {"{" SMALL HEADS "}", "mlp is missing"},
        {"{" SMALL HEADS "mlp: {intermediate_sise: 4}}", "intermediate_size"},
        {"{" SMALL HEADS "mlp: 4}", "mapping"},
        {"{" SMALL HEADS "mlp: {intermediate_size: 4}, weight_dtype: fp12}", "fp16"},
        {"{" SMALL "attention: {heads: 4, kv_heads: 3, head_dim: 2}, mlp: {intermediate_size: 4}}",
         "evenly"},
        {"{" SMALL "attention: {heads: 4, head_dim: 2, kv_rank: 3}, mlp: {intermediate_size: 4}}",
         "rope_dim"},
        {"{" SMALL HEADS "mlp: {intermediate_size: 4}, pattern: [a]}", "need kinds"},
        {"{" SMALL HEADS "mlp: {intermediate_size: 4}, kinds: {a: {}}}", "need pattern"},
        {"{" SMALL HEADS "mlp: {intermediate_size: 4}, kinds: {local: {}}, pattern: [lokal]}",
         "did you mean 'local'"},
        {"{" SMALL HEADS "mlp: {intermediate_size: 4}, kinds: {a: {mixer: mamba}}, pattern: [a]}",
         "mamba is missing"},
        {"{" SMALL HEADS "mlp: {intermediate_size: 4}, kinds: {a: {shares: b}, b: {}}, "
         "pattern: [a, b]}",
         "none comes before"},
        {"{" SMALL HEADS "mlp: {intermediate_size: 4}, kinds: {a: {shares: a}}, pattern: [a]}",
         "no cache of its own"},
        {"{" SMALL HEADS "mlp: {intermediate_size: 4}, kinds: {a: {}}, pattern: []}", "list"},
        {"{" SMALL HEADS "mlp: {intermediate_size: 4}, kinds: {a: {}}, prefix: [a, a, a], "
         "pattern: [a]}",
         "only 2"},
        {"{" SMALL HEADS "moe: {experts: 2, experts_per_token: 3, intermediate_size: 4}}",
         "above the 2 experts"},
        {"{name: x, layers: 1024, hidden_size: 262144, vocabulary: 10, " HEADS
         "moe: {experts: 16384, experts_per_token: 3, intermediate_size: 1048576}}",
         "parameters"},
        {"[1, 2]", NULL},
        {"{}", "name"},
        {"{" SMALL "layers: 3, " HEADS "}", "layers"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        kv_model *m = NULL;
        kv_diag diag = {0};
        kv_err err = kv_model_find(rows[i].text, &m, &diag);
        if (err != KV_ERR_INPUT || m != NULL)
            fail_msg("%s: was not refused", rows[i].text);
        if (rows[i].words != NULL && strstr(diag.text, rows[i].words) == NULL &&
            strstr(diag.path, rows[i].words) == NULL)
            fail_msg("%s: says '%s', expected '%s'", rows[i].text, diag.text, rows[i].words);
    }
}

static void wrong_devices_are_refused(void **state)
{
    const struct {
        const char *text, *words;
    } rows[] = {
        {"h100", "there is no device"},
        {"{name: x, memory: 80, bandwidth: 1GB/s, fp16_tflops: 1, bf16_tflops: 1}", "unit"},
        {"{name: x, memory: 80GiB, bandwidth: 1GB/s, fp16_tflops: 0, bf16_tflops: 1}", "fp16"},
        {"{name: x, memory: 80GiB, bandwidth: 1GB/s, fp16_tflops: 1, bf16_tflops: 1}", "host_link"},
        {"{name: x, memory: 80GiB, bandwidth: 1GB/s, fp16_tflops: 1, bf16_tflops: 1, "
         "host_link: {latency: 1us}}",
         "host_link"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        kv_device *d = NULL;
        kv_diag diag = {0};
        assert_int_equal(kv_device_find(rows[i].text, &d, &diag), KV_ERR_INPUT);
        if (strstr(diag.text, rows[i].words) == NULL)
            fail_msg("%s: says '%s', expected '%s'", rows[i].text, diag.text, rows[i].words);
    }
}

/* A name, a path relative to the experiment, KVSIM_DATADIR before the catalogue, an inline mapping.
 */
static void models_are_found_where_documented(void **state)
{
    char folder[] = "kvsim-models-XXXXXX", path[256], text[1024];
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/models", folder);
    assert_int_equal(mkdir(path, 0700), 0);
    snprintf(path, sizeof path, "%s/models/llama-3.1-8b.yaml", folder);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fprintf(file, "name: mine\nlayers: 2\nhidden_size: 8\nvocabulary: 10\n"
                  "attention: {heads: 4, kv_heads: 2, head_dim: 2}\nmlp: {intermediate_size: 4}\n");
    assert_int_equal(fclose(file), 0);

    kv_document *experiment = NULL;
    kv_diag diag = {0};
    snprintf(
        text, sizeof text,
        "a: models/llama-3.1-8b.yaml\nb: llama-3.1-8b\nc: {name: y, layers: 1, hidden_size: 8, "
        "vocabulary: 10, " HEADS "mlp: {intermediate_size: 4}}\n");
    snprintf(path, sizeof path, "%s/experiment.yaml", folder);
    assert_int_equal(kv_document_parse(path, text, strlen(text), &experiment, &diag), KV_OK);
    const kv_node *root = kv_document_root(experiment);
    const char *const want[] = {"mine", "llama-3.1-8b", "y", "mine"};
    for (int i = 0; i < 4; i++) {
        kv_model *m = NULL;
        if (i == 3)
            setenv("KVSIM_DATADIR", folder, 1);
        assert_int_equal(kv_model_get(kv_node_at(root, i == 3 ? 1 : i), &m, &diag), KV_OK);
        assert_string_equal(m->name, want[i]);
        kv_model_free(m);
    }
    unsetenv("KVSIM_DATADIR");
    kv_document_free(experiment);
    snprintf(path, sizeof path, "%s/models/llama-3.1-8b.yaml", folder);
    unlink(path);
    snprintf(path, sizeof path, "%s/models", folder);
    rmdir(path);
    rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_per_token_worked_by_hand),
        cmocka_unit_test(sequences_worked_by_hand),
        cmocka_unit_test(quantised_bytes_worked_by_hand),
        cmocka_unit_test(parameters_equal_what_makers_publish),
        cmocka_unit_test(active_parameters_equal_what_papers_state),
        cmocka_unit_test(flops_worked_by_hand),
        cmocka_unit_test(layers_are_laid_out_as_described),
        cmocka_unit_test(devices_are_plausible),
        cmocka_unit_test(wrong_descriptions_are_refused),
        cmocka_unit_test(wrong_devices_are_refused),
        cmocka_unit_test(models_are_found_where_documented),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
