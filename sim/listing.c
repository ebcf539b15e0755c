/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/method.h"
#include "policies/replacement.h"
#include "sim/listing.h"
#include "sim/serving/plan_reuse.h"

/* What a server does with text that is cached: choices of `reuse.mode` and `load`. */
static const kv_listed serving_methods[] = {
    {.name = "prefix",
     .group = "reuse",
     .stage = "retrieval",
     .brief = "a prompt uses the cached blocks it begins with (serving, reuse.mode)"},
    {.name = "blend",
     .group = "reuse",
     .stage = "retrieval",
     .brief = "also text cached elsewhere, a share of it computed again (serving, reuse.mode)",
     .facts = (const kv_fact[]){{"stage", "retrieval"},
                                {"source", "CacheBlend, Yao et al., EuroSys 2025 (arXiv "
                                           "2405.16444)"}},
     .fact_count = 2,
     .params = kv__reuse_params},
    {.name = "auto",
     .group = "load",
     .stage = "loading",
     .brief = "what lies in a lower tier is loaded or computed, by estimate (serving, load)"},
    {.name = "always",
     .group = "load",
     .stage = "loading",
     .brief = "what lies in a lower tier is loaded (serving, load)"},
    {.name = "never",
     .group = "load",
     .stage = "loading",
     .brief = "what lies in a lower tier is computed again (serving, load)"},
    {.name = "both-ends",
     .group = "load",
     .stage = "loading",
     .brief = "the front is computed while the end is loaded, until they meet (serving, load)"},
    {.name = NULL}};

static kv_err visit_policies(kv_list_show *show, void *closure, kv_diag *diag)
{
    for (int i = 0; i < kv_methods(); i++) {
        char needs[128];
        kv_method m = kv_method_get(i);
        kv_method_needs(&m, needs, sizeof needs);
        const kv_fact facts[] = {
            {"stage", m.stage}, {"source", m.cite}, {"needs", needs[0] != '\0' ? needs : NULL}};
        const kv_listed item = {.name = m.name,
                                .group = kv_family_name(m.family),
                                .stage = m.stage,
                                .brief = m.brief,
                                .facts = facts,
                                .fact_count = 3,
                                .params = m.params,
                                .presets = m.presets,
                                .conditions = m.conditions};
        show(closure, &item);
    }
    for (const kv_replacement *const *p = kv_replacement_all(); *p != NULL; p++) {
        const kv_fact facts[] = {{"stage", "retrieval"}, {"source", (*p)->cite}};
        const kv_listed item = {.name = (*p)->name,
                                .group = "replacement",
                                .stage = "retrieval",
                                .brief = (*p)->brief,
                                .facts = facts,
                                .fact_count = 2,
                                .params = (*p)->params};
        show(closure, &item);
    }
    for (const kv_listed *item = serving_methods; item->name != NULL; item++)
        show(closure, item);
    return KV_OK;
}

static const kv_list_kind policies = {
    .name = "policies",
    .brief = "which KV entries stay, how they are stored, which are read; which blocks a full tier "
             "drops; what a server does with cached text",
    .visit = visit_policies,
};

/* One line per kind. */
static const kv_list_kind *const kinds[] = {&policies, &kv__list_models, &kv__list_devices,
                                            &kv__list_traces, NULL};

const kv_list_kind *const *kv_list_kinds(void)
{
    return kinds;
}
