/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* From the stored examples of a run to its result tables. Internal. */
#ifndef KVSIM_ANALYSIS_FINISH_H
#define KVSIM_ANALYSIS_FINISH_H

#include "analysis/plan.h"

/* Writes the result tables; every example must be stored. May be called again after a kill. */
kv_err kv__finish(kv_run *run, const kv_plan *plan, kv_diag *diag) KV_MUST_USE;

#endif
