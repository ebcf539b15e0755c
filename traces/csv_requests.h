/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Requests that are rows of a CSV file: what the CSV formats share. */
#ifndef KVSIM_TRACES_CSV_REQUESTS_H
#define KVSIM_TRACES_CSV_REQUESTS_H

#include "sim/base/csv.h"
#include "traces/request_format.h"

/* What a column may mean. */
typedef enum kv__role {
    KV_ROLE_ARRIVAL,
    KV_ROLE_PROMPT,
    KV_ROLE_OUTPUT,
    KV_ROLE_SESSION,
    KV_ROLE_TURN,
    KV_ROLE_TENANT,
    KV_ROLE_THINK,
    KV_ROLE_BLOCKS,
    KV_ROLE_BLOCK_TOKENS,
    KV_ROLES
} kv__role;

/* Which columns a format has and how to read them. */
typedef struct kv__csv_layout {
    const char *column[KV_ROLES]; /* name; NULL: none */
    bool optional[KV_ROLES];      /* the column may be absent */
    int unit;                     /* of times that are numbers: KV_UNIT_* of traces/field.h */
    int32_t block_tokens;
} kv__csv_layout;

/* The state of a CSV format. */
typedef struct kv__csv_requests {
    kv_request_env env;
    kv_csv *csv;
    int column[KV_ROLES]; /* number, -1: none */
    int unit;
    int32_t block_tokens;
    uint64_t *blocks; /* [blocks_allocated] of the current row */
    int32_t blocks_allocated;
} kv__csv_requests;

/* The header was not read yet: a layout that depends on it calls kv__csv_requests_header first. */
kv_err kv__csv_requests_header(kv__csv_requests *state, const kv_request_env *env,
                               kv_diag *diag) KV_MUST_USE;
/* "a, b, c": the columns of the header, for messages. */
void kv__csv_requests_list(const kv__csv_requests *state, char *out, size_t out_bytes);
kv_err kv__csv_requests_layout(kv__csv_requests *state, const kv__csv_layout *layout,
                               kv_diag *diag) KV_MUST_USE;

/* Slots of kv_request_format. */
kv_err kv__csv_requests_next(void *state, kv_request *out, kv_diag *diag) KV_MUST_USE;
kv_mark kv__csv_requests_mark(const void *state);
void kv__csv_requests_close(void *state);

#endif
