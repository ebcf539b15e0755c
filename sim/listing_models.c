/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "models/catalogue.h"
#include "models/device.h"
#include "sim/listing.h"

#include <stdlib.h>

enum { TEXT = 48, MOST_FACTS = 8 };

/* Facts of one item and the room for their numbers. */
typedef struct fact_list {
    kv_fact fact[MOST_FACTS];
    char text[MOST_FACTS][TEXT];
    int count;
} fact_list;

/* Adds a number with its unit, unless it is 0. */
static void add(fact_list *list, const char *name, double value, const char *unit)
{
    if (value == 0)
        return;
    int i = list->count++;
    snprintf(list->text[i], TEXT, "%.15g%s", value, unit);
    list->fact[i] = (kv_fact){name, list->text[i]};
}

static kv_err visit_models(kv_list_show *show, void *closure, kv_diag *diag)
{
    kv_err err = KV_OK;
    for (const kv_catalogue_entry *e = kv_catalogue_all(KV_SHELF_MODELS); e->name; e++) {
        kv_model *m = NULL;
        err = kv_model_find(e->name, &m, diag);
        if (err != KV_OK)
            break;
        fact_list facts = {.count = 0};
        add(&facts, "layers", (double)m->layers, "");
        add(&facts, "parameters", (double)kv_model_parameters(m), "");
        if (m->moe.experts > 0)
            add(&facts, "active parameters", (double)kv_model_active_parameters(m), "");
        add(&facts, "weights", kv_model_weight_bytes(m), " bytes");
        add(&facts, "KV per token", kv_model_token_bytes(m, kv_model_cache_format(m)), " bytes");
        add(&facts, "state", kv_model_state_bytes(m), " bytes");
        add(&facts, "max context", (double)m->max_context, " tokens");
        kv_listed item = {
            .name = e->name, .brief = m->brief, .facts = facts.fact, .fact_count = facts.count};
        show(closure, &item);
        kv_model_free(m);
    }
    return err;
}

static kv_err visit_devices(kv_list_show *show, void *closure, kv_diag *diag)
{
    kv_err err = KV_OK;
    for (const kv_catalogue_entry *e = kv_catalogue_all(KV_SHELF_DEVICES); e->name; e++) {
        kv_device *d = NULL;
        err = kv_device_find(e->name, &d, diag);
        if (err != KV_OK)
            break;
        fact_list facts = {.count = 0};
        add(&facts, "memory", (double)d->memory_bytes / (1 << 30), " GiB");
        add(&facts, "bandwidth", d->bandwidth / 1e9, " GB/s");
        add(&facts, "FP16", d->fp16_tflops, " TFLOP/s");
        add(&facts, "BF16", d->bf16_tflops, " TFLOP/s");
        add(&facts, "FP8", d->fp8_tflops, " TFLOP/s");
        add(&facts, "host link", d->host_link.bandwidth / 1e9, " GB/s");
        add(&facts, "device link", d->tensor_parallel_link.bandwidth / 1e9, " GB/s");
        kv_listed item = {
            .name = e->name, .brief = d->brief, .facts = facts.fact, .fact_count = facts.count};
        show(closure, &item);
        kv_device_free(d);
    }
    return err;
}

const kv_list_kind kv__list_models = {
    .name = "models",
    .brief = "what is simulated: architectures of the catalogue",
    .visit = visit_models,
};

const kv_list_kind kv__list_devices = {
    .name = "devices",
    .brief = "accelerators of the catalogue",
    .visit = visit_devices,
};
