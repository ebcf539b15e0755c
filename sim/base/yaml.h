/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* A YAML document as a tree of nodes that know where they stand.
 *
 * Read with libyaml. Strict: one document, no duplicate keys, no keys that are not scalars, no
 * custom tags, aliases expanded by reference and refused when they are cyclic or when the tree they
 * stand for would exceed KV_YAML_MAX_NODES. `<<` merges mappings; explicit keys win. */
#ifndef KVSIM_BASE_YAML_H
#define KVSIM_BASE_YAML_H

#include "sim/base/diag.h"
#include "sim/base/param.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

enum { KV_YAML_MAX_NODES = 100000, KV_YAML_MAX_DEPTH = 64 };

typedef enum kv_node_kind { KV_NODE_SCALAR, KV_NODE_LIST, KV_NODE_MAP } kv_node_kind;

typedef struct kv_node kv_node;         /* lives as long as its document */
typedef struct kv_document kv_document; /* owns the tree and the path */

/* Parses text[0..bytes). path only labels messages (copied; may be NULL). */
kv_err kv_document_parse(const char *path, const char *text, size_t bytes, kv_document **out,
                         kv_diag *diag) KV_MUST_USE;
/* Reads and parses a file. */
kv_err kv_document_read(const char *path, kv_document **out, kv_diag *diag) KV_MUST_USE;
void kv_document_free(kv_document *document);
const kv_node *kv_document_root(const kv_document *document);

/* Sets a dotted key (`attention.chunk_size`) of the root mapping to the YAML text `value`; makes
 * the mappings on the way. Marks of what was set say `label` ("--set") as their path. */
kv_err kv_document_set(kv_document *document, const char *dotted_key, const char *value,
                       const char *label, kv_diag *diag) KV_MUST_USE;

/* Writes the document as YAML in block style, aliases and merges expanded, so that it reads back
 * the same: what goes into run.experiment. KV_ERR_IO if `out` takes no more. */
kv_err kv_document_write(const kv_document *document, FILE *out);

kv_node_kind kv_node_get_kind(const kv_node *node);
kv_mark kv_node_mark(const kv_node *node);
/* The text of a scalar; `quoted` (may be NULL) tells whether it was written in quotes. A plain
 * empty scalar, `~` and `null` are absent values: NULL. */
const char *kv_node_text(const kv_node *node, bool *quoted);
/* Items of a list, entries of a map; 0 for a scalar. */
int kv_node_count(const kv_node *node);
/* The i-th item of a list, or the i-th value of a map. */
const kv_node *kv_node_at(const kv_node *node, int i);
/* The i-th key of a map and its place. */
const char *kv_node_key(const kv_node *map, int i);
kv_mark kv_node_key_mark(const kv_node *map, int i);
/* The value of a key, or NULL. */
const kv_node *kv_node_find(const kv_node *map, const char *key);

/* "a list", "a mapping", "a value" or "nothing", for messages. */
const char *kv_node_kind_name(const kv_node *node);
/* A path in the text of the node as seen from the current folder: relative paths start from the
 * folder of the file that the node stands in. The caller frees it; NULL: no memory. */
char *kv_node_resolve(const kv_node *node, const char *path);

/* Parses the value of one parameter, a scalar. A path stays as it is written. */
kv_err kv_param_parse(const kv_param *param, void *config, const kv_node *value,
                      kv_diag *diag) KV_MUST_USE;

/* Replaces a path that kv_param_parse has set by kv_node_resolve's; nothing else is touched. */
kv_err kv_param_resolve(const kv_param *param, void *config, const kv_node *value,
                        kv_diag *diag) KV_MUST_USE;

/* The error that a key is in neither the table nor `also` (may be NULL), with what is known. */
kv_err kv_param_unknown(const kv_param *table, const char *const *also, const char *name,
                        const kv_mark *mark, kv_diag *diag);

/* Checks that the map has every key that the table requires. */
kv_err kv_params_require(const kv_param *table, const kv_node *map, kv_diag *diag) KV_MUST_USE;

/* Fills a configuration, whose defaults are set already, from a mapping. Unknown keys, wrong types,
 * missing units and values out of range are errors at their place with the nearest known name.
 * Paths are resolved against the file that they stand in.
 * Keys in `also` (NULL-terminated, may be NULL) are left for the caller. Lists are errors here: the
 * grid is expanded before (kv_grid). */
kv_err kv_params_parse(const kv_param *table, void *config, const kv_node *map,
                       const char *const *also, kv_diag *diag) KV_MUST_USE;

#endif
