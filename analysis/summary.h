/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* The table that a run ends with: critical footprints per task, policy and chunk size. */
#ifndef KVSIM_ANALYSIS_SUMMARY_H
#define KVSIM_ANALYSIS_SUMMARY_H

#include "analysis/curves.h"

#include <stdio.h>

/* The least width that a summary is laid out for; narrower ones are taken as this. */
enum { KV_SUMMARY_LEAST_WIDTH = 40 };

/* Writes the table, no line longer than `width` columns. */
kv_err kv_summary_write(const kv_curves *curves, int width, FILE *out, kv_diag *diag) KV_MUST_USE;

/* One cell of it, in percent: "12.4 (11.0-13.9)", "<= 5.1", "> 70.3" or "-" if nothing is known.
 * An open end of an interval is "<" or "+" and the end of the curve. */
void kv_critical_text(const kv_curve *curve, char out[64]);

#endif
