/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Devices: memory, bandwidth, peak arithmetic and links of one accelerator.
 *
 * A device is a YAML description (models/catalogue/devices/NAME.yaml; docs/models.md explains every
 * key). Peaks are those of the data sheet without sparsity; what of a peak is reached is the
 * step-time model's business. */
#ifndef KVSIM_MODELS_DEVICE_H
#define KVSIM_MODELS_DEVICE_H

#include "models/model.h"

/* A link, one direction. */
typedef struct kv_link {
    double bandwidth;     /* bytes per second */
    long long latency_ns; /* of one transfer or collective */
} kv_link;

/* A device. Read only for everyone but the parser. */
typedef struct kv_device {
    char *name;
    char *brief;            /* one line; may be NULL */
    long long memory_bytes; /* of one device */
    double bandwidth;       /* of that memory, bytes per second */
    double fp16_tflops;     /* dense peak in tensor cores, 10^12 per second */
    double bf16_tflops;
    double fp8_tflops;            /* 0: the device has none; arithmetic then runs in 16 bits */
    double price_per_hour;        /* of one device, in the user's currency; < 0: not given */
    kv_link host_link;            /* to the host's memory */
    kv_link tensor_parallel_link; /* to the other devices of a tensor-parallel group */
} kv_device;

/* Reads a description. */
kv_err kv_device_parse(const kv_node *node, kv_device **out, kv_diag *diag) KV_MUST_USE;
/* What an experiment's `device:` names: as kv_model_get. */
kv_err kv_device_get(const kv_node *node, kv_device **out, kv_diag *diag) KV_MUST_USE;
/* The same for text from a command line. */
kv_err kv_device_find(const char *text, kv_device **out, kv_diag *diag) KV_MUST_USE;
void kv_device_free(kv_device *device);

extern const kv_param kv_link_params[];   /* of a kv_link */
extern const kv_param kv_device_params[]; /* but for its links */

/* Overrides a link from a mapping {bandwidth, latency}; what the mapping leaves out stays. */
kv_err kv_link_parse(const kv_node *node, kv_link *link, kv_diag *diag) KV_MUST_USE;

/* Dense peak in FLOP per second for operands of that dtype: formats narrower than any the device
 * multiplies run in the narrowest that it does, fp32 weights in bf16. */
double kv_device_flops(const kv_device *device, kv_dtype dtype);

#endif
