/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* What request formats are given, and what they share. */
#ifndef KVSIM_TRACES_REQUEST_FORMAT_H
#define KVSIM_TRACES_REQUEST_FORMAT_H

#include "traces/request.h"
#include "traces/text.h"

/* Names of tenants, numbered as they appear. At most KV_TENANTS_MOST. */
typedef struct kv__tenants kv__tenants;
enum { KV_TENANTS_MOST = 65536 };

struct kv_request_env {
    const char *path;                  /* NULL for a format that reads no file */
    const void *config;                /* the format's settings */
    const kv_request_options *options; /* what applies to any format is done by the reader */
    kv__text *text;                    /* the open file; NULL if the format opens files itself */
    kv__tenants *tenants;
    int64_t *assumed; /* the format adds one per request that it had to assume something of */
};

/* The number of a tenant; the first one seen is 0. Above KV_TENANTS_MOST an error at mark. */
kv_err kv__tenant_number(kv__tenants *tenants, const char *name, const kv_mark *mark, int32_t *out,
                         kv_diag *diag) KV_MUST_USE;

/* A request with nothing known but where blocks and sessions are absent. */
extern const kv_request kv__request_blank;

#endif
