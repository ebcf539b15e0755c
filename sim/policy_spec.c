/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "sim/base/yaml_tree.h"
#include "sim/grid.h"
#include "sim/policy_spec.h"

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

static void point_fini(kv_point_spec *point)
{
    if (point->config != NULL)
        kv_params_fini(point->policy->params, point->config);
    free(point->config);
    free(point->directory);
    *point = (kv_point_spec){0};
}

static void truncate_list(kv_point_list *list, int count)
{
    while (list->count > count)
        point_fini(&list->point[--list->count]);
}

void kv_point_list_fini(kv_point_list *list)
{
    truncate_list(list, 0);
    free(list->point);
    *list = (kv_point_list){0};
}

/* Appends a point with a zeroed configuration; NULL: no memory. */
static kv_point_spec *new_point(kv_point_list *list, const kv_retention *policy,
                                const char *directory, kv_mark mark)
{
    if (list->count == list->capacity) {
        int capacity = 2 * list->capacity + 8;
        kv_point_spec *larger = realloc(list->point, (size_t)capacity * sizeof *larger);
        if (larger == NULL)
            return NULL;
        list->point = larger;
        list->capacity = capacity;
    }
    kv_point_spec point = {policy, calloc(1, policy->config_bytes), KV_CHUNK_NOT_GIVEN,
                           strdup(directory), mark};
    if (point.config == NULL || point.directory == NULL) {
        point_fini(&point);
        return NULL;
    }
    list->point[list->count] = point;
    return &list->point[list->count++];
}

kv_err kv_point_list_add(kv_point_list *list, const kv_point_spec *point, long long chunk_tokens,
                         kv_diag *diag)
{
    kv_point_spec from = *point; /* the list may move */
    kv_point_spec *copy = new_point(list, from.policy, from.directory, from.mark);
    if (copy == NULL)
        return kv_fail_memory(diag);
    copy->chunk_tokens = chunk_tokens;
    kv_err err = kv_params_copy(from.policy->params, from.config, from.policy->config_bytes,
                                copy->config, diag);
    if (err != KV_OK)
        truncate_list(list, list->count - 1);
    return err;
}

/* --- Parsing ----------------------------------------------------------------------- */

static kv_err find_policy(const kv_retention *const *policies, const char *name,
                          const kv_mark *mark, const kv_retention **out, kv_diag *diag)
{
    enum { MOST = 128 };
    const char *names[MOST];
    int count = 0;
    for (const kv_retention *const *p = policies; *p != NULL; p++) {
        if (strcmp((*p)->name, name) == 0) {
            *out = *p;
            return KV_OK;
        }
        if (count < MOST)
            names[count++] = (*p)->name;
    }
    const char *near = kv_nearest(name, names, count);
    return kv_fail(diag, KV_ERR_INPUT, mark,
                   "unknown policy '%.60s'%s%s%s; `kvsim list policies` lists them", name,
                   near ? ", did you mean '" : "", near ? near : "", near ? "'" : "");
}

/* Splits an item into the policy's name and its settings (NULL if none). */
static kv_err split_item(const kv_node *item, const char **name, kv_mark *mark,
                         const kv_node **settings, kv_diag *diag)
{
    *mark = kv_node_mark(item);
    *settings = NULL;
    *name = kv_node_text(item, NULL);
    if (*name != NULL)
        return KV_OK;
    if (kv_node_get_kind(item) == KV_NODE_LIST || kv_node_count(item) > 1)
        return kv_fail(diag, KV_ERR_INPUT, mark,
                       "several policies in one item: combinations are not supported yet; expected "
                       "one policy, such as {snapkv: {keep: 0.3}}");
    if (kv_node_count(item) == 0)
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

static kv_err apply_preset(kv_point_spec *point, const kv_node *value, kv_diag *diag)
{
    const kv_param *row = kv_param_find(point->policy->params, "preset");
    kv_err err = kv_param_parse(row, point->config, value, diag);
    int index = err == KV_OK ? *(int *)((char *)point->config + row->offset) : 0;
    if (index == 0)
        return err;
    return kv_params_preset(point->policy->params, &point->policy->presets[index - 1],
                            point->config, diag);
}

/* Sets one key of one combination. */
static kv_err apply(kv_point_spec *point, const kv_grid *grid, int combination, int i,
                    kv_diag *diag)
{
    static const char *const also[] = {"chunk_size", NULL};
    const char *name = kv_node_key(grid->map, i);
    if (strcmp(name, chunk_row.name) == 0)
        return kv_param_parse(&chunk_row, point, kv_grid_pick(grid, combination, i), diag);
    const kv_param *row = kv_param_find(point->policy->params, name);
    kv_mark mark = kv_node_key_mark(grid->map, i);
    if (row == NULL)
        return kv_param_unknown(point->policy->params, also, name, &mark, diag);
    bool sweeps = row->flags & KV_PARAM_SWEEP;
    return kv_param_parse(row, point->config,
                          sweeps ? kv_grid_pick(grid, combination, i) : kv_node_at(grid->map, i),
                          diag);
}

static kv_err configure(kv_point_spec *point, const kv_grid *grid, int combination, kv_diag *diag)
{
    kv_err err = kv_params_default(point->policy->params, point->config, diag);
    int count = grid->map == NULL ? 0 : kv_node_count(grid->map);
    int preset = -1;
    if (grid->map != NULL && kv_param_find(point->policy->params, "preset") != NULL)
        preset = kv__node_index(grid->map, "preset");
    if (err == KV_OK && preset >= 0)
        err = apply_preset(point, kv_grid_pick(grid, combination, preset), diag);
    for (int i = 0; i < count && err == KV_OK; i++)
        if (i != preset)
            err = apply(point, grid, combination, i, diag);
    return err == KV_OK ? kv_retention_check(point->policy, point->config, &point->mark, diag)
                        : err;
}

kv_err kv__policy_parse_among(const kv_retention *const *policies, const kv_node *item,
                              kv_point_list *out, kv_diag *diag)
{
    const char *name;
    const kv_node *settings;
    const kv_retention *policy = NULL;
    kv_mark mark;
    kv_grid grid;
    kv_err err = split_item(item, &name, &mark, &settings, diag);
    if (err == KV_OK)
        err = find_policy(policies, name, &mark, &policy, diag);
    if (err == KV_OK)
        err = kv_grid_init(&grid, settings, diag);
    if (err != KV_OK)
        return err;
    if (grid.count > KV_GRID_MOST - out->count)
        return kv_fail(diag, KV_ERR_INPUT, &mark, "more than %d points in all; expected fewer",
                       KV_GRID_MOST);
    int before = out->count;
    for (int c = 0; c < grid.count && err == KV_OK; c++) {
        kv_point_spec *point = new_point(out, policy, item->source->directory, mark);
        err = point == NULL ? kv_fail_memory(diag) : configure(point, &grid, c, diag);
    }
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

/* --- Canonical text ---------------------------------------------------------------- */

static char *json_of(const kv_point_spec *spec, unsigned skip_flags)
{
    char *text = NULL;
    size_t bytes;
    FILE *out = open_memstream(&text, &bytes);
    if (out == NULL)
        return NULL;
    kv_params_json(spec->policy->params, spec->config, skip_flags, out);
    if (fclose(out) == 0)
        return text;
    free(text);
    return NULL;
}

char *kv_spec_params_json(const kv_point_spec *spec)
{
    return json_of(spec, 0);
}

char *kv_spec_curve_json(const kv_point_spec *spec)
{
    return json_of(spec, KV_PARAM_BUDGET);
}

/* A configuration as it is when nothing but the spec's preset is given. */
static void *reference_config(const kv_point_spec *spec)
{
    const kv_param *params = spec->policy->params, *row = kv_param_find(params, "preset");
    void *config = calloc(1, spec->policy->config_bytes);
    if (config == NULL)
        return NULL;
    int preset = row == NULL ? 0 : *(const int *)((const char *)spec->config + row->offset);
    kv_err err = kv_params_default(params, config, NULL);
    if (err == KV_OK && preset > 0)
        err = kv_params_preset(params, &spec->policy->presets[preset - 1], config, NULL);
    if (err == KV_OK)
        return config;
    kv_params_fini(params, config);
    free(config);
    return NULL;
}

/* "chunked", "window 16", "no charge_probes". */
static void write_setting(const kv_param *param, const char *value, FILE *out)
{
    if (param->type == KV_BOOL)
        fprintf(out, "%s%s", strcmp(value, "true") == 0 ? "" : "no ", param->name);
    else if (strcmp(param->name, "evict") == 0)
        fputs(value, out);
    else
        fprintf(out, "%s %s", param->name, value);
}

static bool write_label(const kv_point_spec *spec, const void *reference, FILE *out)
{
    const char *separator = " ";
    fputs(spec->policy->name, out);
    for (const kv_param *p = spec->policy->params; p->name != NULL; p++) {
        if ((p->flags & KV_PARAM_BUDGET) || kv_param_equal(p, spec->config, reference))
            continue;
        char *value = kv_param_text(p, spec->config);
        if (value == NULL)
            return false;
        fputs(separator, out);
        write_setting(p, value, out);
        free(value);
        separator = ", ";
    }
    return true;
}

char *kv_spec_label(const kv_point_spec *spec)
{
    char *text = NULL;
    size_t bytes;
    void *reference = reference_config(spec);
    FILE *out = reference == NULL ? NULL : open_memstream(&text, &bytes);
    bool good = out != NULL && write_label(spec, reference, out);
    if (reference != NULL)
        kv_params_fini(spec->policy->params, reference);
    free(reference);
    if (out != NULL && fclose(out) != 0)
        good = false;
    if (good)
        return text;
    free(text);
    return NULL;
}

/* --- Duplicates -------------------------------------------------------------------- */

typedef struct identity {
    char *params;
    const kv_point_spec *point;
} identity;

/* By what the point says, then by place in the list. */
static int by_identity(const void *a, const void *b)
{
    const identity *x = a, *y = b;
    int order = strcmp(x->point->policy->name, y->point->policy->name);
    if (order == 0)
        order = strcmp(x->params, y->params);
    if (order == 0)
        order = (x->point->chunk_tokens > y->point->chunk_tokens) -
                (x->point->chunk_tokens < y->point->chunk_tokens);
    return order;
}

static int by_identity_and_place(const void *a, const void *b)
{
    const identity *x = a, *y = b;
    int order = by_identity(a, b);
    return order != 0 ? order : (x->point > y->point) - (x->point < y->point);
}

/* Frees the marked points and closes the gaps. */
static void remove_marked(kv_point_list *list, const bool *doomed)
{
    int kept = 0;
    for (int i = 0; i < list->count; i++) {
        if (doomed[i])
            point_fini(&list->point[i]);
        else
            list->point[kept++] = list->point[i];
    }
    list->count = kept;
}

kv_err kv_point_list_unique(kv_point_list *list, kv_diag *diag)
{
    size_t count = (size_t)list->count;
    identity *sorted = calloc(count + 1, sizeof *sorted);
    bool *doomed = calloc(count + 1, sizeof *doomed);
    bool good = sorted != NULL && doomed != NULL;
    for (size_t i = 0; good && i < count; i++) {
        sorted[i] = (identity){kv_spec_params_json(&list->point[i]), &list->point[i]};
        good = sorted[i].params != NULL;
    }
    if (good)
        qsort(sorted, count, sizeof *sorted, by_identity_and_place);
    for (size_t i = 1; good && i < count; i++)
        doomed[sorted[i].point - list->point] = by_identity(&sorted[i - 1], &sorted[i]) == 0;
    for (size_t i = 0; sorted != NULL && i < count; i++)
        free(sorted[i].params);
    if (good)
        remove_marked(list, doomed);
    free(sorted);
    free(doomed);
    return good ? KV_OK : kv_fail_memory(diag);
}
