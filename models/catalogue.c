/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "models/catalogue.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_NAMES = 256 };

static const kv_catalogue_entry model_table[] = {
#include "models/catalogue_models.inc"
    {NULL, NULL}};
static const kv_catalogue_entry device_table[] = {
#include "models/catalogue_devices.inc"
    {NULL, NULL}};

const kv_catalogue_entry *kv_catalogue_all(kv_shelf shelf)
{
    return shelf == KV_SHELF_MODELS ? model_table : device_table;
}

/* One thing of the shelf, in words. */
static const char *thing_name(kv_shelf shelf)
{
    return shelf == KV_SHELF_MODELS ? "model" : "device";
}

static const char *shelf_name(kv_shelf shelf)
{
    return shelf == KV_SHELF_MODELS ? "models" : "devices";
}

static bool is_path(const char *text)
{
    const char *dot = strrchr(text, '.');
    return strchr(text, '/') != NULL ||
           (dot != NULL && (strcmp(dot, ".yaml") == 0 || strcmp(dot, ".yml") == 0));
}

static kv_err read_path(const char *text, const kv_mark *mark, kv_document **out, kv_diag *diag)
{
    const char *slash = mark != NULL && mark->path != NULL ? strrchr(mark->path, '/') : NULL;
    if (text[0] == '/' || slash == NULL)
        return kv_document_read(text, out, diag);
    size_t folder = (size_t)(slash + 1 - mark->path), bytes = strlen(text) + 1;
    char *path = malloc(folder + bytes);
    if (path == NULL)
        return kv_fail_memory(diag);
    memcpy(path, mark->path, folder);
    memcpy(path + folder, text, bytes);
    kv_err err = kv_document_read(path, out, diag);
    free(path);
    return err;
}

static kv_err fail_unknown(kv_shelf shelf, const char *name, const kv_mark *mark, kv_diag *diag)
{
    const char *names[MAX_NAMES], *near;
    int count = 0;
    for (const kv_catalogue_entry *e = kv_catalogue_all(shelf); e->name && count < MAX_NAMES; e++)
        names[count++] = e->name;
    near = kv_nearest(name, names, count);
    return kv_fail(diag, KV_ERR_INPUT, mark,
                   "there is no %s '%s'%s%s%s; expected a name that `kvsim list %s` shows, or the "
                   "path of a YAML file",
                   thing_name(shelf), name, near ? ", did you mean '" : "", near ? near : "",
                   near ? "'?" : "", shelf_name(shelf));
}

/* A description of the user's own with that name; *out stays NULL if there is none. */
static kv_err read_own(kv_shelf shelf, const char *name, kv_document **out, kv_diag *diag)
{
    char path[4096];
    const char *folder = getenv("KVSIM_DATADIR");
    if (folder == NULL || folder[0] == '\0')
        return KV_OK;
    int length = snprintf(path, sizeof path, "%s/%s/%s.yaml", folder, shelf_name(shelf), name);
    if (length >= (int)sizeof path || access(path, F_OK) != 0)
        return KV_OK;
    return kv_document_read(path, out, diag);
}

kv_err kv_catalogue_read(kv_shelf shelf, const char *text, const kv_mark *mark, kv_document **out,
                         kv_diag *diag)
{
    if (text[0] == '{')
        return kv_document_parse(thing_name(shelf), text, strlen(text), out, diag);
    if (is_path(text))
        return read_path(text, mark, out, diag);
    kv_document *own = NULL;
    kv_err err = read_own(shelf, text, &own, diag);
    if (err != KV_OK)
        return err;
    if (own != NULL) {
        *out = own;
        return KV_OK;
    }
    for (const kv_catalogue_entry *e = kv_catalogue_all(shelf); e->name != NULL; e++)
        if (strcmp(e->name, text) == 0)
            return kv_document_parse(e->name, e->text, strlen(e->text), out, diag);
    return fail_unknown(shelf, text, mark, diag);
}

kv_err kv_catalogue_node(kv_shelf shelf, const kv_node *node, const kv_node **description,
                         kv_document **owned, kv_diag *diag)
{
    kv_mark mark = kv_node_mark(node);
    *owned = NULL;
    if (kv_node_get_kind(node) == KV_NODE_MAP) {
        *description = node;
        return KV_OK;
    }
    const char *text = kv_node_get_kind(node) == KV_NODE_SCALAR ? kv_node_text(node, NULL) : NULL;
    if (text == NULL)
        return kv_fail(diag, KV_ERR_INPUT, &mark,
                       "expected a name that `kvsim list %s` shows, the path of a YAML file, or a "
                       "mapping",
                       shelf_name(shelf));
    kv_err err = kv_catalogue_read(shelf, text, &mark, owned, diag);
    if (err == KV_OK)
        *description = kv_document_root(*owned);
    return err;
}
