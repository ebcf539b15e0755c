/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/method.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KV_TRANSFORM(id) extern const kv_transform kv__transform_##id;
#define KV_READ(id) extern const kv_read kv__read_##id;
#include "policies/method_registry.inc"
#undef KV_TRANSFORM
#undef KV_READ

static const kv_transform *const transform_table[] = {
#define KV_TRANSFORM(id) &kv__transform_##id,
#define KV_READ(id)
#include "policies/method_registry.inc"
#undef KV_TRANSFORM
#undef KV_READ
    NULL};

static const kv_read *const read_table[] = {
#define KV_TRANSFORM(id)
#define KV_READ(id) &kv__read_##id,
#include "policies/method_registry.inc"
#undef KV_TRANSFORM
#undef KV_READ
    NULL};

const kv_transform *const *kv_transform_all(void)
{
    return transform_table;
}

const kv_read *const *kv_read_all(void)
{
    return read_table;
}

const char *kv_family_name(kv_family family)
{
    static const char *const names[KV_FAMILIES] = {[KV_FAMILY_RETENTION] = "retention",
                                                   [KV_FAMILY_TRANSFORM] = "transform",
                                                   [KV_FAMILY_READ] = "read"};
    return names[family];
}

/* The members that every family has under the same name. */
#define COMMON(policy)                                                                             \
    .name = (policy)->name, .brief = (policy)->brief, .cite = (policy)->cite,                      \
    .stage = (policy)->stage, .config_bytes = (policy)->config_bytes, .params = (policy)->params,  \
    .presets = (policy)->presets, .conditions = (policy)->conditions, .needs = (policy)->needs

kv_method kv_method_of_retention(const kv_retention *policy)
{
    kv_method m = {.family = KV_FAMILY_RETENTION, .retention = policy, COMMON(policy)};
    m.oracle = policy->oracle;
    m.needs |= policy->observe != NULL && policy->observed_rows == NULL ? KV_NEEDS_EVERY_ROW : 0;
    return m;
}

kv_method kv_method_of_transform(const kv_transform *policy)
{
    kv_method m = {.family = KV_FAMILY_TRANSFORM, .transform = policy, COMMON(policy)};
    m.needs |= policy->changes & KV_CHANGES_KEYS ? KV_NEEDS_KEYS | KV_NEEDS_QUERIES : 0;
    m.needs |= policy->changes & KV_CHANGES_VALUES ? KV_NEEDS_VALUES : 0;
    m.needs |= policy->observers != NULL ? KV_NEEDS_OBSERVERS : 0;
    return m;
}

kv_method kv_method_of_read(const kv_read *policy)
{
    kv_method m = {.family = KV_FAMILY_READ, .read = policy, COMMON(policy)};
    m.oracle = policy->oracle;
    m.needs |= policy->observers != NULL ? KV_NEEDS_OBSERVERS : 0;
    return m;
}

enum {
    TRANSFORMS = sizeof transform_table / sizeof *transform_table - 1,
    READS = sizeof read_table / sizeof *read_table - 1
};

static int retentions(void)
{
    int count = 0;
    while (kv_retention_all()[count] != NULL)
        count++;
    return count;
}

int kv_methods(void)
{
    return retentions() + TRANSFORMS + READS;
}

kv_method kv_method_get(int index)
{
    int first = retentions();
    if (index < first)
        return kv_method_of_retention(kv_retention_all()[index]);
    index -= first;
    return index < TRANSFORMS ? kv_method_of_transform(transform_table[index])
                              : kv_method_of_read(read_table[index - TRANSFORMS]);
}

bool kv_method_find(const char *name, kv_method *out)
{
    for (int i = 0; i < kv_methods(); i++) {
        *out = kv_method_get(i);
        if (strcmp(out->name, name) == 0)
            return true;
    }
    return false;
}

/* What it needs besides, with the settings that it has by default. */
static unsigned default_needs(const kv_method *method)
{
    kv_diag diag = {0};
    unsigned (*needs_of)(const void *) = method->retention ? method->retention->needs_of
                                         : method->read    ? method->read->needs_of
                                                           : NULL;
    void *config = needs_of != NULL ? calloc(1, method->config_bytes) : NULL;
    unsigned needs = 0;
    if (config == NULL)
        return 0;
    if (kv_params_default(method->params, config, &diag) == KV_OK)
        needs = needs_of(config);
    kv_params_fini(method->params, config);
    free(config);
    return needs;
}

void kv_method_needs(const kv_method *method, char *out, size_t out_bytes)
{
    static const struct {
        unsigned need;
        const char *words;
    } table[] = {{KV_NEEDS_QUERIES, "q"},
                 {KV_NEEDS_KEYS, "k"},
                 {KV_NEEDS_VALUES, "v"},
                 {KV_NEEDS_MODALITY, "modality"},
                 {KV_NEEDS_EXTRA << KV_EXTRA_TOKEN_SCORES, "token_scores"},
                 {KV_NEEDS_EXTRA << KV_EXTRA_RECONSTRUCTION, "reconstruction"},
                 {KV_NEEDS_EXTRA << KV_EXTRA_VALUE_OUT, "value_out"},
                 {KV_NEEDS_PROMPT_SCORES, "prompt_scores"},
                 {KV_NEEDS_ROPE, "rope_theta"},
                 {KV_NEEDS_EVERY_ROW, "every row"},
                 {KV_NEEDS_OBSERVERS, "rows of a window"},
                 {KV_NEEDS_EVENT_ROWS, "the last row of each step after which entries leave"}};
    size_t used = 0;
    unsigned needs = method->needs | default_needs(method);
    out[0] = '\0';
    for (size_t i = 0; i < sizeof table / sizeof *table && used < out_bytes; i++)
        if (needs & table[i].need)
            used += (size_t)snprintf(out + used, out_bytes - used, "%s%s", used > 0 ? ", " : "",
                                     table[i].words);
    if (method->retention != NULL && method->retention->file != NULL && used < out_bytes)
        snprintf(out + used, out_bytes - used, "%s%s", used > 0 ? ", " : "",
                 method->retention->file);
}

kv_err kv_method_check(const kv_method *method, const void *config, const kv_mark *mark,
                       kv_diag *diag)
{
    switch (method->family) {
    case KV_FAMILY_RETENTION:
        return kv_retention_check(method->retention, config, mark, diag);
    case KV_FAMILY_TRANSFORM:
        return method->transform->check ? method->transform->check(config, mark, diag) : KV_OK;
    case KV_FAMILY_READ:
        return method->read->check ? method->read->check(config, mark, diag) : KV_OK;
    case KV_FAMILIES:
        break;
    }
    return KV_OK;
}
