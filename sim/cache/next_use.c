/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "sim/cache/next_use.h"

#include "policies/replacement.h"

#include <stdlib.h>

void kv__uses_fini(kv__uses *uses)
{
    free(uses->next);
    free(uses->made);
    kv__map_fini(&uses->place);
    *uses = (kv__uses){0};
}

static kv_err have_room(kv__uses *uses, kv_diag *diag)
{
    if (uses->count == KV_MAP_ABSENT - 1)
        return kv_fail(diag, KV_ERR_UNSUPPORTED, NULL,
                       "the trace names more than %u blocks, too many to look ahead in; expected a "
                       "shorter one (requests.limit) or larger blocks",
                       KV_MAP_ABSENT - 1);
    if (uses->count < uses->allocated)
        return KV_OK;
    size_t allocated = uses->allocated == 0 ? 1024 : 2 * uses->allocated;
    uint32_t *next = realloc(uses->next, allocated * sizeof *next);
    if (next == NULL)
        return kv_fail_memory(diag);
    uses->next = next;
    uses->allocated = allocated;
    return KV_OK;
}

kv_err kv__uses_add(kv__uses *uses, uint64_t name, kv_diag *diag)
{
    kv_err err = have_room(uses, diag);
    if (err != KV_OK)
        return err;
    uint32_t u = (uint32_t)uses->count;
    uint32_t *last = kv__map_find(&uses->place, name);
    if (last == NULL && kv__map_add(&uses->place, name, u) != KV_OK)
        return kv_fail_memory(diag);
    uses->next[u] = u;
    if (last != NULL) {
        uses->next[u] = uses->next[*last];
        uses->next[*last] = u;
        *last = u;
    }
    uses->count++;
    return KV_OK;
}

int64_t kv__uses_after(const kv__uses *uses, size_t u)
{
    return uses->next[u] > u ? (int64_t)uses->next[u] : KV_NEVER;
}

kv_err kv__uses_rewind(kv__uses *uses, kv_diag *diag)
{
    uses->made = calloc(uses->count + 1, 1);
    if (uses->made == NULL)
        return kv_fail_memory(diag);
    for (size_t i = 0; uses->place.cell != NULL && i <= uses->place.mask; i++)
        if (uses->place.cell[i].value != KV_MAP_ABSENT)
            uses->place.cell[i].value = uses->next[uses->place.cell[i].value];
    return KV_OK;
}

void kv__uses_make(kv__uses *uses, size_t u, uint64_t name, bool made)
{
    uint32_t *first = kv__map_find(&uses->place, name);
    uses->made[u] = made;
    if (!made && first != NULL && u < *first)
        *first = (uint32_t)u;
}

int64_t kv__uses_next(kv__uses *uses, uint64_t name)
{
    uint32_t *first = kv__map_find(&uses->place, name);
    if (first == NULL)
        return KV_NEVER;
    while (uses->made[*first] && uses->next[*first] > *first)
        *first = uses->next[*first];
    return uses->made[*first] ? KV_NEVER : (int64_t)*first;
}
