/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "sim/serving/profile.h"

#include "analysis/profile.h"
#include "policies/counts.h"

#include <math.h>
#include <stdlib.h>

static kv_err refuse(const kv_point_spec *spec, long long chunk_tokens, const char *what,
                     kv_diag *diag)
{
    char chunk[32] = "whole", *name = kv_spec_name(spec);
    if (chunk_tokens > 0)
        snprintf(chunk, sizeof chunk, "%lld", chunk_tokens);
    kv_err err =
        kv_fail(diag, KV_ERR_UNSUPPORTED, &spec->mark,
                "%s %s depends on attention, which a request trace does not hold, and no replay of "
                "it under chunk size %s was found: list the same policy and chunk size under "
                "`attention` of this experiment, or name the results of such a run that also had a "
                "`serving` part (or `keep_sets: true`) by `serving.profile`",
                what, name != NULL ? name : "this policy", chunk);
    free(name);
    return err;
}

static const char keeps[] = "how much is kept by", reads[] = "how much is read by",
                  reads_alone[] = "what would be read without the read policy, by";

static bool is_among(const kv_point_list *list, const kv_point_spec *spec, long long chunk_tokens)
{
    for (int i = 0; i < list->count; i++)
        if (list->point[i].chunk_tokens == chunk_tokens && kv_spec_same(&list->point[i], spec))
            return true;
    return false;
}

/* The retention policy of a point, without what stands beside it. */
static kv_point_spec retention_of(const kv_point_spec *spec)
{
    kv_point_spec alone = *spec;
    alone.parts = 0;
    return alone;
}

kv_err kv__profile_expect(const kv_point_list *coming, const kv_point_spec *spec,
                          long long chunk_tokens, kv_diag *diag)
{
    kv_point_spec alone = retention_of(spec);
    bool chooses = false;
    for (int p = 0; p < spec->parts; p++)
        chooses = chooses || spec->part[p].method.family == KV_FAMILY_READ;
    if (!is_among(coming, spec, chunk_tokens))
        return refuse(spec, chunk_tokens, chooses ? reads : keeps, diag);
    if (chooses && !spec->implied && !is_among(coming, &alone, chunk_tokens))
        return refuse(&alone, chunk_tokens, reads_alone, diag);
    return KV_OK;
}

/* --- What heads keep --------------------------------------------------------------- */

/* The recorded model, as far as counts go. */
typedef struct recording {
    kv_counts_rule rule;
    long long chunk_tokens;
    kv_profile_head *head;
    int heads;
    double *ratio; /* [layers * kv_heads] sums, then means */
} recording;

/* What a head's quota lets it keep of a prompt, chunk by chunk. */
static double nominal(const recording *r, const kv_profile_head *head)
{
    kv_counts_rule rule = r->rule;
    long long kept = 0;
    rule.prompt_tokens = head->prompt_tokens;
    for (long long at = 0; at < head->prompt_tokens;) {
        long long end = kv_counts_chunk_end(&rule, r->chunk_tokens, at);
        kv_block_kind kind = end == head->prompt_tokens ? KV_BLOCK_PROMPT_END : KV_BLOCK_PROMPT;
        kept = kv_counts_after(&rule, head->layer, head->kv_head, kind, kept, end - at);
        at = end;
    }
    return (double)kept;
}

static kv_err average(recording *r, kv_diag *diag)
{
    size_t all = (size_t)r->rule.layers * (size_t)r->rule.kv_heads;
    double *ones = malloc(all * sizeof *ones);
    int *count = calloc(all, sizeof *count);
    r->ratio = calloc(all, sizeof *r->ratio);
    kv_err err = ones && count && r->ratio ? KV_OK : kv_fail_memory(diag);
    for (size_t i = 0; err == KV_OK && i < all; i++)
        ones[i] = 1;
    r->rule.profile = ones;
    for (int i = 0; err == KV_OK && i < r->heads; i++) {
        const kv_profile_head *head = &r->head[i];
        int at = head->layer * r->rule.kv_heads + head->kv_head;
        double quota = nominal(r, head);
        if (quota > 0) {
            r->ratio[at] += head->entries / quota;
            count[at]++;
        }
    }
    for (size_t i = 0; err == KV_OK && i < all; i++)
        r->ratio[i] = count[i] > 0 ? r->ratio[i] / count[i] : 0;
    free(ones);
    free(count);
    return err;
}

/* The served model's heads from the recorded ones. */
static double ratio_of(const recording *r, const kv_model *model, int layer, int head)
{
    int kv_heads = r->rule.kv_heads;
    if (r->rule.layers == model->layers && kv_heads == kv_model_kv_heads(model))
        return r->ratio[layer * kv_heads + head];
    int from = (int)((long long)layer * r->rule.layers / model->layers);
    double sum = 0;
    for (int h = 0; h < kv_heads; h++)
        sum += r->ratio[from * kv_heads + h];
    return sum / kv_heads;
}

static kv_err prepare(const kv_point_spec *spec, recording *r, void **plan, kv_diag *diag)
{
    kv_shape shape = {.layers = r->rule.layers,
                      .heads = r->rule.kv_heads,
                      .kv_heads = r->rule.kv_heads,
                      .head_dim = 1};
    if (spec->policy->prepare == NULL)
        return KV_OK;
    return spec->policy->prepare(spec->config, spec->directory, &shape, plan, diag);
}

static kv_err fill(recording *r, const kv_point_spec *spec, const kv_model *model, double **out,
                   kv_diag *diag)
{
    void *plan = NULL;
    int kv_heads = kv_model_kv_heads(model);
    for (int i = 0; i < r->heads; i++) {
        r->rule.layers = r->head[i].layer >= r->rule.layers ? r->head[i].layer + 1 : r->rule.layers;
        if (r->head[i].kv_head >= r->rule.kv_heads)
            r->rule.kv_heads = r->head[i].kv_head + 1;
    }
    kv_err err = prepare(spec, r, &plan, diag);
    r->rule.plan = plan;
    if (err == KV_OK)
        err = average(r, diag);
    *out = malloc((size_t)model->layers * (size_t)kv_heads * sizeof **out);
    if (err == KV_OK && *out == NULL)
        err = kv_fail_memory(diag);
    for (int l = 0; err == KV_OK && l < model->layers; l++)
        for (int h = 0; h < kv_heads; h++)
            (*out)[l * kv_heads + h] = ratio_of(r, model, l, h);
    if (plan != NULL && spec->policy->release != NULL)
        spec->policy->release(plan);
    free(r->ratio);
    return err;
}

kv_err kv__profile_heads_of(const kv_profile_source *source, const kv_point_spec *spec,
                            long long chunk_tokens, const kv_model *model, double **out,
                            kv_diag *diag)
{
    char *name = kv_spec_name(spec), *params = kv_spec_params_json(spec);
    kv_profile_key key = {.policy = name, .params = params, .chunk_tokens = chunk_tokens};
    recording r = {.rule = {.policy = spec->policy, .config = spec->config},
                   .chunk_tokens = chunk_tokens};
    kv_err err = name != NULL && params != NULL ? KV_OK : kv_fail_memory(diag);
    if (err == KV_OK)
        err = kv_profile_heads(source->results, source->run_id, &key, &r.head, &r.heads, diag);
    if (err == KV_OK && r.heads == 0)
        err = refuse(spec, chunk_tokens, keeps, diag);
    if (err == KV_OK)
        err = fill(&r, spec, model, out, diag);
    free(r.head);
    free(name);
    free(params);
    return err;
}

/* --- What is read ------------------------------------------------------------------ */

static kv_err mean_of(const kv_profile_source *source, const kv_point_spec *spec,
                      long long chunk_tokens, const char *column, double *out, kv_diag *diag)
{
    char *name = kv_spec_name(spec), *params = kv_spec_params_json(spec);
    kv_profile_key key = {.policy = name, .params = params, .chunk_tokens = chunk_tokens};
    kv_err err = name != NULL && params != NULL
                     ? kv_profile_mean(source->results, source->run_id, &key, column, out, diag)
                     : kv_fail_memory(diag);
    free(name);
    free(params);
    return err;
}

kv_err kv__profile_fetches_of(const kv_profile_source *source, const kv_point_spec *spec,
                              long long chunk_tokens, int64_t home_entries, int64_t *fetched,
                              kv_diag *diag)
{
    double share = NAN, context = NAN;
    kv_err err = mean_of(source, spec, chunk_tokens, "kv_reads", &share, diag);
    if (err == KV_OK)
        err = kv_profile_context(source->results, source->run_id, &context, diag);
    if (err != KV_OK)
        return err;
    if (isnan(share) || isnan(context))
        return refuse(spec, chunk_tokens, reads, diag);
    double read = share * context - fmin((double)home_entries, context);
    *fetched = read > 0 ? (int64_t)ceil(read - 1e-9) : 0;
    return KV_OK;
}

kv_err kv__profile_reads_of(const kv_profile_source *source, const kv_point_spec *spec,
                            long long chunk_tokens, double *decode, double *prefill, kv_diag *diag)
{
    kv_point_spec alone = retention_of(spec);
    double read = NAN, retained = 1;
    kv_err err = mean_of(source, spec, chunk_tokens, "kv_reads_bytes", &read, diag);
    if (err == KV_OK)
        err = mean_of(source, spec, chunk_tokens, "kv_reads_prefill", prefill, diag);
    if (err == KV_OK && !spec->implied)
        err = mean_of(source, &alone, chunk_tokens, "kv_reads", &retained, diag);
    if (err != KV_OK)
        return err;
    if (isnan(read))
        return refuse(spec, chunk_tokens, reads, diag);
    if (isnan(retained) || retained <= 0)
        return refuse(&alone, chunk_tokens, reads_alone, diag);
    *decode = fmin(1, read / retained);
    *prefill = isnan(*prefill) ? 1 : *prefill;
    return KV_OK;
}
