/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* What sections of the report on footprints share. Internal. */
#ifndef KVSIM_ANALYSIS_REPORT_CURVES_H
#define KVSIM_ANALYSIS_REPORT_CURVES_H

#include "analysis/curves.h"
#include "analysis/report.h"

/* The curves of the report's run; KV_END if it has no points. */
kv_err kv__report_curves(const kv_report *report, kv_curves **out, kv_diag *diag) KV_MUST_USE;

#endif
