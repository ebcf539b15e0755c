/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* `oracle`: exact top-k beside the policies of an experiment, as the bound that their curves
 * are read against. */
#ifndef KVSIM_SIM_ORACLE_H
#define KVSIM_SIM_ORACLE_H

#include "sim/policy_spec.h"

/* Appends, for each point that keeps a given amount, `topk` that keeps as much, by the same
 * schedule (chunked for patched, which keep alike) and chunk size; and for each point that reads a
 * given amount, the same point with `topk` reading as much. Points that say the same are not yet
 * removed. Where no point has an amount to copy nothing is added; if it was asked for, an error. */
kv_err kv_oracle_add(kv_point_list *points, bool asked_for, kv_diag *diag) KV_MUST_USE;

#endif
