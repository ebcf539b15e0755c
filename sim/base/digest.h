/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Digests, by which results name the files they came from. */
#ifndef KVSIM_BASE_DIGEST_H
#define KVSIM_BASE_DIGEST_H

#include "sim/base/diag.h"

enum { KV_SHA256_TEXT = 65 }; /* 64 hex digits and the end of the string */

/* SHA-256 of a file's bytes. */
kv_err kv__file_sha256(const char *path, char out[KV_SHA256_TEXT], kv_diag *diag) KV_MUST_USE;

#endif
