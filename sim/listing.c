/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/replacement.h"
#include "policies/retention.h"
#include "sim/listing.h"

static kv_err visit_policies(kv_list_show *show, void *closure, kv_diag *diag)
{
    for (const kv_retention *const *p = kv_retention_all(); *p != NULL; p++) {
        const kv_fact facts[] = {{"stage", (*p)->stage}, {"source", (*p)->cite}};
        const kv_listed item = {.name = (*p)->name,
                                .group = "retention",
                                .brief = (*p)->brief,
                                .facts = facts,
                                .fact_count = 2,
                                .params = (*p)->params,
                                .presets = (*p)->presets};
        show(closure, &item);
    }
    for (const kv_replacement *const *p = kv_replacement_all(); *p != NULL; p++) {
        const kv_fact facts[] = {{"source", (*p)->cite}};
        const kv_listed item = {.name = (*p)->name,
                                .group = "replacement",
                                .brief = (*p)->brief,
                                .facts = facts,
                                .fact_count = 1,
                                .params = (*p)->params};
        show(closure, &item);
    }
    return KV_OK;
}

static const kv_list_kind policies = {
    .name = "policies",
    .brief = "which KV entries of a sequence stay; which blocks a full tier drops",
    .visit = visit_policies,
};

/* One line per kind. */
static const kv_list_kind *const kinds[] = {&policies, &kv__list_models, &kv__list_devices,
                                            &kv__list_traces, NULL};

const kv_list_kind *const *kv_list_kinds(void)
{
    return kinds;
}
