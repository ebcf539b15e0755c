/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* What `kvsim list` can list: one kind per line of the table in listing.c. */
#ifndef KVSIM_SIM_LISTING_H
#define KVSIM_SIM_LISTING_H

#include "sim/base/param.h"

/* A property in words: "cite", "SnapKV (arXiv 2404.14469)". */
typedef struct kv_fact {
    const char *name;
    const char *text; /* NULL: not shown */
} kv_fact;

/* One thing that there is. Everything is borrowed for the time of the call that shows it. */
typedef struct kv_listed {
    const char *name;
    const char *group;    /* what it belongs with in the list, NULL: nothing */
    const char *stage;    /* where in the life of a cache it acts, NULL: nothing to say */
    const char *brief;    /* one line */
    const kv_fact *facts; /* [fact_count] */
    int fact_count;
    const kv_param *params;         /* NULL: none */
    const kv_preset *presets;       /* NULL: none */
    const kv_condition *conditions; /* of parameters; NULL: none */
    const kv_param *columns;        /* settings of its nested mapping `columns`; NULL: none */
} kv_listed;

/* Receives one item. */
typedef void kv_list_show(void *closure, const kv_listed *item);

/* A kind of thing. */
typedef struct kv_list_kind {
    const char *name; /* as users write it: "policies" */
    const char *brief;
    /* Shows every item in a fixed order. */
    kv_err (*visit)(kv_list_show *show, void *closure, kv_diag *diag);
} kv_list_kind;

/* Kinds that stand in files of their own. */
extern const kv_list_kind kv__list_models;
extern const kv_list_kind kv__list_devices;
extern const kv_list_kind kv__list_traces;

/* All kinds, ended by NULL. */
const kv_list_kind *const *kv_list_kinds(void);

#endif
