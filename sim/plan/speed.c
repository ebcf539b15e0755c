/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "sim/plan/speed.h"

enum { ROUNDING_NS = 16 };

/* An arrival that waited for an answer must not come before it by a rounding error. */
static int64_t faster(const kv_speed *s, int64_t ns)
{
    int64_t scaled = (int64_t)((double)ns / s->speed);
    return scaled < s->end_ns && s->end_ns - scaled < ROUNDING_NS ? s->end_ns : scaled;
}

static kv_err next_of_speed(void *closure, kv_request *out, kv_diag *diag)
{
    kv_speed *s = closure;
    kv_err err = kv_request_next(s->reader, out, diag);
    if (err == KV_OK)
        out->arrival_ns = faster(s, out->arrival_ns);
    return err;
}

static kv_err peek_of_speed(void *closure, int64_t *arrival_ns, kv_diag *diag)
{
    kv_speed *s = closure;
    kv_err err = kv_request_peek(s->reader, arrival_ns, diag);
    if (err == KV_OK)
        *arrival_ns = faster(s, *arrival_ns);
    return err;
}

static void completed_of_speed(void *closure, uint64_t session, int32_t turn, int64_t end_ns)
{
    kv_speed *s = closure;
    s->end_ns = end_ns;
    kv_request_completed(s->reader, session, turn, (int64_t)((double)end_ns * s->speed));
}

kv_serving_source kv__speed_source(kv_speed *speed)
{
    return (kv_serving_source){speed, next_of_speed, peek_of_speed, completed_of_speed};
}
