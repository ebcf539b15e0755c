/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Policies as users write them: `full` or `{snapkv: {keep: [0.1, 0.2], evict: chunked}}`. */
#ifndef KVSIM_SIM_POLICY_SPEC_H
#define KVSIM_SIM_POLICY_SPEC_H

#include "policies/retention.h"
#include "sim/base/yaml.h"

enum { KV_CHUNK_NOT_GIVEN = -1 };

/* One policy with one value for each of its settings. */
typedef struct kv_point_spec {
    const kv_retention *policy;
    void *config;           /* owned; of policy->config_bytes */
    long long chunk_tokens; /* prefilled in one step; 0: the whole prompt; KV_CHUNK_NOT_GIVEN */
    char *directory;        /* owned; relative paths in config stay as written and start from here;
                               "": the current folder */
    kv_mark mark;           /* where it was written; the path lives as long as what was parsed */
} kv_point_spec;

/* An array that grows; zeroed is empty. */
typedef struct kv_point_list {
    kv_point_spec *point;
    int count, capacity;
} kv_point_list;

void kv_point_list_fini(kv_point_list *list);

/* Appends the grid of one item: every combination of the lists in it, keys in the order written,
 * the last fastest. A preset is applied before the settings that are given beside it, wherever it
 * stands. `chunk_size` is known to every policy. Nothing is appended on an error. */
kv_err kv_policy_parse(const kv_node *item, kv_point_list *out, kv_diag *diag) KV_MUST_USE;

/* The same for flow YAML in a cell of a table, which stands at `mark`; paths in it start from
 * `directory`. mark->path must live as long as the points. */
kv_err kv_policy_parse_text(const char *text, const kv_mark *mark, const char *directory,
                            kv_point_list *out, kv_diag *diag) KV_MUST_USE;

/* The same among other policies than all of kvsim's. */
kv_err kv__policy_parse_among(const kv_retention *const *policies, const kv_node *item,
                              kv_point_list *out, kv_diag *diag) KV_MUST_USE;

/* Appends a copy of a point with another chunk size. */
kv_err kv_point_list_add(kv_point_list *list, const kv_point_spec *point, long long chunk_tokens,
                         kv_diag *diag) KV_MUST_USE;

/* Removes points that say the same as an earlier one: policy, all settings, chunk size. */
kv_err kv_point_list_unique(kv_point_list *list, kv_diag *diag) KV_MUST_USE;

/* Canonical JSON of all settings, chunk size aside. The caller frees it, as those below; NULL: no
 * memory. */
char *kv_spec_params_json(const kv_point_spec *spec);
/* The same without the settings that say how much is kept: what names a curve. */
char *kv_spec_curve_json(const kv_point_spec *spec);
/* For people: the policy and the settings that differ from its (or its preset's) defaults, how much
 * is kept aside: "snapkv chunked, window 16". */
char *kv_spec_label(const kv_point_spec *spec);

#endif
