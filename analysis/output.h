/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Files that appear only when they are complete. Internal. */
#ifndef KVSIM_ANALYSIS_OUTPUT_H
#define KVSIM_ANALYSIS_OUTPUT_H

#include "sim/base/diag.h"

#include <stdio.h>

typedef struct kv_output {
    FILE *file;       /* write here */
    const char *path; /* as it was asked for, for messages; NULL: standard output */
    char *target;     /* its name in the end; NULL: standard output */
    char *made;       /* its name until then; NULL: it is written where it is */
} kv_output;

/* Opens a file beside `path`, which is borrowed; standard output if path is NULL. What is there and
 * is no file, such as a pipe or a device, is written itself. */
kv_err kv__output_open(const char *path, kv_output *out, kv_diag *diag) KV_MUST_USE;

/* Gives the file its name if err is KV_OK and all was written, else removes it; answers the error
 * of either. */
kv_err kv__output_close(kv_output *output, kv_err err, kv_diag *diag) KV_MUST_USE;

#endif
