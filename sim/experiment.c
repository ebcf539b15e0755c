/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "sim/base/file.h"
#include "sim/experiment.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_BYTES = 16 << 20 };

/* --- The file as tables ------------------------------------------------------------ */

/* One line per section. */
static const kv_section *const sections[] = {&kv__section_attention, &kv__section_plan, NULL};

static const kv_param params[] = {{"name", KV_TEXT, offsetof(kv_experiment, name), NULL, 0, 0, NULL,
                                   0, "", "what results call it; the file's name if not given"},
                                  {"seed", KV_INT, offsetof(kv_experiment, seed), "1", 0, INFINITY,
                                   NULL, 0, "", "of everything random"},
                                  {.name = NULL}};
static const kv_field fields[] = {
    {"model", KV_FIELD_NODES, offsetof(kv_experiment, model), false,
     "name in the catalogue, path to a YAML file, or a mapping; the "
     "trace's own shape if not given; of servers a list of them makes a grid"},
    {"serving", KV_FIELD_SERVING, offsetof(kv_experiment, serving), false,
     "replay of request traces through a server; docs/serving.md explains it"},
    {.name = NULL}};

const kv_section kv__experiment_section = {
    .help = "An experiment of kvsim",
    .params = params,
    .fields = fields,
    .sections = sections,
};

/* --- Reading ----------------------------------------------------------------------- */

static kv_err apply_set(kv_document *document, const char *set, kv_diag *diag)
{
    char label[256];
    snprintf(label, sizeof label, "--set %s", set);
    kv_mark mark = {label, 0, 0};
    const char *equals = strchr(set, '=');
    if (equals == NULL)
        return kv_fail(diag, KV_ERR_INPUT, &mark,
                       "expected KEY=VALUE, such as attention.chunk_size=64");
    char *key = strndup(set, (size_t)(equals - set));
    const char *value = strcmp(equals + 1, "-") == 0 ? "'-'" : equals + 1; /* no empty list item */
    kv_err err =
        key == NULL ? kv_fail_memory(diag) : kv_document_set(document, key, value, label, diag);
    free(key);
    return err;
}

/* "dir/chunk-size.yaml" is "chunk-size". */
static char *name_of_path(const char *path)
{
    const char *slash = path == NULL ? NULL : strrchr(path, '/');
    const char *base = slash != NULL ? slash + 1 : path != NULL ? path : "experiment";
    const char *dot = strrchr(base, '.');
    return strndup(base, dot != NULL && dot != base ? (size_t)(dot - base) : strlen(base));
}

static kv_err fill(kv_experiment *experiment, const char *path, kv_diag *diag)
{
    const kv_node *root = kv_document_root(experiment->document);
    kv_err err = kv_section_default(&kv__experiment_section, experiment, diag);
    if (err == KV_OK)
        err = kv_section_parse(&kv__experiment_section, experiment, root, diag);
    if (err != KV_OK)
        return err;
    kv_mark mark = kv_node_mark(root);
    if (!experiment->has_attention && experiment->serving == NULL)
        return kv_fail(diag, KV_ERR_INPUT, &mark,
                       "there is nothing to run; expected `attention` or `serving`");
    if (experiment->has_attention && experiment->model != NULL &&
        kv_node_get_kind(experiment->model) == KV_NODE_LIST) {
        mark = kv_node_mark(experiment->model);
        return kv_fail(diag, KV_ERR_INPUT, &mark,
                       "model: attention is replayed under one model; expected a list of them in "
                       "`serving` alone");
    }
    if (experiment->name == NULL && (experiment->name = name_of_path(path)) == NULL)
        return kv_fail_memory(diag);
    return KV_OK;
}

kv_err kv_experiment_parse(const char *path, const char *text, size_t bytes,
                           const char *const *sets, int count, kv_experiment **out, kv_diag *diag)
{
    kv_experiment *experiment = calloc(1, sizeof *experiment);
    if (experiment == NULL)
        return kv_fail_memory(diag);
    kv_err err = kv_document_parse(path, text, bytes, &experiment->document, diag);
    for (int i = 0; i < count && err == KV_OK; i++)
        err = apply_set(experiment->document, sets[i], diag);
    if (err == KV_OK)
        err = fill(experiment, path, diag);
    if (err != KV_OK) {
        kv_experiment_free(experiment);
        return err;
    }
    *out = experiment;
    return KV_OK;
}

kv_err kv_experiment_read(const char *path, const char *const *sets, int count, kv_experiment **out,
                          kv_diag *diag)
{
    char *text;
    size_t bytes;
    kv_err err = kv_file_read(path, MOST_BYTES, &text, &bytes, diag);
    if (err != KV_OK)
        return err;
    err = kv_experiment_parse(path, text, bytes, sets, count, out, diag);
    free(text);
    return err;
}

void kv_experiment_free(kv_experiment *experiment)
{
    if (experiment == NULL)
        return;
    kv_section_fini(&kv__experiment_section, experiment);
    kv_document_free(experiment->document);
    free(experiment);
}

kv_err kv_experiment_write(const kv_experiment *experiment, FILE *out)
{
    return kv_document_write(experiment->document, out);
}
