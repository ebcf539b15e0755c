/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Sections of an experiment file, described by tables: the parser, the JSON Schema and the defaults
 * all come from one kv_section. */
#ifndef KVSIM_SIM_SECTION_H
#define KVSIM_SIM_SECTION_H

#include "sim/base/yaml.h"

#include <stdbool.h>

/* Settings that are not one scalar. A list may be written as its only item. */
typedef enum kv_field_type {
    KV_FIELD_TEXTS,    /* kv_texts: any texts */
    KV_FIELD_FILES,    /* kv_files: names of files that exist; globs work */
    KV_FIELD_CHUNKS,   /* kv_chunks: chunk sizes */
    KV_FIELD_POLICIES, /* kv_point_list (sim/policy_spec.h): the grid of every item */
    KV_FIELD_NODES,    /* const kv_node *: as the next, or a list of such */
    KV_FIELD_NODE,     /* const kv_node *: a text or a mapping that somebody else parses */
    KV_FIELD_SERVING   /* const kv_node *: the mapping that sim/serving/plan.h parses */
} kv_field_type;

typedef struct kv_texts {
    char **text;   /* [count], owned */
    kv_mark *mark; /* [count], owned: where each stands; paths are the document's */
    int count;
} kv_texts;

/* Files in the order of the patterns, those of one pattern in byte order, each once. */
typedef struct kv_files {
    char **path; /* [count], owned: as seen from the current folder */
    char **name; /* [count], owned: as seen from the folder of the experiment */
    int count;
} kv_files;

typedef struct kv_chunks {
    long long *tokens; /* [count], owned; 0: whole */
    int count;
} kv_chunks;

typedef struct kv_field {
    const char *name; /* NULL ends a table */
    kv_field_type type;
    size_t offset; /* in the section's struct */
    bool required;
    const char *help; /* one sentence without its full stop */
} kv_field;

/* A mapping of an experiment file. */
typedef struct kv_section {
    const char *name; /* its key in the parent; NULL for the whole file */
    const char *help;
    size_t offset;          /* of its struct in the parent's */
    size_t given_offset;    /* of a bool in the parent's that is set if it is there; 0: none */
    const char *refusal;    /* why it cannot be used yet; NULL: it can */
    const kv_param *params; /* scalars; NULL: none */
    const kv_field *fields; /* NULL: none */
    const struct kv_section *const *sections; /* within it, NULL-terminated; NULL: none */
    /* Checks and completes what was parsed. Default: nothing to do. */
    kv_err (*finish)(void *config, const kv_node *map, kv_diag *diag);
} kv_section;

/* Sets a zeroed struct to its defaults, the sections in it too. */
kv_err kv_section_default(const kv_section *section, void *config, kv_diag *diag) KV_MUST_USE;

/* Fills a struct, whose defaults are set, from a mapping. What was filled before an error is freed
 * by kv_section_fini. Fields of type KV_FIELD_NODE and KV_FIELD_SERVING live as long as the
 * document. */
kv_err kv_section_parse(const kv_section *section, void *config, const kv_node *map,
                        kv_diag *diag) KV_MUST_USE;

/* Frees what the struct owns; its memory stays the caller's. */
void kv_section_fini(const kv_section *section, void *config);

/* Frees what one field owns. */
void kv_field_fini(const kv_field *field, void *config);

/* Appends one item to a field. */
kv_err kv_field_parse(const kv_field *field, void *config, const kv_node *item,
                      kv_diag *diag) KV_MUST_USE;

#endif
