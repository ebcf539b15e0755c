/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Serving under retention policies. What a request keeps is compared with what the replay of
 * attention keeps, position by position, of a recorded sequence of the same lengths; jumps are
 * compared with steps on random workloads, to the bit; pages are worked by hand. */
#include "tests/kv_test.h"

#include "tests/keep_reference.h"
#include "tests/serving_check.h"

#include "sim/policy_spec.h"
#include "sim/replay/replay.h"
#include "sim/serving/serving.h"

enum { MOST_POINTS = 1024, MOST_TOKENS = 96, LAYERS = 4, KV_HEADS = 4 };

static const char model_yaml[] =
    "{name: small, layers: 4, hidden_size: 64, vocabulary: 100, dtype: bf16,"
    " attention: {heads: 8, kv_heads: 4, head_dim: 16}, mlp: {intermediate_size: 128}}";

static kv_model *get_model(const char *yaml)
{
    kv_model *model = NULL;
    kv_diag diag = {0};
    if (kv_model_find(yaml, &model, &diag) != KV_OK)
        fail_msg("%s", diag.text);
    return model;
}

static void parse(const char *text, kv_point_list *list)
{
    kv_diag diag = {0};
    kv_mark mark = {"test", 1, 1};
    if (kv_policy_parse_text(text, &mark, "", list, &diag) != KV_OK)
        fail_msg("%s: %s", text, diag.text);
}

static bool takes(const kv_retention *policy, const char *setting)
{
    return kv_param_find(policy->params, setting) != NULL;
}

/* Appends the policy at every schedule that it takes, with small budgets. */
static void add_policy(const kv_retention *policy, kv_point_list *list)
{
    static const char *const schedules[] = {"postfill", "chunked",  "patched", "pool",
                                            "step",     "interval", "online",  NULL};
    for (int s = 0; schedules[s] != NULL && (takes(policy, "evict") || s == 0); s++) {
        char text[256];
        if (strcmp(schedules[s], "interval") == 0 && !takes(policy, "interval"))
            continue;
        snprintf(
            text, sizeof text, "{%s: {%s%s%s%s%s%s%s}}", policy->name,
            takes(policy, "evict") ? "evict: " : "", takes(policy, "evict") ? schedules[s] : "",
            takes(policy, "evict") && takes(policy, "keep") ? ", " : "",
            takes(policy, "keep") ? "keep: [0, 0.13, 0.5, 1]" : "",
            takes(policy, "sparsity") ? ", sparsity: [0.3, 0.5]" : "",
            takes(policy, "window") && strcmp(policy->name, "streaming") != 0 ? ", window: 5" : "",
            takes(policy, "interval") ? ", interval: 3" : "");
        parse(text, list);
    }
}

static void all_policies(kv_point_list *list)
{
    for (const kv_retention *const *p = kv_retention_all(); *p != NULL; p++)
        if (((*p)->claims & KV_COUNTS_FIXED) && (*p)->admits == NULL)
            add_policy(*p, list);
    assert_true(list->count > 100 && list->count <= MOST_POINTS);
}

static void *prepare(const kv_point_spec *spec)
{
    kv_shape shape = {.layers = LAYERS, .heads = 8, .kv_heads = KV_HEADS, .head_dim = 16};
    void *plan = NULL;
    kv_diag diag = {0};
    if (spec->policy->prepare != NULL)
        assert_int_equal(spec->policy->prepare(spec->config, "", &shape, &plan, &diag), KV_OK);
    return plan;
}

/* An eighth of the entries finds the others. */
static double an_eighth(const void *config, const kv_read_size *size)
{
    return size->entries / 8;
}

/* A read policy with entries in host memory, in one of three cases. */
static kv_keep_away any_away(uint64_t *random)
{
    static const kv_read plain = {.name = "plain"},
                         with_metadata = {.name = "with_metadata", .metadata = an_eighth};
    kv_keep_away away = {.read = draw(random) % 2 ? &plain : &with_metadata,
                         .home_entries = between(random, 0, 60),
                         .fetch_entries = between(random, 0, 60)};
    return draw(random) % 3 == 0 ? away : (kv_keep_away){0};
}

/* What a replay and transforms may add: profiles, shares of reads, entries left plain. */
static kv_keep *make_any_keep(const kv_model *model, const kv_point_spec *spec, void *plan,
                              long long chunk, int32_t page, uint64_t *random)
{
    double profile[LAYERS * KV_HEADS];
    kv_keep *keep = NULL;
    kv_diag diag = {0};
    for (int i = 0; i < LAYERS * KV_HEADS; i++)
        profile[i] = (double)between(random, 0, 200) / 100;
    kv_keep_spec make = {.rule = {.policy = spec->policy, .config = spec->config, .plan = plan},
                         .format = kv_model_cache_format(model),
                         .chunk_tokens = chunk,
                         .page_tokens = page,
                         .step_tokens = between(random, 8, 120),
                         .read_share = draw(random) % 2 ? 1 : (double)between(random, 1, 99) / 100,
                         .prefill_share = draw(random) % 2 ? 1 : 0.3,
                         .extra_entries = draw(random) % 2 ? 0 : between(random, 1, 20),
                         .away = any_away(random)};
    make.rule.profile = draw(random) % 4 == 0 ? profile : NULL;
    assert_int_equal(kv_keep_new(model, &make, &keep, &diag), KV_OK);
    return keep;
}

static kv_keep *make_keep(const kv_model *model, const kv_point_spec *spec, void *plan,
                          long long chunk, int32_t page, int64_t step)
{
    kv_keep *keep = NULL;
    kv_diag diag = {0};
    kv_keep_spec make = {.rule = {.policy = spec->policy, .config = spec->config, .plan = plan},
                         .format = kv_model_cache_format(model),
                         .chunk_tokens = chunk,
                         .page_tokens = page,
                         .step_tokens = step,
                         .read_share = 1,
                         .prefill_share = 1};
    assert_int_equal(kv_keep_new(model, &make, &keep, &diag), KV_OK);
    return keep;
}

static void release(const kv_point_spec *spec, void *plan)
{
    if (plan != NULL && spec->policy->release != NULL)
        spec->policy->release(plan);
}

/* --- Against the replay of attention -----------------------------------------------------------
 */

/* Entries of each head after each token, where a step of the replay ended; -1 elsewhere. */
typedef struct seen {
    int count[MOST_POINTS][LAYERS][KV_HEADS][MOST_TOKENS + 1];
} seen;

static void watch(void *closure, const kv_replay_watch *event)
{
    seen *s = closure;
    s->count[event->point][event->layer][event->kv_head][event->step_end] = event->presents;
}

static void replay_all(const kv_point_list *list, kv_attention *trace, int example, long long chunk,
                       seen *s)
{
    static kv_replay_point points[MOST_POINTS];
    kv_replay_options options = {
        .page_tokens = 16, .prefill_token_s = 1, .decode_step_s = 1, .watch = watch};
    kv_replay *all;
    kv_replay_result result;
    kv_diag diag = {0};
    options.watch_closure = s;
    memset(s, -1, sizeof *s);
    for (int i = 0; i < list->count; i++)
        points[i] = (kv_replay_point){.policy = list->point[i].policy,
                                      .config = list->point[i].config,
                                      .directory = "",
                                      .chunk_tokens = chunk};
    assert_int_equal(
        kv_replay_new(points, list->count, kv_attention_shape(trace), &options, &all, &diag),
        KV_OK);
    if (kv_replay_example(all, trace, example, &result, &diag) != KV_OK)
        fail_msg("%s", diag.text);
    kv_replay_result_fini(&result);
    kv_replay_free(all);
}

/* All heads of all layers, and every class by its first head, after `computed` tokens. */
static void compare(const kv_keep *keep, const kv__live *live, const kv_point_spec *spec,
                    const seen *s, int point)
{
    int64_t want = 0, got = 0;
    int at = live->computed_tokens;
    for (int l = 0; l < LAYERS; l++)
        for (int h = 0; h < KV_HEADS; h++)
            want += s->count[point][l][h][at];
    for (int c = 0; c < keep->classes; c++) {
        const kv_keep_class *class = &keep->class[c];
        got += class->heads * kv__keep_retained(keep, live, c);
        if (s->count[point][class->layer][class->group][at] != kv__keep_retained(keep, live, c)) {
            char *params = kv_spec_params_json(spec);
            fail_msg("%s %s: layer %d, head %d, %d tokens: %d replayed, %lld in serving",
                     spec->policy->name, params, class->layer, class->group, at,
                     s->count[point][class->layer][class->group][at],
                     (long long)kv__keep_retained(keep, live, c));
        }
    }
    assert_int_equal(got, want);
}

/* One request in steps that a token budget cuts at random. The replay does not evict after the last
 * token, as nobody looks. */
static int follow(const kv_model *model, const kv_point_spec *spec, const kv_example *example,
                  long long chunk, const seen *s, int point, uint64_t *random)
{
    void *plan = prepare(spec);
    kv_keep *keep = make_keep(model, spec, plan, chunk, 4, 1000);
    kv__memory memory = {.capacity = 1 << 20, .block_pages = keep->named_pages, .block_tokens = 4};
    kv__live live = {.prompt_tokens = example->prompt_tokens,
                     .output_tokens = example->total_tokens};
    kv_diag diag = {0};
    int compared = 0;
    assert_int_equal(kv__keep_attach(keep, &live, &diag), KV_OK);
    kv__keep_start(keep, &live, 0);
    while (live.computed_tokens < example->total_tokens - 1) {
        int64_t most = live.computed_tokens < live.prompt_tokens
                           ? kv__keep_limit(keep, &live, live.computed_tokens)
                           : 1;
        int32_t tokens = (int32_t)between(random, 1, most);
        assert_int_equal(kv__keep_grow(keep, &memory, &live, tokens), KV_OK);
        live.computed_tokens += tokens;
        assert_int_equal(kv__keep_evict(keep, &memory, &live), KV_OK);
        assert_int_equal(memory.private_, live.pages);
        if (s->count[point][0][0][live.computed_tokens] >= 0) {
            compare(keep, &live, spec, s, point);
            compared++;
        }
    }
    free(live.kept);
    kv_keep_free(keep);
    release(spec, plan);
    return compared;
}

static void keeps_what_the_replay_keeps(void **state)
{
    static const long long chunks[] = {0, 1, 7, 32};
    static seen s;
    char path[1024];
    kv_attention *trace;
    kv_diag diag = {0};
    kv_point_list list = {0};
    uint64_t random = 77;
    kv_model *model = get_model(model_yaml);
    snprintf(path, sizeof path, "%s/tests/data/tiny.h5", getenv("srcdir"));
    assert_int_equal(kv_attention_open(path, &trace, &diag), KV_OK);
    assert_int_equal(kv_attention_shape(trace)->layers, LAYERS);
    assert_int_equal(kv_attention_shape(trace)->kv_heads, KV_HEADS);
    all_policies(&list);
    int examples = kv_is_under_valgrind() ? 1 : kv_attention_examples(trace);
    for (int e = 0; e < examples; e++)
        for (size_t c = kv_is_under_valgrind() ? 3 : 0; c < sizeof chunks / sizeof *chunks; c++) {
            const kv_example *example = kv_attention_example(trace, e);
            assert_true(example->total_tokens <= MOST_TOKENS);
            replay_all(&list, trace, e, chunks[c], &s);
            for (int i = 0; i < list.count; i++)
                assert_true(follow(model, &list.point[i], example, chunks[c], &s, i, &random) > 0);
        }
    kv_point_list_fini(&list);
    kv_attention_close(trace);
    kv_model_free(model);
}

/* --- Workloads ------------------------------------------------------------------------- */

enum { MOST_REQUESTS = 80, MOST_NAMES = 64 };

typedef struct workload {
    kv_request in[MOST_REQUESTS];
    kv_request_outcome out[MOST_REQUESTS];
    uint64_t name[MOST_REQUESTS][MOST_NAMES];
    int count, next, finished;
} workload;

static kv_err next(void *closure, kv_request *out, kv_diag *diag)
{
    workload *load = closure;
    if (load->next == load->count)
        return KV_END;
    *out = load->in[load->next++];
    return KV_OK;
}

static kv_err outcome(void *closure, const kv_request_outcome *got, kv_diag *diag)
{
    workload *load = closure;
    load->out[got->number] = *got;
    load->finished++;
    return KV_OK;
}

/* Half of the requests share the beginnings of their prompts. */
static void make_workload(workload *load, uint64_t *random, int32_t block, int64_t most)
{
    int64_t now = 0, gap = between(random, 1, 400) * 100000;
    memset(load, 0, sizeof *load);
    load->count = (int)between(random, 10, MOST_REQUESTS);
    for (int i = 0; i < load->count; i++) {
        now += draw(random) % 3 == 0 ? 0 : between(random, 0, gap);
        load->in[i] = (kv_request){.number = i,
                                   .arrival_ns = now,
                                   .prompt_tokens = (int32_t)between(random, 1, most),
                                   .output_tokens = (int32_t)between(random, 0, most),
                                   .session = KV_NO_SESSION,
                                   .blocks = load->name[i],
                                   .block_tokens = block};
        if (draw(random) % 2 == 0)
            load->in[i].block_count = load->in[i].prompt_tokens / block;
        uint64_t chain = draw(random) % 3 + 1;
        for (int b = 0; b < load->in[i].block_count; b++) {
            load->name[i][b] = chain << 8 | (uint64_t)b;
            chain = chain * 31 + (draw(random) % 8 == 0 ? draw(random) % 2 : 0);
            chain &= 0xffffff;
        }
    }
}

typedef struct hardware {
    kv_model *model;
    kv_device *device;
    kv_step_time *time;
} hardware;

static hardware open_hardware(const char *yaml)
{
    static const char device[] =
        "{name: unit, memory: 1GB, bandwidth: 1GB/s, fp16_tflops: 0.001, bf16_tflops: 0.001, "
        "fp8_tflops: 0, host_link: {bandwidth: 1GB/s, latency: 1us}, "
        "tensor_parallel_link: {bandwidth: 1GB/s, latency: 1us}}";
    hardware h = {.model = get_model(yaml)};
    kv_diag diag = {0};
    kv_step_time_config config = {.compute_efficiency = 0.6,
                                  .attention_efficiency = 0.4,
                                  .memory_efficiency = 0.8,
                                  .layer_overhead_ns = 1234};
    assert_int_equal(kv_device_find(device, &h.device, &diag), KV_OK);
    kv_step_hardware on = {.model = h.model,
                           .device = h.device,
                           .format = kv_model_cache_format(h.model),
                           .tensor_parallel = 1};
    assert_int_equal(kv_step_time_new(&config, &on, &h.time, &diag), KV_OK);
    return h;
}

static void close_hardware(hardware *h)
{
    kv_step_time_free(h->time);
    kv_device_free(h->device);
    kv_model_free(h->model);
}

static kv_serving_settings make_settings(uint64_t *random, const kv_keep *keep, int32_t block)
{
    kv_serving_settings s = {.kv_blocks = between(random, 20, 100),
                             .block_tokens = block,
                             .block_bytes = 1000 * keep->block_pages,
                             .entry_bytes = 1000.0 / block,
                             .max_batched_tokens = keep->step_tokens,
                             .max_seqs = (int32_t)between(random, 2, 40),
                             .chunk_tokens = (int32_t)keep->chunk_tokens,
                             .replicas = (int)between(random, 1, 2),
                             .reserve_full_input = draw(random) % 2 == 0,
                             .keep = keep,
                             .prefix_cache = keep->reuse,
                             .replacement = kv_replacement_find("lru"),
                             .order = kv_queue_order_find("fcfs"),
                             .routing = kv_routing_find("least-loaded"),
                             .layers = 4};
    s.tiers = keep->away.read != NULL ? 1 : keep->reuse ? (int)between(random, 0, 1) : 0;
    s.load = (int)between(random, KV_LOAD_AUTO, KV_LOAD_BOTH_ENDS);
    s.overlap = draw(random) % 2 == 0;
    s.tier[0] = (kv_tier_settings){.name = "tier",
                                   .capacity_blocks = between(random, 5, 200),
                                   .read_bandwidth = 1e6 * (double)between(random, 1, 99),
                                   .write_bandwidth = 1e6 * (double)between(random, 1, 99),
                                   .latency_ns = between(random, 0, 50000),
                                   .shared_link = draw(random) % 2 == 0,
                                   .fair = draw(random) % 2 == 0,
                                   .replacement = kv_replacement_find("lru")};
    return s;
}

static void serve(const hardware *h, const kv_serving_settings *settings, workload *load,
                  kv_serving_result *result)
{
    kv_diag diag = {0};
    kv_serving_source source = {.closure = load, .next = next};
    kv_serving_listener listener = {.closure = load, .request = outcome};
    load->next = load->finished = 0;
    *result = (kv_serving_result){0};
    if (kv_serving_run(settings, h->time, kv__entries_per_token(h->model), &source, &listener,
                       result, &diag) != KV_OK)
        fail_msg("%s", diag.text);
    assert_int_equal(load->finished, load->count); /* nothing is lost, nothing hangs */
}

/* Entries need no more than the pages that hold them, and pages no more than there are. */
static void check_sane(const kv_serving_settings *s, const kv_serving_result *r)
{
    assert_true(r->ideal_peak_bytes <= r->peak_bytes);
    assert_true(r->ideal_byte_seconds <= r->byte_seconds * (1 + 1e-12));
    assert_true(r->peak_bytes <= s->kv_blocks * s->block_bytes * s->replicas);
}

typedef struct totals {
    int64_t jumps, steps, preemptions, hits, loaded, rejected, fetched;
} totals;

static void one_round(const hardware *h, const kv_point_spec *spec, workload *load,
                      uint64_t *random, totals *sum)
{
    static const long long chunks[] = {0, 5, 17, 40};
    void *plan = prepare(spec);
    int32_t block = (int32_t)between(random, 1, 9);
    kv_keep *keep = make_any_keep(h->model, spec, plan, chunks[draw(random) % 4], block, random);
    kv_serving_settings settings = make_settings(random, keep, block);
    kv_serving_result jumped, stepped;
    make_workload(load, random, block, MOST_NAMES * block / 2);
    serve(h, &settings, load, &jumped);
    workload *again = malloc(sizeof *again);
    *again = *load;
    for (int i = 0; i < load->count; i++)
        again->in[i].blocks = again->name[i];
    settings.stepwise = true;
    serve(h, &settings, again, &stepped);
    for (int i = 0; i < load->count; i++)
        assert_memory_equal(&again->out[i], &load->out[i], sizeof load->out[i]);
    check_equal(&jumped, &stepped);
    check_sane(&settings, &jumped);
    sum->jumps += jumped.jumps;
    sum->steps += jumped.steps;
    sum->preemptions += jumped.preemptions;
    sum->hits += jumped.cached_tokens;
    sum->loaded += jumped.loaded_tokens;
    sum->rejected += jumped.rejected_large;
    sum->fetched += jumped.tier[0].entries_out;
    kv_serving_result_fini(&jumped);
    kv_serving_result_fini(&stepped);
    free(again);
    kv_keep_free(keep);
    release(spec, plan);
}

/* Every policy on a plain model, on one with windows and a shared cache, and on one with states. */
static void jumps_equal_steps(void **state)
{
    static const char *const models[] = {
        model_yaml,
        "{name: windows, layers: 4, hidden_size: 64, vocabulary: 100, dtype: bf16,"
        " attention: {heads: 8, kv_heads: 4, head_dim: 16}, mlp: {intermediate_size: 128},"
        " kinds: {full: {}, local: {window: 13}, again: {window: 13, shares: local}},"
        " pattern: [full, local, again, full]}",
        "{name: states, layers: 4, hidden_size: 64, vocabulary: 100, dtype: bf16,"
        " attention: {heads: 8, kv_heads: 4, head_dim: 16}, mlp: {intermediate_size: 128},"
        " mamba: {inner_size: 32, state_size: 4, convolution: 4, step_rank: 4},"
        " kinds: {state: {mixer: mamba}, full: {}}, pattern: [state, full]}"};
    kv_point_list list = {0};
    totals sum = {0};
    uint64_t random = 12345;
    workload *load = malloc(sizeof *load);
    all_policies(&list);
    for (int m = 0; m < 3; m++) {
        hardware h = open_hardware(models[m]);
        for (int i = 0; i < list.count; i += kv_stride(29))
            one_round(&h, &list.point[i], load, &random, &sum);
        close_hardware(&h);
    }
    print_message("# %lld steps in %lld jumps, %lld preemptions, %lld hits, %lld loaded\n",
                  (long long)sum.steps, (long long)sum.jumps, (long long)sum.preemptions,
                  (long long)sum.hits, (long long)sum.loaded);
    assert_true(kv_is_under_valgrind() ||
                (sum.jumps * 5 < sum.steps * 4 && sum.preemptions > 1000 && sum.hits > 1000 &&
                 sum.loaded > 100 && sum.rejected > 100 &&
                 sum.fetched > 1000000)); /* the workloads do bite */
    free(load);
    kv_point_list_fini(&list);
}

/* --- Against a simulation by plain loops --------------------------------------------------------
 */

static int64_t compare_requests(const workload *load, const keep_reference_request *want)
{
    int64_t preemptions = 0;
    for (int i = 0; i < load->count; i++) {
        const kv_request_outcome *got = &load->out[i];
        if (want[i].skip)
            continue;
        if (want[i].in.output_tokens > 0)
            assert_int_equal(got->ttft_ns, want[i].first_ns - want[i].in.arrival_ns);
        assert_int_equal(got->e2e_ns, want[i].last_ns - want[i].in.arrival_ns);
        assert_int_equal(got->preemptions, want[i].preemptions);
        preemptions += got->preemptions;
    }
    return preemptions;
}

/* Times and preemptions of every request, under every policy and schedule. */
static void equals_plain_loops(void **state)
{
    static const long long chunks[] = {0, 5, 17, 40};
    static keep_reference_request want[MOST_REQUESTS];
    kv_point_list list = {0};
    hardware h = open_hardware(model_yaml);
    workload *load = malloc(sizeof *load);
    uint64_t random = 31;
    int64_t preemptions = 0, rejected = 0;
    all_policies(&list);
    for (int i = 0; i < list.count; i += kv_stride(29)) {
        const kv_point_spec *spec = &list.point[i];
        void *plan = prepare(spec);
        int32_t block = (int32_t)between(&random, 1, 9);
        kv_keep *keep = make_keep(h.model, spec, plan, chunks[draw(&random) % 4], block,
                                  between(&random, 8, 120));
        kv_serving_settings settings = make_settings(&random, keep, block);
        settings.prefix_cache = settings.reserve_full_input = false;
        settings.tiers = 0;
        settings.replicas = 1;
        make_workload(load, &random, block, MOST_NAMES * block / 2);
        kv_serving_result result;
        serve(&h, &settings, load, &result);
        for (int r = 0; r < load->count; r++)
            want[r] = (keep_reference_request){.in = load->in[r],
                                               .skip = load->out[r].status != KV_REQUEST_COMPLETED};
        keep_reference reference = {.settings = &settings,
                                    .time = h.time,
                                    .policy = spec->policy,
                                    .config = spec->config,
                                    .plan = plan,
                                    .pages = settings.kv_blocks * keep->block_pages};
        keep_reference_run(&reference, want, load->count);
        preemptions += compare_requests(load, want);
        rejected += result.rejected_large;
        kv_serving_result_fini(&result);
        kv_keep_free(keep);
        release(spec, plan);
    }
    print_message("# %lld preemptions, %lld rejected\n", (long long)preemptions,
                  (long long)rejected);
    assert_true(kv_is_under_valgrind() || (preemptions > 1000 && rejected > 50));
    free(load);
    kv_point_list_fini(&list);
    close_hardware(&h);
}

/* --- By hand --------------------------------------------------------------------------- */

/* `count` equal requests at once on ten blocks of 8 tokens: 160 pages of 1000 bytes in 16 heads. */
static void serve_by_hand(const hardware *h, const char *policy, long long chunk, int count,
                          int32_t prompt, int32_t output, workload *load, kv_serving_result *result)
{
    kv_point_list list = {0};
    parse(policy, &list);
    void *plan = prepare(&list.point[0]);
    kv_keep *keep = make_keep(h->model, &list.point[0], plan, chunk, 8, 100);
    kv_serving_settings settings = {.kv_blocks = 10,
                                    .block_tokens = 8,
                                    .block_bytes = 16000,
                                    .entry_bytes = 125,
                                    .max_batched_tokens = 100,
                                    .max_seqs = 9,
                                    .chunk_tokens = (int32_t)chunk,
                                    .replicas = 1,
                                    .reserve_full_input = true,
                                    .keep = keep,
                                    .replacement = kv_replacement_find("lru"),
                                    .order = kv_queue_order_find("fcfs"),
                                    .routing = kv_routing_find("round-robin")};
    memset(load, 0, sizeof *load);
    load->count = count;
    for (int i = 0; i < count; i++)
        load->in[i] = (kv_request){.number = i,
                                   .prompt_tokens = prompt,
                                   .output_tokens = output,
                                   .session = KV_NO_SESSION};
    serve(h, &settings, load, result);
    kv_keep_free(keep);
    release(&list.point[0], plan);
    kv_point_list_fini(&list);
}

/* One request of 40 tokens and 5 answers. Once after the prompt: 40 entries are 5 pages in each of
 * 16 heads; then 20 stay, and 21 to 24 of them are 3 pages. By chunks of 10 that keep half: 10, 15,
 * 20 and 25 entries are in memory, so 4 pages; attention reads 10 + 15 + 20 + 25 and then 21 + 22 +
 * 23 + 24 entries per head, of 125 bytes. With a window of 12 that slides: 13 entries at every
 * decode step, 2 pages. */
static void pages_by_hand(void **state)
{
    hardware h = open_hardware(model_yaml);
    workload *load = malloc(sizeof *load);
    kv_serving_result r;
    serve_by_hand(&h, "{random: {keep: 0.5, evict: postfill, window: 0}}", 0, 1, 40, 5, load, &r);
    double prompt_s = (double)load->out[0].ttft_ns * 1e-9;
    double answer_s = (double)(load->out[0].e2e_ns - load->out[0].ttft_ns) * 1e-9;
    assert_int_equal(r.peak_bytes, 80000);
    assert_int_equal(r.ideal_peak_bytes, 80000);
    assert_close(r.byte_seconds * 1e3, (80 * prompt_s + 48 * answer_s) * 1e6, 1e-6);
    assert_close(r.read_bytes, 16 * 125.0 * (40 + 21 + 22 + 23 + 24), 1e-12);
    kv_serving_result_fini(&r);
    serve_by_hand(&h, "{random: {keep: 0.5, evict: chunked, window: 0}}", 10, 1, 40, 5, load, &r);
    assert_int_equal(r.peak_bytes, 64000);
    assert_int_equal(r.ideal_peak_bytes, 25 * 16 * 125);
    assert_close(r.read_bytes, 16 * 125.0 * (10 + 15 + 20 + 25 + 21 + 22 + 23 + 24), 1e-12);
    kv_serving_result_fini(&r);
    serve_by_hand(&h, "{streaming: {sinks: 2, window: 10}}", 4, 1, 40, 5, load, &r);
    assert_int_equal(r.peak_bytes, 32000); /* a chunk of 4 finds 12 */
    assert_close(r.read_bytes, 16 * 125.0 * (4 + 8 + 12 + 7 * 16 + 4 * 13), 1e-12);
    kv_serving_result_fini(&r);
    free(load);
    close_hardware(&h);
}

/* Prompts of 48 tokens are 6 of 10 blocks: with everything kept the second waits for the first.
 * With 20 entries left after the prompt it is admitted in the next step. */
static void less_memory_more_requests(void **state)
{
    hardware h = open_hardware(model_yaml);
    workload *load = malloc(sizeof *load);
    kv_serving_result r;
    serve_by_hand(&h, "{random: {keep: 1, evict: postfill}}", 0, 2, 48, 8, load, &r);
    assert_int_equal(r.peak_running, 1);
    assert_int_equal(load->out[1].queue_ns, load->out[0].e2e_ns);
    kv_serving_result_fini(&r);
    serve_by_hand(&h, "{random: {budget: 20, evict: postfill}}", 0, 2, 48, 8, load, &r);
    assert_int_equal(r.peak_running, 2);
    assert_int_equal(load->out[1].queue_ns, load->out[0].ttft_ns);
    kv_serving_result_fini(&r);
    free(load);
    close_hardware(&h);
}

/* Gemma 3: of 62 layers 10 see everything and 52 a window of 1024, 16 KV heads each. A prompt of
 * 16384 tokens in steps of 8192: in the second the windows hold 1023 + 8192 entries, and 1024 with
 * the next token; the other layers 16384 and then 16385. */
static void windows_bound_memory(void **state)
{
    kv_model *model = get_model("gemma-3-27b");
    kv_point_list list = {0};
    kv_diag diag = {0};
    parse("full", &list);
    kv_keep_spec full = {
        .rule = {.policy = list.point[0].policy}, .read_share = 1, .prefill_share = 1};
    assert_true(kv_keep_needed(model, &full));
    kv_keep *keep = make_keep(model, &list.point[0], NULL, 0, 16, 8192);
    kv__memory memory = {.capacity = 1 << 30, .block_pages = keep->named_pages, .block_tokens = 16};
    kv__live live = {.prompt_tokens = 16384, .output_tokens = 9};
    assert_int_equal(keep->block_pages, 62 * 16);
    assert_int_equal(keep->named_pages, 10 * 16);
    assert_int_equal(kv__keep_attach(keep, &live, &diag), KV_OK);
    kv__keep_start(keep, &live, 0);
    for (int step = 0; step < 2; step++) {
        assert_int_equal(kv__keep_grow(keep, &memory, &live, 8192), KV_OK);
        assert_int_equal(live.pages, step == 0 ? 62 * 16 * 512 : 160 * 1024 + 832 * 576);
        live.computed_tokens += 8192;
        assert_int_equal(kv__keep_evict(keep, &memory, &live), KV_OK);
    }
    assert_int_equal(kv__keep_pages(keep, &live, 1), 160 * 1025 + 832 * 64);
    assert_int_equal(kv__keep_read(keep, &live, 1), 160 * 16385 + 832 * 1024);
    free(live.kept);
    kv_keep_free(keep);
    kv_point_list_fini(&list);
    kv_model_free(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pages_by_hand),        cmocka_unit_test(less_memory_more_requests),
        cmocka_unit_test(windows_bound_memory), cmocka_unit_test(keeps_what_the_replay_keeps),
        cmocka_unit_test(jumps_equal_steps),    cmocka_unit_test(equals_plain_loops),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
