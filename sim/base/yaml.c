/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "sim/base/file.h"
#include "sim/base/yaml_tree.h"

#include <stdlib.h>
#include <string.h>

/* --- Trees ------------------------------------------------------------------------- */

kv_node *kv__node_new(kv_document *document, kv_node_kind kind, const kv_source *source, int line,
                      int column)
{
    kv_node *node = calloc(1, sizeof *node);
    if (node == NULL)
        return NULL;
    *node = (kv_node){.kind = kind,
                      .source = source,
                      .line = line,
                      .column = column,
                      .weight = 1,
                      .height = 1,
                      .next = document->all};
    document->all = node;
    return node;
}

static bool make_room(kv_node *node)
{
    if (node->count < node->capacity)
        return true;
    int capacity = 2 * node->capacity + 4;
    kv_entry *larger = realloc(node->entry, (size_t)capacity * sizeof *larger);
    if (larger == NULL)
        return false;
    node->entry = larger;
    node->capacity = capacity;
    return true;
}

bool kv__node_append(kv_node *node, const kv_node *key, kv_node *value)
{
    if (!make_room(node))
        return false;
    node->entry[node->count++] = (kv_entry){key, value};
    node->weight += value->weight;
    if (node->height <= value->height)
        node->height = value->height + 1;
    return true;
}

int kv__node_index(const kv_node *map, const char *key)
{
    for (int i = 0; map->kind == KV_NODE_MAP && i < map->count; i++)
        if (strcmp(map->entry[i].key->text, key) == 0)
            return i;
    return -1;
}

void kv_document_free(kv_document *document)
{
    if (document == NULL)
        return;
    for (kv_node *node = document->all, *next; node != NULL; node = next) {
        next = node->next;
        free(node->text);
        free(node->entry);
        free(node);
    }
    for (kv_source *source = document->sources, *next; source != NULL; source = next) {
        next = source->next;
        free(source->label);
        free(source->directory);
        free(source);
    }
    free(document);
}

const kv_node *kv_document_root(const kv_document *document)
{
    return document->root;
}

/* --- Nodes ------------------------------------------------------------------------- */

kv_node_kind kv_node_get_kind(const kv_node *node)
{
    return node->kind;
}

kv_mark kv_node_mark(const kv_node *node)
{
    return (kv_mark){node->source->label, node->line, node->column};
}

static bool is_null(const char *text)
{
    static const char *const nulls[] = {"", "~", "null", "Null", "NULL"};
    for (size_t i = 0; i < sizeof nulls / sizeof *nulls; i++)
        if (strcmp(text, nulls[i]) == 0)
            return true;
    return false;
}

const char *kv_node_text(const kv_node *node, bool *quoted)
{
    if (quoted != NULL)
        *quoted = node->quoted;
    if (node->kind != KV_NODE_SCALAR || (!node->quoted && is_null(node->text)))
        return NULL;
    return node->text;
}

int kv_node_count(const kv_node *node)
{
    return node->count;
}

const kv_node *kv_node_at(const kv_node *node, int i)
{
    return node->entry[i].value;
}

const char *kv_node_key(const kv_node *map, int i)
{
    return map->entry[i].key->text;
}

kv_mark kv_node_key_mark(const kv_node *map, int i)
{
    return kv_node_mark(map->entry[i].key);
}

const kv_node *kv_node_find(const kv_node *map, const char *key)
{
    int i = kv__node_index(map, key);
    return i < 0 ? NULL : map->entry[i].value;
}

char *kv_node_resolve(const kv_node *node, const char *path)
{
    return kv_path_resolve(node->source->directory, path);
}

const char *kv_node_kind_name(const kv_node *node)
{
    static const char *const names[] = {
        [KV_NODE_SCALAR] = "a value", [KV_NODE_LIST] = "a list", [KV_NODE_MAP] = "a mapping"};
    return kv_node_text(node, NULL) == NULL && node->kind == KV_NODE_SCALAR ? "nothing"
                                                                            : names[node->kind];
}

/* --- Setting one key --------------------------------------------------------------- */

/* Moves the nodes of `from` into the document and frees what is left of it. */
static kv_node *adopt(kv_document *document, kv_document *from)
{
    kv_node *root = from->root, **tail = &document->all;
    while (*tail != NULL)
        tail = &(*tail)->next;
    *tail = from->all;
    kv_source **last = &document->sources;
    while (*last != NULL)
        last = &(*last)->next;
    *last = from->sources;
    free(from);
    return root;
}

/* A map with the same entries: what aliases share must not change with it. */
static kv_node *copy_map(kv_document *document, const kv_node *map)
{
    kv_node *copy = kv__node_new(document, KV_NODE_MAP, map->source, map->line, map->column);
    for (int i = 0; copy != NULL && i < map->count; i++)
        if (!kv__node_append(copy, map->entry[i].key, map->entry[i].value))
            return NULL;
    return copy;
}

/* The map that stands at a place on the way to the key, to be changed: a copy of what is there, or
 * a new one where there is nothing. */
static kv_err open_map(kv_document *document, const kv_node *there, const char *dotted_key,
                       int length, const kv_node *value, kv_node **out, kv_diag *diag)
{
    kv_mark mark = kv_node_mark(value);
    if (there != NULL && there->kind != KV_NODE_MAP && kv_node_text(there, NULL) == NULL &&
        there->kind == KV_NODE_SCALAR)
        there = NULL;
    if (there != NULL && there->kind != KV_NODE_MAP)
        return kv_fail(diag, KV_ERR_INPUT, &mark, "%.*s is %s, not a mapping; set it as a whole",
                       length > 0 ? length : 12, length > 0 ? dotted_key : "the document",
                       kv_node_kind_name(there));
    *out = there != NULL ? copy_map(document, there)
                         : kv__node_new(document, KV_NODE_MAP, value->source, 0, 0);
    return *out == NULL ? kv_fail_memory(diag) : KV_OK;
}

/* The slot of a key in a map, made if need be. */
static kv_node **slot_of(kv_document *document, kv_node *map, const char *name, int length,
                         kv_node *value)
{
    char *text = strndup(name, (size_t)length);
    int i = text == NULL ? -1 : kv__node_index(map, text);
    if (i < 0 && text != NULL) {
        kv_node *key = kv__node_new(document, KV_NODE_SCALAR, value->source, 0, 0);
        i = map->count;
        if (key == NULL || !kv__node_append(map, key, value)) {
            free(text);
            return NULL;
        }
        map->entry[i].value = NULL;
        key->text = text;
        return &map->entry[i].value;
    }
    free(text);
    return i < 0 ? NULL : &map->entry[i].value;
}

static kv_err check_key(const char *key, const kv_node *value, kv_diag *diag)
{
    kv_mark mark = kv_node_mark(value);
    int parts = 1;
    bool empty = key[0] == '\0' || key[0] == '.';
    for (const char *c = key; *c != '\0'; c++) {
        parts += *c == '.';
        empty = empty || (*c == '.' && (c[1] == '.' || c[1] == '\0'));
    }
    if (empty)
        return kv_fail(diag, KV_ERR_INPUT, &mark,
                       "key '%.60s' has an empty part; expected one like attention.chunk_size",
                       key);
    if (parts + value->height > KV_YAML_MAX_DEPTH)
        return kv_fail(diag, KV_ERR_INPUT, &mark, "key '%.60s' is nested too deep", key);
    return KV_OK;
}

static kv_err place_value(kv_document *document, const char *dotted_key, kv_node *value,
                          kv_diag *diag)
{
    kv_node *root = document->root, **slot = &root;
    for (const char *name = dotted_key; name != NULL;) {
        const char *dot = strchr(name, '.');
        int length = dot ? (int)(dot - name) : (int)strlen(name);
        int before = name == dotted_key ? 0 : (int)(name - dotted_key) - 1;
        kv_err err = open_map(document, *slot, dotted_key, before, value, slot, diag);
        if (err != KV_OK)
            return err;
        slot = slot_of(document, *slot, name, length, value);
        if (slot == NULL)
            return kv_fail_memory(diag);
        name = dot ? dot + 1 : NULL;
    }
    *slot = value;
    document->root = root;
    return KV_OK;
}

kv_err kv_document_set(kv_document *document, const char *dotted_key, const char *value,
                       const char *label, kv_diag *diag)
{
    kv_mark at = {label, 0, 0};
    kv_document *parsed;
    kv_err err = kv__document_parse_at(&at, document->sources->directory, value, strlen(value),
                                       &parsed, diag);
    if (err != KV_OK)
        return err;
    kv_node *root = adopt(document, parsed);
    err = check_key(dotted_key, root, diag);
    return err == KV_OK ? place_value(document, dotted_key, root, diag) : err;
}
