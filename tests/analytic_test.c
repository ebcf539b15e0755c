/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Checks that footprints by formula equal footprints that the replay counts entry by entry, for
 * every policy that claims fixed counts, every schedule it takes, several budgets and chunk sizes.
 * They are two programs: the replay evicts positions, the formula sums numbers. */
#include "tests/kv_test.h"

#include "sim/policy_spec.h"
#include "sim/replay/replay.h"

enum { MAX_POINTS = 4096 };

static const char *const schedules[] = {"postfill", "chunked",  "patched", "pool",
                                        "step",     "interval", "online",  NULL};
static const long long chunks[] = {0, 1, 7, 32};

/* Appends the policy at every schedule, budget and chunk size that it takes. */
static void add_policy(const kv_retention *policy, kv_point_list *list)
{
    bool evict = kv_param_find(policy->params, "evict") != NULL;
    bool keep = kv_param_find(policy->params, "keep") != NULL;
    bool interval = kv_param_find(policy->params, "interval") != NULL;
    bool window = kv_param_find(policy->params, "window") != NULL;
    for (int s = 0; schedules[s] != NULL && (evict || s == 0); s++) {
        if (strcmp(schedules[s], "interval") == 0 && !interval)
            continue;
        char text[256], sep = ' ';
        int n = snprintf(text, sizeof text, "{%s: {", policy->name);
        if (evict)
            n += snprintf(text + n, sizeof text - (size_t)n, "%cevict: %s", sep, schedules[s]);
        sep = evict ? ',' : ' ';
        if (keep)
            n += snprintf(text + n, sizeof text - (size_t)n, "%ckeep: [0, 0.13, 0.5, 1]", sep);
        sep = evict || keep ? ',' : ' ';
        if (window && strcmp(policy->name, "streaming") != 0) {
            n += snprintf(text + n, sizeof text - (size_t)n, "%cwindow: 5", sep);
            sep = ',';
        }
        if (interval)
            n += snprintf(text + n, sizeof text - (size_t)n, "%cinterval: 3", sep);
        snprintf(text + n, sizeof text - (size_t)n, "}}");
        kv_diag diag = {0};
        kv_mark mark = {"test", 1, 1};
        if (kv_policy_parse_text(text, &mark, "", list, &diag) != KV_OK)
            fail_msg("%s: %s", text, diag.text);
    }
}

static void replay(const kv_replay_point *points, int count, kv_attention *trace, bool analytic,
                   kv_replay_result *result)
{
    kv_replay_options options = {
        .page_tokens = 16, .prefill_token_s = 0.25, .decode_step_s = 2, .analytic = analytic};
    kv_replay *all;
    kv_diag diag = {0};
    assert_int_equal(kv_replay_new(points, count, kv_attention_shape(trace), &options, &all, &diag),
                     KV_OK);
    if (kv_replay_example(all, trace, 0, result, &diag) != KV_OK)
        fail_msg("%s", diag.text);
    kv_replay_free(all);
}

static void compare(const kv_point_spec *spec, const kv_record *simulated,
                    const kv_record *analytic)
{
    static const kv_measure measures[] = {KV_M_FOOTPRINT, KV_M_PEAK, KV_M_PEAK_BYTES};
    for (size_t m = 0; m < sizeof measures / sizeof *measures; m++) {
        double got = analytic->value[measures[m]], want = simulated->value[measures[m]];
        if (fabs(got - want) <= 1e-12 * fmax(1, want))
            continue;
        char *params = kv_spec_params_json(spec);
        print_error("%s %s, chunk %lld: %s is %.17g by formula, %.17g counted\n",
                    spec->policy->name, params, spec->chunk_tokens,
                    kv_measure_get(measures[m])->name, got, want);
        free(params);
        fail();
    }
}

static void formula_equals_counting(void **state)
{
    char path[1024];
    kv_attention *trace;
    kv_diag diag = {0};
    kv_point_list list = {0};
    snprintf(path, sizeof path, "%s/tests/data/tiny.h5", getenv("srcdir"));
    assert_int_equal(kv_attention_open(path, &trace, &diag), KV_OK);
    for (const kv_retention *const *p = kv_retention_all(); *p != NULL; p++)
        if (((*p)->claims & KV_COUNTS_FIXED) && (*p)->head_share == NULL)
            add_policy(*p, &list);
    assert_true(list.count > 100 && list.count <= MAX_POINTS);
    for (size_t c = 0; c < sizeof chunks / sizeof *chunks; c += (size_t)kv_stride(3)) {
        static kv_replay_point points[MAX_POINTS];
        kv_replay_result simulated, analytic;
        for (int i = 0; i < list.count; i++) {
            list.point[i].chunk_tokens = chunks[c];
            points[i] = (kv_replay_point){.policy = list.point[i].policy,
                                          .config = list.point[i].config,
                                          .directory = "",
                                          .chunk_tokens = chunks[c]};
        }
        replay(points, list.count, trace, false, &simulated);
        replay(points, list.count, trace, true, &analytic);
        for (int i = 0; i < list.count; i++) {
            size_t at = (size_t)i * (1 + (size_t)simulated.turns);
            compare(&list.point[i], &simulated.record[at], &analytic.record[at]);
        }
        kv_replay_result_fini(&simulated);
        kv_replay_result_fini(&analytic);
    }
    kv_point_list_fini(&list);
    kv_attention_close(trace);
}

/* A fifth of the heads: the replay must round it to heads, the formula keeps the fraction, so that
 * it lies between the footprints of the two whole numbers of heads beside it. */
static void a_share_of_heads_is_not_rounded(void **state)
{
    char path[1024];
    kv_attention *trace;
    kv_diag diag = {0};
    kv_mark mark = {"test", 1, 1};
    kv_point_list list = {0};
    kv_replay_point points[3];
    kv_replay_result simulated, analytic;
    snprintf(path, sizeof path, "%s/tests/data/tiny.h5", getenv("srcdir"));
    assert_int_equal(kv_attention_open(path, &trace, &diag), KV_OK);
    const kv_shape *shape = kv_attention_shape(trace);
    int heads = shape->layers * shape->kv_heads;
    double share[3] = {2.0 / heads, 2.4 / heads, 3.0 / heads};
    for (int i = 0; i < 3; i++) {
        char text[128];
        snprintf(text, sizeof text, "{duo: {sparsity: %.17g, sinks: 2, window: 6}}", share[i]);
        assert_int_equal(kv_policy_parse_text(text, &mark, "", &list, &diag), KV_OK);
    }
    for (int i = 0; i < 3; i++)
        points[i] = (kv_replay_point){.policy = list.point[i].policy,
                                      .config = list.point[i].config,
                                      .directory = "",
                                      .chunk_tokens = 8};
    replay(points, 3, trace, false, &simulated);
    replay(points, 3, trace, true, &analytic);
    double at[3];
    for (int i = 0; i < 3; i++)
        at[i] = analytic.record[i * (1 + analytic.turns)].value[KV_M_FOOTPRINT];
    compare(&list.point[0], &simulated.record[0], &analytic.record[0]);
    compare(&list.point[2], &simulated.record[2 * (1 + simulated.turns)],
            &analytic.record[2 * (1 + analytic.turns)]);
    assert_close(at[1], 0.6 * at[0] + 0.4 * at[2], 1e-14);
    kv_replay_result_fini(&simulated);
    kv_replay_result_fini(&analytic);
    kv_point_list_fini(&list);
    kv_attention_close(trace);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(formula_equals_counting),
        cmocka_unit_test(a_share_of_heads_is_not_rounded),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
