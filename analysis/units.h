/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Reads the stored records of a run, point by point. Internal. */
#ifndef KVSIM_ANALYSIS_UNITS_H
#define KVSIM_ANALYSIS_UNITS_H

#include "analysis/plan.h"

typedef struct kv_units kv_units;

/* Finds the stored examples of a run; all must be there and have the size that the plan says. */
kv_err kv__units_open(kv_run *run, const kv_plan *plan, kv_units **out, kv_diag *diag) KV_MUST_USE;
void kv__units_close(kv_units *units);

/* Fills records[turns + 1] of one example at one point. Cheapest point after point of one example.
 */
kv_err kv__units_read(kv_units *units, int point, int example, kv_record *records,
                      kv_diag *diag) KV_MUST_USE;

#endif
