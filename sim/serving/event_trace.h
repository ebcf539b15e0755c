/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* A trace of events in the format of Chrome's about:tracing and of Perfetto: steps of the replicas
 * as slices, requests as asynchronous slices from arrival to last token. */
#ifndef KVSIM_SIM_SERVING_EVENT_TRACE_H
#define KVSIM_SIM_SERVING_EVENT_TRACE_H

#include "sim/serving/serving.h"

#include <stdio.h>

typedef struct kv_event_trace {
    FILE *file; /* NULL: nothing is written */
    const char *path;
    int64_t start_ns, end_ns; /* what overlaps this window is shown */
    bool any;
} kv_event_trace;

kv_err kv_event_trace_open(kv_event_trace *trace, const char *path, int64_t start_ns,
                           int64_t duration_ns, kv_diag *diag) KV_MUST_USE;
void kv_event_trace_span(kv_event_trace *trace, const kv_serving_span *span);
/* Within its request: what it computed was lost, or lies in a lower tier, until it is admitted
 * again. */
void kv_event_trace_pause(kv_event_trace *trace, const kv_serving_pause *pause);
void kv_event_trace_request(kv_event_trace *trace, const kv_request_outcome *outcome);
/* Ends the file. A file that could not be written in full is an error. */
kv_err kv_event_trace_close(kv_event_trace *trace, kv_diag *diag) KV_MUST_USE;

#endif
