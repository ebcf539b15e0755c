/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Policies as users write them: `full`, `{snapkv: {keep: [0.1, 0.2], evict: chunked}}`, or a
 * combination `[{snapkv: {keep: 0.2}}, {quest: {read: 1024}}]`. */
#ifndef KVSIM_SIM_POLICY_SPEC_H
#define KVSIM_SIM_POLICY_SPEC_H

#include "policies/method.h"
#include "sim/base/yaml.h"

enum { KV_CHUNK_NOT_GIVEN = -1 };

/* One policy, or one combination, with one value for each of its settings. */
typedef struct kv_point_spec {
    const kv_retention *policy; /* which entries stay; `full`, or what the read policy includes,
                                   where the item names none */
    void *config;               /* owned; of policy->config_bytes */
    bool implied;               /* the item does not name `policy` */
    kv_part *part;              /* [parts] owned: transforms as listed, then the read policy */
    int parts;
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

/* Frees what one point owns. */
void kv__point_fini(kv_point_spec *point);

/* Appends the grid of one item: a policy's name, a mapping {name: settings}, or a sequence of
 * those: at most one retention and one read policy and any number of transforms, none twice. The
 * grid is every combination of the lists in it, keys in the order written, the last fastest. A
 * preset is applied before the settings that are given beside it, wherever it stands. `chunk_size`
 * is known to every policy. Nothing is appended on an error. */
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

/* The policies that the item names, in the order of their families: kv_spec_named of them. */
int kv_spec_named(const kv_point_spec *spec);
kv_part kv_spec_get(const kv_point_spec *spec, int index);
/* Whether two points are the same policies with the same settings, chunk size aside. */
bool kv_spec_same(const kv_point_spec *a, const kv_point_spec *b);

/* "snapkv", or "snapkv+quest" for a combination. The caller frees it, as those below; NULL: no
 * memory. */
char *kv_spec_name(const kv_point_spec *spec);
/* Canonical JSON of all settings, chunk size aside; of a combination, of each by its name:
 * {"snapkv":{...},"quest":{...}}. */
char *kv_spec_params_json(const kv_point_spec *spec);
/* The same without the settings that say how much is kept: what names a curve. */
char *kv_spec_curve_json(const kv_point_spec *spec);
/* The fraction that the retention policy is told to keep; NaN if it is told otherwise. */
double kv_spec_keep(const kv_point_spec *spec);
/* What the policies save, and so what to compare them by: "reads" with a read policy ("prefill" if
 * it chooses in prefill alone), "bytes" with a transform, else "entries". A constant. */
const char *kv_spec_saves(const kv_point_spec *spec);
/* For people: the policy and the settings that differ from its (or its preset's) defaults, how much
 * is kept aside: "snapkv chunked, window 16"; of a combination with " + " between them. */
char *kv_spec_label(const kv_point_spec *spec);
/* For people: the policies and of each the settings, how much is kept included, in which it differs
 * from others of the same names in a list that it belongs to: "snapkv keep 0.1, window 16". Fails
 * only for want of memory. */
kv_err kv_spec_write_among(const kv_point_spec *spec, const kv_point_list *list,
                           FILE *out) KV_MUST_USE;

#endif
