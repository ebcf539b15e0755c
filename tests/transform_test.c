/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* What each transform makes of few small entries, worked by hand beside each test. What needs rows
 * or queries of a recording (cam, think), and outputs, are checked by transform_reference.py. */
#include "kv_test.h"

#include "policies/transform.h"
#include "policies/transform/low_rank.h"
#include "policies/transform/quantise.h"

extern const kv_transform kv__transform_kivi, kv__transform_kvquant, kv__transform_gear;
extern const kv_transform kv__transform_nearest_merge, kv__transform_look_m;
extern const kv_transform kv__transform_kvmerger, kv__transform_minicache;

enum { MOST_TOKENS = 16, MOST_WIDTH = 8, MOST = MOST_TOKENS * MOST_WIDTH };

/* A KV head of one layer, and a policy at work on it. */
typedef struct bench {
    const kv_transform *policy;
    kv_shape shape;
    kv_example example;
    kv_view view;
    char config[256];
    float key[MOST], value[MOST], recorded_key[MOST], recorded_value[MOST];
    int32_t present[MOST_TOKENS], dropped[MOST_TOKENS], order[MOST_TOKENS];
    double state[MOST_TOKENS], head_state[64], work[2048];
    kv_transform_step step;
} bench;

static void set(bench *b, const char *name, const char *text)
{
    kv_diag diag = {0};
    assert_int_equal(
        kv_param_set(kv_param_find(b->policy->params, name), b->config, text, NULL, &diag), KV_OK);
}

/* tokens of width channels, all present, keys and values given or zero. */
static void start(bench *b, const kv_transform *policy, int tokens, int width, const float *key,
                  const float *value)
{
    kv_diag diag = {0};
    memset(b, 0, sizeof *b);
    b->policy = policy;
    assert_true(policy->config_bytes <= sizeof b->config);
    assert_int_equal(kv_params_default(policy->params, b->config, &diag), KV_OK);
    b->shape = (kv_shape){.layers = 4, .heads = 1, .kv_heads = 1, .head_dim = width, .scale = 1};
    b->example = (kv_example){.prompt_tokens = tokens, .total_tokens = tokens};
    b->view = (kv_view){.shape = &b->shape, .example = &b->example};
    size_t bytes = (size_t)tokens * (size_t)width * sizeof(float);
    if (key != NULL)
        memcpy(b->key, key, bytes);
    if (value != NULL)
        memcpy(b->value, value, bytes);
    memcpy(b->recorded_key, b->key, sizeof b->key);
    memcpy(b->recorded_value, b->value, sizeof b->value);
    b->step = (kv_transform_step){.view = &b->view,
                                  .config = b->config,
                                  .step_end = tokens,
                                  .prefill = true,
                                  .present = b->present,
                                  .presents = tokens,
                                  .dropped = b->dropped,
                                  .recorded_key = b->recorded_key,
                                  .recorded_value = b->recorded_value,
                                  .key = b->key,
                                  .value = b->value,
                                  .state = b->state,
                                  .head_state = b->head_state,
                                  .work = b->work,
                                  .order = b->order};
    for (int j = 0; j < tokens; j++)
        b->present[j] = j;
}

/* Bit j of `mask` says that token j leaves. */
static void drop(bench *b, int tokens, unsigned mask)
{
    b->step.presents = b->step.droppeds = 0;
    for (int j = 0; j < tokens; j++)
        if (mask >> j & 1)
            b->dropped[b->step.droppeds++] = j;
        else
            b->present[b->step.presents++] = j;
}

static void check(const float *got, const double *want, int n)
{
    for (int i = 0; i < n; i++)
        assert_close(got[i], want[i], 1e-6);
}

static double share(const bench *b, int width, double entries, int layer)
{
    kv_shape shape = {.layers = 4, .heads = 1, .kv_heads = 1, .head_dim = width};
    kv_transform_size size = {.shape = &shape, .layer = layer, .entries = entries};
    return b->policy->bytes(b->config, &size);
}

/* --- Quantisation ------------------------------------------------------------------ */

/* Keys: tokens 0-3 are one group of each channel, 0..3.1 in steps of 3.1/3; token 4 waits. Values:
 * only token 0 is older than the residual 4; its group is its 4 channels, in steps of 1. */
static void kivi_first_batch(void **unused)
{
    static const float key[] = {0, 8, 0, 0, 1, 8, 0, 0, 2, 8, 0, 0, 3.1f, 8, 0, 0, 9, 7, 0, 0};
    static const float value[] = {0, 0.4f, 1, 3, 5, 5.4f, 6, 8, 0, 0,
                                  0, 1,    1, 1, 1, 1,    2, 2, 2, 2.5f};
    static const double want_key[] = {0, 8, 0,   0, 3.1 / 3, 8, 0, 0, 6.2 / 3, 8,
                                      0, 0, 3.1, 8, 0,       0, 9, 7, 0,       0};
    static const double want_value[] = {0, 0, 1, 3, 5, 5.4, 6, 8};
    bench b;
    start(&b, &kv__transform_kivi, 5, 4, key, value);
    set(&b, "group", "4");
    set(&b, "residual", "4");
    b.policy->apply(&b.step);
    check(b.key, want_key, 20);
    check(b.value, want_value, 8);
    b.policy->apply(&b.step); /* once quantised, nothing changes */
    check(b.key, want_key, 20);
    check(b.value, want_value, 8);
}

/* A second batch is quantised when it is full, in groups of its own: 9, 0, 0, 0 and 7, 1, 0, 0. */
static void kivi_second_batch(void **unused)
{
    static const float key[16] = {0, 1, 2, 3, 9, 4, 0, 0};
    static const double want[] = {0, 1, 2, 3, 9, 3, 0, 0};
    bench b;
    start(&b, &kv__transform_kivi, 8, 1, key, NULL);
    set(&b, "group", "4");
    set(&b, "residual", "4");
    b.step.presents = 7;
    b.policy->apply(&b.step);
    assert_close(b.key[5], 4, 0);
    b.step.presents = 8;
    b.policy->apply(&b.step);
    check(b.key, want, 8);
}

/* 2 bits and 32 bits per 32 numbers are 3 of 16 bits: 3/16 but for the residual. 256 entries,
 * residual 128: all keys and 128 values are quantised, 1 - (256 + 128) 13 / (512 16). */
static void kivi_bytes(void **unused)
{
    bench b;
    start(&b, &kv__transform_kivi, 1, 1, NULL, NULL);
    assert_close(share(&b, 128, 256, 0), 1 - 384 * 13.0 / 8192, 1e-15);
    assert_close(share(&b, 128, 128e9, 0), 3.0 / 16, 1e-8);
    assert_close(share(&b, 128, 100, 0), 1, 0);
    kv_diag diag = {0};
    set(&b, "residual", "100");
    assert_int_equal(b.policy->check(b.config, NULL, &diag), KV_ERR_INPUT);
    assert_non_null(strstr(diag.text, "multiple of group"));
}

/* Channel 0 of the prompt is -50, which as the first token stays and sets no range, then 0, 1.2, 2,
 * 3, 100: 20 % of 5 is one outlier, and 0..3 is the least range that one leaves. A later 1.4 goes
 * to 1; 200 is an outlier. Values: of 0, 0.9, 3, 50 one is an outlier, of 7, -60, 6, 6.6 the least
 * range is 6..7. */
static void kvquant_outliers(void **unused)
{
    static const float key[] = {-50, 0, 1.2f, 2, 3, 100, 1.4f, 200};
    static const double want[] = {-50, 0, 1, 2, 3, 100, 1, 200};
    static const float wide[8] = {0, 0.9f, 3, 50, 7, -60, 6, 6.6f};
    static const double want_wide[8] = {0, 1, 3, 50, 7, -60, 6, 6 + 2 / 3.0};
    bench b;
    start(&b, &kv__transform_kvquant, 8, 1, key, NULL);
    b.example.prompt_tokens = 6;
    set(&b, "levels", "uniform");
    set(&b, "bits", "2");
    set(&b, "outliers", "0.2");
    b.policy->apply(&b.step);
    check(b.key, want, 8);
    start(&b, &kv__transform_kvquant, 2, 4, NULL, wide);
    set(&b, "levels", "uniform");
    set(&b, "bits", "2");
    set(&b, "outliers", "0.2");
    set(&b, "sinks", "0");
    b.policy->apply(&b.step);
    check(b.value, want_wide, 8);
    start(&b, &kv__transform_kvquant, 2, 4, NULL, wide);
    set(&b, "levels", "uniform");
    set(&b, "sinks", "1");
    b.policy->apply(&b.step);
    assert_memory_equal(b.value, wide, 4 * sizeof *wide);
    assert_memory_not_equal(b.value + 4, wide + 4, 4 * sizeof *wide);
}

/* Two levels: of 0, 1, 9, 10, of which 0 counts three times, the means are 1/4 and 9.5; half way
 * goes down. Four levels of 0 2 4, 20 22, 40, 60 61 belong at the means of these runs: 0, 4, 22 and
 * 60, at equal shares of the weight, settle elsewhere, even steps 0, 20.3, 40.7, 61 there. */
static void fitted_levels(void **unused)
{
    kv_weighted few[] = {{10, 1, 0, 0}, {0, 3, 0, 0}, {9, 1, 0, 0}, {1, 1, 0, 0}};
    static const double number[] = {0, 2, 4, 20, 22, 40, 60, 61};
    kv_weighted runs[8];
    for (int i = 0; i < 8; i++)
        runs[i] = (kv_weighted){.x = number[i], .weight = 1};
    double level[4];
    kv_levels_fit(few, 4, level, 2);
    assert_close(level[0], 0.25, 1e-12);
    assert_close(level[1], 9.5, 1e-12);
    assert_close(kv_levels_nearest(level, 2, 4.875), 0.25, 1e-12);
    assert_close(kv_levels_nearest(level, 2, 4.876), 9.5, 1e-12);
    kv_levels_fit(runs, 8, level, 4);
    assert_close(level[0], 2, 1e-12);
    assert_close(level[1], 21, 1e-12);
    assert_close(level[2], 40, 1e-12);
    assert_close(level[3], 60.5, 1e-12);
    assert_close(kv_levels_nearest(level, 4, -7), 2, 1e-12);
    assert_close(kv_levels_nearest(level, 4, 99), 60.5, 1e-12);
}

/* The paper's table 1 counts 4.32 bits for 4 bits with 1 % of outliers, before scales of values:
 * 32/128 here, and one of 128 outliers where it has 1 %. */
static void kvquant_bytes(void **unused)
{
    bench b;
    start(&b, &kv__transform_kvquant, 1, 1, NULL, NULL);
    set(&b, "bits", "4");
    set(&b, "sinks", "0");
    assert_close(share(&b, 128, 1000, 0), (4.32 + 4 + 0.25 + 0.25) / 32, 1e-12);
}

/* Rank 1 of diag(3, 2) is diag(3, 0), whichever side is longer; what has rank 1 stays. */
static void low_rank(void **unused)
{
    double work[64], m[] = {3, 0, 0, 2, 0, 0}, one[] = {1, 2, 2, 4, -1, -2};
    const double want[] = {3, 0, 0, 0, 0, 0}, same[] = {1, 2, 2, 4, -1, -2};
    assert_true(kv_low_rank_work(3, 2) <= 64);
    kv_low_rank(m, 3, 2, 1, work);
    kv_low_rank(one, 2, 3, 1, work);
    for (int i = 0; i < 6; i++)
        assert_close(m[i], want[i], 1e-12);
    for (int i = 0; i < 6; i++)
        one[i] = same[i];
    kv_low_rank(one, 3, 2, 1, work);
    for (int i = 0; i < 6; i++)
        assert_close(one[i], same[i], 1e-12);
    kv_low_rank(one, 3, 2, 0, work);
    assert_close(one[3], 0, 0);
}

/* One bit in one group: 0, 1, 10 and 4 go to 0, 0, 10, 0 (4 is below the middle). With a fourth of
 * the numbers as outliers at each end 0 and 10 stay and 1, 4 are the levels themselves. Rank 1 of
 * one column is all that was lost. */
static void gear_parts(void **unused)
{
    static const float key[] = {0, 1, 10, 4};
    static const double plain[] = {0, 0, 10, 0}, whole[] = {0, 1, 10, 4};
    bench b;
    for (int part = 0; part < 3; part++) {
        start(&b, &kv__transform_gear, 4, 1, key, key);
        set(&b, "bits", "1");
        set(&b, "buffer", "4");
        set(&b, "outliers", part == 1 ? "0.5" : "0");
        set(&b, "rank", part == 2 ? "1" : "0");
        b.policy->apply(&b.step);
        check(b.key, part == 0 ? plain : whole, 4);
        check(b.value, whole, 4); /* a value of one channel is its own level */
    }
    start(&b, &kv__transform_gear, 4, 1, key, key);
    b.policy->apply(&b.step); /* 4 entries wait: the buffer holds 20 */
    assert_memory_equal(b.key, key, sizeof key);
}

/* What two levels lose of two channels has rank 1 where channels are multiples of one another. */
static void gear_repairs_with_rank_one(void **unused)
{
    static const float key[] = {0, 0, 1, 2, 10, 20, 4, 8};
    static const double want[] = {0, 0, 1, 2, 10, 20, 4, 8};
    bench b;
    start(&b, &kv__transform_gear, 4, 2, key, NULL);
    set(&b, "bits", "1");
    set(&b, "buffer", "4");
    set(&b, "outliers", "0");
    set(&b, "rank", "1");
    b.policy->apply(&b.step);
    check(b.key, want, 8);
}

/* --- Merging ----------------------------------------------------------------------- */

/* Tokens 0 and 2 stay, 1 goes to 0 (cosine 1/sqrt(1.01) against 0.1/sqrt(1.01)). */
static const float merge_key[] = {1, 0, 1, 0.1f, 0, 1};
static const float merge_value[] = {2, 2, 4, 0, 6, 6};

static void nearest_merge(void **unused)
{
    static const double pivot[] = {1, 0.025, 0, 0, 0, 1}, pivot_value[] = {2.5, 1.5, 0, 0, 6, 6};
    bench b;
    start(&b, &kv__transform_nearest_merge, 3, 2, merge_key, merge_value);
    drop(&b, 3, 2);
    b.policy->apply(&b.step);
    check(b.key, pivot, 2);
    check(b.key + 4, pivot + 4, 2);
    check(b.value, pivot_value, 2);
    check(b.value + 4, pivot_value + 4, 2);
    double w = (1 / sqrt(1.01) + 1) / 2; /* weighted: (x + w y) / (1 + w) */
    start(&b, &kv__transform_nearest_merge, 3, 2, merge_key, merge_value);
    set(&b, "scheme", "weighted");
    drop(&b, 3, 2);
    b.policy->apply(&b.step);
    assert_close(b.key[1], 0.1 * w / (1 + w), 1e-6);
    assert_close(b.value[0], (2 + 4 * w) / (1 + w), 1e-6);
    double v = 1 / sqrt(1.01) * 4 / (4 + sqrt(8)); /* values: cosine |y| / (|y| + |x|) */
    start(&b, &kv__transform_nearest_merge, 3, 2, merge_key, merge_value);
    set(&b, "scheme", "values");
    drop(&b, 3, 2);
    b.policy->apply(&b.step);
    assert_close(b.key[1], 0, 0);
    assert_close(b.value[0], (2 + 4 * v) / (1 + v), 1e-6);
}

static void look_m_merges(void **unused)
{
    static const char *const name[] = {"averaged", "pivotal", "weighted", "none"};
    const double c = 1 / sqrt(1.01);
    const double want[] = {(2 + 4) / 2.0, 2.5, (2 + 4 * c) / 2, 2};
    for (int i = 0; i < 4; i++) {
        bench b;
        start(&b, &kv__transform_look_m, 3, 2, merge_key, merge_value);
        set(&b, "merge", name[i]);
        drop(&b, 3, 2);
        b.policy->apply(&b.step);
        assert_close(b.value[0], want[i], 1e-6);
        assert_close(b.value[4], 6, 0);
    }
}

/* Tokens 0, 2 and 4 are text: they come first, and each kind stays in its own order, for scores of
 * any sign and those that pin. best[] is the order by hand. */
static void look_m_prefers_text(void **unused)
{
    static const uint8_t modality[] = {0, 1, 0, 1, 0};
    static const int32_t candidate[] = {0, 1, 2, 3, 4};
    static const double scores[][5] = {{1, 5, 0.5, 2, 0},
                                       {-3, -1, -9, -8, -4},
                                       {0, 0, 0, 0, 0},
                                       {1e-9, INFINITY, 3e-9, 2e-9, -INFINITY},
                                       {INFINITY, -2, -7, INFINITY, -9}};
    static const int best[][5] = {
        {0, 2, 4, 1, 3}, {0, 4, 2, 1, 3}, {0, 2, 4, 1, 3}, {2, 0, 4, 1, 3}, {0, 2, 4, 3, 1}};
    for (int c = 0; c < 5; c++) {
        double score[5];
        memcpy(score, scores[c], sizeof score);
        bench b;
        start(&b, &kv__transform_look_m, 5, 1, NULL, NULL);
        b.example.modality = modality;
        kv_event event = {.view = &b.view, .candidate = candidate, .candidates = 5, .scored = 5};
        b.policy->prior(b.config, &event, score);
        for (int r = 1; r < 5; r++) {
            double above = score[best[c][r - 1]], below = score[best[c][r]];
            assert_true(isfinite(below) && above >= below);
            bool kinds = modality[best[c][r - 1]] != modality[best[c][r]];
            assert_true(!kinds || above > below);
        }
    }
}

/* Keys of tokens 0-3 point along x, 4 and 5 along y: two runs. 0 and 3 stay; 1 goes to 0, 2 to 3; 4
 * and 5, a run that keeps nothing, are lost. Distances 1 and 2; sigma is the mean of one. */
static void kvmerger_runs(void **unused)
{
    static const float key[] = {1, 0, 2, 0, 5, 0, 3, 0, 0, 1, 0, 2};
    static const float value[] = {10, 0, 20, 0, 50, 0, 30, 0, 1, 1, 1, 1};
    const double w = exp(-0.5);
    bench b;
    start(&b, &kv__transform_kvmerger, 6, 2, key, value);
    drop(&b, 6, 2 | 4 | 16 | 32);
    b.policy->apply(&b.step);
    assert_close(b.key[0], (1 + 2 * w) / (1 + w), 1e-6);
    assert_close(b.value[0], (10 + 20 * w) / (1 + w), 1e-6);
    assert_close(b.key[6], (3 + 5 * w) / (1 + w), 1e-6);
    assert_close(b.value[6], (30 + 50 * w) / (1 + w), 1e-6);
    assert_close(b.key[7], 0, 0);
    start(&b, &kv__transform_kvmerger, 6, 2, key, value);
    set(&b, "sigma", "2"); /* exp(-1/8) and exp(-4/8) */
    drop(&b, 6, 2 | 4 | 16 | 32);
    b.policy->apply(&b.step);
    assert_close(b.key[0], (1 + 2 * exp(-0.125)) / (1 + exp(-0.125)), 1e-6);
    assert_close(b.key[6], (3 + 5 * w) / (1 + w), 1e-6);
}

/* --- Across layers ----------------------------------------------------------------- */

/* (2, 0) and (0, 3) at a right angle: 0.6 of the way from the lower to the upper layer's direction
 * is 54 degrees off the lower one's. */
static void minicache_pair(void **unused)
{
    static const float upper[] = {2, 0}, lower[] = {0, 3};
    const double degree = acos(-1.0) / 180;
    const double want_upper[] = {2 * sin(54 * degree), 2 * cos(54 * degree)};
    const double want_lower[] = {3 * sin(54 * degree), 3 * cos(54 * degree)};
    bench b;
    start(&b, &kv__transform_minicache, 1, 2, upper, upper);
    b.view.layer = 3;
    b.step.partner_key = b.step.partner_value = lower;
    b.policy->apply(&b.step);
    check(b.key, want_upper, 2);
    check(b.value, want_upper, 2);
    start(&b, &kv__transform_minicache, 1, 2, lower, lower);
    b.view.layer = 2;
    b.step.partner_key = b.step.partner_value = upper;
    b.policy->apply(&b.step);
    check(b.key, want_lower, 2);
    assert_int_equal(b.policy->partner(b.config, &b.shape, 1), -1);
    assert_int_equal(b.policy->partner(b.config, &b.shape, 2), 3);
    assert_int_equal(b.policy->partner(b.config, &b.shape, 3), 2);
    assert_close(share(&b, 2, 10, 1), 1, 0);
    assert_close(share(&b, 2, 10, 2), 0.05 + 0.95 * (0.5 + 0.5), 1e-15);
}

/* Of four entries a fourth is retained: the one whose directions are furthest apart. */
static void minicache_retains(void **unused)
{
    static const float own[] = {1, 0, 1, 0, 1, 0, 1, 0};
    static const float other[] = {1, 1, 0, 1, 1, 0.5f, 2, 0};
    bench b;
    start(&b, &kv__transform_minicache, 4, 2, own, own);
    b.view.layer = 2;
    b.step.partner_key = b.step.partner_value = other;
    set(&b, "retain", "0.25");
    b.policy->apply(&b.step);
    assert_memory_equal(b.key + 2, own + 2, 2 * sizeof *own);
    assert_true(b.key[1] > 0.4 && b.key[5] > 0.2);
    assert_close(b.key[6], 1, 1e-6); /* the same direction already */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kivi_first_batch),
        cmocka_unit_test(kivi_second_batch),
        cmocka_unit_test(kivi_bytes),
        cmocka_unit_test(kvquant_outliers),
        cmocka_unit_test(kvquant_bytes),
        cmocka_unit_test(fitted_levels),
        cmocka_unit_test(low_rank),
        cmocka_unit_test(gear_parts),
        cmocka_unit_test(gear_repairs_with_rank_one),
        cmocka_unit_test(nearest_merge),
        cmocka_unit_test(look_m_merges),
        cmocka_unit_test(look_m_prefers_text),
        cmocka_unit_test(kvmerger_runs),
        cmocka_unit_test(minicache_pair),
        cmocka_unit_test(minicache_retains),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
