/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* When each name of a sequence comes again: what a policy with KV_REPLACEMENT_FUTURE is told.
 *
 * The sequence is added once, in order; use number u is the u-th name added. Memory: 4 bytes per
 * use and at most 64 per name that differs, and after kv__uses_rewind a byte per use more. Then the
 * uses may be made in any order: what comes next of a name is its first use that has not been made.
 */
#ifndef KVSIM_SIM_CACHE_NEXT_USE_H
#define KVSIM_SIM_CACHE_NEXT_USE_H

#include "sim/base/map.h"

#include <stdbool.h>

/* Zeroed is empty and usable. */
typedef struct kv__uses {
    uint32_t *next; /* [count] the use of the same name behind this one; of the last, the first */
    size_t count, allocated;
    kv__map place;       /* of a name: its last use; once rewound, its first that is not made */
    unsigned char *made; /* [count] NULL until rewound */
} kv__uses;

void kv__uses_fini(kv__uses *uses);
/* Appends a use. More than 2^32 - 2 of them: KV_ERR_UNSUPPORTED. */
kv_err kv__uses_add(kv__uses *uses, uint64_t name, kv_diag *diag) KV_MUST_USE;
/* The use of the same name behind use u; KV_NEVER (policies/replacement.h) if there is none. */
int64_t kv__uses_after(const kv__uses *uses, size_t u);

/* Ends adding: no use is made. */
kv_err kv__uses_rewind(kv__uses *uses, kv_diag *diag) KV_MUST_USE;
/* Makes use u, which is of that name, or takes it back. */
void kv__uses_make(kv__uses *uses, size_t u, uint64_t name, bool made);
/* The first use of a name that has not been made, KV_NEVER if there is none. */
int64_t kv__uses_next(kv__uses *uses, uint64_t name);

#endif
