/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* The setting `reuse` of the section. Internal to sim/serving. */
#ifndef KVSIM_SIM_SERVING_PLAN_REUSE_H
#define KVSIM_SIM_SERVING_PLAN_REUSE_H

#include "sim/serving/plan.h"

extern const kv_param kv__reuse_params[];

/* Sets what a point reuses, the rest of its settings being there; refuses what it does not go with.
 */
kv_err kv__plan_reuse(const kv_serving_plan *plan, kv_serving_point *point,
                      kv_diag *diag) KV_MUST_USE;

#endif
