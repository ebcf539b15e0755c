/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Section `plan` of an experiment. */
#include "config.h"

#include "sim/base/unit.h"
#include "sim/experiment.h"
#include "sim/plan/limits.h"

#include <math.h>
#include <stddef.h>

#define AT(f) offsetof(kv_plan_config, f)

static const kv_param params[] = {
    {"results", KV_PATH, AT(results), NULL, 0, 0, NULL, 0, "",
     "database of a run of the attention replay that says accuracies; this experiment's own "
     "attention part if not given"},
    {"chunk_scale", KV_REAL, AT(chunk_scale), "1", 0, INFINITY, NULL, KV_PARAM_OPEN_MIN, "",
     "chunk size in those accuracies over that in serving: recorded prompts may be shorter"},
    {"max_replicas", KV_INT, AT(most_replicas), "64", 1, 4096, NULL, 0, "",
     "most that are tried; not used if serving gives replicas"},
    {"tolerance", KV_REAL, AT(tolerance), "0.02", 0.0001, 1, NULL, 0, "fraction",
     "of the largest rate"},
    {"capacity", KV_REAL, AT(capacity), "0.1", 0, 0.9, NULL, 0, "fraction",
     "by how much the number of KV blocks may be wrong: how the answer changes is shown"},
    {.name = NULL}};

static const kv_field fields[] = {
    {"limits", KV_FIELD_TEXTS, AT(limits), true,
     "what must be kept, such as `ttft_p99 <= 2s` or `accuracy >= 0.9 of full`"},
    {"price", KV_FIELD_NODE, AT(price), false,
     "mapping of devices to their price per hour; the devices' own if not given"},
    {.name = NULL}};

static kv_err check_price(const kv_node *price, kv_diag *diag)
{
    kv_mark mark = kv_node_mark(price);
    if (kv_node_get_kind(price) != KV_NODE_MAP)
        return kv_fail(diag, KV_ERR_INPUT, &mark,
                       "price: expected a mapping such as {h100-sxm: 2.5}");
    for (int i = 0; i < kv_node_count(price); i++) {
        kv_mark at = kv_node_mark(kv_node_at(price, i));
        const char *text = kv_node_text(kv_node_at(price, i), NULL);
        double value = 0;
        if (text == NULL || !kv_number_parse(text, &value, NULL) || !(value > 0) ||
            !isfinite(value))
            return kv_fail(diag, KV_ERR_INPUT, &at, "price of %s: expected a number above 0",
                           kv_node_key(price, i));
    }
    return KV_OK;
}

/* Limits have been read as texts; here they are checked, so that a message names their place. */
static kv_err finish(void *closure, const kv_node *map, kv_diag *diag)
{
    kv_plan_config *config = closure;
    const kv_node *results = kv_node_find(map, "results");
    const kv_node *limits = kv_node_find(map, "limits");
    bool list = kv_node_get_kind(limits) == KV_NODE_LIST;
    kv_limit limit;
    kv_err err = KV_OK;
    for (int i = 0; i < config->limits.count && err == KV_OK; i++) {
        kv_mark mark = kv_node_mark(list ? kv_node_at(limits, i) : limits);
        err = kv_limit_parse(config->limits.text[i], &mark, &limit, diag);
    }
    if (results != NULL)
        config->results_mark = kv_node_mark(results);
    return err == KV_OK && config->price != NULL ? check_price(config->price, diag) : err;
}

const kv_section kv__section_plan = {
    .name = "plan",
    .help = "Search for the cheapest configuration that keeps all limits; see docs/plan.md",
    .offset = offsetof(kv_experiment, plan),
    .given_offset = offsetof(kv_experiment, has_plan),
    .params = params,
    .fields = fields,
    .finish = finish,
};
