/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "models/catalogue.h"
#include "models/device.h"
#include "policies/method.h"
#include "policies/scorer.h"
#include "sim/base/json.h"
#include "sim/base/unit.h"
#include "sim/experiment.h"
#include "sim/schema.h"
#include "sim/schema_writer.h"
#include "sim/serving/plan.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

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
    if (param->flags & KV_PARAM_ODD)
        literal(w, "not", "{\"multipleOf\": 2}");
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

/* A number and one of the units. Bounds of quantities are left to the parser, but for 0. */
static void quantity(writer *w, const kv_unit *units, bool positive)
{
    text(w, "type", "string");
    key(w, "pattern");
    fprintf(w->out, "\"^[+]?%s", positive ? "(?=[0-9.]*[1-9])" : "");
    fputs("([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][-+]?[0-9]+)? *(", w->out);
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
    bool positive = (param->flags & KV_PARAM_OPEN_MIN) != 0 || param->min > 0;
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
        quantity(w, kv_units_bytes, positive);
        break;
    case KV_RATE:
        quantity(w, kv_units_rate, positive);
        break;
    case KV_DURATION:
        quantity(w, kv_units_duration, positive);
        break;
    case KV_CHUNK:
        chunk(w);
        break;
    case KV_ITEM:
        literal(w, "$ref", "\"#/$defs/scorer\"");
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

static void param_of(writer *w, const kv_param *p, bool lists)
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
    if (lists && (p->flags & KV_PARAM_SWEEP))
        one_or_list(w, value_item, p);
    else
        value(w, p);
    close_with(w, '}');
}

static void param(writer *w, const kv_param *p)
{
    param_of(w, p, true);
}

static void required_keys(writer *w, const kv_param *params)
{
    key(w, "required");
    open_with(w, '[');
    for (const kv_param *p = params; p->name != NULL; p++)
        if (p->flags & KV_PARAM_REQUIRED) {
            next(w);
            kv_json_string(p->name, w->out);
        }
    close_with(w, ']');
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

/* The next policy of the same name after `index`, in another family; -1: none. */
static int next_namesake(int index)
{
    const char *name = kv_method_get(index).name;
    for (int i = index + 1; i < kv_methods(); i++)
        if (strcmp(kv_method_get(i).name, name) == 0)
            return i;
    return -1;
}

static bool is_first_of_name(int index)
{
    int i = 0;
    while (strcmp(kv_method_get(i).name, kv_method_get(index).name) != 0)
        i++;
    return i == index;
}

/* Exactly one setting says how much a retention policy keeps. True if none has a default. */
static bool needs_budget(const kv_method *p)
{
    bool any = false;
    for (const kv_param *row = p->params; row->name != NULL; row++) {
        if ((row->flags & KV_PARAM_BUDGET) && row->fallback != NULL)
            return false;
        any = any || (row->flags & KV_PARAM_BUDGET) != 0;
    }
    return any && p->family == KV_FAMILY_RETENTION;
}

static void one_budget(writer *w, const kv_method *p)
{
    key(w, "oneOf");
    open_with(w, '[');
    for (const kv_param *row = p->params; row->name != NULL; row++)
        if (row->flags & KV_PARAM_BUDGET) {
            next(w);
            fprintf(w->out, "{\"required\": [\"%s\"]}", row->name);
        }
    close_with(w, ']');
}

/* Whether the policy's name alone is enough. */
static bool stands_alone(const kv_method *p)
{
    for (const kv_param *row = p->params; row->name != NULL; row++)
        if (row->flags & KV_PARAM_REQUIRED)
            return false;
    return !needs_budget(p);
}

static void settings(writer *w, const kv_method *p)
{
    open_with(w, '{');
    text(w, "description", p->brief);
    literal(w, "type", stands_alone(p) ? "[\"object\", \"null\"]" : "\"object\"");
    literal(w, "additionalProperties", "false");
    if (needs_budget(p))
        one_budget(w, p);
    required_keys(w, p->params);
    key(w, "properties");
    open_with(w, '{');
    for (const kv_param *row = p->params; row->name != NULL; row++)
        param(w, row);
    param(w, &chunk_size);
    close_with(w, '}');
    close_with(w, '}');
}

/* The same of any policy of that name. */
static bool any_stands_alone(int index)
{
    for (int i = index; i >= 0; i = next_namesake(i)) {
        kv_method method = kv_method_get(i);
        if (stands_alone(&method))
            return true;
    }
    return false;
}

/* A name that stands in two families takes the settings of either. */
static void policy(writer *w, int index)
{
    kv_method method = kv_method_get(index);
    key(w, method.name);
    if (next_namesake(index) < 0) {
        settings(w, &method);
        return;
    }
    open_with(w, '{');
    key(w, "anyOf");
    open_with(w, '[');
    for (int i = index; i >= 0; i = next_namesake(i)) {
        method = kv_method_get(i);
        next(w);
        settings(w, &method);
    }
    close_with(w, ']');
    close_with(w, '}');
}

/* Opens the two forms of a scorer or of a policy, of which the first is its name. */
static void open_forms(writer *w, const char *name, const char *help)
{
    key(w, name);
    open_with(w, '{');
    text(w, "description", help);
    key(w, "anyOf");
    open_with(w, '[');
    next(w);
    open_with(w, '{');
    key(w, "enum");
    open_with(w, '[');
}

/* Opens the second, a mapping with the name as the only key. */
static void open_mapping_form(writer *w)
{
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
}

static void close_forms(writer *w)
{
    for (const char *end = "}}]}"; *end != '\0'; end++)
        close_with(w, *end);
}

/* One policy is its name, or a mapping with its name as the only key. */
static void part_definition(writer *w)
{
    open_forms(w, "part", "A policy; `kvsim list policies` explains them");
    for (int i = 0; i < kv_methods(); i++) {
        if (!is_first_of_name(i) || !any_stands_alone(i))
            continue;
        next(w);
        kv_json_string(kv_method_get(i).name, w->out);
    }
    open_mapping_form(w);
    for (int i = 0; i < kv_methods(); i++)
        if (is_first_of_name(i))
            policy(w, i);
    close_forms(w);
}

/* Settings of a scorer: how much is kept is not its to say, and nothing makes a grid. */
static void scorer_settings(writer *w, const kv_retention *p)
{
    key(w, p->name);
    open_with(w, '{');
    text(w, "description", p->brief);
    literal(w, "type", "[\"object\", \"null\"]");
    literal(w, "additionalProperties", "false");
    key(w, "properties");
    open_with(w, '{');
    for (const kv_param *row = p->params; row->name != NULL; row++)
        if (!(row->flags & KV_PARAM_OUTERMOST))
            param_of(w, row, false);
    close_with(w, '}');
    close_with(w, '}');
}

/* The value of `scorer`: a policy's name, or a mapping with its name as the only key. */
static void scorer_definition(writer *w)
{
    open_forms(w, "scorer", "A policy whose scores another one takes");
    for (const kv_retention *const *p = kv_retention_all(); *p != NULL; p++)
        if (kv_scorer_can(*p)) {
            next(w);
            kv_json_string((*p)->name, w->out);
        }
    open_mapping_form(w);
    for (const kv_retention *const *p = kv_retention_all(); *p != NULL; p++)
        if (kv_scorer_can(*p))
            scorer_settings(w, *p);
    close_forms(w);
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

/* --- Serving ----------------------------------------------------------------------- */

/* Opens a mapping that knows no other keys than those of its `properties`, which follow. */
static void open_mapping(writer *w, const char *help)
{
    text(w, "description", help);
    text(w, "type", "object");
    literal(w, "additionalProperties", "false");
    key(w, "properties");
    open_with(w, '{');
}

static void named_item(writer *w, const void *closure)
{
    const kv_serving_choice *choice = closure;
    key(w, "enum");
    open_with(w, '[');
    for (int i = 0; choice->option(i) != NULL; i++) {
        next(w);
        kv_json_string(choice->option(i), w->out);
    }
    close_with(w, ']');
}

/* A setting of a mapping; some are names from a table of policies. */
static void setting(writer *w, const char *part, const kv_param *p)
{
    const kv_serving_choice *choice = kv_serving_choice_find(part, p->name);
    if (choice == NULL) {
        param(w, p);
        return;
    }
    key(w, p->name);
    open_with(w, '{');
    text(w, "description", p->help);
    text(w, "default", p->fallback);
    one_or_list(w, named_item, choice);
    close_with(w, '}');
}

/* A mapping of scalars that stands under its name. */
static void mapping(writer *w, const char *name, const char *help, const kv_param *params)
{
    key(w, name);
    open_with(w, '{');
    open_mapping(w, help);
    for (const kv_param *p = params; p->name != NULL; p++)
        setting(w, params == kv_tier_params ? "tiers" : name, p);
    close_with(w, '}');
    required_keys(w, params);
    close_with(w, '}');
}

static const kv_shelf models = KV_SHELF_MODELS, devices = KV_SHELF_DEVICES;

/* The properties of a device that is described in its place. */
static void device_rows(writer *w)
{
    literal(w, "additionalProperties", "false");
    key(w, "properties");
    open_with(w, '{');
    for (const kv_param *p = kv_device_params; p->name != NULL; p++)
        param(w, p);
    mapping(w, "host_link", "between host and device", kv_link_params);
    mapping(w, "tensor_parallel_link", "between devices", kv_link_params);
    close_with(w, '}');
    required_keys(w, kv_device_params);
}

/* A name of the catalogue, the path of a file, or a mapping. Who has descriptions of his own is not
 * held to the names. */
static void catalogue_item(writer *w, const void *closure)
{
    const kv_shelf *shelf = closure;
    const char *own = getenv("KVSIM_DATADIR");
    key(w, "anyOf");
    open_with(w, '[');
    next(w);
    open_with(w, '{');
    if (own != NULL && own[0] != '\0') {
        text(w, "type", "string");
        literal(w, "minLength", "1");
    } else {
        key(w, "enum");
        open_with(w, '[');
        for (const kv_catalogue_entry *e = kv_catalogue_all(*shelf); e->name != NULL; e++) {
            next(w);
            kv_json_string(e->name, w->out);
        }
        close_with(w, ']');
    }
    close_with(w, '}');
    next(w);
    fputs("{\"type\": \"string\", \"pattern\": \"^[{]|/|[.]ya?ml$\"}", w->out);
    next(w);
    open_with(w, '{');
    text(w, "type", "object");
    if (*shelf == KV_SHELF_DEVICES)
        device_rows(w);
    close_with(w, '}');
    close_with(w, ']');
}

static void chunk_item(writer *w, const void *closure)
{
    chunk(w);
}

/* The tables of settings of request traces: those of every format, and each format's own. */
enum { MOST_TABLES = 64 };
static int request_tables(const kv_param *table[MOST_TABLES], bool columns)
{
    int tables = 0;
    if (!columns)
        table[tables++] = kv_request_params;
    for (const kv_request_format *const *f = kv_request_format_all(); *f != NULL; f++) {
        const kv_param *own[] = {columns ? (*f)->columns : (*f)->params,
                                 columns ? NULL : (*f)->shared_params};
        for (int i = 0; i < 2 && tables < MOST_TABLES; i++)
            if (own[i] != NULL)
                table[tables++] = own[i];
    }
    return tables;
}

/* The n-th row of that name in all tables, or NULL. */
static const kv_param *row_of_name(const kv_param *const *table, int tables, const char *name,
                                   int nth)
{
    for (int t = 0; t < tables; t++) {
        bool seen = false;
        for (int before = 0; before < t; before++)
            seen = seen || table[before] == table[t];
        const kv_param *row = seen ? NULL : kv_param_find(table[t], name);
        if (row != NULL && nth-- == 0)
            return row;
    }
    return NULL;
}

/* Settings of several formats under one key: any of what they mean by it. */
static void request_rows(writer *w, const kv_param *const *table, int tables)
{
    for (int t = 0; t < tables; t++)
        for (const kv_param *p = table[t]; p->name != NULL; p++) {
            if (row_of_name(table, tables, p->name, 0) != p)
                continue;
            key(w, p->name);
            open_with(w, '{');
            text(w, "description", p->help);
            key(w, "anyOf");
            open_with(w, '[');
            const kv_param *row;
            for (int n = 0; (row = row_of_name(table, tables, p->name, n)) != NULL; n++) {
                next(w);
                open_with(w, '{');
                if (row->flags & KV_PARAM_SWEEP)
                    one_or_list(w, value_item, row);
                else
                    value(w, row);
                close_with(w, '}');
            }
            close_with(w, ']');
            close_with(w, '}');
        }
}

static void name_keys(writer *w, const kv_param *table)
{
    for (const kv_param *p = table; p != NULL && p->name != NULL; p++) {
        next(w);
        kv_json_string(p->name, w->out);
    }
}

/* A format has its own settings and no other's. */
static void format_rule(writer *w, const kv_request_format *format)
{
    next(w);
    open_with(w, '{');
    key(w, "if");
    fprintf(w->out,
            "{\"required\": [\"format\"], \"properties\": {\"format\": {\"const\": \"%s\"}}}",
            format->name);
    key(w, "then");
    open_with(w, '{');
    if (!format->no_file)
        literal(w, "required", "[\"file\"]");
    key(w, "propertyNames");
    open_with(w, '{');
    key(w, "enum");
    open_with(w, '[');
    next(w);
    fputs("\"file\", \"format\"", w->out);
    name_keys(w, kv_request_params);
    name_keys(w, format->params);
    name_keys(w, format->shared_params);
    if (format->columns != NULL) {
        next(w);
        fputs("\"columns\"", w->out);
    }
    close_with(w, ']');
    close_with(w, '}');
    close_with(w, '}');
    close_with(w, '}');
}

static void request_rules(writer *w)
{
    literal(w, "anyOf", "[{\"required\": [\"file\"]}, {\"required\": [\"format\"]}]");
    literal(w, "dependentRequired", "{\"rate\": [\"arrivals\"]}");
    key(w, "allOf");
    open_with(w, '[');
    next(w);
    fputs("{\"if\": {\"required\": [\"file\"], \"properties\": {\"file\": {\"const\": \"-\"}}}, "
          "\"then\": {\"required\": [\"format\"]}}",
          w->out);
    next(w);
    fputs("{\"if\": {\"required\": [\"arrivals\"], \"properties\": {\"arrivals\": {\"enum\": "
          "[\"even\", \"poisson\", \"gamma\"]}}}, \"then\": {\"required\": [\"rate\"]}}",
          w->out);
    for (const kv_request_format *const *f = kv_request_format_all(); *f != NULL; f++)
        format_rule(w, *f);
    close_with(w, ']');
}

static void requests(writer *w)
{
    const kv_param *table[MOST_TABLES];
    key(w, "requests");
    open_with(w, '{');
    open_mapping(w, "the trace, its format and the settings of that; docs/request-traces.md");
    key(w, "file");
    fputs("{\"type\": \"string\", \"minLength\": 1}", w->out);
    key(w, "format");
    open_with(w, '{');
    key(w, "enum");
    open_with(w, '[');
    for (const kv_request_format *const *f = kv_request_format_all(); *f != NULL; f++) {
        next(w);
        kv_json_string((*f)->name, w->out);
    }
    close_with(w, ']');
    close_with(w, '}');
    request_rows(w, table, request_tables(table, false));
    key(w, "columns");
    open_with(w, '{');
    open_mapping(w, "names of columns");
    request_rows(w, table, request_tables(table, true));
    close_with(w, '}');
    close_with(w, '}');
    close_with(w, '}');
    request_rules(w);
    close_with(w, '}');
}

static void listed(writer *w, const char *name, const char *help,
                   void (*item)(writer *, const void *), const void *closure)
{
    key(w, name);
    open_with(w, '{');
    text(w, "description", help);
    one_or_list(w, item, closure);
    close_with(w, '}');
}

static void tiers(writer *w)
{
    char most[16];
    key(w, "tiers");
    open_with(w, '{');
    text(w, "description", "memory below the GPU, from the fastest down");
    text(w, "type", "object");
    snprintf(most, sizeof most, "%d", KV_MOST_TIERS);
    literal(w, "maxProperties", most);
    literal(w, "propertyNames", "{\"not\": {\"const\": \"gpu\"}}");
    mapping(w, "additionalProperties", "a tier of each replica", kv_tier_params);
    close_with(w, '}');
}

/* The keywords of the section `serving`, within braces that are open. */
static void serving(writer *w, const char *help)
{
    open_mapping(w, help);
    for (int p = 0; p < KV_SERVING_PARTS; p++) {
        const kv_serving_part *part = &kv_serving_parts[p];
        if (*part->name != '\0')
            mapping(w, part->name, part->help, part->params);
        for (const kv_param *row = part->params; *part->name == '\0' && row->name != NULL; row++)
            param(w, row);
    }
    requests(w);
    listed(w, "model", "the served model, where it is not the experiment's", catalogue_item,
           &models);
    listed(w, "device", "name in the catalogue, path to a YAML file, or a mapping", catalogue_item,
           &devices);
    listed(w, "chunk_size", "tokens of one request in one step", chunk_item, NULL);
    listed(w, "policies", "what is kept of a sequence", policy_item, NULL);
    mapping(w, "tensor_parallel_link", "overrides the device's", kv_link_params);
    tiers(w);
    close_with(w, '}');
    literal(w, "required", "[\"requests\", \"device\"]");
}

/* --- Sections ---------------------------------------------------------------------- */

static void text_item(writer *w, const void *closure)
{
    literal(w, "type", "[\"string\", \"number\", \"boolean\"]");
    literal(w, "minLength", "1");
}

static void field(writer *w, const kv_field *f)
{
    static void (*const items[])(writer *, const void *) = {
        [KV_FIELD_TEXTS] = text_item,      [KV_FIELD_FILES] = text_item,
        [KV_FIELD_CHUNKS] = chunk_item,    [KV_FIELD_POLICIES] = policy_item,
        [KV_FIELD_NODES] = catalogue_item, [KV_FIELD_NODE] = NULL,
        [KV_FIELD_SERVING] = NULL,
    };
    key(w, f->name);
    open_with(w, '{');
    if (f->type == KV_FIELD_SERVING) {
        serving(w, f->help);
        close_with(w, '}');
        return;
    }
    text(w, "description", f->help);
    if (items[f->type] != NULL)
        one_or_list(w, items[f->type], &models);
    else
        literal(w, "type", "[\"string\", \"object\"]");
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
    scorer_definition(&w);
    policy_definition(&w);
    close_with(&w, '}');
    close_with(&w, '}');
    putc('\n', out);
}
