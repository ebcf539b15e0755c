/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "models/step_time.h"

#include <math.h>
#include <stdlib.h>

static const char *const model_names[] = {"roofline", "table", NULL};
static const kv_step_time_type *const types[] = {&kv__step_time_roofline, &kv__step_time_table};

#define FIELD(f) offsetof(kv_step_time_config, f)
const kv_param kv_step_time_params[] = {
    {"model", KV_CHOICE, FIELD(model), "roofline", 0, 0, model_names, 0, "",
     "Where step times come from: the shapes and the device, or measured kernel times"},
    {"path", KV_PATH, FIELD(path), NULL, 0, 0, NULL, 0, "",
     "Of a table: folder with dense.csv, per_sequence.csv and attention.csv"},
    {"step_overhead", KV_DURATION, FIELD(step_overhead_ns), "0s", 0, INFINITY, NULL, KV_PARAM_SWEEP,
     "", "Work of the host between steps that kernel times leave out"},
    {"kernel_scale", KV_REAL, FIELD(kernel_scale), "1", 0.01, 100, NULL, KV_PARAM_SWEEP, "ratio",
     "Of a table: kernel times in the server over those in the table"},
    {"compute_efficiency", KV_REAL, FIELD(compute_efficiency), "0.6", 0, 1, NULL,
     KV_PARAM_SWEEP | KV_PARAM_OPEN_MIN, "fraction",
     "Of a roofline: share of peak arithmetic that matrix products reach"},
    {"attention_efficiency", KV_REAL, FIELD(attention_efficiency), "0.4", 0, 1, NULL,
     KV_PARAM_SWEEP | KV_PARAM_OPEN_MIN, "fraction",
     "Of a roofline: share of peak arithmetic that prefill attention reaches"},
    {"memory_efficiency", KV_REAL, FIELD(memory_efficiency), "0.8", 0, 1, NULL,
     KV_PARAM_SWEEP | KV_PARAM_OPEN_MIN, "fraction",
     "Of a roofline: share of peak memory bandwidth that is reached"},
    {"layer_overhead", KV_DURATION, FIELD(layer_overhead_ns), "5us", 0, INFINITY, NULL,
     KV_PARAM_SWEEP, "", "Of a roofline: launches and small kernels, per layer and step"},
    {.name = NULL},
};
#undef FIELD

struct kv_step_time {
    const kv_step_time_type *type;
    void *state;
    kv_fine overhead;
};

kv_fine kv__fine(double nanoseconds)
{
    double fine = ldexp(nanoseconds, KV_FINE_BITS), most = ldexp(1, 63 + KV_FINE_BITS);
    if (fabs(fine) < 0x1p62)
        return llround(fine);
    return fine < most ? fine > -most ? (kv_fine)fine : -(kv_fine)most : (kv_fine)most;
}

kv_err kv_step_time_new(const kv_step_time_config *config, const kv_step_hardware *hardware,
                        kv_step_time **out, kv_diag *diag)
{
    kv_step_time *made = calloc(1, sizeof *made);
    if (made == NULL)
        return kv_fail_memory(diag);
    made->type = types[config->model];
    made->overhead = config->step_overhead_ns * ((kv_fine)1 << KV_FINE_BITS);
    kv_err err = made->type->open(config, hardware, &made->state, diag);
    if (err != KV_OK) {
        free(made);
        return err;
    }
    *out = made;
    return KV_OK;
}

void kv_step_time_free(kv_step_time *time)
{
    if (time == NULL)
        return;
    time->type->close(time->state);
    free(time);
}

void kv_step_time_ramp(const kv_step_time *time, const kv_step_batch *batch, kv_step_ramp *out)
{
    const kv_fine most = (kv_fine)1 << 62;
    time->type->ramp(time->state, batch, out);
    out->first += time->overhead;
    if (out->slope >= most || out->slope <= -most) {
        out->slope = 0;
        out->steps = 1;
    }
}

kv_fine kv_step_time_step(const kv_step_time *time, const kv_step_batch *batch)
{
    if (batch->prefill_tokens > 0)
        return kv__fine(time->type->mixed(time->state, batch)) + time->overhead;
    kv_step_ramp ramp;
    kv_step_time_ramp(time, batch, &ramp);
    return ramp.first;
}

const char *kv_step_time_warning(const kv_step_time *time)
{
    return time->type->warning != NULL ? time->type->warning(time->state) : "";
}

/* 2 (p - 1) rounds, each of which sends one p-th of the data to the next device. */
double kv__all_reduce_ns(const kv_step_hardware *hardware, double bytes)
{
    int p = hardware->tensor_parallel;
    if (p <= 1)
        return 0;
    return 2.0 * (p - 1) *
           (bytes / p / hardware->link.bandwidth * 1e9 + (double)hardware->link.latency_ns);
}

double kv__touched_experts(const kv_model *model, double tokens)
{
    double experts = (double)model->moe.experts;
    if (experts <= 0)
        return 0;
    return experts * (1 - pow(1 - (double)model->moe.experts_per_token / experts, tokens));
}

int64_t kv__entries_per_token(const kv_model *model)
{
    int64_t layers = 0;
    for (int l = 0; l < model->layers; l++)
        layers += model->layer[l].cache_of >= 0;
    return layers * kv_model_kv_heads(model);
}
