/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "models/catalogue.h"
#include "models/device.h"

#include <math.h>
#include <stdlib.h>

#define ROW(of, key, row_type, field, text, low, row_flags, what, words)                           \
    {                                                                                              \
        .name = key, .type = row_type, .offset = offsetof(of, field), .fallback = text,            \
        .min = low, .max = INFINITY, .flags = row_flags, .unit = what, .help = words               \
    }
#define END                                                                                        \
    {                                                                                              \
        .name = NULL                                                                               \
    }

const kv_param kv_device_params[] = {
    {.name = "name",
     .type = KV_TEXT,
     .offset = offsetof(kv_device, name),
     .flags = KV_PARAM_REQUIRED,
     .unit = "",
     .help = "what the device is called"},
    {.name = "brief",
     .type = KV_TEXT,
     .offset = offsetof(kv_device, brief),
     .unit = "",
     .help = "one line about the device"},
    ROW(kv_device, "memory", KV_BYTES, memory_bytes, NULL, 1, KV_PARAM_REQUIRED, "bytes",
        "memory of one device"),
    ROW(kv_device, "bandwidth", KV_RATE, bandwidth, NULL, 1, KV_PARAM_REQUIRED, "bytes per second",
        "bandwidth of that memory"),
    ROW(kv_device, "fp16_tflops", KV_REAL, fp16_tflops, NULL, 0,
        KV_PARAM_REQUIRED | KV_PARAM_OPEN_MIN, "TFLOP per second", "dense FP16 peak"),
    ROW(kv_device, "bf16_tflops", KV_REAL, bf16_tflops, NULL, 0,
        KV_PARAM_REQUIRED | KV_PARAM_OPEN_MIN, "TFLOP per second", "dense BF16 peak"),
    ROW(kv_device, "fp8_tflops", KV_REAL, fp8_tflops, "0", 0, 0, "TFLOP per second",
        "dense FP8 peak; 0: it has no FP8"),
    ROW(kv_device, "price_per_hour", KV_REAL, price_per_hour, NULL, 0, 0, "",
        "what one device costs for an hour, in your currency"),
    END};

const kv_param kv_link_params[] = {ROW(kv_link, "bandwidth", KV_RATE, bandwidth, NULL, 1, 0,
                                       "bytes per second", "in one direction"),
                                   ROW(kv_link, "latency", KV_DURATION, latency_ns, "0ns", 0, 0,
                                       "time", "of one transfer or collective"),
                                   END};

kv_err kv_link_parse(const kv_node *node, kv_link *link, kv_diag *diag)
{
    kv_link changed = *link;
    kv_err err = kv_params_parse(kv_link_params, &changed, node, NULL, diag);
    if (err == KV_OK)
        *link = changed;
    return err;
}

/* A link that the description must have. */
static kv_err need_link(const kv_node *root, const char *key, kv_link *link, kv_diag *diag)
{
    const kv_node *node = kv_node_find(root, key);
    kv_mark mark = kv_node_mark(node != NULL ? node : root);
    kv_err err = node == NULL ? KV_OK : kv_link_parse(node, link, diag);
    if (err == KV_OK && link->bandwidth <= 0)
        err = kv_fail(diag, KV_ERR_INPUT, &mark,
                      "%s is missing or has no bandwidth; expected {bandwidth: 64GB/s, latency: "
                      "5us}",
                      key);
    return err;
}

static kv_err parse_into(const kv_node *root, kv_device *d, kv_diag *diag)
{
    static const char *const also[] = {"host_link", "tensor_parallel_link", NULL};
    kv_err err = kv_params_default(kv_device_params, d, diag);
    if (err == KV_OK)
        err = kv_params_parse(kv_device_params, d, root, also, diag);
    if (err == KV_OK)
        err = need_link(root, "host_link", &d->host_link, diag);
    if (err == KV_OK)
        err = need_link(root, "tensor_parallel_link", &d->tensor_parallel_link, diag);
    return err;
}

kv_err kv_device_parse(const kv_node *node, kv_device **out, kv_diag *diag)
{
    kv_device *d = calloc(1, sizeof *d);
    if (d == NULL)
        return kv_fail_memory(diag);
    kv_err err = parse_into(node, d, diag);
    if (err == KV_OK)
        *out = d;
    else
        kv_device_free(d);
    return err;
}

kv_err kv_device_get(const kv_node *node, kv_device **out, kv_diag *diag)
{
    const kv_node *description;
    kv_document *owned;
    kv_err err = kv_catalogue_node(KV_SHELF_DEVICES, node, &description, &owned, diag);
    if (err == KV_OK)
        err = kv_device_parse(description, out, diag);
    kv_document_free(owned);
    return err;
}

kv_err kv_device_find(const char *text, kv_device **out, kv_diag *diag)
{
    kv_document *document = NULL;
    kv_err err = kv_catalogue_read(KV_SHELF_DEVICES, text, NULL, &document, diag);
    if (err == KV_OK)
        err = kv_device_parse(kv_document_root(document), out, diag);
    kv_document_free(document);
    return err;
}

void kv_device_free(kv_device *device)
{
    if (device == NULL)
        return;
    kv_params_fini(kv_device_params, device);
    free(device);
}

double kv_device_flops(const kv_device *device, kv_dtype dtype)
{
    double tflops = dtype == KV_DTYPE_FP16                                ? device->fp16_tflops
                    : kv_dtype_bits(dtype) <= 8 && device->fp8_tflops > 0 ? device->fp8_tflops
                                                                          : device->bf16_tflops;
    return tflops * 1e12;
}
