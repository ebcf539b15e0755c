/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* A file as a stream, unpacked on the way if it is zstd or gzip data, whatever the file is called.
 */
#ifndef KVSIM_TRACES_UNPACK_H
#define KVSIM_TRACES_UNPACK_H

#include "sim/base/diag.h"

#include <stddef.h>
#include <stdio.h>

typedef struct kv__unpack kv__unpack;

/* "-" is standard input. */
kv_err kv__unpack_open(const char *path, kv__unpack **out, kv_diag *diag) KV_MUST_USE;
void kv__unpack_close(kv__unpack *unpack);
/* What to read from; it is closed with the rest. When ferror() holds, kv__unpack_failure says why:
 * damaged data, data that ends in the middle, or the system. */
FILE *kv__unpack_stream(kv__unpack *unpack);
/* From now on a line of more than most_bytes is an error, so that readers of lines need not bound
 * their memory. */
void kv__unpack_limit_lines(kv__unpack *unpack, size_t most_bytes);
/* What went wrong, NULL if nothing did. */
const kv_diag *kv__unpack_failure(const kv__unpack *unpack);

#endif
