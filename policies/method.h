/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* The policies of the attention replay, of all families, as far as they are alike: a name, what
 * `kvsim list` says of them, and a table of settings.
 *
 * A point combines at most one retention policy (retention.h: which entries stay in memory), any
 * number of transforms (transform.h: how those are stored) and at most one read policy (read.h:
 * which of those a query reads). */
#ifndef KVSIM_POLICIES_METHOD_H
#define KVSIM_POLICIES_METHOD_H

#include "policies/read.h"
#include "policies/retention.h"
#include "policies/transform.h"

typedef enum kv_family {
    KV_FAMILY_RETENTION,
    KV_FAMILY_TRANSFORM,
    KV_FAMILY_READ,
    KV_FAMILIES
} kv_family; /* in the order in which a combination names its parts */

/* A policy of any family; everything is borrowed from its table. */
typedef struct kv_method {
    kv_family family;
    const kv_retention *retention; /* of that family; NULL otherwise, as the next two */
    const kv_transform *transform;
    const kv_read *read;
    const char *name, *brief, *cite, *stage;
    size_t config_bytes;
    const kv_param *params;
    const kv_preset *presets;       /* NULL: none */
    const kv_condition *conditions; /* NULL: none but those of all policies (sim/idle.c) */
    unsigned needs;                 /* KV_NEEDS_* whatever the settings */
    bool oracle;                    /* a bound to measure others by, nothing to deploy */
} kv_method;

/* A policy with its settings, as a part of a point. */
typedef struct kv_part {
    kv_method method;
    void *config; /* of method.config_bytes */
} kv_part;

/* "retention", "transform" or "read". */
const char *kv_family_name(kv_family family);

/* All of them: family by family, each in the order of policies/policies.am. */
int kv_methods(void);
kv_method kv_method_get(int index);
/* The same view of one policy. */
kv_method kv_method_of_retention(const kv_retention *policy);
kv_method kv_method_of_transform(const kv_transform *policy);
kv_method kv_method_of_read(const kv_read *policy);
/* The policy of that name in the first family that has it; false: there is none. A name may stand
 * in two families: `topk` keeps or reads, as its settings say. */
bool kv_method_find(const char *name, kv_method *out);

/* What a recording must hold for it, with its settings as they are by default, and what file it
 * takes, in words: "k, every row"; "" if nothing but the rows that are measured. */
void kv_method_needs(const kv_method *method, char *out, size_t out_bytes);

/* Checks one configuration as its family does. */
kv_err kv_method_check(const kv_method *method, const void *config, const kv_mark *mark,
                       kv_diag *diag) KV_MUST_USE;

#endif
