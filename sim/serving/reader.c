/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* A request trace as a source of requests. */
#include "config.h"

#include "sim/serving/serving.h"

static kv_err next_of_reader(void *closure, kv_request *out, kv_diag *diag)
{
    return kv_request_next(closure, out, diag);
}

static kv_err peek_of_reader(void *closure, int64_t *arrival_ns, kv_diag *diag)
{
    return kv_request_peek(closure, arrival_ns, diag);
}

static void completed_of_reader(void *closure, uint64_t session, int32_t turn, int64_t end_ns)
{
    kv_request_completed(closure, session, turn, end_ns);
}

kv_serving_source kv_serving_reader(kv_request_reader *reader)
{
    return (kv_serving_source){reader, next_of_reader, peek_of_reader, completed_of_reader};
}
