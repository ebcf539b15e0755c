/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/retention.h"
#include "policies/retention_params.h"

static const kv_param params[] = {KV_ROW_END};

static long long quota(const void *config, const kv_quota_query *query)
{
    return query->candidates;
}

/* The reference: nothing leaves. */
KV_RETENTION_DEFINE(full) = {
    .name = "full",
    .brief = "keeps every entry",
    .stage = "generation",
    .config_bytes = sizeof(kv_retention_config),
    .params = params,
    .claims = KV_NESTED | KV_COUNTS_FIXED | KV_LAYERS_ALIKE,
    .quota = quota,
};
