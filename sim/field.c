/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Settings that are not one scalar: how an item of each type is parsed and freed. */
#include "config.h"

#include "sim/policy_spec.h"
#include "sim/section.h"

#include <glob.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void *grown(void *array, int count, size_t item_bytes)
{
    return realloc(array, ((size_t)count + 1) * item_bytes);
}

static bool append_text(char ***texts, int count, const char *text)
{
    char **larger = grown(*texts, count, sizeof *larger);
    if (larger == NULL)
        return false;
    *texts = larger;
    return (larger[count] = strdup(text)) != NULL;
}

static kv_err expect_text(const kv_field *field, const kv_node *item, const char *what,
                          const char **out, kv_diag *diag)
{
    kv_mark mark = kv_node_mark(item);
    *out = kv_node_text(item, NULL);
    if (*out != NULL && (*out)[0] != '\0')
        return KV_OK;
    return kv_fail(diag, KV_ERR_INPUT, &mark, "%s: expected %s, found %s", field->name, what,
                   *out != NULL ? "an empty text" : kv_node_kind_name(item));
}

/* --- Texts ------------------------------------------------------------------------- */

static kv_err parse_text(const kv_field *field, void *into, const kv_node *item, kv_diag *diag)
{
    kv_texts *texts = into;
    const char *text;
    kv_err err = expect_text(field, item, "a text", &text, diag);
    if (err != KV_OK)
        return err;
    kv_mark *marks = grown(texts->mark, texts->count, sizeof *marks);
    if (marks != NULL)
        texts->mark = marks;
    if (marks == NULL || !append_text(&texts->text, texts->count, text))
        return kv_fail_memory(diag);
    marks[texts->count++] = kv_node_mark(item);
    return KV_OK;
}

static void free_all(char **texts, int count)
{
    for (int i = 0; i < count; i++)
        free(texts[i]);
    free(texts);
}

static void fini_texts(void *from)
{
    kv_texts *texts = from;
    free_all(texts->text, texts->count);
    free(texts->mark);
    *texts = (kv_texts){0};
}

/* --- Files ------------------------------------------------------------------------- */

static void fini_files(void *from)
{
    kv_files *files = from;
    free_all(files->path, files->count);
    free_all(files->name, files->count);
    *files = (kv_files){0};
}

static kv_err append_file(kv_files *files, const char *path, size_t folder_length, kv_diag *diag)
{
    for (int i = 0; i < files->count; i++)
        if (strcmp(files->path[i], path) == 0)
            return KV_OK;
    if (!append_text(&files->path, files->count, path))
        return kv_fail_memory(diag);
    if (!append_text(&files->name, files->count, path + folder_length)) {
        free(files->path[files->count]);
        return kv_fail_memory(diag);
    }
    files->count++;
    return KV_OK;
}

/* The pattern with what is special to glob() in the folder's own name made plain. */
static char *escaped_pattern(const char *path, size_t folder_length)
{
    char *pattern = malloc(2 * strlen(path) + 1), *end = pattern;
    if (pattern == NULL)
        return NULL;
    for (const char *c = path; *c != '\0'; c++) {
        if ((size_t)(c - path) < folder_length && strchr("*?[]\\", *c) != NULL)
            *end++ = '\\';
        *end++ = *c;
    }
    *end = '\0';
    return pattern;
}

static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static kv_err append_matches(const kv_field *field, kv_files *files, const char *path,
                             size_t folder_length, const kv_mark *mark, kv_diag *diag)
{
    glob_t found = {0};
    char *pattern = escaped_pattern(path, folder_length);
    if (pattern == NULL)
        return kv_fail_memory(diag);
    int status = glob(pattern, GLOB_NOSORT, NULL, &found);
    free(pattern);
    kv_err err = KV_OK;
    if (status == GLOB_NOSPACE)
        err = kv_fail_memory(diag);
    else if (status != 0)
        err = kv_fail(diag, KV_ERR_INPUT, mark, "%s: no file matches '%.200s'; looked for '%.200s'",
                      field->name, path + folder_length, path);
    else
        qsort(found.gl_pathv, found.gl_pathc, sizeof *found.gl_pathv, by_bytes);
    for (size_t i = 0; err == KV_OK && i < found.gl_pathc; i++)
        err = append_file(files, found.gl_pathv[i], folder_length, diag);
    globfree(&found);
    return err;
}

static kv_err parse_files(const kv_field *field, void *into, const kv_node *item, kv_diag *diag)
{
    kv_mark mark = kv_node_mark(item);
    const char *text;
    kv_err err = expect_text(field, item, "the name of a file", &text, diag);
    if (err != KV_OK)
        return err;
    char *path = kv_node_resolve(item, text);
    if (path == NULL)
        return kv_fail_memory(diag);
    size_t folder_length = strlen(path) - strlen(text);
    err = access(path, F_OK) == 0 ? append_file(into, path, folder_length, diag)
                                  : append_matches(field, into, path, folder_length, &mark, diag);
    free(path);
    return err;
}

/* --- Chunk sizes ------------------------------------------------------------------- */

static kv_err parse_chunk(const kv_field *field, void *into, const kv_node *item, kv_diag *diag)
{
    kv_chunks *chunks = into;
    const kv_param row = {.name = field->name, .type = KV_CHUNK, .unit = "tokens"};
    long long tokens;
    kv_err err = kv_param_parse(&row, &tokens, item, diag);
    if (err != KV_OK)
        return err;
    long long *larger = grown(chunks->tokens, chunks->count, sizeof *larger);
    if (larger == NULL)
        return kv_fail_memory(diag);
    chunks->tokens = larger;
    chunks->tokens[chunks->count++] = tokens;
    return KV_OK;
}

static void fini_chunks(void *from)
{
    kv_chunks *chunks = from;
    free(chunks->tokens);
    *chunks = (kv_chunks){0};
}

/* --- Policies and nodes ------------------------------------------------------------ */

static kv_err parse_policy(const kv_field *field, void *into, const kv_node *item, kv_diag *diag)
{
    return kv_policy_parse(item, into, diag);
}

static void fini_policies(void *from)
{
    kv_point_list_fini(from);
}

static kv_err parse_node(const kv_field *field, void *into, const kv_node *item, kv_diag *diag)
{
    kv_mark mark = kv_node_mark(item);
    bool scalar = kv_node_get_kind(item) == KV_NODE_SCALAR;
    const char *text = kv_node_text(item, NULL);
    if (kv_node_get_kind(item) == KV_NODE_LIST || (scalar && (text == NULL || text[0] == '\0')))
        return kv_fail(diag, KV_ERR_INPUT, &mark, "%s: expected a name or a mapping, found %s",
                       field->name, kv_node_kind_name(item));
    *(const kv_node **)into = item;
    return KV_OK;
}

static kv_err parse_nodes(const kv_field *field, void *into, const kv_node *item, kv_diag *diag)
{
    const kv_node *one;
    kv_mark mark = kv_node_mark(item);
    kv_err err = KV_OK;
    if (kv_node_get_kind(item) != KV_NODE_LIST)
        return parse_node(field, into, item, diag);
    if (kv_node_count(item) == 0)
        return kv_fail(diag, KV_ERR_INPUT, &mark, "%s: the list is empty; expected at least one",
                       field->name);
    for (int i = 0; i < kv_node_count(item) && err == KV_OK; i++)
        err = parse_node(field, &one, kv_node_at(item, i), diag);
    *(const kv_node **)into = item;
    return err;
}

static void fini_node(void *from)
{
    *(const kv_node **)from = NULL;
}

/* --- Types ------------------------------------------------------------------------- */

static const struct {
    kv_err (*parse)(const kv_field *field, void *into, const kv_node *item, kv_diag *diag);
    void (*fini)(void *from);
} types[] = {
    [KV_FIELD_TEXTS] = {parse_text, fini_texts},
    [KV_FIELD_FILES] = {parse_files, fini_files},
    [KV_FIELD_CHUNKS] = {parse_chunk, fini_chunks},
    [KV_FIELD_POLICIES] = {parse_policy, fini_policies},
    [KV_FIELD_NODES] = {parse_nodes, fini_node},
    [KV_FIELD_NODE] = {parse_node, fini_node},
    [KV_FIELD_SERVING] = {parse_node, fini_node},
};

kv_err kv_field_parse(const kv_field *field, void *config, const kv_node *item, kv_diag *diag)
{
    return types[field->type].parse(field, (char *)config + field->offset, item, diag);
}

void kv_field_fini(const kv_field *field, void *config)
{
    types[field->type].fini((char *)config + field->offset);
}
