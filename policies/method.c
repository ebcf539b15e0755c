/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/method.h"

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
    .presets = (policy)->presets

kv_method kv_method_of_retention(const kv_retention *policy)
{
    return (kv_method){.family = KV_FAMILY_RETENTION, .retention = policy, COMMON(policy)};
}

kv_method kv_method_of_transform(const kv_transform *policy)
{
    return (kv_method){.family = KV_FAMILY_TRANSFORM, .transform = policy, COMMON(policy)};
}

kv_method kv_method_of_read(const kv_read *policy)
{
    return (kv_method){.family = KV_FAMILY_READ, .read = policy, COMMON(policy)};
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
