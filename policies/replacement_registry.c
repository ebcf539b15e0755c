/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/replacement.h"

#include <string.h>

#define KV_REPLACEMENT(id) extern const kv_replacement kv__replacement_##id;
#include "policies/replacement_registry.inc"
#undef KV_REPLACEMENT

static const kv_replacement *const replacement_table[] = {
#define KV_REPLACEMENT(id) &kv__replacement_##id,
#include "policies/replacement_registry.inc"
#undef KV_REPLACEMENT
    NULL};

const kv_replacement *const *kv_replacement_all(void)
{
    return replacement_table;
}

const kv_replacement *kv_replacement_find(const char *name)
{
    for (const kv_replacement *const *p = replacement_table; *p != NULL; p++)
        if (strcmp((*p)->name, name) == 0)
            return *p;
    return NULL;
}
