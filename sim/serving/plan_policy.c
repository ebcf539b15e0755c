/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "sim/serving/plan_policy.h"

#include "analysis/profile.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char key[] = "policies";

static int choices_of(const kv_node *value)
{
    return kv_node_get_kind(value) == KV_NODE_LIST ? kv_node_count(value) : 1;
}

/* Where a grid stands: combinations of what varies faster than the key `policies`. */
static int faster_combinations(const kv_serving_plan *plan)
{
    int count = 1, at = -1;
    for (int i = 0; i < kv_node_count(plan->map); i++)
        if (strcmp(kv_node_key(plan->map, i), key) == 0)
            at = i;
    for (int i = at + 1; at >= 0 && i < kv_node_count(plan->map); i++)
        count *= choices_of(kv_node_at(plan->map, i));
    for (int p = 1; p < KV_SERVING_GRIDS; p++)
        count *= plan->grid[p].count;
    return count;
}

static kv_err parse(kv_serving_plan *plan, const kv_node *node, kv_diag *diag)
{
    kv_err err = KV_OK;
    if (node == NULL)
        return kv_policy_parse_text("full", &(kv_mark){0}, "", &plan->policies, diag);
    if (kv_node_get_kind(node) != KV_NODE_LIST)
        return kv_policy_parse(node, &plan->policies, diag);
    for (int i = 0; i < kv_node_count(node) && err == KV_OK; i++)
        err = kv_policy_parse(kv_node_at(node, i), &plan->policies, diag);
    return err;
}

/* What never reaches the server is not for it to drop. */
static kv_err check_served(const kv_point_spec *spec, kv_diag *diag)
{
    if (spec->policy == NULL || spec->policy->admits == NULL)
        return KV_OK;
    return kv_fail(diag, KV_ERR_INPUT, &spec->mark,
                   "%s shortens the prompt before a server sees it; expected requests with shorter "
                   "prompts in its place",
                   spec->policy->name);
}

kv_err kv__plan_policies_init(kv_serving_plan *plan, kv_diag *diag)
{
    const kv_node *node = kv_node_find(plan->map, key);
    kv_err err = parse(plan, node, diag);
    for (int i = 0; i < plan->policies.count && err == KV_OK; i++)
        err = check_served(&plan->policies.point[i], diag);
    if (err != KV_OK)
        return err;
    plan->policy_items = node != NULL ? choices_of(node) : 1;
    plan->faster = faster_combinations(plan);
    long long all = (long long)plan->combinations / plan->policy_items * plan->policies.count;
    kv_mark mark = kv_node_mark(node != NULL ? node : plan->map);
    if (all > KV_GRID_MOST)
        return kv_fail(diag, KV_ERR_INPUT, &mark,
                       "the policies make more than %d combinations with the other lists; expected "
                       "fewer",
                       KV_GRID_MOST);
    plan->combinations = (int)all;
    return KV_OK;
}

const kv_point_spec *kv__plan_policy_pick(const kv_serving_plan *plan, int *combination)
{
    int fast = *combination % plan->faster, rest = *combination / plan->faster;
    int policy = rest % plan->policies.count;
    *combination = rest / plan->policies.count * plan->policy_items * plan->faster + fast;
    return &plan->policies.point[policy];
}

kv_err kv__plan_policy_name(const kv_point_spec *spec, kv_serving_point *point, kv_diag *diag)
{
    point->policy = kv_spec_name(spec);
    point->keep_fraction = kv_spec_keep(spec);
    point->params = kv_spec_params_json(spec);
    if (spec->chunk_tokens != KV_CHUNK_NOT_GIVEN)
        point->chunk_tokens = spec->chunk_tokens;
    point->settings.chunk_tokens = (int32_t)point->chunk_tokens;
    bool good = point->policy != NULL && point->params != NULL;
    return good ? KV_OK : kv_fail_memory(diag);
}

static kv_shape shape_of(const kv_model *model)
{
    return (kv_shape){.model = model->name,
                      .layers = (int)model->layers,
                      .heads = (int)model->attention.heads,
                      .kv_heads = kv_model_kv_heads(model),
                      .head_dim = (int)model->attention.head_dim};
}

/* Loads what the policy needs to know of heads. */
static kv_err prepare(const kv_point_spec *spec, kv_serving_point *point, kv_diag *diag)
{
    kv_shape shape = shape_of(point->model);
    if (spec->policy->prepare == NULL)
        return KV_OK;
    point->retention = spec->policy;
    return spec->policy->prepare(spec->config, spec->directory, &shape, &point->retention_plan,
                                 diag);
}

/* --- What parts beside the retention policy do ---------------------------------------------- */

/* Where to look for what a replay of attention knows. later: nowhere yet, the replay is to come. */
static kv_err find_source(const kv_serving_plan *plan, const kv_point_spec *spec,
                          const kv_serving_point *point, kv_profile_source *out, bool *later,
                          kv_diag *diag)
{
    *out = plan->profile;
    *later = false;
    if (point->config.profile != NULL) {
        kv_err err = kv_results_open(point->config.profile, KV_RESULTS_READ, &out->results, diag);
        return err == KV_OK ? kv_profile_latest(out->results, &out->run_id, diag) : err;
    }
    *later = out->results == NULL && plan->replayed != NULL;
    if (out->results != NULL || *later)
        return KV_OK;
    return kv_fail(diag, KV_ERR_UNSUPPORTED, &spec->mark,
                   "what this policy keeps or reads depends on attention, which a request trace "
                   "does not hold: add an `attention` part to the experiment that replays it under "
                   "the same chunk size, or name the results of such a run by `serving.profile`");
}

static const kv_read *read_of(const kv_point_spec *spec)
{
    for (int p = 0; p < spec->parts; p++)
        if (spec->part[p].method.family == KV_FAMILY_READ)
            return spec->part[p].method.read;
    return NULL;
}

/* What a replay knows of the policy. *profile may stay NULL. */
static kv_err look_up(const kv_serving_plan *plan, const kv_point_spec *spec,
                      const kv_serving_point *point, kv_keep_spec *keep, double **profile,
                      kv_diag *diag)
{
    bool scored = (spec->policy->claims & KV_COUNTS_FIXED) == 0, later;
    kv_profile_source source;
    if (!scored && read_of(spec) == NULL)
        return KV_OK;
    kv_err err = find_source(plan, spec, point, &source, &later, diag);
    if (err == KV_OK && later)
        err = kv__profile_expect(plan->replayed, spec, point->chunk_tokens, diag);
    if (err == KV_OK && scored && !later)
        err = kv__profile_heads_of(&source, spec, point->chunk_tokens, point->model, profile, diag);
    if (err == KV_OK && keep->away.read != NULL && !later)
        err = kv__profile_fetches_of(&source, spec, point->chunk_tokens, keep->away.home_entries,
                                     &keep->away.fetch_entries, diag);
    else if (err == KV_OK && read_of(spec) != NULL && !later)
        err = kv__profile_reads_of(&source, spec, point->chunk_tokens, &keep->read_share,
                                   &keep->prefill_share, diag);
    if (point->config.profile != NULL)
        kv_results_close(source.results);
    keep->rule.profile = *profile;
    return err;
}

/* Entries' worth of plain bytes that n entries of a layer take as stored. */
static double stored(const kv_point_spec *spec, const kv_shape *shape, int layer, double n)
{
    double share = 1;
    for (int p = 0; p < spec->parts; p++) {
        const kv_transform *transform = spec->part[p].method.transform;
        kv_transform_size size = {.shape = shape, .layer = layer, .entries = n};
        if (transform != NULL && transform->bytes != NULL)
            share *= transform->bytes(spec->part[p].config, &size);
    }
    return n * share;
}

/* Bytes as stored are a line in the entries for all but the shortest: a share of the plain ones,
 * and what is left plain, such as a window of the newest. Where that goes in groups it is averaged.
 */
static kv_stored_line stored_line(const kv_point_spec *spec, const kv_model *model)
{
    enum { FAR = 1 << 20, AVERAGED = 256 };
    kv_shape shape = shape_of(model);
    kv_stored_line line = {0, 0};
    for (int l = 0; l < model->layers; l++) {
        double slope = (stored(spec, &shape, l, 2.0 * FAR) - stored(spec, &shape, l, FAR)) / FAR;
        line.share += slope / (double)model->layers;
        for (int i = 0; i < AVERAGED; i++)
            line.plain_entries += (stored(spec, &shape, l, FAR + i) - slope * (FAR + i)) /
                                  AVERAGED / (double)model->layers;
    }
    return line;
}

kv_stored_line kv__plan_policy_stored(const kv_point_spec *spec, const kv_model *model)
{
    for (int p = 0; p < spec->parts; p++)
        if (spec->part[p].method.family == KV_FAMILY_TRANSFORM)
            return stored_line(spec, model);
    return (kv_stored_line){1, 0};
}

/* Where a read policy that keeps entries in host memory has them. */
static kv_err find_home(const kv_serving_plan *plan, const kv_point_spec *spec,
                        kv_serving_point *point, kv_keep_spec *keep, kv_diag *diag)
{
    const kv_node *tiers = kv_node_find(plan->map, "tiers");
    const kv_read *read = read_of(spec);
    const char *name = point->config.home;
    int *home = &point->settings.home;
    if (read == NULL || read->home == NULL)
        return KV_OK;
    while (name != NULL && *home < plan->tiers && strcmp(kv_node_key(tiers, *home), name) != 0)
        ++*home;
    if (*home >= plan->tiers)
        return kv_fail(
            diag, KV_ERR_INPUT, &spec->mark,
            "%s keeps entries in host memory and fetches them step by step: expected %s%s, "
            "such as tiers: {cpu: {capacity: 256GiB}}",
            read->name, name != NULL ? "a tier named " : "a tier for them",
            name != NULL ? name : "");
    keep->away.read = read;
    for (int p = 0; p < spec->parts; p++)
        if (spec->part[p].method.read == read)
            keep->away.config = spec->part[p].config;
    kv_read_home on_device = read->home(keep->away.config);
    keep->away.home_entries = on_device.first + on_device.last;
    return KV_OK;
}

kv_err kv__plan_policy_keep(const kv_serving_plan *plan, const kv_point_spec *spec,
                            kv_cache_format format, kv_serving_point *point, kv_diag *diag)
{
    kv_serving_settings *s = &point->settings;
    kv_stored_line line = kv__plan_policy_stored(spec, point->model);
    kv_keep_spec keep = {.rule = {.policy = spec->policy, .config = spec->config},
                         .format = format,
                         .chunk_tokens = point->chunk_tokens,
                         .page_tokens = s->block_tokens,
                         .step_tokens = s->max_batched_tokens,
                         .read_share = line.share,
                         .prefill_share = 1,
                         .extra_entries = (int64_t)ceil(line.plain_entries / line.share)};
    double *profile = NULL;
    kv_err err = find_home(plan, spec, point, &keep, diag);
    if (err == KV_OK)
        err = look_up(plan, spec, point, &keep, &profile, diag);
    if (err == KV_OK && kv_keep_needed(point->model, &keep)) {
        err = prepare(spec, point, diag);
        keep.rule.plan = point->retention_plan;
        if (err == KV_OK)
            err = kv_keep_new(point->model, &keep, &point->keep, diag);
    }
    free(profile);
    s->keep = point->keep;
    s->prefix_cache = s->prefix_cache && (s->keep == NULL || s->keep->reuse);
    return err;
}

void kv__plan_policy_fini(kv_serving_point *point)
{
    kv_keep_free(point->keep);
    if (point->retention_plan != NULL && point->retention->release != NULL)
        point->retention->release(point->retention_plan);
}
