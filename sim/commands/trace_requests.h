/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* What the subcommands of kvsim trace that are about requests share. */
#ifndef KVSIM_SIM_COMMANDS_TRACE_REQUESTS_H
#define KVSIM_SIM_COMMANDS_TRACE_REQUESTS_H

#include "sim/commands/trace.h"
#include "traces/request.h"

/* Fills a zeroed spec from a path (or NULL), a format (NULL: found by looking) and the settings of
 * the command line. kv_request_spec_fini in any case. */
kv_err kv__trace_request_spec(const char *path, const char *format, const kv_trace_options *options,
                              kv_request_spec *spec, kv_diag *diag) KV_MUST_USE;

/* Says on stderr how many rows a reader skipped, if any, unless --quiet. */
void kv__trace_warn_of_skips(const kv_request_reader *reader, const char *path,
                             const kv_trace_options *options);

/* Subcommands that take all arguments together; those end with NULL. */
kv_err kv__trace_synth(char **arguments, const kv_trace_options *options,
                       kv_diag *diag) KV_MUST_USE;
kv_err kv__trace_convert(char **arguments, const kv_trace_options *options,
                         kv_diag *diag) KV_MUST_USE;

#endif
