/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* What `kvsim trace` asks of each kind of trace. A new kind is one file, sim/commands/trace_NAME.c,
 * that defines kv__trace_NAME, its declaration here and one line in the table of trace.c. */
#ifndef KVSIM_SIM_COMMANDS_TRACE_H
#define KVSIM_SIM_COMMANDS_TRACE_H

#include "sim/base/diag.h"

#include <stdbool.h>
#include <stdio.h>

enum { KV_TRACE_MOST_SETTINGS = 64, KV_TRACE_MOST_POLICIES = 15 };

/* What the command line said. */
typedef struct kv_trace_options {
    bool json;              /* info: one JSON object in one line per file */
    bool quiet;             /* no progress */
    const char *format;     /* of request traces; NULL: found by looking */
    const char *output;     /* file to write; NULL: none was named */
    const char *to;         /* format to write; NULL: found by the name of the output */
    const char *like;       /* synth: the trace to resemble; NULL: none */
    const char *lru_blocks; /* info: size of the caches to replay; NULL: none */
    const char *replacement[KV_TRACE_MOST_POLICIES]; /* info: policies of caches beside lru */
    int replacements;
    const char *setting[KV_TRACE_MOST_SETTINGS]; /* NAME=VALUE */
    int settings;
} kv_trace_options;

typedef struct kv_trace_kind {
    const char *name;
    /* Is this file of this kind? Looks at the beginning of the file, or at its name, only. */
    bool (*probe)(const char *path);
    /* Writes what the file holds. */
    kv_err (*info)(const char *path, const kv_trace_options *options, FILE *out, kv_diag *diag);
    /* Reads all of the file; fails at the first place that is wrong, else writes one line. */
    kv_err (*verify)(const char *path, const kv_trace_options *options, FILE *out, kv_diag *diag);
} kv_trace_kind;

extern const kv_trace_kind kv__trace_attention;
extern const kv_trace_kind kv__trace_requests;

#endif
