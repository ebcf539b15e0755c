/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* A file to write as a stream, packed on the way as its name asks: .zst, .gz, or plain.
 *
 * What is written goes to PATH.part, which becomes PATH when all is well: there is never a
 * half-written PATH. "-" is standard output, plain; a pipe or a device is written as it stands. */
#ifndef KVSIM_TRACES_PACK_H
#define KVSIM_TRACES_PACK_H

#include "sim/base/diag.h"

#include <stdbool.h>
#include <stdio.h>

typedef struct kv__pack kv__pack;

kv_err kv__pack_open(const char *path, kv__pack **out, kv_diag *diag) KV_MUST_USE;
FILE *kv__pack_stream(kv__pack *pack);
/* Ends the file, if keep, and gives it its name; else removes it. Frees pack in any case. */
kv_err kv__pack_close(kv__pack *pack, bool keep, kv_diag *diag);

#endif
