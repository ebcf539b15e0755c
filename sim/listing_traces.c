/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "sim/listing.h"
#include "traces/request.h"
#include "traces/session.h"

static kv_err visit_traces(kv_list_show *show, void *closure, kv_diag *diag)
{
    const kv_fact documented[] = {{"format", "HDF5, docs/trace-format.md"}};
    const kv_listed attention = {.name = "attention",
                                 .group = "attention",
                                 .brief = "recorded attention of a model",
                                 .facts = documented,
                                 .fact_count = 1};
    const kv_listed requests = {.name = "requests",
                                .group = "requests",
                                .brief = "settings that every request trace takes",
                                .params = kv_request_params};
    const kv_listed sessions = {
        .name = "sessions",
        .group = "requests",
        .brief = "settings of formats with sessions: coding-agent, sharegpt, synth",
        .params = kv__session_params};
    show(closure, &attention);
    show(closure, &requests);
    show(closure, &sessions);
    for (const kv_request_format *const *f = kv_request_format_all(); *f != NULL; f++) {
        const kv_fact facts[] = {{"source", (*f)->cite}};
        const kv_listed item = {.name = (*f)->name,
                                .group = "requests",
                                .brief = (*f)->brief,
                                .facts = facts,
                                .fact_count = 1,
                                .params = (*f)->params,
                                .columns = (*f)->columns};
        show(closure, &item);
    }
    return KV_OK;
}

const kv_list_kind kv__list_traces = {
    .name = "traces",
    .brief = "what is replayed: formats of recorded attention and of request traces",
    .visit = visit_traces,
};
