/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* What yaml*.c share: the bodies of nodes and documents. */
#ifndef KVSIM_BASE_YAML_TREE_H
#define KVSIM_BASE_YAML_TREE_H

#include "sim/base/yaml.h"

/* Where text came from. */
typedef struct kv_source {
    char *label;     /* path of marks; NULL if none */
    char *directory; /* that relative paths in the text start from; "" is the current one */
    struct kv_source *next;
} kv_source;

typedef struct kv_entry {
    const kv_node *key; /* NULL in a list */
    kv_node *value;
} kv_entry;

struct kv_node {
    kv_node_kind kind;
    const kv_source *source;
    int line, column;
    char *text;  /* of a scalar */
    bool quoted; /* a scalar that was not plain */
    bool open;   /* its end was not seen yet: an alias to it would be cyclic */
    kv_entry *entry;
    int count, capacity;
    long weight;   /* nodes of the tree below and with it, aliases expanded */
    int height;    /* levels of that tree */
    kv_node *next; /* in the document's list of all nodes */
};

struct kv_document {
    kv_node *root;
    kv_node *all;
    kv_source *sources; /* the first is the document's own */
};

/* A new node of the document, zeroed but for kind, source and place; NULL: no memory. */
kv_node *kv__node_new(kv_document *document, kv_node_kind kind, const kv_source *source, int line,
                      int column);

/* Adds an item or entry and its weight; false: no memory. */
bool kv__node_append(kv_node *node, const kv_node *key, kv_node *value);

/* Index of a key in a map, or -1. */
int kv__node_index(const kv_node *map, const char *key);

/* Parses text that starts at a place of another file; at->line 0 means that places are not known.
 * directory is what relative paths start from. */
kv_err kv__document_parse_at(const kv_mark *at, const char *directory, const char *text,
                             size_t bytes, kv_document **out, kv_diag *diag) KV_MUST_USE;

#endif
