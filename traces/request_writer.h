/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Writes request traces in the formats that can be written (kv_request_format.write). */
#ifndef KVSIM_TRACES_REQUEST_WRITER_H
#define KVSIM_TRACES_REQUEST_WRITER_H

#include "traces/request.h"

typedef struct kv_request_writer kv_request_writer;

/* path: "-" is standard output; a name that ends in .zst or .gz is packed. format_name NULL: by the
 * name: .csv is csv, all else mooncake. There is no file of that name until it is complete. */
kv_err kv_request_writer_open(const char *path, const char *format_name, kv_request_writer **out,
                              kv_diag *diag) KV_MUST_USE;
/* tenant: its name, NULL if it has none. */
kv_err kv_request_write(kv_request_writer *writer, const kv_request *request, const char *tenant,
                        kv_diag *diag) KV_MUST_USE;
/* What it writes. */
const kv_request_format *kv_request_writer_format(const kv_request_writer *writer);
/* Completes the file, or removes it if it is not to be kept. Frees the writer in any case. */
kv_err kv_request_writer_close(kv_request_writer *writer, bool keep, kv_diag *diag);

#endif
