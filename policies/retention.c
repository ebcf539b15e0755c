/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/retention.h"
#include "policies/retention_params.h"

#include <stdio.h>

const char *const kv__names_schedule[] = {
    [KV_POSTFILL] = "postfill", [KV_CHUNKED] = "chunked", [KV_PATCHED] = "patched",
    [KV_POOL] = "pool",         [KV_STEP] = "step",       [KV_INTERVAL] = "interval",
    [KV_ONLINE] = "online",     [KV_ONLINE + 1] = NULL};
const char *const kv__names_rounding[] = {[KV_HALF_UP] = "half_up",
                                          [KV_HALF_EVEN] = "half_even",
                                          [KV_TRUNCATE] = "truncate",
                                          [KV_AS_PRULONG] = "prulong",
                                          [KV_CEIL] = "ceil",
                                          [KV_AS_KVPRESS] = "kvpress",
                                          [KV_TRUNCATE_PRUNED] = "truncate_pruned",
                                          NULL};
const char *const kv__names_pooling[] = {[KV_POOL_AVG] = "avg", [KV_POOL_MAX] = "max", NULL};
const char *const kv__names_group[] = {
    [KV_GROUP_MEAN] = "mean", [KV_GROUP_MAX] = "max", [KV_GROUP_SUM] = "sum", NULL};
const char *const kv__names_group_when[] = {
    [KV_GROUP_BEFORE] = "before", [KV_GROUP_AFTER] = "after", NULL};
const char *const kv__names_score_over[] = {
    [KV_OVER_CHUNK] = "chunk", [KV_OVER_PRESENT] = "present", NULL};
const char *const kv__names_scope[] = {
    [KV_SCOPE_LAYER] = "layer", [KV_SCOPE_KV_HEAD] = "kv_head", NULL};
const char *const kv__names_anchor[] = {[KV_ANCHOR_UNIT] = "unit", [KV_ANCHOR_RAW] = "raw", NULL};

/* Exactly one of the rows that say how much is kept may have a value. */
static kv_err check_budget(const kv_retention *policy, const void *config, const kv_mark *mark,
                           kv_diag *diag)
{
    char names[128] = "";
    size_t used = 0;
    int rows = 0, given = 0;
    for (const kv_param *p = policy->params; p->name != NULL; p++) {
        if (!(p->flags & KV_PARAM_BUDGET))
            continue;
        if (used < sizeof names)
            used += (size_t)snprintf(names + used, sizeof names - used, "%s%s",
                                     rows > 0 ? " or " : "", p->name);
        rows++;
        given += !kv_param_absent(p, config);
    }
    if (rows == 0 || given == 1)
        return KV_OK;
    return kv_fail(diag, KV_ERR_INPUT, mark,
                   given == 0 ? "%s: say how much is kept: give %s"
                              : "%s: say how much is kept once: give only one of %s",
                   policy->name, names);
}

/* Entries that stay in any case must fit into a budget that is a count, unless the policy says
 * which of them stay otherwise. */
static kv_err check_pins(const kv_retention *policy, const kv_retention_config *config,
                         const kv_mark *mark, kv_diag *diag)
{
    if (config->budget_tokens <= 0)
        return KV_OK;
    long long pins = config->sinks_tokens + (config->window_in_budget ? config->window_tokens : 0);
    kv_quota_query query = {.pin_window = true};
    bool newest_first =
        policy->pins != NULL && policy->pins(config, &query, config->budget_tokens).newest_first;
    if (pins > config->budget_tokens && !newest_first)
        return kv_fail(diag, KV_ERR_INPUT, mark,
                       "%s: %lld sinks and window entries stay in any case, which is above the "
                       "budget of %lld; expected a larger budget",
                       policy->name, pins, config->budget_tokens);
    if (config->recent > config->budget_tokens && config->window_tokens == 0)
        return kv_fail(diag, KV_ERR_INPUT, mark,
                       "%s: recent is %g, above the budget of %lld; expected at most the budget",
                       policy->name, config->recent, config->budget_tokens);
    return KV_OK;
}

kv_err kv_retention_check(const kv_retention *policy, const void *any_config, const kv_mark *mark,
                          kv_diag *diag)
{
    const kv_retention_config *config = any_config;
    kv_err err = check_budget(policy, config, mark, diag);
    if (err == KV_OK)
        err = check_pins(policy, config, mark, diag);
    if (err != KV_OK)
        return err;
    if (config->kernel_tokens > 0 && config->kernel_tokens % 2 == 0)
        return kv_fail(diag, KV_ERR_INPUT, mark, "%s: kernel is %lld; expected an odd number",
                       policy->name, config->kernel_tokens);
    bool by_window =
        policy->observers == NULL && policy->observers_of == NULL && config->scorer.name == NULL;
    if ((policy->needs & KV_NEEDS_OBSERVERS) && by_window && config->window_tokens < 1)
        return kv_fail(diag, KV_ERR_INPUT, mark,
                       "%s: window is 0, so that no row scores; expected at least 1", policy->name);
    if (config->recent >= 1 && config->recent != floor(config->recent))
        return kv_fail(diag, KV_ERR_INPUT, mark,
                       "%s: recent is %g; expected a whole number, or a fraction below 1",
                       policy->name, config->recent);
    if (config->evict == KV_INTERVAL && config->interval_steps < 1)
        return kv_fail(diag, KV_ERR_INPUT, mark,
                       "%s: evict: interval needs interval, the decode steps between evictions",
                       policy->name);
    if (config->scorer.name != NULL)
        err = kv_retention_check(config->scorer.of, config->scorer.config, mark, diag);
    if (err != KV_OK)
        return err;
    return policy->check == NULL ? KV_OK : policy->check(config, mark, diag);
}
