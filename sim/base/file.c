/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "sim/base/file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Reads until the end or until the buffer, which grows, exceeds most_bytes. */
static kv_err read_all(FILE *file, const kv_mark *mark, size_t most_bytes, char **text,
                       size_t *bytes, kv_diag *diag)
{
    size_t room = 0;
    do {
        room = room == 0 ? 4096 : 2 * room;
        char *larger = realloc(*text, room + 1);
        if (larger == NULL)
            return kv_fail_memory(diag);
        *text = larger;
        *bytes += fread(*text + *bytes, 1, room - *bytes, file);
    } while (*bytes == room && room <= most_bytes);
    (*text)[*bytes] = '\0';
    if (ferror(file))
        return kv_fail(diag, errno == EISDIR ? KV_ERR_INPUT : KV_ERR_IO, mark,
                       "cannot be read: %s; expected a file", strerror(errno));
    if (*bytes > most_bytes)
        return kv_fail(diag, KV_ERR_INPUT, mark,
                       "is larger than %zu bytes, too large for a file "
                       "of this kind",
                       most_bytes);
    return KV_OK;
}

kv_err kv_file_read(const char *path, size_t most_bytes, char **text, size_t *bytes, kv_diag *diag)
{
    kv_mark mark = {path, 0, 0};
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        return kv_fail(diag, KV_ERR_INPUT, &mark, "cannot be opened: %s", strerror(errno));
    char *buffer = NULL;
    size_t length = 0;
    kv_err err = read_all(file, &mark, most_bytes, &buffer, &length, diag);
    fclose(file);
    if (err != KV_OK) {
        free(buffer);
        return err;
    }
    *text = buffer;
    *bytes = length;
    return KV_OK;
}

char *kv_path_directory(const char *path)
{
    const char *slash = strrchr(path, '/');
    if (slash == NULL)
        return strdup("");
    return slash == path ? strdup("/") : strndup(path, (size_t)(slash - path));
}

char *kv_path_resolve(const char *directory, const char *path)
{
    if (path[0] == '/' || directory[0] == '\0')
        return strdup(path);
    size_t length = strlen(directory), bytes = length + strlen(path) + 2;
    char *joined = malloc(bytes);
    if (joined != NULL)
        snprintf(joined, bytes, "%s%s%s", directory, directory[length - 1] == '/' ? "" : "/", path);
    return joined;
}

kv_err kv_path_output(const char *path, char **target, bool *direct, kv_diag *diag)
{
    kv_mark mark = {path, 0, 0};
    struct stat named, found;
    bool there = stat(path, &found) == 0;
    if (there && S_ISDIR(found.st_mode))
        return kv_fail(diag, KV_ERR_INPUT, &mark, "is a directory, expected a file to write");
    bool linked = there && lstat(path, &named) == 0 && S_ISLNK(named.st_mode);
    *direct = there && !S_ISREG(found.st_mode);
    *target = linked && !*direct ? realpath(path, NULL) : strdup(path);
    return *target != NULL ? KV_OK : kv_fail_memory(diag);
}
