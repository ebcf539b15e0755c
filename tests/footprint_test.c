/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Checks the analytic footprints of the real policies, from their text on, against the published
 * evaluation formulas written here as straight loops over chunks and tokens, on thousands of random
 * lengths, to 1e-12; against values of a published table; and, for layers that are not plain
 * attention, against numbers worked by hand. */
#include "tests/kv_test.h"

#include "tests/draw.h"

#include "sim/footprint.h"
#include "sim/policy_spec.h"

#include <float.h>

static long long least(long long a, long long b)
{
    return a < b ? a : b;
}

/* --- Straight loops, after the text of the formulas
 * ----------------------------------------------- */

/* Lengths, and the points of the peak: one per chunk and one for the last decode step. */
typedef struct lengths {
    long long P, G, C;
} lengths;

typedef struct loops {
    long long steps;
    int points;
    long long point[4096];
} loops;

static void charge_chunk(loops *l, long long n, long long past)
{
    for (long long i = 1; i <= n; i++)
        l->steps += past + i;
    l->point[l->points++] = past + n;
}

/* (a) one streaming head: S sinks, window W. */
static void streaming_mask_stats(const lengths *x, long long S, long long W, loops *l)
{
    long long last = 0;
    for (long long a = 0; a < x->P; a += x->C) {
        long long b = least(a + x->C, x->P);
        charge_chunk(l, b - a, least(a, W) + (a > W ? least(a - W, S) : 0));
    }
    for (long long a = x->P; a < x->P + x->G; a++) {
        last = 1 + least(a, W) + (a > W ? least(a - W, S) : 0);
        l->steps += last;
    }
    l->point[l->points++] = last;
}

/* (b) one head of which each chunk keeps `keep` and w more; generated tokens stay. (d) the same
 * with the last local_len prompt tokens as one chunk; a shorter prompt is that chunk. */
static void global_mask_stats(const lengths *x, double keep, long long w, long long local_len,
                              loops *l)
{
    long long past = 0, body = x->P - local_len;
    for (long long a = 0, b; a < x->P; a = b) {
        b = a < body ? least(a + x->C, body) : x->P;
        charge_chunk(l, b - a, past);
        past += least((long long)nearbyint(keep * (double)(b - a)) + w, b - a);
    }
    for (long long g = 1; g <= x->G; g++)
        l->steps += past + g;
    l->point[l->points++] = past + x->G;
}

/* To B after every chunk if `each`, else after the last; then after every `interval` decode steps,
 * 0: never. */
static void budget_stats(const lengths *x, long long B, bool each, long long interval, loops *l)
{
    long long past = 0;
    for (long long a = 0; a < x->P; a += x->C) {
        long long b = least(a + x->C, x->P);
        charge_chunk(l, b - a, past);
        past += b - a;
        if (each || b == x->P)
            past = least(past, B);
    }
    for (long long g = 1; g <= x->G; g++) {
        charge_chunk(l, 1, past);
        l->points--; /* kept as one point, the greatest */
        past++;
        if (g == 1 || past > l->point[l->points + 1])
            l->point[l->points + 1] = past;
        if (interval > 0 && g % interval == 0)
            past = least(past, B);
    }
    if (x->G > 0) {
        l->point[l->points] = l->point[l->points + 1];
        l->points++;
    }
}

static long long greatest(const loops *l)
{
    long long most = 0;
    for (int i = 0; i < l->points; i++)
        most = l->point[i] > most ? l->point[i] : most;
    return most;
}

/* --- What kvsim answers
 * ----------------------------------------------------------------------------- */

static kv_footprint ask(const kv_model *model, const lengths *x, const char *policy)
{
    kv_diag diag = {0};
    kv_mark mark = {"test", 1, 1};
    kv_point_list points = {0};
    if (kv_policy_parse_text(policy, &mark, "", &points, &diag) != KV_OK)
        fail_msg("%s: %s", policy, diag.text);
    kv_footprint_case c = {.model = model,
                           .format = kv_model_cache_format(model),
                           .policy = points.point[0].policy,
                           .config = points.point[0].config,
                           .prompt_tokens = x->P,
                           .generated_tokens = x->G,
                           .chunk_tokens = x->C,
                           .published = true};
    kv_footprint f = {0};
    assert_int_equal(kv_footprint_compute(&c, &f, &diag), KV_OK);
    kv_point_list_fini(&points);
    return f;
}

static void compare(const kv_model *model, const lengths *x, const char *policy, const loops *l)
{
    double N = (double)(x->P + x->G), bytes = 131072;
    kv_footprint f = ask(model, x, policy);
    double want = (double)l->steps / (N * (N + 1) / 2), peak = (double)greatest(l);
    if (fabs(f.footprint - want) > 1e-12 || fabs(f.peak - peak / N) > 1e-12)
        fail_msg("%s at %lld, %lld, %lld: %.17g, peak %.17g; expected %.17g, %.17g", policy, x->P,
                 x->G, x->C, f.footprint, f.peak, want, peak / N);
    assert_close(f.peak_bytes, peak * bytes, 1e-13);
    assert_close(f.byte_steps, (double)l->steps * bytes, 1e-13);
}

static kv_model *find_model(const char *text)
{
    kv_model *m = NULL;
    kv_diag diag = {0};
    if (kv_model_find(text, &m, &diag) != KV_OK)
        fail_msg("%s: %s", text, diag.text);
    return m;
}

static lengths random_lengths(uint64_t *random)
{
    static const long long size[] = {30, 300, 3000};
    long long most = size[between(random, 0, 2)], P = between(random, 1, most);
    lengths x = {P, between(random, 0, 1) * between(random, 0, most / 2), 0};
    x.C = between(random, 0, 3) == 0 ? P : between(random, 1 + P / 3000, 2 * P);
    return x;
}

static void streaming_equals_the_loops(void **state)
{
    kv_model *model = find_model("llama-3.1-8b");
    uint64_t random = 1;
    for (int i = 0; i < 4000; i++) {
        lengths x = random_lengths(&random);
        long long S = between(&random, 0, 140), W = between(&random, 1, 2 * x.P);
        char policy[128];
        snprintf(policy, sizeof policy, "{streaming: {sinks: %lld, window: %lld}}", S, W);
        loops l = {0};
        streaming_mask_stats(&x, S, W, &l);
        compare(model, &x, policy, &l);
    }
    kv_model_free(model);
}

static void chunked_equals_the_loops(void **state)
{
    static const char *const text[] = {
        "{snapkv: {keep: %.17g, evict: chunked, window: %lld, window_in_budget: false, rounding: "
        "half_even}}",
        "{snapkv: {keep: %.17g, evict: patched, window: %lld, window_in_budget: false, rounding: "
        "half_even}}",
        "{locret: {keep: %.17g, window: %lld, local: %lld}}"};
    kv_model *model = find_model("llama-3.1-8b");
    uint64_t random = 2;
    for (int i = 0; i < 6000; i++) {
        lengths x = random_lengths(&random);
        int sort = i % 3;
        double keep = (double)between(&random, 0, 20) / 20;
        long long w = between(&random, 0, 3) ? 64 : between(&random, 0, 2500);
        long long local = sort == 2 ? between(&random, 0, 200) : 0;
        char policy[256];
        snprintf(policy, sizeof policy, text[sort], keep, w, local);
        loops l = {0};
        global_mask_stats(&x, keep, w, local, &l);
        compare(model, &x, policy, &l);
    }
    kv_model_free(model);
}

/* (c): the heads' sums and, point by point, their peaks are weighed by the real fraction h. */
static void head_split_equals_the_loops(void **state)
{
    kv_model *model = find_model("llama-3.1-8b");
    uint64_t random = 3;
    for (int i = 0; i < 4000; i++) {
        lengths x = random_lengths(&random);
        long long S = between(&random, 0, 140), W = between(&random, 1, 2 * x.P);
        double h = (double)between(&random, 0, 1000) / 1000, N = (double)(x.P + x.G), peak = 0;
        char policy[128];
        snprintf(policy, sizeof policy, "{%s: {sparsity: %.17g, sinks: %lld, window: %lld}}",
                 i % 2 ? "duo" : "prulong", h, S, W);
        loops stream = {0}, rest = {0};
        streaming_mask_stats(&x, S, W, &stream);
        global_mask_stats(&x, 1, 64, 0, &rest);
        for (int k = 0; k < stream.points; k++)
            peak = fmax(peak, h * (double)stream.point[k] + (1 - h) * (double)rest.point[k]);
        kv_footprint f = ask(model, &x, policy);
        double all = N * (N + 1) / 2;
        double want = h * (double)stream.steps / all + (1 - h) * (double)rest.steps / all;
        if (fabs(f.footprint - want) > 1e-12 || fabs(f.peak - peak / N) > 1e-12)
            fail_msg("%s: %.17g, expected %.17g", policy, f.footprint, want);
        assert_close(f.peak_bytes, peak * 131072, 1e-12);
    }
    kv_model_free(model);
}

static void budgets_equal_the_loops(void **state)
{
    static const struct {
        const char *text;
        bool each;
        long long interval;
    } rows[] = {
        {"{knorm: {budget: %lld, evict: postfill}}", false, 0},
        {"{knorm: {budget: %lld, evict: pool}}", true, 0},
        {"{knorm: {budget: %lld, evict: step}}", false, 1},
        {"{tova: {budget: %lld, evict: online}}", true, 1},
        {"{h2o: {budget: %lld}}", true, 1},
        {"{h2o: {budget: %lld, evict: interval, interval: 7}}", false, 7},
        {"{snapkv: {budget: %lld, evict: postfill, window: 1, window_in_budget: true}}", false, 0},
        {"{snapkv: {budget: %lld, evict: pool, window: 1, window_in_budget: true}}", true, 0},
    };
    kv_model *model = find_model("llama-3.1-8b");
    uint64_t random = 4;
    for (int i = 0; i < 4000; i++) {
        int row = i % (int)(sizeof rows / sizeof *rows);
        lengths x = random_lengths(&random);
        long long B = between(&random, 1, x.P + x.P / 4);
        char policy[128];
        snprintf(policy, sizeof policy, rows[row].text, B);
        loops l = {0};
        budget_stats(&x, B, rows[row].each, rows[row].interval, &l);
        compare(model, &x, policy, &l);
    }
    kv_model_free(model);
}

/* The worked values that go with the formulas, to the digits printed there: s = .3, .7, .9 chunked,
 * and h = .7 with 128 sinks and a window of 1024. */
static void worked_values_are_met(void **state)
{
    static const struct {
        lengths x;
        double sparse[3], head;
    } rows[] = {
        {{131072, 100, 131072}, {.9999, .999, .999}, .999},
        {{131072, 100, 32768}, {.776, .476, .326}, .484},
        {{131072, 100, 8192}, {.726, .351, .163}, .355},
        {{131072, 100, 128}, {1.0, .797, .602}, .313},
        {{12000, 1000, 32768}, {.958, .901, .873}, .906},
        {{38000, 10000, 32768}, {.858, .666, .571}, .645},
        {{6000, 3000, 8192}, {.871, .694, .605}, .671},
    };
    static const char *const keep[] = {"0.7", "0.3", "0.1"};
    kv_model *model = find_model("llama-3.1-8b");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        for (int k = 0; k < 3; k++) {
            char policy[128];
            snprintf(policy, sizeof policy, "{snapkv: {keep: %s, preset: prulong}}", keep[k]);
            double got = ask(model, &rows[i].x, policy).footprint;
            assert_true(fabs(got - rows[i].sparse[k]) <= 0.00051);
        }
        double got = ask(model, &rows[i].x, "{prulong: {sparsity: 0.7}}").footprint;
        assert_true(fabs(got - rows[i].head) <= 0.00051);
    }
    kv_model_free(model);
}

/* Pyramids keep other counts in every layer: their peak is that of the sum, not the sum of peaks.
 * The quotas are asked of the policy; the steps are gone through one by one. */
static void pyramid_equals_the_loops(void **state)
{
    enum { LAYERS = 32 };
    kv_model *model = find_model("llama-3.1-8b");
    uint64_t random = 5;
    kv_diag diag = {0};
    kv_mark mark = {"test", 1, 1};
    for (int i = 0; i < 300; i++) {
        lengths x = random_lengths(&random);
        char policy[128];
        snprintf(policy, sizeof policy, "{pyramidkv: {keep: 0.%d, evict: chunked, window: 8}}",
                 (int)between(&random, 1, 9));
        kv_point_list points = {0};
        assert_int_equal(kv_policy_parse_text(policy, &mark, "", &points, &diag), KV_OK);
        double steps = 0, peak = 0, past[LAYERS] = {0};
        for (long long a = 0; a < x.P + x.G;) {
            long long n = a < x.P ? least(x.C, x.P - a) : 1;
            double present = 0;
            for (int l = 0; l < LAYERS; l++) {
                kv_quota_query q = {.layer = l,
                                    .layers = LAYERS,
                                    .kv_heads = 8,
                                    .candidates = (int)n,
                                    .prompt_tokens = (int)x.P,
                                    .own_chunk = true,
                                    .pin_window = true,
                                    .published = true};
                steps += (double)(n * (n + 1)) / 2 + (double)n * past[l];
                present += past[l] + (double)n;
                const kv_point_spec *p = &points.point[0];
                past[l] += a < x.P ? (double)kv_retention_quota(p->policy, p->config, &q) : 1;
            }
            peak = fmax(peak, present);
            a += n;
        }
        double N = (double)(x.P + x.G);
        kv_footprint f = ask(model, &x, policy);
        assert_close(f.footprint, steps / LAYERS / (N * (N + 1) / 2), 1e-12);
        assert_close(f.peak, peak / LAYERS / N, 1e-12);
        kv_point_list_fini(&points);
    }
    kv_model_free(model);
}

#define SHAPE                                                                                      \
    "{name: x, layers: 4, hidden_size: 8, vocabulary: 10, dtype: bf16, attention: {heads: 4, "     \
    "kv_heads: 2, head_dim: 2}, mlp: {intermediate_size: 4}, "

/* By hand, 10 prompt tokens in chunks of 5, then 2 steps; an entry is 8 bytes, T(12) = 78. */
static void other_layers_worked_by_hand(void **state)
{
    lengths x = {10, 2, 5};
    /* Two layers see 4 keys: 3 entries stay between steps. Chunks 15 and 15 + 5*3, steps of 4: 53.
     * Full layers: 78. Sum of two and two: 262 of 312. Peak: 8 and 8 and 12 and 12 at the last step
     * would be 4, 4, 12, 12 = 32; at the second chunk 8, 8, 10, 10 = 36. */
    kv_model *window = find_model(SHAPE "kinds: {l: {window: 4}, g: {}}, pattern: [l, g]}");
    kv_footprint f = ask(window, &x, "full");
    assert_close(f.footprint, 262.0 / 312, 1e-15);
    assert_close(f.peak, 36.0 / 48, 1e-15);
    assert_close(f.peak_bytes, 36 * 2 * 8, 1e-15);
    /* A policy bounds what a window lets stay: to 2 entries each. Chunks 15, 25, steps of 3: 46
     * each; the second chunk holds 7 in all four layers. */
    f = ask(window, &x, "{streaming: {sinks: 0, window: 2}}");
    assert_close(f.footprint, 46.0 / 78, 1e-15);
    assert_close(f.peak, 7.0 / 12, 1e-15);
    kv_model_free(window);
    /* Three of four layers read the first one's cache. */
    kv_model *shared =
        find_model(SHAPE "kinds: {g: {}, s: {shares: g}}, prefix: [g], pattern: [s]}");
    f = ask(shared, &x, "full");
    assert_close(f.footprint, 0.25, 1e-15);
    assert_close(f.peak, 0.25, 1e-15);
    assert_close(f.byte_steps, 78 * 2 * 8, 1e-15);
    kv_model_free(shared);
    /* Two layers have a state of 1 head x 4 x 3 in fp32 = 48 bytes, as much as 6 entries, at each
     * of 12 steps: 2*12*6 = 144, beside two full layers of two heads: 312. Of 4 layers x 2 heads
     * x 78. */
    kv_model *state_space =
        find_model(SHAPE "gla: {heads: 1, key_dim: 4, value_dim: 3, gate_rank: 1}, kinds: {r: "
                         "{mixer: gla}, g: {}}, pattern: [r, g]}");
    f = ask(state_space, &x, "full");
    assert_close(f.footprint, (144 + 312.0) / (8 * 78), 1e-15);
    assert_close(f.peak, (12 + 48.0) / (8 * 12), 1e-15);
    assert_close(f.peak_bytes, (12 + 48) * 8, 1e-15);
    kv_model_free(state_space);
}

static void wrong_lengths_are_refused(void **state)
{
    kv_model *model = find_model("llama-3.1-8b");
    kv_footprint_case c = {.model = model, .policy = kv_retention_find("full")};
    kv_retention_config config = {0};
    c.config = &config;
    kv_footprint f;
    kv_diag diag = {0};
    assert_int_equal(kv_footprint_compute(&c, &f, &diag), KV_ERR_INPUT);
    c.prompt_tokens = INT32_MAX;
    c.generated_tokens = 1;
    assert_int_equal(kv_footprint_compute(&c, &f, &diag), KV_ERR_INPUT);
    c.generated_tokens = 0;
    assert_int_equal(kv_footprint_compute(&c, &f, &diag), KV_OK);
    assert_true(f.footprint == 1 && f.peak == 1);
    kv_model_free(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(streaming_equals_the_loops),  cmocka_unit_test(chunked_equals_the_loops),
        cmocka_unit_test(head_split_equals_the_loops), cmocka_unit_test(budgets_equal_the_loops),
        cmocka_unit_test(worked_values_are_met),       cmocka_unit_test(pyramid_equals_the_loops),
        cmocka_unit_test(other_layers_worked_by_hand), cmocka_unit_test(wrong_lengths_are_refused),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
