/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* kvsim trace synth and convert: read or make requests, and write them. */
#include "config.h"

#include "sim/commands/trace_requests.h"
#include "traces/request_writer.h"

#include <stdio.h>

/* What of the requests not every format holds. */
typedef struct written {
    bool follow; /* turns that follow others after a think time */
    bool agents; /* sub-agents */
} written;

static kv_err copy_requests(kv_request_reader *reader, kv_request_writer *writer, written *what,
                            kv_diag *diag)
{
    kv_request request;
    kv_err err = KV_OK;
    while (err == KV_OK && (err = kv_request_next(reader, &request, diag)) == KV_OK) {
        what->follow |= request.think_time_ns >= 0 && request.after_turn >= 0;
        what->agents |= request.agent > 0;
        err = kv_request_write(writer, &request, kv_request_tenant(reader, request.tenant), diag);
        kv_request_completed(reader, request.session, request.turn, request.arrival_ns);
    }
    return err == KV_END ? KV_OK : err;
}

/* What becomes of the closed loop of sessions. */
static void tell_of_sessions(const written *what, const kv_request_writer *writer,
                             const char *output, const kv_trace_options *o)
{
    const kv_request_format *format = kv_request_writer_format(writer);
    bool loops = kv_param_find(format->params, "loop") != NULL;
    if (o->quiet || !what->follow)
        return;
    if (loops)
        fprintf(
            stderr,
            "kvsim: %s: arrivals are those of the open loop; think times are beside them, `loop: "
            "closed` replays them\n",
            output);
    else
        fprintf(stderr,
                "kvsim: %s: %s replays sessions in the open loop only%s; the format mooncake keeps "
                "the closed loop\n",
                output, format->name, what->agents ? " and holds no sub-agents" : "");
}

static kv_err write_trace(const kv_request_spec *spec, const char *output,
                          const kv_trace_options *o, kv_diag *diag)
{
    kv_request_reader *reader = NULL;
    kv_request_writer *writer = NULL;
    written what = {false, false};
    kv_err err = kv_request_open(spec, &reader, diag);
    if (err == KV_OK)
        err = kv_request_writer_open(output, o->to, &writer, diag);
    if (err == KV_OK)
        err = copy_requests(reader, writer, &what, diag);
    if (err == KV_OK && kv_request_get_counts(reader)->requests == 0)
        err = kv_fail(diag, KV_ERR_INPUT, &(kv_mark){spec->path, 0, 0}, "holds no requests");
    if (err == KV_OK)
        tell_of_sessions(&what, writer, output, o);
    kv_err closing = kv_request_writer_close(writer, err == KV_OK, diag);
    if (err == KV_OK && closing == KV_OK)
        kv__trace_warn_of_skips(reader, spec->path != NULL ? spec->path : spec->format->name, o);
    kv_request_close(reader);
    return err != KV_OK ? err : closing;
}

/* The output is the last argument or -o, not both; none is standard output. */
static kv_err find_output(const char *argument, const kv_trace_options *o, const char **out,
                          kv_diag *diag)
{
    if (argument != NULL && o->output != NULL)
        return kv_fail(diag, KV_ERR_INPUT, NULL, "two outputs: %s and --output=%s", argument,
                       o->output);
    *out = argument != NULL ? argument : o->output != NULL ? o->output : "-";
    return KV_OK;
}

/* Whether a trace has sessions, by its first requests. */
static kv_err has_sessions(const char *path, const kv_trace_options *o, bool *out, kv_diag *diag)
{
    enum { LOOKED_AT = 1000 };
    kv_trace_options alone = {.quiet = true, .format = o->format};
    kv_request_spec spec = {0};
    kv_request_reader *reader = NULL;
    kv_request request;
    kv_err err = kv__trace_request_spec(path, o->format, &alone, &spec, diag);
    if (err == KV_OK)
        spec.options.arrivals = KV_ARRIVALS_IF_RECORDED;
    if (err == KV_OK)
        err = kv_request_open(&spec, &reader, diag);
    *out = false;
    for (int i = 0; err == KV_OK && i < LOOKED_AT && !*out; i++) {
        err = kv_request_next(reader, &request, diag);
        *out = err == KV_OK && request.session != KV_NO_SESSION;
        if (err == KV_OK)
            kv_request_completed(reader, request.session, request.turn, request.arrival_ns);
    }
    kv_request_close(reader);
    kv_request_spec_fini(&spec);
    return err == KV_END ? KV_OK : err;
}

/* What a trace that is like another has not kept of it. A trace that cannot be looked at has made
 * no likeness either. */
static void tell_of_likeness(const char *output, const kv_trace_options *o)
{
    kv_diag ignored = {0};
    bool sessions = false;
    if (!o->quiet && has_sessions(o->like, o, &sessions, &ignored) == KV_OK && sessions)
        fprintf(stderr,
                "kvsim: %s: sessions of %s are not kept: its lengths, shared prefixes, rate and "
                "burstiness are\n",
                output, o->like);
}

kv_err kv__trace_synth(char **arguments, const kv_trace_options *o, kv_diag *diag)
{
    kv_request_spec spec = {0};
    const char *output = NULL;
    kv_err err = find_output(arguments[0], o, &output, diag);
    if (err == KV_OK && o->like != NULL)
        err = kv__trace_request_spec(o->like, "resample", o, &spec, diag);
    else if (err == KV_OK)
        err = kv__trace_request_spec(NULL, o->format != NULL ? o->format : "synth", o, &spec, diag);
    if (err == KV_OK && o->like != NULL && o->format != NULL)
        err = kv_request_spec_set(&spec, "of", o->format, NULL, diag);
    if (err == KV_OK)
        err = write_trace(&spec, output, o, diag);
    if (err == KV_OK && o->like != NULL)
        tell_of_likeness(output, o);
    kv_request_spec_fini(&spec);
    return err;
}

kv_err kv__trace_convert(char **arguments, const kv_trace_options *o, kv_diag *diag)
{
    kv_request_spec spec = {0};
    const char *output = NULL;
    kv_err err = find_output(arguments[1], o, &output, diag);
    if (err == KV_OK)
        err = kv__trace_request_spec(arguments[0], o->format, o, &spec, diag);
    if (err == KV_OK)
        err = write_trace(&spec, output, o, diag);
    kv_request_spec_fini(&spec);
    return err;
}
