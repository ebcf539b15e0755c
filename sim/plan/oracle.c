/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* The oracle of a plan: the serving replay of one candidate. */
#include "config.h"

#include "sim/plan/candidate.h"
#include "sim/plan/speed.h"
#include "sim/serving/serving_run.h"

#include <math.h>

kv_err kv__plan_replay(void *closure, const kv_candidate *c, kv_plan_sample *s, kv_diag *diag)
{
    (void)closure;
    kv_request_reader *reader;
    kv_serving_point point = c->point; /* shares everything but its settings */
    int64_t last_ns = 0;
    double blocks = floor((double)point.settings.kv_blocks * s->blocks);
    point.settings.kv_blocks = blocks < 1 ? 1 : (int64_t)blocks;
    point.settings.replicas = s->replicas;
    kv_err err = kv_request_open(&point.requests, &reader, diag);
    if (err != KV_OK)
        return err;
    kv_speed speed = {reader, s->speed, 0};
    kv_serving_source source = s->speed == 1 ? kv_serving_reader(reader) : kv__speed_source(&speed);
    err = kv_serving_probe(&point, &source, &s->measures.row, &last_ns, diag);
    kv_request_close(reader);
    double span = (double)last_ns * 1e-9;
    s->rate = span > 0 ? (double)(s->measures.row.requests - 1) / span : NAN;
    return err;
}
