/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* What a point is called: all that differs between the points of a plan. Internal to sim/serving.
 */
#ifndef KVSIM_SIM_SERVING_PLAN_LABEL_H
#define KVSIM_SIM_SERVING_PLAN_LABEL_H

#include "sim/serving/plan.h"

/* The combination of one dimension within one of all. */
int kv__plan_part(const kv_serving_plan *plan, int part, int combination);

/* Sets point->label, the rest being there: policy, then each setting that is a list of different
 * values, as "device l40s, max_seqs 64, chunk 512". combination: without the policies. */
kv_err kv__plan_label(const kv_serving_plan *plan, int combination, const kv_point_spec *policy,
                      kv_serving_point *point, kv_diag *diag) KV_MUST_USE;

#endif
