/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Tree to text: block style, aliases and merges expanded. */
#include "config.h"

#include "sim/base/yaml_tree.h"

#include <string.h>
#include <yaml.h>

static int write_bytes(void *out, unsigned char *text, size_t bytes)
{
    return fwrite(text, 1, bytes, out) == bytes;
}

static bool emit_scalar(yaml_emitter_t *emitter, const kv_node *node)
{
    const char *text = node->text[0] == '\0' && !node->quoted ? "null" : node->text;
    yaml_scalar_style_t style = !node->quoted                ? YAML_PLAIN_SCALAR_STYLE
                                : strchr(text, '\n') != NULL ? YAML_DOUBLE_QUOTED_SCALAR_STYLE
                                                             : YAML_SINGLE_QUOTED_SCALAR_STYLE;
    yaml_event_t event;
    return yaml_scalar_event_initialize(&event, NULL, NULL, (const yaml_char_t *)text,
                                        (int)strlen(text), 1, 1, style) &&
           yaml_emitter_emit(emitter, &event);
}

static bool emit(yaml_emitter_t *emitter, const kv_node *node)
{
    if (node->kind == KV_NODE_SCALAR)
        return emit_scalar(emitter, node);
    bool map = node->kind == KV_NODE_MAP;
    yaml_event_t event;
    bool good =
        (map ? yaml_mapping_start_event_initialize(&event, NULL, NULL, 1, YAML_BLOCK_MAPPING_STYLE)
             : yaml_sequence_start_event_initialize(&event, NULL, NULL, 1,
                                                    YAML_BLOCK_SEQUENCE_STYLE)) &&
        yaml_emitter_emit(emitter, &event);
    for (int i = 0; good && i < node->count; i++)
        good = (!map || emit_scalar(emitter, node->entry[i].key)) &&
               emit(emitter, node->entry[i].value);
    return good &&
           (map ? yaml_mapping_end_event_initialize(&event)
                : yaml_sequence_end_event_initialize(&event)) &&
           yaml_emitter_emit(emitter, &event);
}

kv_err kv_document_write(const kv_document *document, FILE *out)
{
    yaml_emitter_t emitter;
    yaml_event_t event;
    if (!yaml_emitter_initialize(&emitter))
        return KV_ERR_MEMORY;
    yaml_emitter_set_output(&emitter, write_bytes, out);
    yaml_emitter_set_unicode(&emitter, 1);
    yaml_emitter_set_width(&emitter, -1);
    bool good = yaml_stream_start_event_initialize(&event, YAML_UTF8_ENCODING) &&
                yaml_emitter_emit(&emitter, &event) &&
                yaml_document_start_event_initialize(&event, NULL, NULL, NULL, 1) &&
                yaml_emitter_emit(&emitter, &event) && emit(&emitter, document->root) &&
                yaml_document_end_event_initialize(&event, 1) &&
                yaml_emitter_emit(&emitter, &event) && yaml_stream_end_event_initialize(&event) &&
                yaml_emitter_emit(&emitter, &event);
    kv_err err = good ? KV_OK : emitter.error == YAML_MEMORY_ERROR ? KV_ERR_MEMORY : KV_ERR_IO;
    yaml_emitter_delete(&emitter);
    return err;
}
