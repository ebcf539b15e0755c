/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* `serving.requests`: the trace and its settings, one dimension of the plan's grid. Internal to
 * sim/serving. */
#ifndef KVSIM_SIM_SERVING_PLAN_REQUESTS_H
#define KVSIM_SIM_SERVING_PLAN_REQUESTS_H

#include "sim/serving/plan.h"

/* Reads the first combination into plan->requests, and checks which settings are lists. The grid of
 * the mapping is there. */
kv_err kv__plan_requests_init(kv_serving_plan *plan, kv_diag *diag) KV_MUST_USE;
/* The trace as one combination of the mapping's own grid has it; kv_request_spec_fini in any case.
 */
kv_err kv__plan_requests_pick(const kv_serving_plan *plan, int combination, kv_request_spec *out,
                              kv_diag *diag) KV_MUST_USE;
/* Standard input, pipes and the like are gone once they were read. */
bool kv__plan_requests_once(const kv_serving_plan *plan);
/* A point whose policies look ahead needs requests that can be read twice. */
kv_err kv__plan_requests_twice(const kv_serving_plan *plan, const kv_serving_point *point,
                               kv_diag *diag) KV_MUST_USE;
/* Writes format and settings as one JSON object, what is absent left out. */
void kv__plan_requests_json(const kv_request_spec *spec, FILE *out);

#endif
