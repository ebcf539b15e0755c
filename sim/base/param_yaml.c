/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Mappings to configurations, by their tables. */
#include "config.h"

#include "sim/base/yaml.h"

#include <stdlib.h>
#include <string.h>

kv_err kv_param_parse(const kv_param *param, void *config, const kv_node *value, kv_diag *diag)
{
    kv_mark mark = kv_node_mark(value);
    bool quoted;
    const char *text = kv_node_text(value, &quoted);
    bool plain_only = param->type == KV_BOOL || param->type == KV_INT || param->type == KV_REAL ||
                      (param->type == KV_CHUNK && text != NULL && strcmp(text, "whole") != 0);
    if (text == NULL || (quoted && plain_only)) {
        char expected[512];
        kv_param_expects(param, expected, sizeof expected);
        return kv_fail(diag, KV_ERR_INPUT, &mark, "%s: expected %s, found %s", param->name,
                       expected, text == NULL ? kv_node_kind_name(value) : "text in quotes");
    }
    return kv_param_set(param, config, text, &mark, diag);
}

kv_err kv_param_resolve(const kv_param *param, void *config, const kv_node *value, kv_diag *diag)
{
    if (param->type != KV_PATH)
        return KV_OK;
    char **field = (char **)((char *)config + param->offset);
    char *path = kv_node_resolve(value, *field);
    if (path == NULL)
        return kv_fail_memory(diag);
    free(*field);
    *field = path;
    return KV_OK;
}

/* Names of the table and of `also` that there is room for. */
static int known_names(const kv_param *table, const char *const *also, const char **names, int room)
{
    int count = 0;
    for (const kv_param *p = table; p->name != NULL && count < room; p++)
        names[count++] = p->name;
    for (const char *const *a = also; a != NULL && *a != NULL && count < room; a++)
        names[count++] = *a;
    return count;
}

kv_err kv_param_unknown(const kv_param *table, const char *const *also, const char *name,
                        const kv_mark *mark, kv_diag *diag)
{
    enum { MOST = 64 };
    const char *names[MOST] = {NULL}, *near;
    char list[640] = "";
    int count = known_names(table, also, names, MOST);
    size_t used = 0;
    for (int i = 0; i < count && used < sizeof list; i++)
        used +=
            (size_t)snprintf(list + used, sizeof list - used, "%s%s", i > 0 ? ", " : "", names[i]);
    near = kv_nearest(name, names, count);
    if (count == 0)
        return kv_fail(diag, KV_ERR_INPUT, mark, "unknown key '%.60s'; none is known here", name);
    return kv_fail(diag, KV_ERR_INPUT, mark, "unknown key '%.60s'%s%s%s; known here: %s", name,
                   near ? ", did you mean '" : "", near ? near : "", near ? "'" : "", list);
}

static bool is_listed(const char *name, const char *const *also)
{
    for (; also != NULL && *also != NULL; also++)
        if (strcmp(name, *also) == 0)
            return true;
    return false;
}

kv_err kv_params_require(const kv_param *table, const kv_node *map, kv_diag *diag)
{
    kv_mark mark = kv_node_mark(map);
    for (const kv_param *p = table; p->name != NULL; p++)
        if ((p->flags & KV_PARAM_REQUIRED) && kv_node_find(map, p->name) == NULL)
            return kv_fail(diag, KV_ERR_INPUT, &mark, "'%s' is missing: %s", p->name, p->help);
    return KV_OK;
}

kv_err kv_params_parse(const kv_param *table, void *config, const kv_node *map,
                       const char *const *also, kv_diag *diag)
{
    kv_mark mark = kv_node_mark(map);
    if (kv_node_get_kind(map) != KV_NODE_MAP)
        return kv_fail(diag, KV_ERR_INPUT, &mark, "expected a mapping of settings, found %s",
                       kv_node_kind_name(map));
    for (int i = 0; i < kv_node_count(map); i++) {
        const char *name = kv_node_key(map, i);
        if (is_listed(name, also))
            continue;
        const kv_param *param = kv_param_find(table, name);
        mark = kv_node_key_mark(map, i);
        if (param == NULL)
            return kv_param_unknown(table, also, name, &mark, diag);
        kv_err err = kv_param_parse(param, config, kv_node_at(map, i), diag);
        if (err == KV_OK)
            err = kv_param_resolve(param, config, kv_node_at(map, i), diag);
        if (err != KV_OK)
            return err;
    }
    return kv_params_require(table, map, diag);
}
