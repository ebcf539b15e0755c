/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "traces/file_list.h"

#include <dirent.h>
#include <errno.h>
#include <glob.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

void kv__file_list_fini(kv__file_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        free(list->path[i]);
    free(list->path);
    *list = (kv__file_list){0};
}

/* Appends a path, which the list then owns; NULL is exhausted memory. */
static kv_err add_path(kv__file_list *list, char *path, kv_diag *diag)
{
    char **larger = path == NULL ? NULL : realloc(list->path, (list->count + 1) * sizeof *larger);
    if (larger == NULL) {
        free(path);
        return kv_fail_memory(diag);
    }
    list->path = larger;
    list->path[list->count++] = path;
    return KV_OK;
}

static char *join(const char *directory, const char *name)
{
    size_t bytes = strlen(directory) + strlen(name) + 2;
    char *path = malloc(bytes);
    bool slash = directory[0] != '\0' && directory[strlen(directory) - 1] == '/';
    if (path != NULL)
        snprintf(path, bytes, "%s%s%s", directory, slash ? "" : "/", name);
    return path;
}

static bool ends_in_one_of(const char *name, const char *const *suffixes)
{
    for (; *suffixes != NULL; suffixes++) {
        size_t n = strlen(name), m = strlen(*suffixes);
        if (n > m && strcmp(name + n - m, *suffixes) == 0)
            return true;
    }
    return false;
}

static kv_err list_directory(kv__file_list *list, const char *path, const char *const *suffixes,
                             kv_diag *diag)
{
    DIR *directory = opendir(path);
    kv_err err = KV_OK;
    if (directory == NULL)
        return kv_fail(diag, KV_ERR_INPUT, &(kv_mark){path, 0, 0}, "%s", strerror(errno));
    for (const struct dirent *entry; err == KV_OK && (entry = readdir(directory)) != NULL;)
        if (entry->d_name[0] != '.' && ends_in_one_of(entry->d_name, suffixes))
            err = add_path(list, join(path, entry->d_name), diag);
    closedir(directory);
    return err;
}

static kv_err list_pattern(kv__file_list *list, const char *path, kv_diag *diag)
{
    glob_t found;
    kv_err err = KV_OK;
    int status = glob(path, GLOB_NOSORT, NULL, &found);
    if (status == GLOB_NOSPACE)
        return kv_fail_memory(diag);
    for (size_t i = 0; status == 0 && err == KV_OK && i < found.gl_pathc; i++)
        err = add_path(list, strdup(found.gl_pathv[i]), diag);
    globfree(&found);
    return err;
}

static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

kv_err kv__file_list_init(kv__file_list *list, const char *path, const char *const *suffixes,
                          kv_diag *diag)
{
    struct stat about;
    kv_err err;
    bool there = strcmp(path, "-") == 0 || stat(path, &about) == 0;
    if (there && strcmp(path, "-") != 0 && S_ISDIR(about.st_mode))
        err = list_directory(list, path, suffixes, diag);
    else if (!there && strpbrk(path, "*?[") != NULL)
        err = list_pattern(list, path, diag);
    else
        err = add_path(list, strdup(path), diag);
    if (err != KV_OK)
        return err;
    if (list->count == 0)
        return kv_fail(diag, KV_ERR_INPUT, &(kv_mark){path, 0, 0}, "there is no such trace file");
    qsort(list->path, list->count, sizeof *list->path, by_bytes);
    return KV_OK;
}
