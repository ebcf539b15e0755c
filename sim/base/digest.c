/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "sim/base/digest.h"

#include <errno.h>
#include <nettle/base16.h>
#include <nettle/sha2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE_BYTES = 1 << 20 };

kv_err kv__file_sha256(const char *path, char out[KV_SHA256_TEXT], kv_diag *diag)
{
    const kv_mark mark = {.path = path};
    uint8_t *piece = malloc(PIECE_BYTES);
    if (piece == NULL)
        return kv_fail_memory(diag);
    FILE *file = fopen(path, "rb");
    struct sha256_ctx context;
    sha256_init(&context);
    size_t got = 0;
    while (file != NULL && (got = fread(piece, 1, PIECE_BYTES, file)) > 0)
        sha256_update(&context, got, piece);
    kv_err err = KV_OK;
    if (file == NULL || ferror(file))
        err = kv_fail(diag, KV_ERR_IO, &mark, "cannot be read: %s", strerror(errno));
    if (file != NULL)
        fclose(file);
    free(piece);
    if (err != KV_OK)
        return err;
    uint8_t digest[SHA256_DIGEST_SIZE];
    sha256_digest(&context, sizeof digest, digest);
    base16_encode_update(out, sizeof digest, digest);
    out[KV_SHA256_TEXT - 1] = '\0';
    return KV_OK;
}
