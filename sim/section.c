/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "sim/section.h"

#include <string.h>

static const kv_param no_params[] = {{.name = NULL}};
static const kv_field no_fields[] = {{.name = NULL}};
static const kv_section *const no_sections[] = {NULL};

static const kv_param *params_of(const kv_section *section)
{
    return section->params ? section->params : no_params;
}

static const kv_field *fields_of(const kv_section *section)
{
    return section->fields ? section->fields : no_fields;
}

static const kv_section *const *sections_of(const kv_section *section)
{
    return section->sections ? section->sections : no_sections;
}

kv_err kv_section_default(const kv_section *section, void *config, kv_diag *diag)
{
    kv_err err = kv_params_default(params_of(section), config, diag);
    for (const kv_section *const *s = sections_of(section); *s != NULL && err == KV_OK; s++)
        err = kv_section_default(*s, (char *)config + (*s)->offset, diag);
    return err;
}

void kv_section_fini(const kv_section *section, void *config)
{
    kv_params_fini(params_of(section), config);
    for (const kv_field *f = fields_of(section); f->name != NULL; f++)
        kv_field_fini(f, config);
    for (const kv_section *const *s = sections_of(section); *s != NULL; s++)
        kv_section_fini(*s, (char *)config + (*s)->offset);
}

static kv_err parse_field(const kv_field *field, void *config, const kv_node *map, kv_diag *diag)
{
    const kv_node *value = kv_node_find(map, field->name);
    kv_mark mark = kv_node_mark(value == NULL ? map : value);
    if (value == NULL)
        return !field->required ? KV_OK
                                : kv_fail(diag, KV_ERR_INPUT, &mark, "'%s' is missing: %s",
                                          field->name, field->help);
    if (kv_node_get_kind(value) != KV_NODE_LIST || field->type == KV_FIELD_NODE ||
        field->type == KV_FIELD_NODES || field->type == KV_FIELD_SERVING)
        return kv_field_parse(field, config, value, diag);
    if (kv_node_count(value) == 0)
        return kv_fail(diag, KV_ERR_INPUT, &mark,
                       "%s: the list is empty; expected at least one item", field->name);
    kv_err err = KV_OK;
    for (int i = 0; i < kv_node_count(value) && err == KV_OK; i++)
        err = kv_field_parse(field, config, kv_node_at(value, i), diag);
    return err;
}

static kv_err parse_child(const kv_section *child, void *config, const kv_node *map, kv_diag *diag)
{
    const kv_node *value = kv_node_find(map, child->name);
    if (value == NULL)
        return KV_OK;
    kv_mark mark = kv_node_mark(value);
    if (child->refusal != NULL)
        return kv_fail(diag, KV_ERR_UNSUPPORTED, &mark, "%s: %s", child->name, child->refusal);
    if (child->given_offset > 0)
        *(bool *)((char *)config + child->given_offset) = true;
    return kv_section_parse(child, (char *)config + child->offset, value, diag);
}

kv_err kv_section_parse(const kv_section *section, void *config, const kv_node *map, kv_diag *diag)
{
    enum { MOST = 64 };
    const char *also[MOST] = {NULL};
    int count = 0;
    for (const kv_field *f = fields_of(section); f->name != NULL && count < MOST - 1; f++)
        also[count++] = f->name;
    for (const kv_section *const *s = sections_of(section); *s != NULL && count < MOST - 1; s++)
        also[count++] = (*s)->name;
    kv_err err = kv_params_parse(params_of(section), config, map, also, diag);
    for (const kv_field *f = fields_of(section); f->name != NULL && err == KV_OK; f++)
        err = parse_field(f, config, map, diag);
    for (const kv_section *const *s = sections_of(section); *s != NULL && err == KV_OK; s++)
        err = parse_child(*s, config, map, diag);
    return err == KV_OK && section->finish != NULL ? section->finish(config, map, diag) : err;
}
