/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/method.h"
#include "sim/base/json.h"
#include "sim/base/unit.h"
#include "sim/experiment.h"
#include "sim/schema.h"

#include <math.h>
#include <stdarg.h>

/* --- Indented JSON ----------------------------------------------------------------- */

typedef struct writer {
    FILE *out;
    int depth;
    bool first; /* nothing was written yet in the object or list that is open */
} writer;

static void next(writer *w)
{
    fprintf(w->out, "%s\n%*s", w->first ? "" : ",", 2 * w->depth, "");
    w->first = false;
}

static void key(writer *w, const char *name)
{
    next(w);
    kv_json_string(name, w->out);
    fputs(": ", w->out);
}

static void open_with(writer *w, char bracket)
{
    putc(bracket, w->out);
    w->depth++;
    w->first = true;
}

static void close_with(writer *w, char bracket)
{
    w->depth--;
    if (!w->first)
        fprintf(w->out, "\n%*s", 2 * w->depth, "");
    putc(bracket, w->out);
    w->first = false;
}

static void text(writer *w, const char *name, const char *value)
{
    key(w, name);
    kv_json_string(value, w->out);
}

static void literal(writer *w, const char *name, const char *json)
{
    key(w, name);
    fputs(json, w->out);
}

/* --- Values ------------------------------------------------------------------------ */

static void bounds(writer *w, const kv_param *param)
{
    char number[KV_REAL_TEXT];
    if (param->min == 0 && param->max == 0)
        return;
    if (isfinite(param->min)) {
        kv_real_text(param->min, number);
        literal(w, param->flags & KV_PARAM_OPEN_MIN ? "exclusiveMinimum" : "minimum", number);
    }
    if (isfinite(param->max)) {
        kv_real_text(param->max, number);
        literal(w, "maximum", number);
    }
}

static void choices(writer *w, const char *const *names)
{
    key(w, "enum");
    open_with(w, '[');
    for (; *names != NULL; names++) {
        next(w);
        kv_json_string(*names, w->out);
    }
    close_with(w, ']');
}

/* A number and one of the units; bounds of quantities are left to the parser. */
static void quantity(writer *w, const kv_unit *units)
{
    text(w, "type", "string");
    key(w, "pattern");
    fputs("\"^[+]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][-+]?[0-9]+)? *(", w->out);
    for (const kv_unit *u = units; u->name != NULL; u++)
        fprintf(w->out, "%s%s", u == units ? "" : "|", u->name);
    fputs(")$\"", w->out);
}

static void chunk(writer *w)
{
    key(w, "anyOf");
    fputs("[{\"const\": \"whole\"}, {\"type\": \"integer\", \"minimum\": 1}]", w->out);
}

/* The keywords that say what one value of a parameter is. */
static void value(writer *w, const kv_param *param)
{
    switch (param->type) {
    case KV_BOOL:
        text(w, "type", "boolean");
        break;
    case KV_INT:
        text(w, "type", "integer");
        bounds(w, param);
        break;
    case KV_REAL:
        text(w, "type", "number");
        bounds(w, param);
        break;
    case KV_CHOICE:
        choices(w, param->choices);
        break;
    case KV_TEXT:
    case KV_PATH:
        literal(w, "type", "[\"string\", \"number\", \"boolean\"]");
        literal(w, "minLength", "1");
        break;
    case KV_BYTES:
        quantity(w, kv_units_bytes);
        break;
    case KV_RATE:
        quantity(w, kv_units_rate);
        break;
    case KV_DURATION:
        quantity(w, kv_units_duration);
        break;
    case KV_CHUNK:
        chunk(w);
        break;
    }
}

/* {"anyOf": [ITEM, a list of ITEM]}: a list makes a grid, or an item stands for a list of one. */
static void one_or_list(writer *w, void (*item)(writer *, const void *), const void *closure)
{
    key(w, "anyOf");
    open_with(w, '[');
    next(w);
    open_with(w, '{');
    item(w, closure);
    close_with(w, '}');
    next(w);
    open_with(w, '{');
    text(w, "type", "array");
    literal(w, "minItems", "1");
    key(w, "items");
    open_with(w, '{');
    item(w, closure);
    close_with(w, '}');
    close_with(w, '}');
    close_with(w, ']');
}

static void value_item(writer *w, const void *param)
{
    value(w, param);
}

static void param(writer *w, const kv_param *p)
{
    key(w, p->name);
    open_with(w, '{');
    text(w, "description", p->help);
    if (p->unit != NULL && p->unit[0] != '\0')
        text(w, "x-unit", p->unit);
    if (p->fallback != NULL) {
        key(w, "default");
        kv_param_fallback_json(p, w->out);
    }
    if (p->flags & KV_PARAM_SWEEP)
        one_or_list(w, value_item, p);
    else
        value(w, p);
    close_with(w, '}');
}

/* --- Policies ---------------------------------------------------------------------- */

static const kv_param chunk_size = {.name = "chunk_size",
                                    .type = KV_CHUNK,
                                    .flags = KV_PARAM_SWEEP,
                                    .unit = "tokens",
                                    .help = "tokens prefilled in one step, instead of the "
                                            "experiment's chunk_size"};

static void policy_item(writer *w, const void *closure)
{
    literal(w, "$ref", "\"#/$defs/policy\"");
}

static void policy(writer *w, const kv_method *p)
{
    key(w, p->name);
    open_with(w, '{');
    text(w, "description", p->brief);
    literal(w, "type", "[\"object\", \"null\"]");
    literal(w, "additionalProperties", "false");
    key(w, "properties");
    open_with(w, '{');
    for (const kv_param *row = p->params; row->name != NULL; row++)
        param(w, row);
    param(w, &chunk_size);
    close_with(w, '}');
    close_with(w, '}');
}

/* One policy is its name, or a mapping with its name as the only key. */
static void part_definition(writer *w)
{
    key(w, "part");
    open_with(w, '{');
    text(w, "description", "A policy; `kvsim list policies` explains them");
    key(w, "anyOf");
    open_with(w, '[');
    next(w);
    open_with(w, '{');
    key(w, "enum");
    open_with(w, '[');
    for (int i = 0; i < kv_methods(); i++) {
        next(w);
        kv_json_string(kv_method_get(i).name, w->out);
    }
    close_with(w, ']');
    close_with(w, '}');
    next(w);
    open_with(w, '{');
    text(w, "type", "object");
    literal(w, "minProperties", "1");
    literal(w, "maxProperties", "1");
    literal(w, "additionalProperties", "false");
    key(w, "properties");
    open_with(w, '{');
    for (int i = 0; i < kv_methods(); i++) {
        kv_method method = kv_method_get(i);
        policy(w, &method);
    }
    close_with(w, '}');
    close_with(w, '}');
    close_with(w, ']');
    close_with(w, '}');
}

/* An item of `policies` is one policy or a combination. */
static void policy_definition(writer *w)
{
    key(w, "policy");
    open_with(w, '{');
    text(w, "description",
         "A policy, or a sequence that combines at most one retention policy, transforms and at "
         "most one read policy");
    key(w, "anyOf");
    open_with(w, '[');
    next(w);
    open_with(w, '{');
    literal(w, "$ref", "\"#/$defs/part\"");
    close_with(w, '}');
    next(w);
    open_with(w, '{');
    text(w, "type", "array");
    literal(w, "minItems", "1");
    literal(w, "items", "{\"$ref\": \"#/$defs/part\"}");
    close_with(w, '}');
    close_with(w, ']');
    close_with(w, '}');
}

/* --- Sections ---------------------------------------------------------------------- */

static void text_item(writer *w, const void *closure)
{
    literal(w, "type", "[\"string\", \"number\", \"boolean\"]");
    literal(w, "minLength", "1");
}

static void chunk_item(writer *w, const void *closure)
{
    chunk(w);
}

static void field(writer *w, const kv_field *f)
{
    static void (*const items[])(writer *, const void *) = {
        [KV_FIELD_TEXTS] = text_item,   [KV_FIELD_FILES] = text_item,
        [KV_FIELD_CHUNKS] = chunk_item, [KV_FIELD_POLICIES] = policy_item,
        [KV_FIELD_NODE] = NULL,
    };
    key(w, f->name);
    open_with(w, '{');
    text(w, "description", f->help);
    if (items[f->type] != NULL)
        one_or_list(w, items[f->type], NULL);
    else
        literal(w, "type", "[\"string\", \"number\", \"boolean\", \"object\"]");
    close_with(w, '}');
}

static void required(writer *w, const kv_section *section)
{
    key(w, "required");
    open_with(w, '[');
    for (const kv_param *p = section->params; p != NULL && p->name != NULL; p++)
        if (p->flags & KV_PARAM_REQUIRED) {
            next(w);
            kv_json_string(p->name, w->out);
        }
    for (const kv_field *f = section->fields; f != NULL && f->name != NULL; f++)
        if (f->required) {
            next(w);
            kv_json_string(f->name, w->out);
        }
    close_with(w, ']');
}

/* The keywords of a section, within braces that are open. */
static void section_body(writer *w, const kv_section *section)
{
    text(w, "description", section->help);
    text(w, "type", "object");
    literal(w, "additionalProperties", "false");
    required(w, section);
    key(w, "properties");
    open_with(w, '{');
    for (const kv_param *p = section->params; p != NULL && p->name != NULL; p++)
        param(w, p);
    for (const kv_field *f = section->fields; f != NULL && f->name != NULL; f++)
        field(w, f);
    for (const kv_section *const *s = section->sections; s != NULL && *s != NULL; s++) {
        if ((*s)->refusal != NULL)
            continue;
        key(w, (*s)->name);
        open_with(w, '{');
        section_body(w, *s);
        close_with(w, '}');
    }
    close_with(w, '}');
}

void kv_schema_write(FILE *out)
{
    writer w = {out, 0, true};
    open_with(&w, '{');
    text(&w, "$schema", "https://json-schema.org/draft/2020-12/schema");
    text(&w, "title", "Experiment file of kvsim " PACKAGE_VERSION);
    section_body(&w, &kv__experiment_section);
    key(&w, "$defs");
    open_with(&w, '{');
    part_definition(&w);
    policy_definition(&w);
    close_with(&w, '}');
    close_with(&w, '}');
    putc('\n', out);
}
