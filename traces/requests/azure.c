/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "traces/csv_requests.h"
#include "traces/field.h"

#include <string.h>

static int probe(const char *path, const char *head, size_t head_bytes);
static kv_err open(void *state, const kv_request_env *env, kv_diag *diag);

KV_REQUEST_FORMAT_DEFINE(azure) = {
    .name = "azure",
    .brief = "LLM inference traces of Azure: CSV with TIMESTAMP,ContextTokens,GeneratedTokens",
    .cite = "https://github.com/Azure/AzurePublicDataset",
    .state_bytes = sizeof(kv__csv_requests),
    .probe = probe,
    .open = open,
    .next = kv__csv_requests_next,
    .mark = kv__csv_requests_mark,
    .close = kv__csv_requests_close,
};

static int probe(const char *path, const char *head, size_t head_bytes)
{
    static const char header[] = "TIMESTAMP,ContextTokens,GeneratedTokens";
    return strncmp(head, header, sizeof header - 1) == 0 ? 100 : 0;
}

static kv_err open(void *state, const kv_request_env *env, kv_diag *diag)
{
    static const kv__csv_layout layout = {
        .column = {[KV_ROLE_ARRIVAL] = "TIMESTAMP",
                   [KV_ROLE_PROMPT] = "ContextTokens",
                   [KV_ROLE_OUTPUT] = "GeneratedTokens"},
        .unit = KV_UNIT_S,
    };
    kv_err err = kv__csv_requests_header(state, env, diag);
    return err != KV_OK ? err : kv__csv_requests_layout(state, &layout, diag);
}
