/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* The critical footprint of one curve. */
#ifndef KVSIM_ANALYSIS_CRITICAL_H
#define KVSIM_ANALYSIS_CRITICAL_H

#include <stdbool.h>

typedef struct kv_sample {
    double footprint;
    double accuracy;
} kv_sample;

typedef enum kv_critical_status {
    KV_CRITICAL_OK,     /* the curve crosses the target */
    KV_CRITICAL_ALWAYS, /* every point is at or above it */
    KV_CRITICAL_NEVER   /* every point is below it */
} kv_critical_status;

typedef struct kv_critical {
    kv_critical_status status;
    double last_crossing;  /* nearest the small end: the critical footprint; NaN unless OK */
    double first_crossing; /* nearest the large end; NaN unless OK */
    double smallest;       /* footprints of the curve's ends: bounds where it does not cross */
    double largest;
} kv_critical;

/* "ok", "always", "never": as the database has them. */
const char *kv_critical_status_name(kv_critical_status status);

/* Finds where a curve crosses a target accuracy, by linear interpolation between neighbouring
 * points; on the target counts as above it. Samples may come in any order and are sorted in place;
 * those with a NaN are left out, those of equal footprint become one with their mean accuracy.
 * False if nothing is left. */
bool kv_critical_find(kv_sample *samples, int count, double target, kv_critical *out);

#endif
