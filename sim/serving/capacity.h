/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* How much of a device's memory is left for the KV cache. */
#ifndef KVSIM_SIM_SERVING_CAPACITY_H
#define KVSIM_SIM_SERVING_CAPACITY_H

#include "models/device.h"

/* What the serving section of an experiment says of memory. */
typedef struct kv_capacity_settings {
    double utilization;      /* share of the memory that is used */
    double activation_bytes; /* of a device; <= 0: estimated from step_tokens */
    double reserve_bytes;    /* of a device, for the runtime */
    double step_tokens;      /* of one step */
    double tensor_parallel;  /* devices that share the model */
} kv_capacity_settings;

/* Bytes of one device. */
typedef struct kv_capacity {
    double memory;
    double used;        /* memory times utilization */
    double weights;     /* its part of them */
    double activations; /* residual stream and widest intermediate of all tokens of a step */
    double reserve;
    double room; /* used - weights - activations - reserve; may be below 0 */
} kv_capacity;

void kv_capacity_find(const kv_device *device, const kv_model *model,
                      const kv_capacity_settings *settings, kv_capacity *out);

#endif
