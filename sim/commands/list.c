/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* kvsim list: what there is, for people and as JSON. */
#include "config.h"

#include "sim/base/json.h"
#include "sim/command.h"
#include "sim/listing.h"
#include "sim/scorer_spec.h"

#include <getopt.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const kv_option options[] = {{'j', "json", NULL, "print JSON"}, {.name = NULL}};
static int list(const kv_command *self, int argc, char **argv);

KV_COMMAND_DEFINE(list) = {
    .name = "list",
    .arguments = "[KIND [NAME]]",
    .brief = "Lists what there is, with every parameter, unit and default",
    .options = options,
    .run = list,
};

/* --- JSON -------------------------------------------------------------------------- */

enum { MOST_SCORERS = 256 };

static void json_text(const char *key, const char *text)
{
    printf(",\"%s\":", key);
    if (text != NULL)
        kv_json_string(text, stdout);
    else
        fputs("null", stdout);
}

static void json_bound(const char *key, const kv_param *param, double bound)
{
    if ((param->min == 0 && param->max == 0) || !isfinite(bound))
        return;
    printf(",\"%s\":", key);
    kv_json_real(bound, stdout);
}

static void json_param(const kv_param *param)
{
    static const char *const types[] = {
        [KV_BOOL] = "boolean",     [KV_INT] = "integer",       [KV_REAL] = "real",
        [KV_CHOICE] = "choice",    [KV_TEXT] = "text",         [KV_PATH] = "path",
        [KV_BYTES] = "bytes",      [KV_RATE] = "bytes/second", [KV_DURATION] = "duration",
        [KV_CHUNK] = "chunk size", [KV_ITEM] = "item"};
    fputs("{\"name\":", stdout);
    kv_json_string(param->name, stdout);
    json_text("type", types[param->type]);
    json_text("unit", param->unit);
    fputs(",\"default\":", stdout);
    kv_param_fallback_json(param, stdout);
    json_bound(param->flags & KV_PARAM_OPEN_MIN ? "above" : "minimum", param, param->min);
    json_bound("maximum", param, param->max);
    const char *names[MOST_SCORERS + 1] = {NULL};
    const char *const *choices = param->choices;
    if (param->type == KV_ITEM) {
        names[kv__scorer_names(names, MOST_SCORERS)] = NULL;
        choices = names;
    }
    if (choices != NULL) {
        fputs(",\"choices\":[", stdout);
        for (int i = 0; choices[i] != NULL; i++) {
            fputs(i > 0 ? "," : "", stdout);
            kv_json_string(choices[i], stdout);
        }
        putchar(']');
    }
    printf(",\"sweep\":%s,\"required\":%s,\"budget\":%s",
           param->flags & KV_PARAM_SWEEP ? "true" : "false",
           param->flags & KV_PARAM_REQUIRED ? "true" : "false",
           param->flags & KV_PARAM_BUDGET ? "true" : "false");
    json_text("help", param->help);
    putchar('}');
}

static void json_params(const char *key, const kv_param *table)
{
    printf(",\"%s\":[", key);
    for (const kv_param *p = table; p != NULL && p->name != NULL; p++) {
        fputs(p == table ? "" : ",", stdout);
        json_param(p);
    }
    putchar(']');
}

static void json_preset(const kv_preset *preset)
{
    fputs("{\"name\":", stdout);
    kv_json_string(preset->name, stdout);
    json_text("values", preset->values);
    json_text("help", preset->help);
    putchar('}');
}

static void json_conditions(const kv_condition *conditions)
{
    fputs(",\"conditions\":[", stdout);
    for (const kv_condition *c = conditions; c != NULL && c->setting != NULL; c++) {
        fputs(c == conditions ? "{\"setting\":" : ",{\"setting\":", stdout);
        kv_json_string(c->setting, stdout);
        json_text("other", c->other);
        json_text("value", c->value);
        printf(",\"except\":%s}", c->except ? "true" : "false");
    }
    putchar(']');
}

static void json_item(const kv_listed *item)
{
    fputs("{\"name\":", stdout);
    kv_json_string(item->name, stdout);
    json_text("group", item->group);
    json_text("brief", item->brief);
    for (int i = 0; i < item->fact_count; i++)
        json_text(item->facts[i].name, item->facts[i].text);
    json_params("parameters", item->params);
    json_params("columns", item->columns);
    fputs(",\"presets\":[", stdout);
    for (const kv_preset *p = item->presets; p != NULL && p->name != NULL; p++) {
        fputs(p == item->presets ? "" : ",", stdout);
        json_preset(p);
    }
    putchar(']');
    json_conditions(item->conditions);
    putchar('}');
}

/* --- Text -------------------------------------------------------------------------- */

/* What an item may name. */
static void print_names(void)
{
    const char *names[MOST_SCORERS];
    int count = kv__scorer_names(names, MOST_SCORERS);
    for (int i = 0; i < count; i++)
        printf("%s%s", i == 0 ? ": " : ", ", names[i]);
}

/* When the setting does something, if not always. */
static void print_condition(const kv_param *param, const kv_condition *conditions)
{
    const char *between = NULL;
    for (const kv_condition *c = conditions; c != NULL && c->setting != NULL; c++) {
        if (strcmp(c->setting, param->name) != 0)
            continue;
        if (between == NULL)
            printf("; %s with ", c->except ? "does nothing" : "matters only");
        printf("%s%s: %s", between != NULL ? between : "", c->other, c->value);
        between = c->except ? " and " : " or ";
    }
}

static void print_param(const kv_param *param, const kv_condition *conditions)
{
    char expected[512];
    kv_param_expects(param, expected, sizeof expected);
    printf("  %-18s %s\n", param->name, param->help);
    printf("  %-18s   %s", "", expected);
    if (param->type == KV_ITEM)
        print_names();
    if (param->fallback != NULL)
        printf("; default %s", param->fallback);
    else
        printf("; %s", param->flags & KV_PARAM_REQUIRED ? "must be given" : "not set by default");
    print_condition(param, conditions);
    puts("");
}

static void print_params(const char *title, const kv_param *table, const kv_condition *conditions)
{
    if (table == NULL || table->name == NULL)
        return;
    printf("\n%s\n", title);
    for (const kv_param *p = table; p->name != NULL; p++)
        print_param(p, conditions);
}

static void print_item(const kv_listed *item)
{
    printf("%s: %s\n", item->name, item->brief ? item->brief : "");
    if (item->group != NULL)
        printf("  %-18s %s\n", "group", item->group);
    for (int i = 0; i < item->fact_count; i++)
        if (item->facts[i].text != NULL)
            printf("  %-18s %s\n", item->facts[i].name, item->facts[i].text);
    print_params("Parameters:", item->params, item->conditions);
    print_params("Parameters in columns:", item->columns, NULL);
    if (item->presets != NULL && item->presets->name != NULL)
        puts("\nPresets (other defaults):");
    for (const kv_preset *p = item->presets; p != NULL && p->name != NULL; p++)
        printf("  %-18s %s\n  %-18s   %s\n", p->name, p->help, "", p->values);
}

static void print_line(const kv_listed *item)
{
    printf("%-20s ", item->name);
    if (item->group != NULL)
        printf("%-12s ", item->group);
    if (item->stage != NULL)
        printf("%-12s ", item->stage);
    puts(item->brief ? item->brief : "");
}

/* --- The command ------------------------------------------------------------------- */

enum { MOST_NAMES = 512, NAME_BYTES = 64 };

/* What is to be shown and what was seen on the way. */
typedef struct listing {
    const char *wanted; /* only the items of this name; NULL: all */
    bool json;
    int shown;
    int count;
    char names[MOST_NAMES][NAME_BYTES];
} listing;

static void show(void *closure, const kv_listed *item)
{
    listing *l = closure;
    if (l->count < MOST_NAMES)
        snprintf(l->names[l->count++], NAME_BYTES, "%s", item->name);
    if (l->wanted != NULL && strcmp(l->wanted, item->name) != 0)
        return;
    if (l->shown++ > 0)
        fputs(l->json ? "," : l->wanted ? "\n" : "", stdout);
    if (l->json)
        json_item(item);
    else if (l->wanted != NULL)
        print_item(item);
    else
        print_line(item);
}

static int unknown_name(const kv_command *self, const kv_list_kind *kind, const listing *l)
{
    const char *names[MOST_NAMES];
    for (int i = 0; i < l->count; i++)
        names[i] = l->names[i];
    const char *near = kv_nearest(l->wanted, names, l->count);
    return kv__usage_error(self, "there is no '%s' among the %s%s%s%s; `kvsim list %s` lists them",
                           l->wanted, kind->name, near ? ", did you mean '" : "", near ? near : "",
                           near ? "'" : "", kind->name);
}

static int list_kind(const kv_command *self, const kv_list_kind *kind, const char *name, bool json)
{
    listing *l = calloc(1, sizeof *l);
    kv_diag diag = {0};
    if (l == NULL) {
        kv_fail_memory(&diag);
        return kv__report_error(&diag);
    }
    l->wanted = name;
    l->json = json;
    if (json)
        putchar('[');
    kv_err err = kind->visit(show, l, &diag);
    if (json)
        puts("]");
    int status = err != KV_OK                    ? kv__report_error(&diag)
                 : name != NULL && l->shown == 0 ? unknown_name(self, kind, l)
                                                 : KV_EXIT_OK;
    free(l);
    return status;
}

static void list_kinds(bool json)
{
    for (const kv_list_kind *const *k = kv_list_kinds(); *k != NULL; k++) {
        if (json) {
            fputs(k == kv_list_kinds() ? "[{\"name\":" : ",{\"name\":", stdout);
            kv_json_string((*k)->name, stdout);
            json_text("brief", (*k)->brief);
            putchar('}');
        } else {
            printf("%-10s %s\n", (*k)->name, (*k)->brief);
        }
    }
    if (json)
        puts("]");
}

static const kv_list_kind *find_kind(const char *name, const char **near)
{
    const char *names[32];
    int count = 0;
    for (const kv_list_kind *const *k = kv_list_kinds(); *k != NULL; k++) {
        if (strcmp((*k)->name, name) == 0)
            return *k;
        if (count < 32)
            names[count++] = (*k)->name;
    }
    *near = kv_nearest(name, names, count);
    return NULL;
}

static int list(const kv_command *self, int argc, char **argv)
{
    bool json = false;
    for (int o; (o = kv__option_next(self, argc, argv)) != -1;) {
        if (o != 'j')
            return KV_EXIT_USAGE;
        json = true;
    }
    int count = argc - optind;
    if (count > 2)
        return kv__usage_error(self, "expected at most a kind and a name, found %d words", count);
    if (count == 0) {
        list_kinds(json);
        return KV_EXIT_OK;
    }
    const char *near = NULL;
    const kv_list_kind *kind = find_kind(argv[optind], &near);
    if (kind == NULL)
        return kv__usage_error(self, "there is nothing of kind '%s'%s%s%s; `kvsim list` lists them",
                               argv[optind], near ? ", did you mean '" : "", near ? near : "",
                               near ? "'" : "");
    return list_kind(self, kind, count == 2 ? argv[optind + 1] : NULL, json);
}
