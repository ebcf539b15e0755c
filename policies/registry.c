/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/retention.h"

#include <string.h>

#define KV_RETENTION(id) extern const kv_retention kv__retention_##id;
#include "policies/retention_registry.inc"
#undef KV_RETENTION

static const kv_retention *const retention_table[] = {
#define KV_RETENTION(id) &kv__retention_##id,
#include "policies/retention_registry.inc"
#undef KV_RETENTION
    NULL};

const kv_retention *const *kv_retention_all(void)
{
    return retention_table;
}

const kv_retention *kv_retention_find(const char *name)
{
    for (const kv_retention *const *p = retention_table; *p != NULL; p++)
        if (strcmp((*p)->name, name) == 0)
            return *p;
    return NULL;
}
