/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "traces/csv_requests.h"
#include "traces/field.h"

#include <string.h>

static int probe(const char *path, const char *head, size_t head_bytes);
static kv_err open(void *state, const kv_request_env *env, kv_diag *diag);

KV_REQUEST_FORMAT_DEFINE(burstgpt) = {
    .name = "burstgpt",
    .brief = "BurstGPT: CSV with Timestamp,Model,Request tokens,Response tokens,...",
    .cite = "Wang et al., BurstGPT: a real-world workload dataset to optimize LLM serving systems, "
            "2024; "
            "https://github.com/HPMLL/BurstGPT",
    .state_bytes = sizeof(kv__csv_requests),
    .probe = probe,
    .open = open,
    .next = kv__csv_requests_next,
    .mark = kv__csv_requests_mark,
    .close = kv__csv_requests_close,
};

static int probe(const char *path, const char *head, size_t head_bytes)
{
    size_t line = strcspn(head, "\r\n");
    const char *found = strstr(head, "Request tokens,Response tokens");
    return found != NULL && found < head + line ? 100 : 0;
}

static kv_err open(void *state, const kv_request_env *env, kv_diag *diag)
{
    static const kv__csv_layout layout = {
        .column = {[KV_ROLE_ARRIVAL] = "Timestamp",
                   [KV_ROLE_PROMPT] = "Request tokens",
                   [KV_ROLE_OUTPUT] = "Response tokens",
                   [KV_ROLE_SESSION] = "Session ID",
                   [KV_ROLE_TENANT] = "Model"},
        .optional = {[KV_ROLE_SESSION] = true, [KV_ROLE_TENANT] = true},
        .unit = KV_UNIT_S,
    };
    kv_err err = kv__csv_requests_header(state, env, diag);
    return err != KV_OK ? err : kv__csv_requests_layout(state, &layout, diag);
}
