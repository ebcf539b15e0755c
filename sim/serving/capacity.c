/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "sim/serving/capacity.h"

static double activations_of(const kv_model *model, double tokens)
{
    long long dense = model->mlp.intermediate_size, routed = model->moe.intermediate_size;
    double width =
        4.0 * (double)model->hidden_size + 2.0 * (double)(dense > routed ? dense : routed);
    return tokens * width * kv_dtype_bits((kv_dtype)model->dtype) / 8;
}

void kv_capacity_find(const kv_device *device, const kv_model *model,
                      const kv_capacity_settings *settings, kv_capacity *out)
{
    out->memory = (double)device->memory_bytes;
    out->used = out->memory * settings->utilization;
    out->weights = kv_model_weight_bytes(model) / settings->tensor_parallel;
    out->activations = settings->activation_bytes > 0
                           ? settings->activation_bytes
                           : activations_of(model, settings->step_tokens);
    out->reserve = settings->reserve_bytes;
    out->room = out->used - out->weights - out->activations - out->reserve;
}
