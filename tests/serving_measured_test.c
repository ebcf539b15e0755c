/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* A real server against the simulation: 300 requests on vLLM 0.19.0 and an RTX 4090, with kernel
 * times measured on the same card, as they are: nothing was fitted to this run. The expected
 * numbers are the server's own time stamps. Skipped where the data is absent. docs/validation.md
 * discusses the differences. */
#include "tests/kv_test.h"

#include "sim/serving/serving.h"

enum { REQUESTS = 300 };

typedef struct measured {
    kv_request request[REQUESTS];
    double ttft_ms[REQUESTS], tpot_ms[REQUESTS], e2e_ms[REQUESTS];
    int next;
} measured;

static double field(const char *line, const char *name)
{
    const char *at = strstr(line, name);
    assert_non_null(at);
    return strtod(at + strlen(name) + 1, NULL);
}

static bool read_measured(measured *out)
{
    const char *shared = getenv("KV_SHARED");
    char path[4096], line[4096];
    snprintf(path, sizeof path, "%s/measured/rtx4090-llama-3.1-8b/requests.jsonl",
             shared != NULL ? shared : "");
    FILE *file = fopen(path, "r");
    if (file == NULL)
        return false;
    double start = 0;
    for (int i = 0; i < REQUESTS; i++) {
        assert_non_null(fgets(line, sizeof line, file));
        double queued = field(line, "\"queued_ts\""), first = field(line, "\"first_token_ts\"");
        double last = field(line, "\"last_token_ts\"");
        int32_t output = (int32_t)field(line, "\"output_toks\"");
        start = i == 0 ? queued : start;
        out->request[i] = (kv_request){.number = i,
                                       .arrival_ns = (int64_t)((queued - start) * 1e9),
                                       .prompt_tokens = (int32_t)field(line, "\"input_toks\""),
                                       .output_tokens = output,
                                       .session = KV_NO_SESSION};
        out->ttft_ms[i] = (first - queued) * 1e3;
        out->tpot_ms[i] = (last - first) * 1e3 / (output - 1);
        out->e2e_ms[i] = (last - queued) * 1e3;
    }
    fclose(file);
    return true;
}

static kv_err next(void *closure, kv_request *out, kv_diag *diag)
{
    measured *m = closure;
    if (m->next == REQUESTS)
        return KV_END;
    *out = m->request[m->next++];
    return KV_OK;
}

static int ascending(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

static void compare(const char *what, kv_samples *got, double *want, double tolerance)
{
    double mean = 0;
    for (int i = 0; i < REQUESTS; i++)
        mean += want[i] / REQUESTS;
    qsort(want, REQUESTS, sizeof *want, ascending);
    double rank = 0.99 * (REQUESTS - 1), part = rank - floor(rank);
    double p99 = want[(int)rank] + part * (want[(int)rank + 1] - want[(int)rank]);
    double got_mean = kv_samples_mean(got) * 1e-6, got_p99 = kv_samples_quantile(got, 0.99) * 1e-6;
    print_message("%s mean %.1f ms, measured %.1f (%+.2f %%); p99 %.1f, measured %.1f (%+.2f %%)\n",
                  what, got_mean, mean, 100 * (got_mean / mean - 1), got_p99, p99,
                  100 * (got_p99 / p99 - 1));
    assert_true(fabs(got_mean / mean - 1) <= tolerance);
    assert_true(fabs(got_p99 / p99 - 1) <= tolerance);
}

static void run(measured *m, bool stepwise, kv_serving_result *result)
{
    kv_diag diag = {0};
    kv_model *model;
    kv_device *device;
    kv_step_time *time;
    char path[4096];
    snprintf(path, sizeof path, "%s/profiles/rtx4090-llama-3.1-8b-tp1", getenv("KV_SHARED"));
    assert_int_equal(kv_model_find("llama-3.1-8b", &model, &diag), KV_OK);
    assert_int_equal(kv_device_find("rtx-4090", &device, &diag), KV_OK);
    kv_step_time_config config = {.model = 1, .path = path, .kernel_scale = 1};
    kv_step_hardware hardware = {.model = model,
                                 .device = device,
                                 .tensor_parallel = 1,
                                 .format = kv_model_cache_format(model)};
    if (kv_step_time_new(&config, &hardware, &time, &diag) != KV_OK)
        fail_msg("%s: %s", diag.path, diag.text);
    kv_serving_settings settings = {.kv_blocks = 2588 - 1, /* the server's null block */
                                    .block_tokens = 16,
                                    .block_bytes = 16 * 131072,
                                    .max_batched_tokens = 2048,
                                    .max_seqs = 256,
                                    .replicas = 1,
                                    .reserve_full_input = true,
                                    .stepwise = stepwise,
                                    .prefix_cache = true,
                                    .replacement = kv_replacement_find("lru"),
                                    .order = kv_queue_order_find("fcfs"),
                                    .routing = kv_routing_find("round-robin")};
    kv_serving_source source = {.closure = m, .next = next};
    m->next = 0;
    if (kv_serving_run(&settings, time, kv__entries_per_token(model), &source, NULL, result,
                       &diag) != KV_OK)
        fail_msg("%s", diag.text);
    assert_int_equal(result->completed, REQUESTS);
    kv_step_time_free(time);
    kv_device_free(device);
    kv_model_free(model);
}

static void test_rtx4090(void **state)
{
    measured *m = calloc(1, sizeof *m);
    assert_non_null(m);
    if (!read_measured(m)) {
        free(m);
        kv_skip("the shared data is not there");
    }
    kv_serving_result result = {0};
    run(m, false, &result);
    print_message("%lld steps in %lld events, %lld preemptions, %lld recomputed, end %.6f s, peak "
                  "%lld, byte-seconds %.17g\n",
                  (long long)result.steps, (long long)result.jumps, (long long)result.preemptions,
                  (long long)result.recomputed_tokens, (double)result.end_ns * 1e-9,
                  (long long)result.peak_bytes, result.byte_seconds);
    compare("TTFT", &result.ttft, m->ttft_ms, 0.01);
    compare("TPOT", &result.tpot, m->tpot_ms, 0.01);
    compare("E2E", &result.e2e, m->e2e_ms, 0.01);
    kv_serving_result_fini(&result);
    free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_rtx4090)};
    return cmocka_run_group_tests_name("serving_measured", tests, NULL, NULL);
}
