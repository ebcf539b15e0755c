/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "sim/base/yaml_tree.h"
#include "sim/grid.h"
#include "sim/policy_spec.h"
#include "sim/scorer_spec.h"

#include <stdlib.h>
#include <string.h>

/* Every policy takes this beside its own settings. */
static const kv_param chunk_row = {.name = "chunk_size",
                                   .type = KV_CHUNK,
                                   .offset = offsetof(kv_point_spec, chunk_tokens),
                                   .flags = KV_PARAM_SWEEP,
                                   .unit = "tokens",
                                   .help = "tokens prefilled in one step"};

/* --- Points ------------------------------------------------------------------------ */

static void config_free(const kv_param *params, void *config)
{
    if (config != NULL)
        kv_params_fini(params, config);
    free(config);
}

void kv__point_fini(kv_point_spec *point)
{
    if (point->policy != NULL)
        config_free(point->policy->params, point->config);
    for (int i = 0; i < point->parts; i++)
        config_free(point->part[i].method.params, point->part[i].config);
    free(point->part);
    free(point->directory);
    *point = (kv_point_spec){0};
}

static void truncate_list(kv_point_list *list, int count)
{
    while (list->count > count)
        kv__point_fini(&list->point[--list->count]);
}

void kv_point_list_fini(kv_point_list *list)
{
    truncate_list(list, 0);
    free(list->point);
    *list = (kv_point_list){0};
}

/* Appends a point without policies; NULL: no memory. */
static kv_point_spec *new_point(kv_point_list *list, const char *directory, kv_mark mark)
{
    if (list->count == list->capacity) {
        int capacity = 2 * list->capacity + 8;
        kv_point_spec *larger = realloc(list->point, (size_t)capacity * sizeof *larger);
        if (larger == NULL)
            return NULL;
        list->point = larger;
        list->capacity = capacity;
    }
    kv_point_spec point = {
        .chunk_tokens = KV_CHUNK_NOT_GIVEN, .directory = strdup(directory), .mark = mark};
    if (point.directory == NULL)
        return NULL;
    list->point[list->count] = point;
    return &list->point[list->count++];
}

/* Gives a point a policy with a zeroed configuration; NULL: no memory. */
static void *add_method(kv_point_spec *point, const kv_method *method)
{
    void *config = calloc(1, method->config_bytes);
    if (config == NULL)
        return NULL;
    if (method->family == KV_FAMILY_RETENTION) {
        point->policy = method->retention;
        return point->config = config;
    }
    kv_part *part = realloc(point->part, ((size_t)point->parts + 1) * sizeof *part);
    if (part == NULL) {
        free(config);
        return NULL;
    }
    point->part = part;
    int at = point->parts++;
    for (; at > 0 && part[at - 1].method.family > method->family; at--)
        part[at] = part[at - 1];
    part[at] = (kv_part){*method, config};
    return config;
}

static kv_err copy_method(kv_point_spec *point, const kv_method *method, const void *from,
                          kv_diag *diag)
{
    void *config = add_method(point, method);
    return config == NULL
               ? kv_fail_memory(diag)
               : kv_params_copy(method->params, from, method->config_bytes, config, diag);
}

kv_err kv_point_list_add(kv_point_list *list, const kv_point_spec *point, long long chunk_tokens,
                         kv_diag *diag)
{
    kv_point_spec from = *point; /* the list may move */
    kv_point_spec *copy = new_point(list, from.directory, from.mark);
    if (copy == NULL)
        return kv_fail_memory(diag);
    copy->chunk_tokens = chunk_tokens;
    copy->implied = from.implied;
    kv_method retention = kv_method_of_retention(from.policy);
    kv_err err = copy_method(copy, &retention, from.config, diag);
    for (int i = 0; i < from.parts && err == KV_OK; i++)
        err = copy_method(copy, &from.part[i].method, from.part[i].config, diag);
    if (err != KV_OK)
        truncate_list(list, list->count - 1);
    return err;
}

/* --- Parsing ----------------------------------------------------------------------- */

/* Which retention policies there are beside kvsim's transforms and read policies. */
typedef const kv_retention *const *policy_table;

/* How many of the settings given are the policy's. */
static int known_settings(const kv_method *method, const kv_node *settings)
{
    int known = 0;
    for (int i = 0; settings != NULL && i < kv_node_count(settings); i++)
        known += kv_param_find(method->params, kv_node_key(settings, i)) != NULL;
    return known;
}

/* The policy of that name. Where two families have it, the one that knows more of the settings;
 * without any, the last, whose message names both. */
static bool find_method(policy_table policies, const char *name, const kv_node *settings,
                        kv_method *out)
{
    int most = -1;
    for (policy_table p = policies; *p != NULL; p++)
        if (strcmp((*p)->name, name) == 0) {
            *out = kv_method_of_retention(*p);
            most = known_settings(out, settings);
        }
    for (int i = 0; i < kv_methods(); i++) {
        kv_method method = kv_method_get(i);
        if (method.family == KV_FAMILY_RETENTION || strcmp(method.name, name) != 0)
            continue;
        int known = known_settings(&method, settings);
        if (known > most || (known == 0 && most == 0)) {
            *out = method;
            most = known;
        }
    }
    return most >= 0;
}

static kv_err unknown_policy(policy_table policies, const char *name, const kv_mark *mark,
                             kv_diag *diag)
{
    enum { MOST = 256 };
    const char *names[MOST];
    int count = 0;
    for (policy_table p = policies; *p != NULL && count < MOST; p++)
        names[count++] = (*p)->name;
    for (int i = 0; i < kv_methods() && count < MOST; i++)
        if (kv_method_get(i).family != KV_FAMILY_RETENTION)
            names[count++] = kv_method_get(i).name;
    const char *near = kv_nearest(name, names, count);
    return kv_fail(diag, KV_ERR_INPUT, mark,
                   "unknown policy '%.60s'%s%s%s; `kvsim list policies` lists them", name,
                   near ? ", did you mean '" : "", near ? near : "", near ? "'" : "");
}

kv_err kv__policy_split(const kv_node *item, const char **name, kv_mark *mark,
                        const kv_node **settings, kv_diag *diag)
{
    *mark = kv_node_mark(item);
    *settings = NULL;
    *name = kv_node_text(item, NULL);
    if (*name != NULL)
        return KV_OK;
    if (kv_node_get_kind(item) == KV_NODE_MAP && kv_node_count(item) > 1)
        return kv_fail(diag, KV_ERR_INPUT, mark,
                       "several policies in one mapping; expected one, such as "
                       "{snapkv: {keep: 0.3}}, or a sequence for a combination, such as "
                       "[{snapkv: {keep: 0.3}}, {topk: {read: 64}}]");
    if (kv_node_get_kind(item) == KV_NODE_LIST || kv_node_count(item) == 0)
        return kv_fail(diag, KV_ERR_INPUT, mark,
                       "expected a policy, such as {snapkv: {keep: 0.3}}, found %s",
                       kv_node_kind_name(item));
    *name = kv_node_key(item, 0);
    *mark = kv_node_key_mark(item, 0);
    const kv_node *value = kv_node_at(item, 0);
    if (kv_node_get_kind(value) == KV_NODE_MAP) {
        *settings = value;
    } else if (kv_node_get_kind(value) == KV_NODE_LIST || kv_node_text(value, NULL) != NULL) {
        kv_mark at = kv_node_mark(value);
        return kv_fail(diag, KV_ERR_INPUT, &at,
                       "%.60s: expected a mapping of settings, such as {keep: 0.3}, found %s",
                       *name, kv_node_kind_name(value));
    }
    return KV_OK;
}

/* --- Items: one policy or several --------------------------------------------------------------
 */

enum { MOST_PARTS = 16 };

/* A policy of an item, with the grid of its settings. */
typedef struct component {
    kv_method method;
    kv_mark mark;
    kv_grid grid;
} component;

typedef struct combination {
    component component[MOST_PARTS];
    int components;
    int count; /* points: the product of the grids */
    bool has_chunk_size;
} combination;

/* Refuses what does not go with the components before it. */
static kv_err check_component(combination *all, const component *c, kv_diag *diag)
{
    for (int i = 0; i < all->components; i++) {
        const kv_method *other = &all->component[i].method;
        if (strcmp(other->name, c->method.name) == 0)
            return kv_fail(diag, KV_ERR_INPUT, &c->mark, "%s stands twice in one combination",
                           other->name);
        if (other->family == c->method.family && other->family != KV_FAMILY_TRANSFORM)
            return kv_fail(diag, KV_ERR_INPUT, &c->mark,
                           "%s and %s are both %s policies; a combination has at most one",
                           other->name, c->method.name, kv_family_name(other->family));
    }
    bool chunked = c->grid.map != NULL && kv__node_index(c->grid.map, chunk_row.name) >= 0;
    if (chunked && all->has_chunk_size)
        return kv_fail(diag, KV_ERR_INPUT, &c->mark,
                       "chunk_size is given twice in one combination; expected it once");
    all->has_chunk_size |= chunked;
    return KV_OK;
}

static kv_err add_component(combination *all, policy_table policies, const kv_node *item,
                            kv_diag *diag)
{
    component c = {0};
    const char *name;
    const kv_node *settings;
    kv_err err = kv__policy_split(item, &name, &c.mark, &settings, diag);
    if (err != KV_OK)
        return err;
    if (!find_method(policies, name, settings, &c.method))
        return unknown_policy(policies, name, &c.mark, diag);
    err = kv_grid_init(&c.grid, settings, diag);
    if (err == KV_OK)
        err = check_component(all, &c, diag);
    if (err != KV_OK)
        return err;
    if (all->components == MOST_PARTS || c.grid.count > KV_GRID_MOST / all->count)
        return kv_fail(diag, KV_ERR_INPUT, &c.mark,
                       "a combination of more than %d policies or %d points; expected fewer",
                       MOST_PARTS, KV_GRID_MOST);
    all->count *= c.grid.count;
    all->component[all->components++] = c;
    return KV_OK;
}

static kv_err list_components(combination *all, policy_table policies, const kv_node *item,
                              kv_diag *diag)
{
    kv_mark mark = kv_node_mark(item);
    *all = (combination){.count = 1};
    if (kv_node_get_kind(item) != KV_NODE_LIST)
        return add_component(all, policies, item, diag);
    if (kv_node_count(item) == 0)
        return kv_fail(diag, KV_ERR_INPUT, &mark,
                       "the combination is empty; expected at least one policy");
    kv_err err = KV_OK;
    for (int i = 0; i < kv_node_count(item) && err == KV_OK; i++)
        err = add_component(all, policies, kv_node_at(item, i), diag);
    return err;
}

/* --- Points of an item -------------------------------------------------------------------------
 */

static kv_err apply_preset(const kv_method *method, void *config, const kv_node *value,
                           kv_diag *diag)
{
    const kv_param *row = kv_param_find(method->params, "preset");
    kv_err err = kv_param_parse(row, config, value, diag);
    int index = err == KV_OK ? *(int *)((char *)config + row->offset) : 0;
    if (index == 0)
        return err;
    return kv_params_preset(method->params, &method->presets[index - 1], config, diag);
}

/* "keep or budget": the first settings that have no value unless one is given. */
static void name_amounts(const kv_method *method, char *out, size_t out_bytes)
{
    size_t used = 0;
    int names = 0;
    out[0] = '\0';
    for (const kv_param *p = method->params; p->name != NULL && names < 2; p++)
        if (p->fallback == NULL && used < out_bytes)
            used += (size_t)snprintf(out + used, out_bytes - used, "%s%s", names++ ? " or " : "",
                                     p->name);
}

/* Refuses a setting that the policy of the same name in another family has. */
static kv_err check_namesake(const kv_method *method, const char *name, const kv_mark *mark,
                             kv_diag *diag)
{
    char own[128], others[128];
    for (int i = 0; i < kv_methods(); i++) {
        kv_method other = kv_method_get(i);
        if (other.family == method->family || strcmp(other.name, method->name) != 0 ||
            kv_param_find(other.params, name) == NULL)
            continue;
        name_amounts(method, own, sizeof own);
        name_amounts(&other, others, sizeof others);
        return kv_fail(diag, KV_ERR_INPUT, mark,
                       "%s: %s make it the %s %s, %s the %s %s; expected settings of one of them",
                       method->name, own, kv_family_name(method->family),
                       method->oracle ? "oracle" : "policy", others, kv_family_name(other.family),
                       other.oracle ? "oracle" : "policy");
    }
    return KV_OK;
}

/* Sets one key of one combination. */
static kv_err apply(kv_point_spec *point, const component *c, void *config, int pick, int i,
                    kv_diag *diag)
{
    static const char *const also[] = {"chunk_size", NULL};
    const char *name = kv_node_key(c->grid.map, i);
    if (strcmp(name, chunk_row.name) == 0)
        return kv_param_parse(&chunk_row, point, kv_grid_pick(&c->grid, pick, i), diag);
    const kv_param *row = kv_param_find(c->method.params, name);
    kv_mark mark = kv_node_key_mark(c->grid.map, i);
    if (row == NULL && check_namesake(&c->method, name, &mark, diag) != KV_OK)
        return KV_ERR_INPUT;
    if (row == NULL)
        return kv_param_unknown(c->method.params, also, name, &mark, diag);
    bool sweeps = row->flags & KV_PARAM_SWEEP;
    const kv_node *value = sweeps ? kv_grid_pick(&c->grid, pick, i) : kv_node_at(c->grid.map, i);
    return row->type == KV_ITEM ? kv__scorer_parse(&c->method, config, row, value, diag)
                                : kv_param_parse(row, config, value, diag);
}

/* What is said of how much is kept takes the place of all that a preset says of it. */
static void give_way(const component *c, void *config)
{
    bool given = false;
    for (int i = 0; i < kv_node_count(c->grid.map); i++) {
        const kv_param *row = kv_param_find(c->method.params, kv_node_key(c->grid.map, i));
        given = given || (row != NULL && row->flags & KV_PARAM_BUDGET);
    }
    for (const kv_param *p = c->method.params; given && p->name != NULL; p++)
        if ((p->flags & KV_PARAM_BUDGET) && p->fallback == NULL)
            kv_param_clear(p, config);
}

static kv_err configure(kv_point_spec *point, const component *c, int pick, kv_diag *diag)
{
    const kv_method *method = &c->method;
    void *config = add_method(point, method);
    if (config == NULL)
        return kv_fail_memory(diag);
    kv_err err = kv_params_default(method->params, config, diag);
    int count = c->grid.map == NULL ? 0 : kv_node_count(c->grid.map), preset = -1;
    if (c->grid.map != NULL && kv_param_find(method->params, "preset") != NULL)
        preset = kv__node_index(c->grid.map, "preset");
    if (err == KV_OK && preset >= 0)
        err = apply_preset(method, config, kv_grid_pick(&c->grid, pick, preset), diag);
    if (err == KV_OK && preset >= 0)
        give_way(c, config);
    for (int i = 0; i < count && err == KV_OK; i++)
        if (i != preset)
            err = apply(point, c, config, pick, i, diag);
    if (err == KV_OK)
        err = kv__scorer_finish(method, config, c->grid.map, diag);
    return err == KV_OK ? kv_method_check(method, config, &c->mark, diag) : err;
}

/* The retention policy that a read policy's method includes, as text; "full" if there is none. */
static void implied_text(const kv_point_spec *point, char *out, size_t out_bytes)
{
    snprintf(out, out_bytes, "full");
    for (int i = 0; i < point->parts; i++) {
        const kv_part *part = &point->part[i];
        if (part->method.family == KV_FAMILY_READ && part->method.read->retention != NULL)
            part->method.read->retention(part->config, out, out_bytes);
    }
}

/* Gives a point its retention policy where the item names none. */
static kv_err imply_retention(kv_point_spec *point, kv_diag *diag)
{
    char text[256];
    kv_point_list implied = {0};
    if (point->policy != NULL)
        return KV_OK;
    implied_text(point, text, sizeof text);
    kv_err err = kv_policy_parse_text(text, &point->mark, "", &implied, diag);
    if (err == KV_OK) {
        point->implied = true;
        point->policy = implied.point[0].policy;
        point->config = implied.point[0].config;
        implied.point[0].policy = NULL; /* the point's now */
        implied.point[0].config = NULL;
    }
    kv_point_list_fini(&implied);
    return err;
}

/* Some transforms cannot stand an eviction. */
static kv_err check_full(const kv_point_spec *point, kv_diag *diag)
{
    for (int i = 0; i < point->parts; i++) {
        const kv_method *method = &point->part[i].method;
        if (method->transform != NULL && (method->transform->needs & KV_NEEDS_FULL) &&
            strcmp(point->policy->name, "full") != 0)
            return kv_fail(diag, KV_ERR_INPUT, &point->mark,
                           "%s needs the full cache; %s cannot stand beside it", method->name,
                           point->policy->name);
    }
    return KV_OK;
}

/* A transform that changes scores needs a policy that ranks by them, one entry after the other. */
static kv_err check_ranking(const kv_point_spec *point, kv_diag *diag)
{
    bool ranking = point->policy->score != NULL && point->policy->resize == NULL;
    for (int i = 0; i < point->parts && !ranking; i++) {
        const kv_transform *transform = point->part[i].method.transform;
        if (transform == NULL || transform->prior == NULL ||
            strcmp(point->policy->name, "full") == 0)
            continue;
        if (transform->ranks == NULL || transform->ranks(point->part[i].config))
            return kv_fail(
                diag, KV_ERR_INPUT, &point->mark,
                "%s changes how entries rank, and %s keeps entries by no ranking of each; "
                "expected another policy beside it, or text_prior: false",
                transform->name, point->policy->name);
    }
    return KV_OK;
}

/* One point: the last component's grid runs fastest. */
static kv_err add_point(const combination *all, int pick, const char *directory, kv_point_list *out,
                        kv_diag *diag)
{
    int picks[MOST_PARTS];
    kv_point_spec *point = new_point(out, directory, all->component[0].mark);
    if (point == NULL)
        return kv_fail_memory(diag);
    for (int i = all->components - 1; i >= 0; i--) {
        picks[i] = pick % all->component[i].grid.count;
        pick /= all->component[i].grid.count;
    }
    kv_err err = KV_OK;
    for (int i = 0; i < all->components && err == KV_OK; i++)
        err = configure(point, &all->component[i], picks[i], diag);
    if (err == KV_OK)
        err = imply_retention(point, diag);
    if (err == KV_OK)
        err = check_full(point, diag);
    return err == KV_OK ? check_ranking(point, diag) : err;
}

kv_err kv__policy_parse_among(policy_table policies, const kv_node *item, kv_point_list *out,
                              kv_diag *diag)
{
    combination all;
    kv_err err = list_components(&all, policies, item, diag);
    if (err != KV_OK)
        return err;
    if (all.count > KV_GRID_MOST - out->count)
        return kv_fail(diag, KV_ERR_INPUT, &all.component[0].mark,
                       "more than %d points in all; expected fewer", KV_GRID_MOST);
    int before = out->count;
    for (int c = 0; c < all.count && err == KV_OK; c++)
        err = add_point(&all, c, item->source->directory, out, diag);
    if (err != KV_OK)
        truncate_list(out, before);
    return err;
}

kv_err kv_policy_parse(const kv_node *item, kv_point_list *out, kv_diag *diag)
{
    return kv__policy_parse_among(kv_retention_all(), item, out, diag);
}

kv_err kv_policy_parse_text(const char *text, const kv_mark *mark, const char *directory,
                            kv_point_list *out, kv_diag *diag)
{
    kv_document *document;
    int before = out->count;
    kv_err err = kv__document_parse_at(mark, directory, text, strlen(text), &document, diag);
    if (err != KV_OK)
        return err;
    err = kv_policy_parse(kv_document_root(document), out, diag);
    for (int i = before; i < out->count; i++)
        out->point[i].mark = *mark; /* the document's own marks go with it */
    kv_document_free(document);
    return err;
}
