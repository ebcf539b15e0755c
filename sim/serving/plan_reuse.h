/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* The setting `reuse` of the section. Internal to sim/serving. */
#ifndef KVSIM_SIM_SERVING_PLAN_REUSE_H
#define KVSIM_SIM_SERVING_PLAN_REUSE_H

#include "sim/serving/plan.h"

extern const kv_param kv__reuse_params[];

/* Leaves those combinations of the part `reuse` out of grid->count that differ from others only in
 * settings of blending and do not blend; every value of its lists is checked. */
kv_err kv__reuse_collapse(kv_grid *grid, kv_diag *diag) KV_MUST_USE;
/* Which of the whole grid the one of that number is, 0 <= number < count as it is then. */
int kv__reuse_pick(const kv_grid *grid, int number);
/* Whether a combination of the whole grid blends. */
bool kv__reuse_blends(const kv_grid *grid, int combination);
/* A setting that is given although no combination blends; NULL: there is none. */
const char *kv__reuse_idle(const kv_serving_plan *plan);

/* Sets what a point reuses, the rest of its settings being there; refuses what it does not go with.
 */
kv_err kv__plan_reuse(const kv_serving_plan *plan, kv_serving_point *point,
                      kv_diag *diag) KV_MUST_USE;

#endif
