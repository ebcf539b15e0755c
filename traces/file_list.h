/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* The files that one path means: itself, those of a directory, or those that match a pattern. */
#ifndef KVSIM_TRACES_FILE_LIST_H
#define KVSIM_TRACES_FILE_LIST_H

#include "sim/base/diag.h"

#include <stddef.h>

/* Zeroed is empty. */
typedef struct kv__file_list {
    char **path; /* [count], in byte order */
    size_t count;
} kv__file_list;

/* suffixes: what files of a directory must end in one of, ended by NULL. No file at all is an
 * error. */
kv_err kv__file_list_init(kv__file_list *list, const char *path, const char *const *suffixes,
                          kv_diag *diag) KV_MUST_USE;
void kv__file_list_fini(kv__file_list *list);

#endif
