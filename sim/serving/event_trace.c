/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "sim/serving/event_trace.h"

#include <errno.h>
#include <string.h>

kv_err kv_event_trace_open(kv_event_trace *trace, const char *path, int64_t start_ns,
                           int64_t duration_ns, kv_diag *diag)
{
    *trace = (kv_event_trace){.path = path, .start_ns = start_ns, .end_ns = start_ns + duration_ns};
    trace->file = fopen(path, "w");
    kv_mark mark = {path, 0, 0};
    if (trace->file == NULL)
        return kv_fail(diag, KV_ERR_IO, &mark, "cannot be written: %s", strerror(errno));
    fputs("{\"displayTimeUnit\":\"ms\",\"traceEvents\":[", trace->file);
    return KV_OK;
}

static bool shown(const kv_event_trace *trace, int64_t from_ns, int64_t to_ns)
{
    return trace->file != NULL && to_ns >= trace->start_ns && from_ns < trace->end_ns;
}

/* Begins an event; ts is in microseconds. */
static void begin(kv_event_trace *trace, const char *phase, int process, int64_t time_ns)
{
    fprintf(trace->file, "%s\n{\"ph\":\"%s\",\"pid\":%d,\"ts\":%lld.%03d", trace->any ? "," : "",
            phase, process, (long long)(time_ns / 1000), (int)(time_ns % 1000));
    trace->any = true;
}

void kv_event_trace_span(kv_event_trace *trace, const kv_serving_span *span)
{
    if (!shown(trace, span->start_ns, span->end_ns))
        return;
    int64_t duration = span->end_ns - span->start_ns;
    begin(trace, "X", span->replica, span->start_ns);
    fprintf(trace->file,
            ",\"tid\":0,\"dur\":%lld.%03d,\"name\":\"%s\",\"args\":{\"steps\":%lld,"
            "\"prefill_tokens\":%lld,\"decodes\":%lld}}",
            (long long)(duration / 1000), (int)(duration % 1000),
            span->prefill_tokens > 0 ? "prefill" : "decode", (long long)span->steps,
            (long long)span->prefill_tokens, (long long)span->decodes);
}

/* An asynchronous slice of a request; viewers nest those of one request by their times. */
static void slice(kv_event_trace *trace, int64_t number, int replica, const char *name,
                  int64_t from_ns, int64_t to_ns)
{
    const char *const phase[] = {"b", "e"};
    const int64_t time[] = {from_ns, to_ns};
    for (int i = 0; i < 2; i++) {
        begin(trace, phase[i], replica, time[i]);
        fprintf(trace->file, ",\"cat\":\"request\",\"id\":%lld,\"name\":\"%s\"}", (long long)number,
                name);
    }
}

void kv_event_trace_pause(kv_event_trace *trace, const kv_serving_pause *pause)
{
    if (shown(trace, pause->start_ns, pause->end_ns))
        slice(trace, pause->number, pause->replica, "preempted", pause->start_ns, pause->end_ns);
}

void kv_event_trace_request(kv_event_trace *trace, const kv_request_outcome *outcome)
{
    int64_t arrival = outcome->arrival_ns, end = arrival + outcome->e2e_ns;
    if (outcome->status != KV_REQUEST_COMPLETED || !shown(trace, arrival, end))
        return;
    int64_t admitted = arrival + outcome->queue_ns;
    int64_t first = outcome->ttft_ns >= 0 ? arrival + outcome->ttft_ns : end;
    const struct {
        const char *name;
        int64_t from_ns, to_ns;
    } slices[] = {{"request", arrival, end},
                  {"queue", arrival, admitted},
                  {"prefill", admitted, first},
                  {"decode", first, end}};
    for (size_t i = 0; i < sizeof slices / sizeof *slices; i++)
        slice(trace, outcome->number, outcome->replica, slices[i].name, slices[i].from_ns,
              slices[i].to_ns);
}

kv_err kv_event_trace_close(kv_event_trace *trace, kv_diag *diag)
{
    if (trace->file == NULL)
        return KV_OK;
    fputs("\n]}\n", trace->file);
    bool failed = ferror(trace->file) != 0;
    failed = fclose(trace->file) != 0 || failed;
    trace->file = NULL;
    kv_mark mark = {trace->path, 0, 0};
    return failed ? kv_fail(diag, KV_ERR_IO, &mark, "could not be written in full") : KV_OK;
}
