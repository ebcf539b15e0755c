/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/head_mask.h"
#include "policies/retention.h"
#include "policies/retention_params.h"
#include "policies/scorer.h"
#include "policies/scoring.h"

#include <math.h>
#include <stdlib.h>

typedef enum head_kind { QUERY, KV } head_kind;

typedef struct headkv_config {
    kv_retention_config base;
    int per; /* what the file has a number for */
} headkv_config;

static const char *const per_names[] = {[QUERY] = "query_head", [KV] = "kv_head", NULL};
static const char *const preset_names[] = {"none", "kvcache-factory", NULL};
enum { NONE, KVCACHE_FACTORY };
static const kv_preset presets[] = {
    {"kvcache-factory",
     "beta=1.01 per=query_head window=32 kernel=7 pooling=max group=mean group_when=before "
     "window_in_budget=false rounding=half_even evict=postfill",
     "HeadKVCluster: heads share out the whole budget, the window comes on top"},
    {.name = NULL}};

static const kv_param params[] = {
    KV_ROW_SCORER,
    KV_ROWS_WINDOW_SCORE("64", "5", "avg"),
    KV_ROW_HEADS,
    KV_ROW_OF_CHOICE(headkv_config, "per", per, "query_head", per_names,
                     "whether `heads` has a number per query head or per KV head"),
    KV_ROW_BETA("1.01"),
    KV_ROW_PRESET(preset_names),
    KV_ROW_END};

/* Every query head's part of all importance. */
typedef struct headkv_plan {
    int heads, kv_heads; /* of a layer; heads per KV head as in the file */
    double *share;       /* [layers * heads], sums to 1 */
} headkv_plan;

static kv_err normalise(const char *path, double *share, int count, kv_diag *diag)
{
    kv_mark mark = {.path = path};
    double sum = 0;
    for (int i = 0; i < count; i++) {
        if (share[i] < 0)
            return kv_fail(diag, KV_ERR_INPUT, &mark,
                           "number %d is %g; headkv expects importances of 0 or more", i + 1,
                           share[i]);
        sum += share[i];
    }
    if (sum <= 0)
        return kv_fail(diag, KV_ERR_INPUT, &mark, "all importances are 0");
    for (int i = 0; i < count; i++)
        share[i] /= sum;
    return KV_OK;
}

static void release(void *opaque)
{
    headkv_plan *plan = opaque;
    if (plan != NULL)
        free(plan->share);
    free(plan);
}

static kv_err prepare(const void *config, const char *directory, const kv_shape *shape, void **out,
                      kv_diag *diag)
{
    const headkv_config *c = config;
    if (c->base.heads == NULL)
        return KV_OK;
    headkv_plan *plan = calloc(1, sizeof *plan);
    if (plan == NULL)
        return kv_fail_memory(diag);
    plan->heads = c->per == KV ? shape->kv_heads : shape->heads;
    plan->kv_heads = shape->kv_heads;
    kv_err err = kv_layer_numbers_load(directory, c->base.heads, shape->layers, plan->heads,
                                       c->per == KV ? "KV head" : "query head", &plan->share, diag);
    if (err == KV_OK)
        err = normalise(c->base.heads, plan->share, shape->layers * plan->heads, diag);
    if (err != KV_OK) {
        release(plan);
        return err;
    }
    *out = plan;
    return KV_OK;
}

static bool counts_only(const void *config)
{
    return ((const kv_retention_config *)config)->heads == NULL;
}

/* a // b of Python's real numbers, which differs from floor(a / b) where the quotient rounds up. */
static double floor_divide(double a, double b)
{
    return rint((a - fmod(a, b)) / b);
}

/* A budget for all that competes leaves nothing to divide; the published code compares the budget
 * itself, also where the window comes on top of it. */
static bool fits_all(const headkv_config *c, const kv_quota_query *query, long long amount)
{
    if (c->base.preset == KVCACHE_FACTORY)
        return amount > query->candidates;
    return kv_quota_uniform(c, query) >= query->candidates;
}

/* Of each head's even budget beside the window, 1/beta goes into one pool that is divided by
 * importance; a KV head gets the mean of its query heads. */
static long long quota(const void *config, const kv_quota_query *query)
{
    const headkv_config *c = config;
    const headkv_plan *plan = query->plan;
    long long amount = kv_quota_amount(&c->base, query);
    double even = (double)amount - (c->base.window_in_budget ? (double)c->base.window_tokens : 0);
    if (plan == NULL || even <= 0 || fits_all(c, query, amount))
        return kv_quota_uniform(config, query);
    double shared = floor_divide(even, c->base.beta);
    int group = plan->heads / plan->kv_heads;
    const double *share = plan->share + query->layer * plan->heads + query->kv_head * group;
    double pool = shared * plan->heads * query->layers, sum = 0;
    for (int g = 0; g < group; g++)
        sum += rint(share[g] * pool + even - shared);
    return (long long)rint(sum / group) + c->base.window_tokens;
}

/* Heads that retrieve and reason keep more. */
KV_RETENTION_DEFINE(headkv) = {
    .name = "headkv",
    .brief = "as snapkv, with the budget of all layers divided among heads by their importance",
    .cite = "HeadKV (Fu et al. 2024, arXiv 2410.19258)",
    .stage = "compression",
    .config_bytes = sizeof(headkv_config),
    .params = params,
    .presets = presets,
    .needs = KV_NEEDS_OBSERVERS,
    .claims = KV_NESTED | KV_COUNTS_FIXED,
    .prepare = prepare,
    .release = release,
    .quota = quota,
    .score = kv_scorer_score,
    .file = "heads, a file with the importance of each head",
    .counts_only = counts_only,
};
