/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "sim/scorer_spec.h"
#include "policies/scorer.h"
#include "sim/base/yaml_tree.h"

#include <stdlib.h>
#include <string.h>

/* --- Which policy ------------------------------------------------------------------ */

int kv__scorer_names(const char **names, int room)
{
    int count = 0;
    for (const kv_retention *const *p = kv_retention_all(); *p != NULL && count < room; p++)
        if (kv_scorer_can(*p))
            names[count++] = (*p)->name;
    return count;
}

/* "a, b or c"; fills `names` for the nearest. */
static int list_scorers(const char **names, int room, char *text, size_t bytes)
{
    int count = kv__scorer_names(names, room);
    size_t used = 0;
    text[0] = '\0';
    for (int i = 0; i < count && used < bytes; i++)
        used += (size_t)snprintf(text + used, bytes - used, "%s%s",
                                 i == 0           ? ""
                                 : i + 1 == count ? " or "
                                                  : ", ",
                                 names[i]);
    return count;
}

static kv_err refuse(const kv_param *row, const char *name, const kv_mark *mark, kv_diag *diag)
{
    enum { MOST = 256 };
    const char *names[MOST];
    char text[1024];
    kv_method other;
    int count = list_scorers(names, MOST, text, sizeof text);
    bool known = kv_method_find(name, &other);
    if (known && other.oracle)
        return kv_fail(diag, KV_ERR_INPUT, mark,
                       "%s: %s is an oracle, which knows what is yet to come and cannot score; "
                       "expected one of %s",
                       row->name, name, text);
    if (known)
        return kv_fail(diag, KV_ERR_INPUT, mark,
                       "%s: %s does not rank entries by scores of its own; expected one of %s",
                       row->name, name, text);
    const char *near = kv_nearest(name, names, count);
    return kv_fail(diag, KV_ERR_INPUT, mark, "%s: unknown policy '%.60s'%s%s%s; expected one of %s",
                   row->name, name, near ? ", did you mean '" : "", near ? near : "",
                   near ? "'" : "", text);
}

/* --- Its settings ------------------------------------------------------------------ */

static kv_err apply(const kv_method *outer, const kv_method *scorer, void *config,
                    const kv_node *settings, int i, kv_diag *diag)
{
    const char *name = kv_node_key(settings, i);
    const kv_node *value = kv_node_at(settings, i);
    const kv_param *row = kv_param_find(scorer->params, name);
    kv_mark mark = kv_node_key_mark(settings, i), at = kv_node_mark(value);
    if (strcmp(name, "chunk_size") == 0 || (row != NULL && (row->flags & KV_PARAM_OUTERMOST)))
        return kv_fail(diag, KV_ERR_INPUT, &mark,
                       "%s is not for a scorer to say: how much stays and when entries leave are "
                       "settings of %s",
                       name, outer->name);
    if (row == NULL)
        return kv_param_unknown(scorer->params, NULL, name, &mark, diag);
    if (row->type == KV_ITEM)
        return kv__scorer_parse(scorer, config, row, value, diag);
    if (kv_node_get_kind(value) == KV_NODE_LIST)
        return kv_fail(diag, KV_ERR_INPUT, &at,
                       "%s: a scorer has one value for each setting; for a grid list the scorers: "
                       "[{%s: {%s: ...}}, {%s: {%s: ...}}]",
                       name, scorer->name, name, scorer->name, name);
    return kv_param_parse(row, config, value, diag);
}

/* The name of a configuration's preset, or NULL. */
static const char *preset_of(const kv_method *method, const void *config)
{
    const kv_param *row = kv_param_find(method->params, "preset");
    int preset = row == NULL ? 0 : *(const int *)((const char *)config + row->offset);
    return preset > 0 ? row->choices[preset] : NULL;
}

/* Applies the scorer's own preset or, without one, that of the outer policy if it has it. */
static kv_err apply_preset(const kv_method *outer, const void *outer_config,
                           const kv_method *scorer, void *config, const kv_node *settings,
                           kv_diag *diag)
{
    const kv_param *row = kv_param_find(scorer->params, "preset");
    const char *same = preset_of(outer, outer_config);
    int given = settings == NULL || row == NULL ? -1 : kv__node_index(settings, "preset");
    kv_err err = KV_OK;
    if (row == NULL)
        return KV_OK;
    if (given >= 0)
        err = kv_param_parse(row, config, kv_node_at(settings, given), diag);
    for (int i = 0; given < 0 && same != NULL && row->choices[i] != NULL; i++)
        if (strcmp(row->choices[i], same) == 0)
            err = kv_param_set(row, config, same, NULL, diag);
    int preset = err == KV_OK ? *(const int *)((const char *)config + row->offset) : 0;
    return preset > 0 ? kv_params_preset(scorer->params, &scorer->presets[preset - 1], config, diag)
                      : err;
}

static kv_err configure(const kv_method *outer, const void *outer_config, const kv_method *scorer,
                        void *config, const kv_node *settings, kv_diag *diag)
{
    int count = settings == NULL ? 0 : kv_node_count(settings);
    kv_err err = kv_params_default(scorer->params, config, diag);
    if (err == KV_OK)
        err = apply_preset(outer, outer_config, scorer, config, settings, diag);
    for (int i = 0; i < count && err == KV_OK; i++)
        if (strcmp(kv_node_key(settings, i), "preset") != 0)
            err = apply(outer, scorer, config, settings, i, diag);
    return err == KV_OK ? kv__scorer_finish(scorer, config, settings, diag) : err;
}

/* How many scorers there are one within the other. */
static int depth_of(const kv_item *item)
{
    const kv_retention_config *config = item->config;
    return item->name == NULL ? 0 : 1 + depth_of(&config->scorer);
}

kv_err kv__scorer_parse(const kv_method *outer, void *config, const kv_param *row,
                        const kv_node *value, kv_diag *diag)
{
    const char *name;
    const kv_node *settings;
    kv_mark mark;
    kv_err err = kv__policy_split(value, &name, &mark, &settings, diag);
    if (err != KV_OK)
        return err;
    const kv_retention *policy = kv_retention_find(name);
    if (policy == NULL || !kv_scorer_can(policy))
        return refuse(row, name, &mark, diag);
    kv_method scorer = kv_method_of_retention(policy);
    kv_item item = kv_scorer_item(policy);
    item.config = calloc(1, item.config_bytes);
    if (item.config == NULL)
        return kv_fail_memory(diag);
    err = configure(outer, config, &scorer, item.config, settings, diag);
    if (err == KV_OK && depth_of(&item) > KV_SCORERS_MOST)
        err = kv_fail(diag, KV_ERR_INPUT, &mark, "more than %d scorers one within the other",
                      KV_SCORERS_MOST);
    if (err != KV_OK) {
        kv_item_fini(&item);
        return err;
    }
    kv_item *field = (kv_item *)((char *)config + row->offset);
    kv_item_fini(field);
    *field = item;
    return KV_OK;
}

kv_err kv__scorer_finish(const kv_method *outer, void *config, const kv_node *map, kv_diag *diag)
{
    for (int i = 0; map != NULL && i < kv_node_count(map); i++) {
        const kv_param *row = kv_param_find(outer->params, kv_node_key(map, i));
        kv_mark mark = kv_node_key_mark(map, i);
        if (row != NULL && kv_param_replaced(outer->params, row, config))
            return kv_fail(diag, KV_ERR_INPUT, &mark,
                           "%s: %s is a setting of the scores that %s makes without a scorer; "
                           "expected it within the scorer, or not at all",
                           outer->name, row->name, outer->name);
    }
    if (outer->family == KV_FAMILY_RETENTION)
        kv_scorer_settle(outer->params, config);
    return KV_OK;
}
