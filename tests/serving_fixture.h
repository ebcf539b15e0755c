/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* What tests of serving have in common: a small model on a slow device, and workloads. */
#ifndef KVSIM_TESTS_SERVING_FIXTURE_H
#define KVSIM_TESTS_SERVING_FIXTURE_H

#include "tests/kv_test.h"

#include "sim/serving/foresight.h"

#include "tests/serving_check.h"
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

static inline int open_hardware(void **state)
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

static inline int close_hardware(void **state)
{
    hardware *h = *state;
    kv_step_time_free(h->time);
    kv_device_free(h->device);
    kv_model_free(h->model);
    free(h);
    return 0;
}

static inline kv_err next(void *closure, kv_request *out, kv_diag *diag)
{
    workload *load = closure;
    if (load->next == load->count)
        return KV_END;
    *out = load->want[load->next++].in;
    return KV_OK;
}

static inline kv_err outcome(void *closure, const kv_request_outcome *got, kv_diag *diag)
{
    workload *load = closure;
    load->got[got->number] = *got;
    load->finished++;
    return KV_OK;
}

static inline void make_workload(workload *load, uint64_t *random, int32_t block_tokens,
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

static inline kv_serving_settings make_settings(uint64_t *random)
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

static inline void serve(const hardware *h, const kv_serving_settings *settings, workload *load,
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

/* What the tiers say they found is what requests say was found for them, to the token. */
static inline void check_hits(const kv_serving_result *result, const workload *load)
{
    int64_t found = 0, loaded = 0;
    for (int i = 0; i < load->count; i++)
        found += load->got[i].status == KV_REQUEST_COMPLETED ? load->got[i].cached_tokens : 0;
    for (int t = 0; t < KV_MOST_TIERS; t++)
        loaded += result->tier[t].hit_tokens;
    assert_int_equal(result->loaded_tokens, loaded);
    assert_int_equal(result->cached_tokens + loaded, found);
}

#endif
