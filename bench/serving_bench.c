/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Speed of the serving replay: requests and events per second on one core.
 *
 *     bench/serving_bench [TRACE [FORMAT]]
 *
 * Llama-2-7B on an A100-80, 2048 tokens per step, 256 sequences. With a trace: that trace, at 1, 2,
 * 4 and 8 times its rate (after some point the server is saturated and the queue grows). Without:
 * made-up requests, ten times as many from line to line, to show that memory does not follow them.
 */
#include "config.h"

#include "sim/serving/serving.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

typedef struct generator {
    int64_t count, made, now_ns;
    uint64_t random;
} generator;

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static uint64_t draw(generator *g)
{
    g->random ^= g->random << 13;
    g->random ^= g->random >> 7;
    g->random ^= g->random << 17;
    return g->random;
}

/* About five requests per second of 16 to 2063 prompt and 1 to 400 answer tokens. */
static kv_err make_next(void *closure, kv_request *out, kv_diag *diag)
{
    generator *g = closure;
    if (g->made == g->count)
        return KV_END;
    g->now_ns += (int64_t)(draw(g) % 400000000);
    *out = (kv_request){.number = g->made++,
                        .arrival_ns = g->now_ns,
                        .prompt_tokens = 16 + (int32_t)(draw(g) % 2048),
                        .output_tokens = 1 + (int32_t)(draw(g) % 400),
                        .session = KV_NO_SESSION};
    return KV_OK;
}

static kv_err serve(const kv_serving_source *source, const char *label, kv_diag *diag)
{
    kv_model *model = NULL;
    kv_device *device = NULL;
    kv_step_time *time = NULL;
    kv_serving_result result = {0};
    kv_step_time_config config = {
        .compute_efficiency = 0.6, .attention_efficiency = 0.4, .memory_efficiency = 0.8};
    kv_err err = kv_model_find("llama-2-7b", &model, diag);
    if (err == KV_OK)
        err = kv_device_find("a100-80", &device, diag);
    kv_step_hardware hardware = {.model = model, .device = device, .tensor_parallel = 1};
    if (err == KV_OK) {
        hardware.format = kv_model_cache_format(model);
        err = kv_step_time_new(&config, &hardware, &time, diag);
    }
    kv_serving_settings settings = {.kv_blocks = 6800,
                                    .block_tokens = 16,
                                    .block_bytes = 16 * 524288,
                                    .max_batched_tokens = 2048,
                                    .max_seqs = 256,
                                    .replicas = 1,
                                    .reserve_full_input = true,
                                    .prefix_cache = true,
                                    .replacement = kv_replacement_find("lru"),
                                    .order = kv_queue_order_find("fcfs"),
                                    .routing = kv_routing_find("round-robin")};
    double start = seconds();
    if (err == KV_OK)
        err = kv_serving_run(&settings, time, kv__entries_per_token(model), source, NULL, &result,
                             diag);
    double taken = seconds() - start;
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    if (err == KV_OK)
        printf("%-12s %10lld requests %10lld steps %9lld events  %7.3f s  %9.0f requests/s  %5.0f "
               "ns/event  %6ld KiB\n",
               label, (long long)result.requests, (long long)result.steps, (long long)result.jumps,
               taken, (double)result.requests / taken, 1e9 * taken / (double)result.jumps,
               usage.ru_maxrss);
    kv_serving_result_fini(&result);
    kv_step_time_free(time);
    kv_device_free(device);
    kv_model_free(model);
    return err;
}

static kv_err serve_trace(const char *path, const char *format, const char *speedup, kv_diag *diag)
{
    kv_request_spec spec = {0};
    kv_request_reader *reader;
    kv_err err = kv_request_spec_init(&spec, path, format, diag);
    if (err == KV_OK)
        err = kv_request_spec_set(&spec, "speedup", speedup, NULL, diag);
    if (err == KV_OK)
        err = kv_request_open(&spec, &reader, diag);
    if (err == KV_OK) {
        kv_serving_source source = kv_serving_reader(reader);
        err = serve(&source, speedup, diag);
        kv_request_close(reader);
    }
    kv_request_spec_fini(&spec);
    return err;
}

int main(int argc, char **argv)
{
    const char *const speedups[] = {"1", "2", "4", "8"};
    kv_diag diag = {0};
    kv_err err = KV_OK;
    for (int i = 0; i < 4 && err == KV_OK; i++) {
        generator g = {.count = 1000, .random = 1};
        for (int j = 0; j < i; j++)
            g.count *= 10;
        kv_serving_source source = {.closure = &g, .next = make_next};
        err = argc > 1 ? serve_trace(argv[1], argc > 2 ? argv[2] : NULL, speedups[i], &diag)
                       : serve(&source, "made up", &diag);
    }
    if (err != KV_OK)
        fprintf(stderr, "%s:%d: %s\n", diag.path, diag.line, diag.text);
    return err == KV_OK ? 0 : 1;
}
