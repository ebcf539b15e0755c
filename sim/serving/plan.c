/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "sim/serving/plan.h"

#include "sim/serving/plan_label.h"
#include "sim/serving/plan_policy.h"
#include "sim/serving/plan_reuse.h"
#include "sim/serving/plan_requests.h"
#include "sim/base/json.h"
#include "sim/serving/capacity.h"
#include "sim/serving/foresight.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define AT(f) offsetof(kv_serving_config, f)
#define IN(s, f) (AT(s.f) - AT(s))
#define NUMBER(key, field, fallback, low, high, unit, help)                                        \
    {                                                                                              \
        key, KV_INT, field, fallback, low, high, NULL, KV_PARAM_SWEEP, unit, help                  \
    }

static const char *const kv_dtypes[] = {"model", "fp32", "bf16", "fp16", "fp8",
                                        "int8",  "fp4",  "int4", "int2", NULL};

static const char *const load_modes[] = {"auto", "always", "never", "both-ends", NULL};
static const char *const preemptions[] = {"recompute", "swap", NULL};
static const char *const sharings[] = {"fair", "fifo", NULL};
static const char *const writes[] = {"back", "through", NULL};

#define TIER(f) offsetof(kv_tier_config, f)
const kv_param kv_tier_params[] = {
    {"capacity", KV_BYTES, TIER(capacity_bytes), NULL, 0, INFINITY, NULL,
     KV_PARAM_SWEEP | KV_PARAM_REQUIRED | KV_PARAM_OPEN_MIN, "", "of each replica"},
    {"bandwidth", KV_RATE, TIER(bandwidth), NULL, 0, INFINITY, NULL,
     KV_PARAM_SWEEP | KV_PARAM_OPEN_MIN, "",
     "of its link to the GPU; of a tier named cpu, the device's host link if not given"},
    {"write_bandwidth", KV_RATE, TIER(write_bandwidth), NULL, 0, INFINITY, NULL,
     KV_PARAM_SWEEP | KV_PARAM_OPEN_MIN, "", "the other way; the same if not given"},
    {"latency", KV_DURATION, TIER(latency_ns), NULL, 0, INFINITY, NULL, KV_PARAM_SWEEP, "",
     "of one transfer; of a tier named cpu, the host link's if not given"},
    {"link", KV_TEXT, TIER(link), NULL, 0, 0, NULL, KV_PARAM_SWEEP, "",
     "tier above whose link carries its transfers too; a link of its own if not given"},
    {"shared_link", KV_BOOL, TIER(shared_link), "false", 0, 0, NULL, KV_PARAM_SWEEP, "",
     "whether the replicas share one such link"},
    {"sharing", KV_CHOICE, TIER(sharing), "fair", 0, 0, sharings, KV_PARAM_SWEEP, "",
     "whether transfers that are on its link at once have equal shares of it or take turns"},
    {"write", KV_CHOICE, TIER(write), "back", 0, 0, writes, KV_PARAM_SWEEP, "",
     "whether blocks come when the level above drops them, or (first tier) when they are made"},
    {"replacement", KV_TEXT, TIER(replacement), "lru", 0, 0, NULL, KV_PARAM_SWEEP, "",
     "which block leaves when it is full"},
    {.name = NULL}};
#undef TIER

static const kv_param top_params[] = {
    NUMBER("kv_blocks", AT(kv_blocks), "0", 0, 4e9, "blocks",
           "blocks of the GPU's cache as measured on a server; 0: computed from memory"),
    NUMBER("reserved_blocks", AT(reserved_blocks), "1", 0, 1 << 20, "blocks",
           "of these, that no request gets: vLLM keeps one, its null block"),
    NUMBER("block_size", AT(block_tokens), "16", 1, 1 << 20, "tokens", "tokens of one block"),
    NUMBER("tensor_parallel", AT(tensor_parallel), "1", 1, 1024, "devices",
           "devices that share one replica's model"),
    NUMBER("replicas", AT(replicas), "1", 1, 4096, "", "copies of the server behind one router"),
    NUMBER("max_context", AT(max_context_tokens), "0", 0, 1e9, "tokens",
           "prompt and answer of the longest request that is served; 0: the model's"),
    {"memory_utilization", KV_REAL, AT(memory_utilization), "0.9", 0, 1, NULL,
     KV_PARAM_SWEEP | KV_PARAM_OPEN_MIN, "fraction", "share of the device's memory that is used"},
    {"activation_memory", KV_BYTES, AT(activation_bytes), NULL, 0, INFINITY, NULL,
     KV_PARAM_SWEEP | KV_PARAM_OPEN_MIN, "",
     "of each device for activations; estimated from the token budget if not given"},
    {"runtime_reserve", KV_BYTES, AT(reserve_bytes), "1GiB", 0, INFINITY, NULL, KV_PARAM_SWEEP, "",
     "of each device for the runtime and its graphs"},
    {"kv_dtype", KV_CHOICE, AT(kv_dtype), "model", 0, 0, kv_dtypes, KV_PARAM_SWEEP, "",
     "number format of the cache"},
    NUMBER("kv_group", AT(kv_group), "0", 0, 1 << 20, "numbers",
           "numbers of the cache that share a 16-bit scale and zero; 0: there are none"),
    {"profile", KV_PATH, AT(profile), NULL, 0, 0, NULL, KV_PARAM_SWEEP, "",
     "results of a run whose attention part has the policies, for what depends on scores"},
    {"home", KV_TEXT, AT(home), NULL, 0, 0, NULL, KV_PARAM_SWEEP, "",
     "tier in which read policies keep what they fetch step by step; the first if not given"},
    {"load", KV_CHOICE, AT(load), "auto", 0, 0, load_modes, KV_PARAM_SWEEP, "",
     "what is done with a prefix that lies in a lower tier"},
    {"overlap", KV_BOOL, AT(overlap), "true", 0, 0, NULL, KV_PARAM_SWEEP, "",
     "whether computing begins when the first layer of a loaded prefix has arrived, not the last"},
    {"request_results", KV_BOOL, AT(request_results), "false", 0, 0, NULL, 0, "",
     "whether every request gets a row in request_result"},
    {"timeline", KV_DURATION, AT(timeline_ns), NULL, 0, INFINITY, NULL, 0 | KV_PARAM_OPEN_MIN, "",
     "time between two rows in timeline; none if not given"},
    {.name = NULL}};

static const kv_param scheduler_params[] = {
    NUMBER("max_batched_tokens", IN(scheduler, max_batched_tokens), "8192", 1, 1 << 30, "tokens",
           "tokens of one step"),
    NUMBER("max_seqs", IN(scheduler, max_seqs), "256", 1, 1 << 20, "requests",
           "requests in one batch"),
    {"reserve_full_input", KV_BOOL, IN(scheduler, reserve_full_input), "true", 0, 0, NULL,
     KV_PARAM_SWEEP, "",
     "whether a request is admitted only if all of its input fits, not just the "
     "first chunk (what vLLM does since 0.19)"},
    {"preemption", KV_CHOICE, IN(scheduler, preemption), "recompute", 0, 0, preemptions,
     KV_PARAM_SWEEP, "",
     "what a preempted request does: compute again what is no longer found, or move to the first "
     "tier and back"},
    {"queue", KV_TEXT, IN(scheduler, queue), "fcfs", 0, 0, NULL, KV_PARAM_SWEEP, "",
     "who goes first: fcfs, sjf, priority or longest-prefix-first"},
    {"routing", KV_TEXT, IN(scheduler, routing), "round-robin", 0, 0, NULL, KV_PARAM_SWEEP, "",
     "which replica a request goes to: round-robin, least-loaded or prefix-aware"},
    {.name = NULL}};

static const kv_param prefix_params[] = {
    {"enabled", KV_BOOL, IN(prefix_cache, enabled), "true", 0, 0, NULL, KV_PARAM_SWEEP, "",
     "whether blocks that nobody uses are kept for prompts that begin alike"},
    {"replacement", KV_TEXT, IN(prefix_cache, replacement), "lru", 0, 0, NULL, KV_PARAM_SWEEP, "",
     "which of them leaves when room is needed"},
    {.name = NULL}};

static const kv_param goodput_params[] = {
    {"ttft", KV_DURATION, IN(goodput, ttft_ns), NULL, 0, INFINITY, NULL,
     KV_PARAM_SWEEP | KV_PARAM_OPEN_MIN, "", "longest time to the first token that counts as good"},
    {"tpot", KV_DURATION, IN(goodput, tpot_ns), NULL, 0, INFINITY, NULL,
     KV_PARAM_SWEEP | KV_PARAM_OPEN_MIN, "", "longest mean time per further token"},
    {"e2e", KV_DURATION, IN(goodput, e2e_ns), NULL, 0, INFINITY, NULL,
     KV_PARAM_SWEEP | KV_PARAM_OPEN_MIN, "", "longest time to the last token"},
    {.name = NULL}};

static const kv_param trace_params[] = {
    {"start", KV_DURATION, IN(trace_events, start_ns), "0s", 0, INFINITY, NULL, 0, "",
     "begin of the window that `kvsim run --trace-events` shows"},
    {"duration", KV_DURATION, IN(trace_events, duration_ns), "60s", 0, INFINITY, NULL, 0, "",
     "its length"},
    {.name = NULL}};

const kv_serving_part kv_serving_parts[KV_SERVING_PARTS] = {
    {"", "Replay of request traces", top_params, 0},
    {"scheduler", "Who runs in a step", scheduler_params, AT(scheduler)},
    {"prefix_cache", "Blocks that outlive their request", prefix_params, AT(prefix_cache)},
    {"reuse", "Which cached text prompts use", kv__reuse_params, AT(reuse)},
    {"goodput", "Limits that a good answer keeps", goodput_params, AT(goodput)},
    {"step_time", "How long a step takes", kv_step_time_params, AT(step_time)},
    {"trace_events", "What a trace of events shows", trace_params, AT(trace_events)},
};

static const char *queue_name(int i)
{
    const kv_queue_order *order = kv_queue_order_all()[i];
    return order != NULL ? order->name : NULL;
}

static const char *routing_name(int i)
{
    const kv_routing *routing = kv_routing_all()[i];
    return routing != NULL ? routing->name : NULL;
}

static const char *replacement_name(int i)
{
    const kv_replacement *replacement = kv_replacement_all()[i];
    return replacement != NULL ? replacement->name : NULL;
}

const kv_serving_choice kv_serving_choices[] = {{"scheduler", "queue", queue_name},
                                                {"scheduler", "routing", routing_name},
                                                {"prefix_cache", "replacement", replacement_name},
                                                {"tiers", "replacement", replacement_name},
                                                {NULL, NULL, NULL}};

const kv_serving_choice *kv_serving_choice_find(const char *part, const char *name)
{
    for (const kv_serving_choice *c = kv_serving_choices; c->part != NULL; c++)
        if (strcmp(c->part, part) == 0 && strcmp(c->name, name) == 0)
            return c;
    return NULL;
}

/* A name that is in its table, if there is one for the setting. */
static kv_err check_choice(int number, const kv_param *param, const kv_node *value, kv_diag *diag)
{
    enum { MOST = 64 };
    const char *part = number < KV_SERVING_PARTS ? kv_serving_parts[number].name : "tiers";
    const char *text = kv_node_text(value, NULL), *name[MOST];
    const kv_serving_choice *choice = kv_serving_choice_find(part, param->name);
    char all[512] = "";
    int names = 0;
    if (choice == NULL || text == NULL)
        return KV_OK;
    for (; names < MOST && (name[names] = choice->option(names)) != NULL; names++) {
        size_t used = strlen(all);
        if (strcmp(name[names], text) == 0)
            return KV_OK;
        snprintf(all + used, sizeof all - used, "%s%s", names > 0 ? ", " : "", name[names]);
    }
    const char *near = kv_nearest(text, name, names);
    kv_mark mark = kv_node_mark(value);
    return kv_fail(diag, KV_ERR_INPUT, &mark, "%s: there is no '%s'%s%s%s; expected one of %s",
                   param->name, text, near != NULL ? ", did you mean '" : "",
                   near != NULL ? near : "", near != NULL ? "'?" : "", all);
}

/* Keys of the section that are no scalars. */
static const char *const others[] = {"requests",   "model",
                                     "device",     "policies",
                                     "chunk_size", "tensor_parallel_link",
                                     "scheduler",  "prefix_cache",
                                     "reuse",      "goodput",
                                     "step_time",  "trace_events",
                                     "tiers",      NULL};

static bool is_other(const char *key)
{
    for (const char *const *o = others; *o != NULL; o++)
        if (strcmp(*o, key) == 0)
            return true;
    return false;
}

/* --- Combinations
 * ------------------------------------------------------------------------------------ */

static kv_err check_keys(const kv_serving_plan *plan, kv_diag *diag)
{
    for (int i = 0; i < kv_node_count(plan->map); i++) {
        const char *key = kv_node_key(plan->map, i);
        kv_mark mark = kv_node_key_mark(plan->map, i);
        if (!is_other(key) && kv_param_find(top_params, key) == NULL) {
            const char *name[64];
            int names = 0;
            for (const kv_param *p = top_params; p->name != NULL; p++)
                name[names++] = p->name;
            for (const char *const *o = others; *o != NULL; o++)
                name[names++] = *o;
            const char *near = kv_nearest(key, name, names);
            return kv_fail(diag, KV_ERR_INPUT, &mark,
                           "serving has no setting '%s'%s%s%s; docs/serving.md has all", key,
                           near != NULL ? "; did you mean '" : "", near != NULL ? near : "",
                           near != NULL ? "'?" : "");
        }
    }
    return KV_OK;
}

/* The settings of a dimension of the grid. */
static const kv_param *params_of(int number)
{
    return number < KV_SERVING_PARTS      ? kv_serving_parts[number].params
           : number < KV_SERVING_REQUESTS ? kv_tier_params
                                          : NULL; /* see plan_requests.c */
}

static kv_err check_lists(int number, const char *name, const kv_node *map, kv_diag *diag)
{
    const kv_param *params = params_of(number);
    for (int i = 0; params != NULL && i < kv_node_count(map); i++) {
        const kv_node *value = kv_node_at(map, i);
        const kv_param *param = kv_param_find(params, kv_node_key(map, i));
        kv_mark mark = kv_node_mark(value);
        if (param != NULL && kv_node_get_kind(value) == KV_NODE_LIST &&
            (param->flags & KV_PARAM_SWEEP) == 0)
            return kv_fail(diag, KV_ERR_INPUT, &mark, "%s%s%s: expected one value, not a list",
                           name, *name != '\0' ? "." : "", param->name);
    }
    return KV_OK;
}

/* Takes one mapping into the grid; NULL: it is not given. */
static kv_err add_grid(kv_serving_plan *plan, int number, const char *name, const kv_node *map,
                       kv_diag *diag)
{
    if (map != NULL && kv_node_get_kind(map) != KV_NODE_MAP) {
        kv_mark mark = kv_node_mark(map);
        return kv_fail(diag, KV_ERR_INPUT, &mark, "%s: expected a mapping of settings", name);
    }
    kv_err err = kv_grid_init(&plan->grid[number], map, diag);
    kv_mark mark = kv_node_mark(plan->map);
    if (err == KV_OK && map != NULL)
        err = check_lists(number, name, map, diag);
    if (err == KV_OK && number == KV_SERVING_REUSE)
        err = kv__reuse_collapse(&plan->grid[number], diag);
    if (err == KV_OK && plan->grid[number].count > KV_GRID_MOST / plan->combinations)
        return kv_fail(diag, KV_ERR_INPUT, &mark, "serving: more than %d combinations",
                       KV_GRID_MOST);
    if (err == KV_OK)
        plan->combinations *= plan->grid[number].count;
    return err;
}

static kv_err add_tiers(kv_serving_plan *plan, kv_diag *diag)
{
    const kv_node *tiers = kv_node_find(plan->map, "tiers");
    if (tiers == NULL)
        return KV_OK;
    kv_mark mark = kv_node_mark(tiers);
    if (kv_node_get_kind(tiers) != KV_NODE_MAP || kv_node_count(tiers) > KV_MOST_TIERS)
        return kv_fail(diag, KV_ERR_INPUT, &mark,
                       "tiers: expected at most %d mappings, from the fastest down, such as {cpu: "
                       "{capacity: 256GiB}}",
                       KV_MOST_TIERS);
    const kv_node *gpu = kv_node_find(tiers, "gpu");
    kv_mark place = gpu != NULL ? kv_node_mark(gpu) : mark;
    if (gpu != NULL)
        return kv_fail(diag, KV_ERR_INPUT, &place,
                       "tiers: gpu is the device itself; its size follows from `device` or "
                       "`kv_blocks`; name the tiers below it");
    kv_err err = KV_OK;
    for (; plan->tiers < kv_node_count(tiers) && err == KV_OK; plan->tiers++)
        err = add_grid(plan, KV_SERVING_PARTS + plan->tiers, kv_node_key(tiers, plan->tiers),
                       kv_node_at(tiers, plan->tiers), diag);
    return err;
}

static kv_err add_requests(kv_serving_plan *plan, kv_diag *diag)
{
    const kv_node *map = kv_node_find(plan->map, "requests");
    kv_mark mark = kv_node_mark(map != NULL ? map : plan->map);
    if (map == NULL || kv_node_get_kind(map) != KV_NODE_MAP)
        return kv_fail(diag, KV_ERR_INPUT, &mark,
                       "serving needs `requests: {file: ..., format: ...}`");
    kv_err err = add_grid(plan, KV_SERVING_REQUESTS, "requests", map, diag);
    return err == KV_OK ? kv__plan_requests_init(plan, diag) : err;
}

/* The models are one dimension more, beside the grid of the section: they may stand above it. */
static kv_err add_models(kv_serving_plan *plan, kv_diag *diag)
{
    const kv_node *node = plan->model_node;
    kv_mark mark = kv_node_mark(node);
    bool above = kv_node_find(plan->map, "model") == NULL;
    bool list = kv_node_get_kind(node) == KV_NODE_LIST;
    plan->models = above && list ? kv_node_count(node) : 1;
    if (plan->models == 0 || plan->combinations > KV_GRID_MOST / plan->models)
        return kv_fail(diag, KV_ERR_INPUT, &mark, "model: expected 1 to %d models",
                       KV_GRID_MOST / plan->combinations);
    plan->combinations *= plan->models;
    return KV_OK;
}

kv_err kv_serving_plan_init(kv_serving_plan *plan, const kv_node *map, const kv_node *model,
                            long long seed, kv_diag *diag)
{
    *plan = (kv_serving_plan){
        .map = map, .model_node = model, .seed = (uint64_t)seed, .combinations = 1};
    for (int p = 0; p < KV_SERVING_GRIDS; p++)
        plan->grid[p].count = 1;
    kv_mark mark = kv_node_mark(map);
    if (kv_node_get_kind(map) != KV_NODE_MAP)
        return kv_fail(diag, KV_ERR_INPUT, &mark, "serving: expected a mapping of settings");
    if (kv_node_find(map, "model") != NULL)
        plan->model_node = kv_node_find(map, "model");
    if (plan->model_node == NULL)
        return kv_fail(diag, KV_ERR_INPUT, &mark, "serving needs `model`, in it or beside it");
    kv_err err = check_keys(plan, diag);
    for (int p = 0; p < KV_SERVING_PARTS && err == KV_OK; p++)
        err = add_grid(plan, p, kv_serving_parts[p].name,
                       p == 0 ? map : kv_node_find(map, kv_serving_parts[p].name), diag);
    if (err == KV_OK)
        err = add_tiers(plan, diag);
    if (err == KV_OK)
        err = add_requests(plan, diag);
    if (err == KV_OK)
        err = kv__plan_policies_init(plan, diag);
    if (err == KV_OK)
        err = add_models(plan, diag);
    if (err == KV_OK && plan->combinations > 1 && kv__plan_requests_once(plan))
        err = kv_fail(diag, KV_ERR_INPUT, &mark,
                      "requests from '%s' can be read once, not for each of %d combinations: "
                      "expected a file",
                      plan->requests.path, plan->combinations);
    if (err != KV_OK)
        kv_serving_plan_fini(plan);
    return err;
}

void kv_serving_plan_fini(kv_serving_plan *plan)
{
    kv_request_spec_fini(&plan->requests);
    kv_point_list_fini(&plan->policies);
    *plan = (kv_serving_plan){0};
}

int kv__plan_part(const kv_serving_plan *plan, int part, int combination)
{
    for (int p = KV_SERVING_GRIDS - 1; p > part; p--)
        combination /= plan->grid[p].count;
    int number = combination % plan->grid[part].count;
    return part == KV_SERVING_REUSE ? kv__reuse_pick(&plan->grid[part], number) : number;
}

/* The value that a key of the section has in a combination, or NULL. */
static const kv_node *picked(const kv_serving_plan *plan, int combination, const char *key)
{
    for (int i = 0; i < kv_node_count(plan->map); i++)
        if (strcmp(kv_node_key(plan->map, i), key) == 0)
            return kv_grid_pick(&plan->grid[0], kv__plan_part(plan, 0, combination), i);
    return NULL;
}

/* The model of a combination. */
static const kv_node *picked_model(const kv_serving_plan *plan, int combination)
{
    int slower = combination;
    if (kv_node_find(plan->map, "model") != NULL)
        return picked(plan, combination, "model");
    if (kv_node_get_kind(plan->model_node) != KV_NODE_LIST)
        return plan->model_node;
    for (int p = 0; p < KV_SERVING_GRIDS; p++)
        slower /= plan->grid[p].count;
    return kv_node_at(plan->model_node, slower % plan->models);
}

static kv_err no_setting(const kv_param *params, const char *part, const char *key,
                         const kv_mark *mark, kv_diag *diag)
{
    const char *name[64];
    int names = 0;
    for (const kv_param *p = params; p->name != NULL && names < 64; p++)
        name[names++] = p->name;
    const char *near = kv_nearest(key, name, names);
    return kv_fail(diag, KV_ERR_INPUT, mark, "%s has no setting '%s'%s%s%s", part, key,
                   near != NULL ? "; did you mean '" : "", near != NULL ? near : "",
                   near != NULL ? "'?" : "");
}

/* Fills a struct from one mapping of the grid. */
static kv_err fill(const kv_serving_plan *plan, int number, const char *name,
                   const kv_param *params, int combination, void *config, kv_diag *diag)
{
    const kv_node *map = plan->grid[number].map;
    int picked_one = kv__plan_part(plan, number, combination);
    kv_err err = kv_params_default(params, config, diag);
    for (int i = 0; map != NULL && i < kv_node_count(map) && err == KV_OK; i++) {
        const char *key = kv_node_key(map, i);
        const kv_param *param = kv_param_find(params, key);
        kv_mark mark = kv_node_key_mark(map, i);
        if (param == NULL && number == 0)
            continue;
        if (param == NULL)
            return no_setting(params, name, key, &mark, diag);
        const kv_node *value = kv_grid_pick(&plan->grid[number], picked_one, i);
        err = kv_param_parse(param, config, value, diag);
        if (err == KV_OK)
            err = kv_param_resolve(param, config, value, diag);
        if (err == KV_OK)
            err = check_choice(number, param, value, diag);
    }
    return err;
}

static kv_err fill_all(const kv_serving_plan *plan, int combination, kv_serving_config *config,
                       kv_diag *diag)
{
    kv_err err = KV_OK;
    for (int p = 0; p < KV_SERVING_PARTS && err == KV_OK; p++) {
        const kv_serving_part *part = &kv_serving_parts[p];
        err = fill(plan, p, part->name, part->params, combination, (char *)config + part->offset,
                   diag);
    }
    const kv_node *tiers = kv_node_find(plan->map, "tiers");
    for (int t = 0; t < plan->tiers && err == KV_OK; t++)
        err = fill(plan, KV_SERVING_PARTS + t, kv_node_key(tiers, t), kv_tier_params, combination,
                   &config->tier[t], diag);
    return err;
}

/* --- Points
 * ------------------------------------------------------------------------------------------ */

/* The names were looked up when they were read. */
static void find_policies(kv_serving_point *point)
{
    const kv_serving_config *c = &point->config;
    kv_serving_settings *s = &point->settings;
    s->order = kv_queue_order_find(c->scheduler.queue);
    s->routing = kv_routing_find(c->scheduler.routing);
    s->replacement = kv_replacement_find(c->prefix_cache.replacement);
}

/* The least devices, of powers of 2, that leave room for a block; 0: so many do not. */
static int devices_needed(const kv_serving_point *point, kv_capacity_settings settings)
{
    for (int devices = 1; devices <= 1024; devices *= 2) {
        kv_capacity capacity;
        settings.tensor_parallel = devices;
        kv_capacity_find(point->device, point->model, &settings, &capacity);
        if (capacity.room > 0)
            return devices;
    }
    return 0;
}

static void tell_no_room(kv_serving_point *point, const kv_capacity *capacity,
                         const kv_capacity_settings *settings)
{
    int devices = devices_needed(point, *settings);
    char advice[64] = "a smaller model";
    if (devices > point->config.tensor_parallel)
        snprintf(advice, sizeof advice, "tensor_parallel: %d or more", devices);
    snprintf(point->no_room, sizeof point->no_room,
             "%s has no room for the KV cache of %s: of the %.3g GB of each device that may be "
             "used (memory_utilization), its weights take %.3g, activations %.3g and the "
             "runtime %.3g; expected %s",
             point->device->name, point->model->name, capacity->used * 1e-9,
             capacity->weights * 1e-9, capacity->activations * 1e-9, capacity->reserve * 1e-9,
             advice);
}

/* blocks = (memory x utilisation - weights / TP - activations - reserve) / bytes per block of the
 * device that has most of its heads. */
static kv_err find_blocks(const kv_serving_plan *plan, kv_serving_point *point, double block_bytes,
                          double stored_share, kv_diag *diag)
{
    const kv_serving_config *c = &point->config;
    kv_mark mark = kv_node_mark(plan->map);
    double group = (double)c->tensor_parallel;
    kv_capacity_settings settings = {.utilization = c->memory_utilization,
                                     .activation_bytes = (double)c->activation_bytes,
                                     .reserve_bytes = (double)c->reserve_bytes,
                                     .step_tokens = (double)c->scheduler.max_batched_tokens,
                                     .tensor_parallel = group};
    kv_capacity capacity;
    kv_capacity_find(point->device, point->model, &settings, &capacity);
    double room = capacity.room, copies = kv_model_kv_copies(point->model, (int)c->tensor_parallel);
    double blocks = c->kv_blocks > 0 ? floor((double)c->kv_blocks / stored_share)
                                     : floor(room * group / copies / block_bytes);
    blocks -= (double)c->reserved_blocks;
    point->settings.kv_blocks = blocks < 1 ? 1 : (int64_t)fmin(blocks, 4e9);
    if (blocks >= 1 && blocks <= 4e9)
        return KV_OK;
    if (c->kv_blocks > 0 || blocks > 4e9)
        return kv_fail(
            diag, KV_ERR_INPUT, &mark,
            "kv_blocks: %.0f blocks are left beside the %lld reserved (reserved_blocks); "
            "expected 1 to 4e9",
            blocks > 0 ? blocks : 0, c->reserved_blocks);
    tell_no_room(point, &capacity, &settings);
    return plan->tells_room ? KV_OK : kv_fail(diag, KV_ERR_INPUT, &mark, "%s", point->no_room);
}

static kv_err parse_chunk(const kv_serving_plan *plan, int combination, kv_serving_point *point,
                          kv_diag *diag)
{
    static const kv_param row = {.name = "chunk_size",
                                 .type = KV_CHUNK,
                                 .offset = offsetof(kv_serving_point, chunk_tokens),
                                 .min = 1,
                                 .max = 1 << 30,
                                 .unit = "tokens",
                                 .help = "tokens of one request in one step"};
    const kv_node *node = picked(plan, combination, "chunk_size");
    return node != NULL ? kv_param_parse(&row, point, node, diag) : KV_OK;
}

static kv_err write_settings(kv_serving_point *point, kv_diag *diag)
{
    size_t bytes;
    FILE *out = open_memstream(&point->settings_json, &bytes);
    if (out == NULL)
        return kv_fail_memory(diag);
    fputs("{\"device\":", out);
    kv_json_string(point->device->name, out);
    fputs(",\"model\":", out);
    kv_json_string(point->model->name, out);
    for (int p = 0; p < KV_SERVING_PARTS; p++) {
        fprintf(out, ",\"%s\":", p == 0 ? "serving" : kv_serving_parts[p].name);
        kv_params_json(kv_serving_parts[p].params,
                       (char *)&point->config + kv_serving_parts[p].offset, 0, out);
    }
    for (int t = 0; t < point->settings.tiers; t++) {
        fprintf(out, "%s\"%s\":", t == 0 ? ",\"tiers\":{" : ",", point->settings.tier[t].name);
        kv_params_json(kv_tier_params, &point->config.tier[t], 0, out);
    }
    fputs(point->settings.tiers > 0 ? "},\"requests\":" : ",\"requests\":", out);
    kv__plan_requests_json(&point->requests, out);
    fputc('}', out);
    return fclose(out) == 0 ? KV_OK : kv_fail_memory(diag);
}

static kv_err find_hardware(const kv_serving_plan *plan, int combination, kv_serving_point *point,
                            kv_step_hardware *hardware, kv_diag *diag)
{
    const kv_node *device = picked(plan, combination, "device");
    const kv_node *link = kv_node_find(plan->map, "tensor_parallel_link");
    kv_mark mark = kv_node_mark(plan->map);
    if (device == NULL)
        return kv_fail(diag, KV_ERR_INPUT, &mark, "serving needs `device`, such as h100-sxm");
    kv_err err = kv_model_get(picked_model(plan, combination), &point->model, diag);
    if (err == KV_OK)
        err = kv_device_get(device, &point->device, diag);
    if (err != KV_OK)
        return err;
    *hardware = (kv_step_hardware){.model = point->model,
                                   .device = point->device,
                                   .format = kv_model_cache_format(point->model),
                                   .tensor_parallel = (int)point->config.tensor_parallel,
                                   .link = point->device->tensor_parallel_link};
    if (point->config.kv_dtype > 0)
        hardware->format.dtype = point->config.kv_dtype - 1;
    hardware->format.group = point->config.kv_group;
    return link != NULL ? kv_link_parse(link, &hardware->link, diag) : KV_OK;
}

static void copy_settings(const kv_serving_plan *plan, kv_serving_point *point,
                          kv_cache_format format, double block_bytes)
{
    const kv_serving_config *c = &point->config;
    kv_serving_settings *s = &point->settings;
    long long context =
        c->max_context_tokens > 0 ? c->max_context_tokens : point->model->max_context;
    s->block_tokens = (int32_t)c->block_tokens;
    s->block_bytes = (int64_t)llround(block_bytes);
    s->entry_bytes = kv_model_entry_bytes(point->model, format);
    s->max_batched_tokens = c->scheduler.max_batched_tokens;
    s->max_seqs = (int32_t)c->scheduler.max_seqs;
    s->max_context_tokens = context;
    s->replicas = (int)c->replicas;
    s->reserve_full_input = c->scheduler.reserve_full_input;
    s->swap = c->scheduler.preemption == 1;
    s->prefix_cache = c->prefix_cache.enabled;
    s->seed = plan->seed;
    s->goodput_ttft_ns = c->goodput.ttft_ns;
    s->goodput_tpot_ns = c->goodput.tpot_ns;
    s->goodput_e2e_ns = c->goodput.e2e_ns;
    s->timeline_ns = c->timeline_ns;
    double devices = (double)(c->replicas * c->tensor_parallel);
    point->capacity_bytes = (double)(s->kv_blocks * c->replicas) * block_bytes;
    point->cost_per_hour =
        point->device->price_per_hour >= 0 ? devices * point->device->price_per_hour : -1;
}

/* The tier whose link tier t uses. */
static kv_err find_link(const kv_node *tiers, const kv_tier_config *c, int t, int *link,
                        kv_diag *diag)
{
    kv_mark mark = kv_node_mark(kv_node_at(tiers, t));
    *link = t;
    if (c->link == NULL)
        return KV_OK;
    for (*link = 0; *link < t; ++*link)
        if (strcmp(kv_node_key(tiers, *link), c->link) == 0)
            return KV_OK;
    return kv_fail(diag, KV_ERR_INPUT, &mark, "tier %s: link: there is no tier '%s' above it",
                   kv_node_key(tiers, t), c->link);
}

/* Bytes per second at which a replica's devices together copy what a tier named cpu holds, each its
 * own part over its own link. A block's bytes count once: what stands on several devices (the KV
 * heads of which there are fewer than devices, latents) each of them copies. */
static double host_bandwidth(const kv_serving_point *point)
{
    int devices = (int)point->config.tensor_parallel;
    return point->device->host_link.bandwidth * devices / kv_model_kv_copies(point->model, devices);
}

static kv_err copy_tiers(const kv_serving_plan *plan, kv_serving_point *point, kv_diag *diag)
{
    const kv_node *tiers = kv_node_find(plan->map, "tiers");
    kv_serving_settings *s = &point->settings;
    s->tiers = plan->tiers;
    s->load = point->config.load;
    s->overlap = point->config.overlap;
    s->layers = point->model->layers;
    for (int t = 0; t < plan->tiers; t++) {
        const kv_tier_config *c = &point->config.tier[t];
        bool is_host = strcmp(kv_node_key(tiers, t), "cpu") == 0;
        const kv_link *host = is_host ? &point->device->host_link : NULL;
        kv_mark mark = kv_node_mark(kv_node_at(tiers, t));
        double bandwidth = c->bandwidth > 0 ? c->bandwidth
                           : host != NULL   ? host_bandwidth(point)
                                            : 0;
        long long latency = c->latency_ns >= 0 ? c->latency_ns
                            : host != NULL     ? host->latency_ns
                                               : 0;
        s->tier[t] = (kv_tier_settings){
            .name = kv_node_key(tiers, t),
            .capacity_blocks = (int64_t)((double)c->capacity_bytes / kv_serving_cached_bytes(s)),
            .read_bandwidth = bandwidth,
            .write_bandwidth = c->write_bandwidth > 0 ? c->write_bandwidth : bandwidth,
            .latency_ns = latency,
            .shared_link = c->shared_link,
            .fair = c->sharing == 0,
            .replacement = kv_replacement_find(c->replacement),
            .write_through = c->write == 1};
        kv_err err = find_link(tiers, c, t, &s->tier[t].link, diag);
        if (err != KV_OK)
            return err;
        s->tier[t].link = s->tier[s->tier[t].link].link;
        if (bandwidth <= 0)
            return kv_fail(
                diag, KV_ERR_INPUT, &mark,
                "tier %s needs `bandwidth`, such as 6GB/s: only a tier named cpu has the "
                "device's host link without it",
                s->tier[t].name);
        if (s->tier[t].capacity_blocks < 1 || s->tier[t].capacity_blocks > 4000000000)
            return kv_fail(diag, KV_ERR_INPUT, &mark,
                           "tier %s: expected room for 1 to 4e9 blocks of %.0f bytes",
                           s->tier[t].name, kv_serving_cached_bytes(s));
    }
    kv_mark mark = kv_node_mark(plan->map);
    if (s->swap && s->tiers == 0)
        return kv_fail(diag, KV_ERR_INPUT, &mark,
                       "scheduler.preemption: swap needs a tier to move to, such as tiers: {cpu: "
                       "{capacity: 64GiB}}");
    if (s->swap && s->keep != NULL)
        return kv_fail(
            diag, KV_ERR_UNSUPPORTED, &mark,
            "scheduler.preemption: swap moves blocks of all layers and heads, but under %s "
            "a request of %s holds pages of each head by itself; expected recompute",
            point->policy, point->model->name);
    return KV_OK;
}

/* Bytes of a block of all layers; of a model that caches nothing, of its states. */
static double block_bytes_of(const kv_serving_point *point, kv_cache_format format)
{
    double bytes = kv_model_token_bytes(point->model, format) * (double)point->config.block_tokens;
    return bytes > 0 ? bytes : kv_model_state_bytes(point->model);
}

static kv_err find_memory(const kv_serving_plan *plan, const kv_point_spec *policy,
                          kv_cache_format format, kv_serving_point *point, kv_diag *diag)
{
    double share = kv__plan_policy_stored(policy, point->model).share;
    double bytes = block_bytes_of(point, format) * share;
    kv_err err = find_blocks(plan, point, bytes, share, diag);
    if (err != KV_OK)
        return err;
    copy_settings(plan, point, format, bytes);
    return kv__plan_policy_keep(plan, policy, format, point, diag);
}

static kv_err make_step_time(const kv_serving_plan *plan, kv_serving_point *point, kv_diag *diag)
{
    const kv_node *node = kv_node_find(plan->map, "step_time");
    kv_mark mark = kv_node_mark(node != NULL ? node : plan->map);
    kv_err err = kv_step_time_new(&point->config.step_time, &point->hardware, &point->time, diag);
    if (err == KV_ERR_INPUT || err == KV_ERR_UNSUPPORTED)
        return diag->path[0] != '\0' ? kv_fail_from(diag, &mark) : kv_fail_at(diag, &mark);
    return err;
}

kv_err kv_serving_plan_point(const kv_serving_plan *plan, int combination, kv_serving_point *out,
                             kv_diag *diag)
{
    *out = (kv_serving_point){0};
    kv_step_hardware hardware;
    const kv_point_spec *policy = kv__plan_policy_pick(plan, &combination);
    int requests = kv__plan_part(plan, KV_SERVING_REQUESTS, combination);
    kv_err err = kv__plan_requests_pick(plan, requests, &out->requests, diag);
    if (err == KV_OK)
        err = fill_all(plan, combination, &out->config, diag);
    if (err == KV_OK)
        err = find_hardware(plan, combination, out, &hardware, diag);
    if (err == KV_OK)
        out->hardware = hardware;
    if (err == KV_OK)
        find_policies(out);
    if (err == KV_OK)
        err = parse_chunk(plan, combination, out, diag);
    if (err == KV_OK)
        err = kv__plan_policy_name(policy, out, diag);
    if (err == KV_OK)
        err = find_memory(plan, policy, hardware.format, out, diag);
    if (err == KV_OK)
        err = copy_tiers(plan, out, diag);
    if (err == KV_OK)
        err = kv__plan_reuse(plan, out, diag);
    if (err == KV_OK)
        err = kv__plan_requests_twice(plan, out, diag);
    if (err == KV_OK)
        err = make_step_time(plan, out, diag);
    if (err == KV_OK)
        err = write_settings(out, diag);
    if (err == KV_OK)
        err = kv__plan_label(plan, combination, policy, out, diag);
    if (err != KV_OK)
        kv_serving_point_fini(out);
    return err;
}

void kv_serving_point_fini(kv_serving_point *point)
{
    for (int p = 0; p < KV_SERVING_PARTS; p++)
        kv_params_fini(kv_serving_parts[p].params,
                       (char *)&point->config + kv_serving_parts[p].offset);
    for (int t = 0; t < KV_MOST_TIERS; t++)
        kv_params_fini(kv_tier_params, &point->config.tier[t]);
    kv__plan_policy_fini(point);
    kv_step_time_free(point->time);
    kv_device_free(point->device);
    kv_model_free(point->model);
    free(point->policy);
    free(point->params);
    free(point->label);
    free(point->settings_json);
    kv_foresight_free(point->settings.foresight);
    kv_request_spec_fini(&point->requests);
    *point = (kv_serving_point){0};
}
