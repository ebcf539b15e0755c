/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Text to tree, by libyaml's events. */
#include "config.h"

#include "sim/base/file.h"
#include "sim/base/yaml_tree.h"

#include <stdlib.h>
#include <string.h>
#include <yaml.h>

enum { MOST_BYTES = 16 << 20 };

typedef struct anchor {
    char *name;
    kv_node *node;
} anchor;

typedef struct builder {
    yaml_parser_t parser;
    kv_document *document;
    const kv_source *source;
    kv_mark start; /* where the text starts in its file */
    const char *text;
    size_t bytes;
    anchor *anchors;
    int anchor_count, anchor_capacity;
    kv_diag *diag;
} builder;

/* --- Places ------------------------------------------------------------------------ */

static kv_mark place(const builder *b, size_t line, size_t column)
{
    kv_mark mark = {b->source->label, 0, 0};
    if (b->start.line > 0) {
        mark.line = b->start.line + (int)line;
        mark.column = b->start.column == 0 ? 0 : (int)column + (line == 0 ? b->start.column : 1);
    }
    return mark;
}

static kv_mark place_of(const builder *b, const yaml_event_t *event)
{
    return place(b, event->start_mark.line, event->start_mark.column);
}

static kv_mark place_of_byte(const builder *b, size_t offset)
{
    size_t line = 0, start = 0;
    for (size_t i = 0; i < offset && i < b->bytes; i++)
        if (b->text[i] == '\n') {
            line++;
            start = i + 1;
        }
    return place(b, line, offset > start ? offset - start : 0);
}

/* --- Events ------------------------------------------------------------------------ */

static kv_err syntax_error(const builder *b)
{
    const yaml_parser_t *p = &b->parser;
    if (p->error == YAML_MEMORY_ERROR)
        return kv_fail_memory(b->diag);
    if (p->error == YAML_READER_ERROR) {
        kv_mark mark = place_of_byte(b, p->problem_offset);
        return kv_fail(b->diag, KV_ERR_INPUT, &mark, "%s (byte %d); expected UTF-8 text",
                       p->problem, p->problem_value);
    }
    kv_mark mark = p->problem_mark.index < b->bytes
                       ? place(b, p->problem_mark.line, p->problem_mark.column)
                       : place_of_byte(b, b->bytes);
    char context[128] = "";
    if (p->context != NULL && b->start.line > 0)
        snprintf(context, sizeof context, " %s that starts on line %d", p->context,
                 b->start.line + (int)p->context_mark.line);
    bool tab = p->problem_mark.index < b->bytes && b->text[p->problem_mark.index] == '\t';
    return kv_fail(b->diag, KV_ERR_INPUT, &mark, "not YAML: %s%s%s", p->problem, context,
                   tab ? "; a tab cannot indent, expected spaces" : "");
}

static kv_err next_event(builder *b, yaml_event_t *event)
{
    if (!yaml_parser_parse(&b->parser, event))
        return syntax_error(b);
    return KV_OK;
}

/* --- Nodes ------------------------------------------------------------------------- */

static kv_err too_large(const builder *b, const kv_mark *mark)
{
    return kv_fail(b->diag, KV_ERR_INPUT, mark,
                   "more than %d values once aliases are expanded; expected a smaller document",
                   KV_YAML_MAX_NODES);
}

static kv_err too_deep(const builder *b, const kv_mark *mark)
{
    return kv_fail(b->diag, KV_ERR_INPUT, mark, "nested deeper than %d levels; expected fewer",
                   KV_YAML_MAX_DEPTH);
}

static kv_err add_anchor(builder *b, const yaml_char_t *name, kv_node *node)
{
    if (name == NULL)
        return KV_OK;
    if (b->anchor_count == b->anchor_capacity) {
        int capacity = b->anchor_capacity * 2 + 8;
        anchor *larger = realloc(b->anchors, (size_t)capacity * sizeof *larger);
        if (larger == NULL)
            return kv_fail_memory(b->diag);
        b->anchors = larger;
        b->anchor_capacity = capacity;
    }
    char *copy = strdup((const char *)name);
    if (copy == NULL)
        return kv_fail_memory(b->diag);
    b->anchors[b->anchor_count++] = (anchor){copy, node};
    return KV_OK;
}

static kv_err build_alias(builder *b, const yaml_event_t *event, int depth, kv_node **out)
{
    kv_mark mark = place_of(b, event);
    const char *name = (const char *)event->data.alias.anchor;
    int i = b->anchor_count - 1;
    while (i >= 0 && strcmp(b->anchors[i].name, name) != 0)
        i--;
    if (i < 0)
        return kv_fail(b->diag, KV_ERR_INPUT, &mark,
                       "alias *%.60s has no anchor; expected &%.60s before it", name, name);
    kv_node *node = b->anchors[i].node;
    if (node->open)
        return kv_fail(b->diag, KV_ERR_INPUT, &mark,
                       "alias *%.60s stands inside what it names; a document cannot contain itself",
                       name);
    if (depth + node->height > KV_YAML_MAX_DEPTH)
        return too_deep(b, &mark);
    *out = node;
    return KV_OK;
}

static kv_err refuse_tag(const builder *b, const yaml_char_t *tag, const kv_mark *mark)
{
    if (tag == NULL)
        return KV_OK;
    return kv_fail(b->diag, KV_ERR_INPUT, mark, "tag '%.60s' has no meaning here; leave it out",
                   (const char *)tag);
}

static kv_err build_scalar(builder *b, const yaml_event_t *event, kv_node **out)
{
    kv_mark mark = place_of(b, event);
    const char *text = (const char *)event->data.scalar.value;
    kv_err err = refuse_tag(b, event->data.scalar.tag, &mark);
    if (err != KV_OK)
        return err;
    if (strlen(text) != event->data.scalar.length)
        return kv_fail(b->diag, KV_ERR_INPUT, &mark, "text holds a NUL character; leave it out");
    kv_node *node = kv__node_new(b->document, KV_NODE_SCALAR, b->source, mark.line, mark.column);
    if (node == NULL || (node->text = strdup(text)) == NULL)
        return kv_fail_memory(b->diag);
    node->quoted = event->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
    *out = node;
    return add_anchor(b, event->data.scalar.anchor, node);
}

static kv_err build_collection(builder *b, const yaml_event_t *start, int depth, kv_node **out);

/* Makes the node that an event starts; takes the event. */
static kv_err build(builder *b, yaml_event_t *event, int depth, kv_node **out)
{
    kv_mark mark = place_of(b, event);
    kv_err err;
    if (depth >= KV_YAML_MAX_DEPTH)
        err = too_deep(b, &mark);
    else if (event->type == YAML_ALIAS_EVENT)
        err = build_alias(b, event, depth, out);
    else if (event->type == YAML_SCALAR_EVENT)
        err = build_scalar(b, event, out);
    else
        err = build_collection(b, event, depth, out);
    yaml_event_delete(event);
    return err;
}

static kv_err build_key(builder *b, yaml_event_t *event, kv_node **out)
{
    kv_mark mark = place_of(b, event);
    if (event->type != YAML_SCALAR_EVENT) {
        yaml_event_delete(event);
        return kv_fail(b->diag, KV_ERR_INPUT, &mark,
                       "a key is a list, a mapping or an alias; "
                       "expected a name");
    }
    kv_err err = build(b, event, 0, out);
    if (err == KV_OK && kv_node_text(*out, NULL) == NULL)
        return kv_fail(b->diag, KV_ERR_INPUT, &mark, "a key is empty; expected a name");
    return err;
}

static kv_err append(builder *b, kv_node *node, const kv_node *key, kv_node *value,
                     const kv_mark *mark)
{
    if (!kv__node_append(node, key, value))
        return kv_fail_memory(b->diag);
    return node->weight > KV_YAML_MAX_NODES ? too_large(b, mark) : KV_OK;
}

/* Adds the entries of a mapping that `<<` names, unless the key is there. */
static kv_err merge_map(builder *b, kv_node *node, const kv_node *from, const kv_mark *mark)
{
    if (from->kind != KV_NODE_MAP)
        return kv_fail(b->diag, KV_ERR_INPUT, mark,
                       "<< takes a mapping or a list of mappings, such as << : *name");
    for (int i = 0; i < from->count; i++) {
        if (kv__node_index(node, from->entry[i].key->text) >= 0)
            continue;
        kv_err err = append(b, node, from->entry[i].key, from->entry[i].value, mark);
        if (err != KV_OK)
            return err;
    }
    return KV_OK;
}

static kv_err merge(builder *b, kv_node *node, const kv_node *from)
{
    kv_mark mark = kv_node_mark(from);
    if (from->kind != KV_NODE_LIST)
        return merge_map(b, node, from, &mark);
    kv_err err = KV_OK;
    for (int i = 0; i < from->count && err == KV_OK; i++)
        err = merge_map(b, node, from->entry[i].value, &mark);
    return err;
}

typedef struct named {
    const kv_node *key;
    int index;
} named;

static int by_name(const void *a, const void *b)
{
    const named *x = a, *y = b;
    int order = strcmp(x->key->text, y->key->text);
    return order != 0 ? order : x->index - y->index;
}

static kv_err refuse_duplicates(builder *b, const kv_node *map)
{
    named *sorted = malloc(sizeof *sorted * (size_t)(map->count + 1));
    if (sorted == NULL)
        return kv_fail_memory(b->diag);
    for (int i = 0; i < map->count; i++)
        sorted[i] = (named){map->entry[i].key, i};
    qsort(sorted, (size_t)map->count, sizeof *sorted, by_name);
    kv_err err = KV_OK;
    for (int i = 1; i < map->count && err == KV_OK; i++) {
        if (strcmp(sorted[i - 1].key->text, sorted[i].key->text) != 0)
            continue;
        kv_mark mark = kv_node_mark(sorted[i].key);
        char before[32] = "";
        if (mark.line > 0)
            snprintf(before, sizeof before, ", on line %d", sorted[i - 1].key->line);
        err = kv_fail(b->diag, KV_ERR_INPUT, &mark,
                      "key '%.60s' was given before%s; expected it once", sorted[i].key->text,
                      before);
    }
    free(sorted);
    return err;
}

/* Reads key and value, or item, of a collection whose first event is `event`; takes the event. */
static kv_err build_entry(builder *b, kv_node *node, yaml_event_t *event, int depth,
                          kv_node **merged)
{
    kv_mark mark = place_of(b, event);
    kv_node *key = NULL, *value = NULL;
    if (node->kind == KV_NODE_MAP) {
        kv_err err = build_key(b, event, &key);
        if (err == KV_OK)
            err = next_event(b, event);
        if (err != KV_OK)
            return err;
    }
    kv_err err = build(b, event, depth + 1, &value);
    if (err != KV_OK)
        return err;
    if (key == NULL || key->quoted || strcmp(key->text, "<<") != 0)
        return append(b, node, key, value, &mark);
    if (*merged != NULL)
        return kv_fail(b->diag, KV_ERR_INPUT, &mark,
                       "<< was given before; expected one << with a list");
    *merged = value;
    return KV_OK;
}

static kv_err build_collection(builder *b, const yaml_event_t *start, int depth, kv_node **out)
{
    bool map = start->type == YAML_MAPPING_START_EVENT;
    kv_mark mark = place_of(b, start);
    kv_err err =
        refuse_tag(b, map ? start->data.mapping_start.tag : start->data.sequence_start.tag, &mark);
    if (err != KV_OK)
        return err;
    kv_node *node = kv__node_new(b->document, map ? KV_NODE_MAP : KV_NODE_LIST, b->source,
                                 mark.line, mark.column);
    if (node == NULL)
        return kv_fail_memory(b->diag);
    node->open = true;
    err = add_anchor(b, map ? start->data.mapping_start.anchor : start->data.sequence_start.anchor,
                     node);
    kv_node *merged = NULL;
    while (err == KV_OK) {
        yaml_event_t event;
        err = next_event(b, &event);
        if (err != KV_OK)
            return err;
        if (event.type == YAML_MAPPING_END_EVENT || event.type == YAML_SEQUENCE_END_EVENT) {
            yaml_event_delete(&event);
            break;
        }
        err = build_entry(b, node, &event, depth, &merged);
    }
    if (err == KV_OK && map)
        err = refuse_duplicates(b, node);
    if (err == KV_OK && merged != NULL)
        err = merge(b, node, merged);
    node->open = false;
    *out = node;
    return err;
}

/* --- Documents --------------------------------------------------------------------- */

/* Reads events until one of the type `until`, which it leaves in *event; others in between are
 * what starts a stream. */
static kv_err skip_to_document(builder *b, yaml_event_t *event)
{
    kv_err err = next_event(b, event);
    if (err != KV_OK)
        return err;
    yaml_event_delete(event); /* the start of the stream */
    err = next_event(b, event);
    if (err != KV_OK)
        return err;
    kv_mark mark = place(b, 0, 0);
    if (event->type == YAML_STREAM_END_EVENT)
        err = kv_fail(b->diag, KV_ERR_INPUT, &mark, "there is nothing here; expected YAML");
    yaml_event_delete(event);
    return err == KV_OK ? next_event(b, event) : err;
}

static kv_err expect_end(builder *b)
{
    yaml_event_t event;
    kv_err err = next_event(b, &event);
    if (err != KV_OK)
        return err;
    yaml_event_delete(&event); /* the end of the document */
    err = next_event(b, &event);
    if (err != KV_OK)
        return err;
    kv_mark mark = place_of(b, &event);
    if (event.type != YAML_STREAM_END_EVENT)
        err = kv_fail(b->diag, KV_ERR_INPUT, &mark,
                      "a second document starts here; expected one document in a file");
    yaml_event_delete(&event);
    return err;
}

static kv_err build_document(builder *b)
{
    const char *nul = memchr(b->text, '\0', b->bytes);
    if (nul != NULL) {
        kv_mark mark = place_of_byte(b, (size_t)(nul - b->text));
        return kv_fail(b->diag, KV_ERR_INPUT, &mark, "a NUL byte; expected UTF-8 text");
    }
    yaml_event_t event;
    kv_err err = skip_to_document(b, &event);
    if (err == KV_OK)
        err = build(b, &event, 0, &b->document->root);
    return err == KV_OK ? expect_end(b) : err;
}

static kv_document *document_new(const char *label, const char *directory)
{
    kv_document *document = calloc(1, sizeof *document);
    kv_source *source = calloc(1, sizeof *source);
    if (document == NULL || source == NULL) {
        free(document);
        free(source);
        return NULL;
    }
    document->sources = source;
    source->label = label ? strdup(label) : NULL;
    source->directory = strdup(directory);
    if (source->directory == NULL || (label != NULL && source->label == NULL)) {
        kv_document_free(document);
        return NULL;
    }
    return document;
}

kv_err kv__document_parse_at(const kv_mark *at, const char *directory, const char *text,
                             size_t bytes, kv_document **out, kv_diag *diag)
{
    kv_document *document = document_new(at->path, directory);
    builder b = {.document = document, .start = *at, .text = text, .bytes = bytes, .diag = diag};
    if (document == NULL || !yaml_parser_initialize(&b.parser)) {
        kv_document_free(document);
        return kv_fail_memory(diag);
    }
    b.source = document->sources;
    yaml_parser_set_input_string(&b.parser, (const unsigned char *)text, bytes);
    kv_err err = build_document(&b);
    yaml_parser_delete(&b.parser);
    for (int i = 0; i < b.anchor_count; i++)
        free(b.anchors[i].name);
    free(b.anchors);
    if (err != KV_OK) {
        kv_document_free(document);
        return err;
    }
    *out = document;
    return KV_OK;
}

kv_err kv_document_parse(const char *path, const char *text, size_t bytes, kv_document **out,
                         kv_diag *diag)
{
    kv_mark start = {path, 1, 1};
    char *directory = kv_path_directory(path ? path : "");
    if (directory == NULL)
        return kv_fail_memory(diag);
    kv_err err = kv__document_parse_at(&start, directory, text, bytes, out, diag);
    free(directory);
    return err;
}

kv_err kv_document_read(const char *path, kv_document **out, kv_diag *diag)
{
    char *text;
    size_t bytes;
    kv_err err = kv_file_read(path, MOST_BYTES, &text, &bytes, diag);
    if (err != KV_OK)
        return err;
    err = kv_document_parse(path, text, bytes, out, diag);
    free(text);
    return err;
}
