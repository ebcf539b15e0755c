/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/retention.h"

#include <math.h>

/* kvpress and PruLong are given the share that leaves; their products are (1 - share) * n in
 * doubles, so that 1000 entries at keep 0.1 are 99. */
static double kept_fraction(const kv_retention_config *config)
{
    return config->ratio_arithmetic ? 1.0 - (1.0 - config->keep) : config->keep;
}

/* The share of n that is kept, rounded as the settings say. */
static long long kept_of(const kv_retention_config *config, double n, bool published)
{
    double amount = kept_fraction(config) * n;
    switch ((kv_rounding)config->rounding) {
    case KV_HALF_EVEN:
        return llrint(amount);
    case KV_TRUNCATE:
        return (long long)amount;
    case KV_AS_PRULONG:
        return published ? llrint(amount) : (long long)amount;
    case KV_CEIL:
        return (long long)ceil(amount);
    case KV_AS_KVPRESS:
        return amount > 0 && amount < 1 ? 1 : (long long)amount;
    case KV_TRUNCATE_PRUNED:
        return (long long)n - (long long)(n * (1.0 - config->keep));
    case KV_HALF_UP:
        break;
    }
    return (long long)floor(amount + 0.5);
}

long long kv_quota_share(const kv_retention_config *config, double n, double budget)
{
    return config->budget_tokens > 0 ? (long long)budget : kept_of(config, n, false);
}

long long kv_quota_amount(const kv_retention_config *config, const kv_quota_query *query)
{
    int n = query->own_chunk ? query->candidates : query->prompt_tokens;
    if (config->budget_tokens > 0)
        return config->budget_tokens;
    return kept_of(config, n, query->published);
}

kv_pins kv_pins_outer(const kv_retention_config *config, const kv_quota_query *query,
                      bool newest_first)
{
    return (kv_pins){.first = (int)config->sinks_tokens,
                     .last = query->pin_window ? (int)config->window_tokens : 0,
                     .newest_first = newest_first};
}

kv_pins kv_pins_none(const void *config, const kv_quota_query *query, long long total)
{
    return (kv_pins){.first = 0, .last = 0};
}

long long kv_quota_uniform(const void *config, const kv_quota_query *query)
{
    const kv_retention_config *c = config;
    long long amount = kv_quota_amount(c, query);
    if (!c->window_in_budget)
        amount += c->window_tokens;
    return amount < query->candidates ? amount : query->candidates;
}

long long kv_retention_observers(const kv_retention *policy, const void *config,
                                 const kv_example *example)
{
    const kv_retention_config *c = config;
    if (c->scorer.name != NULL)
        return kv_retention_observers(c->scorer.of, c->scorer.config, example);
    if (policy->observers_of != NULL)
        return policy->observers_of(config, example);
    return policy->observers ? policy->observers(config) : c->window_tokens;
}

long long kv_retention_quota(const kv_retention *policy, const void *config,
                             const kv_quota_query *query)
{
    return policy->quota ? policy->quota(config, query) : kv_quota_uniform(config, query);
}

kv_pins kv_retention_pins(const kv_retention *policy, const void *config,
                          const kv_quota_query *query, long long quota)
{
    const kv_item *scorer = &((const kv_retention_config *)config)->scorer;
    if (policy->pins == NULL && scorer->name != NULL)
        return kv_retention_pins(scorer->of, scorer->config, query, quota);
    kv_pins pins = policy->pins != NULL ? policy->pins(config, query, quota)
                                        : kv_pins_outer(config, query, false);
    /* The budget wins over the pins: sinks first, then the newest entries, or the newest of both,
     * which the engine then finds. */
    if (pins.first > quota && !pins.newest_first)
        pins.first = (int)quota;
    if (pins.last > quota)
        pins.last = (int)quota;
    return pins;
}
