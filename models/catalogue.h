/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* The catalogue: YAML descriptions of models and devices that kvsim carries.
 *
 * make turns models/catalogue/SHELF/NAME.yaml into a table in the program, so that it needs no file
 * at run time. A file SHELF/NAME.yaml in the directory that the environment variable KVSIM_DATADIR
 * names goes before the table: the place for descriptions of one's own. */
#ifndef KVSIM_MODELS_CATALOGUE_H
#define KVSIM_MODELS_CATALOGUE_H

#include "sim/base/yaml.h"

typedef enum kv_shelf { KV_SHELF_MODELS, KV_SHELF_DEVICES } kv_shelf;

/* One description. */
typedef struct kv_catalogue_entry {
    const char *name;
    const char *text; /* YAML */
} kv_catalogue_entry;

/* The table of a shelf, in the order of models/models.am; ends with a NULL name. */
const kv_catalogue_entry *kv_catalogue_all(kv_shelf shelf);

/* Reads what `text` names: a name on the shelf, or the path of a YAML file, which has a slash or
 * ends in .yaml or .yml. Relative paths start where the file of `mark` lies (may be NULL). Text
 * that begins with `{` is itself a description. */
kv_err kv_catalogue_read(kv_shelf shelf, const char *text, const kv_mark *mark, kv_document **out,
                         kv_diag *diag) KV_MUST_USE;

/* What a node of an experiment describes: a mapping is the description itself (*owned is then
 * NULL), a scalar names one as above (*owned is its document, which the caller frees). */
kv_err kv_catalogue_node(kv_shelf shelf, const kv_node *node, const kv_node **description,
                         kv_document **owned, kv_diag *diag) KV_MUST_USE;

#endif
