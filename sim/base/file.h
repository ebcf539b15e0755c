/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Small text files and the names of files. */
#ifndef KVSIM_BASE_FILE_H
#define KVSIM_BASE_FILE_H

#include "sim/base/diag.h"

#include <stdbool.h>
#include <stddef.h>

/* Reads a whole file of at most most_bytes bytes; the text ends with a NUL that *bytes leaves out.
 * A file that is not there, a directory and a file that is too large are wrong input. The caller
 * frees *text. */
kv_err kv_file_read(const char *path, size_t most_bytes, char **text, size_t *bytes,
                    kv_diag *diag) KV_MUST_USE;

/* The folder part of a path: "a/b" of "a/b/c.yaml", "/" of "/c", "" of "c". The caller frees it;
 * NULL: no memory. */
char *kv_path_directory(const char *path);

/* path as seen from directory: unchanged if it is absolute or directory is "". The caller frees it;
 * NULL: no memory. */
char *kv_path_resolve(const char *directory, const char *path);

/* Where a file is to be made that appears under `path` only when it is whole: *target is the file
 * that a symbolic link leads to, else path; the caller frees it. *direct: what is there is no file
 * (a pipe, a terminal, /dev/null), so it is written as it stands and never replaced. A directory is
 * wrong input. */
kv_err kv_path_output(const char *path, char **target, bool *direct, kv_diag *diag) KV_MUST_USE;

#endif
