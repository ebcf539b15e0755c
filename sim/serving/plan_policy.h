/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* `serving.policies`: the retention policies of a server, one dimension of the plan's grid.
 * Internal to sim/serving. */
#ifndef KVSIM_SIM_SERVING_PLAN_POLICY_H
#define KVSIM_SIM_SERVING_PLAN_POLICY_H

#include "sim/serving/plan.h"

/* Reads the policies (none: `full`) and multiplies the plan's combinations by them. Every other
 * grid must be there. */
kv_err kv__plan_policies_init(kv_serving_plan *plan, kv_diag *diag) KV_MUST_USE;
/* Takes the policy out of the number of a combination, which becomes one of the other grids. */
const kv_point_spec *kv__plan_policy_pick(const kv_serving_plan *plan, int *combination);
/* Sets what names the policy, and its own chunk size if it has one. */
kv_err kv__plan_policy_name(const kv_point_spec *spec, kv_serving_point *point,
                            kv_diag *diag) KV_MUST_USE;
/* How entries are stored: bytes of n entries are those of share * n + plain_entries plain ones. */
typedef struct kv_stored_line {
    double share;
    double plain_entries; /* per KV head */
} kv_stored_line;

kv_stored_line kv__plan_policy_stored(const kv_point_spec *spec, const kv_model *model);
/* Sets what requests keep, where it is not everything. Model, chunk size and settings are there. */
kv_err kv__plan_policy_keep(const kv_serving_plan *plan, const kv_point_spec *spec,
                            kv_cache_format format, kv_serving_point *point,
                            kv_diag *diag) KV_MUST_USE;
void kv__plan_policy_fini(kv_serving_point *point);

#endif
