/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Samples of a point's timeline, held until it ends: evenly spaced, and never more than
 * KV_MOST_SAMPLES of them. Internal to sim/serving. */
#ifndef KVSIM_SIM_SERVING_TIMELINE_H
#define KVSIM_SIM_SERVING_TIMELINE_H

#include "sim/serving/serving.h"
#include "sim/serving/serving_output.h"

/* Zeroed is empty. */
typedef struct kv__timeline {
    kv_serving_sample *sample; /* [room] */
    int count, room;
} kv__timeline;

void kv__timeline_fini(kv__timeline *timeline);
/* Adds a sample. Where the interval has grown, those that it now leaves out are dropped. */
kv_err kv__timeline_add(kv__timeline *timeline, const kv_serving_sample *sample,
                        kv_diag *diag) KV_MUST_USE;
/* Writes a row for the GPU and for each tier below it. */
kv_err kv__timeline_write(const kv__timeline *timeline, const kv_serving_settings *settings,
                          kv__output *out, kv_diag *diag) KV_MUST_USE;
/* Text for a warning that samples are further apart than was asked for; "" if they are not. */
void kv__timeline_warning(const kv__timeline *timeline, const kv_serving_settings *settings,
                          char *out, size_t out_bytes);

#endif
