/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "traces/pack.h"

#include "sim/base/file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <zlib.h>
#include <zstd.h>

enum { OUTPUT_BYTES = 1 << 17, ZSTD_LEVEL = 12, GZIP_LEVEL = 6 };

struct kv__pack {
    char *path, *part; /* the name it will have, and has */
    FILE *file;        /* as it is */
    FILE *stream;      /* what is written to */
    ZSTD_CCtx *zstd;   /* NULL: not packed by it */
    z_stream gzip;
    bool is_gzip;
    bool failed;
    unsigned char output[OUTPUT_BYTES];
};

FILE *kv__pack_stream(kv__pack *pack)
{
    return pack->stream;
}

static bool put(kv__pack *pack, size_t bytes)
{
    if (bytes > 0 && fwrite(pack->output, 1, bytes, pack->file) != bytes)
        pack->failed = true;
    return !pack->failed;
}

static bool pack_zstd(kv__pack *pack, const char *data, size_t bytes, bool last)
{
    ZSTD_inBuffer in = {data, bytes, 0};
    for (bool more = true; more;) {
        ZSTD_outBuffer to = {pack->output, OUTPUT_BYTES, 0};
        size_t left =
            ZSTD_compressStream2(pack->zstd, &to, &in, last ? ZSTD_e_end : ZSTD_e_continue);
        if (ZSTD_isError(left) || !put(pack, to.pos))
            return false;
        more = last ? left > 0 : in.pos < in.size;
    }
    return true;
}

static bool pack_gzip(kv__pack *pack, const char *data, size_t bytes, bool last)
{
    z_stream *z = &pack->gzip;
    z->next_in = (unsigned char *)data;
    z->avail_in = (uInt)bytes;
    int status = Z_OK;
    do {
        z->next_out = pack->output;
        z->avail_out = OUTPUT_BYTES;
        status = deflate(z, last ? Z_FINISH : Z_NO_FLUSH);
        if (status == Z_STREAM_ERROR || !put(pack, OUTPUT_BYTES - z->avail_out))
            return false;
    } while (last ? status != Z_STREAM_END : z->avail_in > 0);
    return true;
}

/* stdio gives at most a buffer at a time, so sizes fit zlib's. */
static ssize_t write_stream(void *cookie, const char *data, size_t bytes)
{
    kv__pack *pack = cookie;
    bool done = pack->is_gzip        ? pack_gzip(pack, data, bytes, false)
                : pack->zstd != NULL ? pack_zstd(pack, data, bytes, false)
                                     : fwrite(data, 1, bytes, pack->file) == bytes;
    pack->failed |= !done;
    return done ? (ssize_t)bytes : 0;
}

static bool ends_in(const char *path, const char *suffix)
{
    size_t n = strlen(path), m = strlen(suffix);
    return n > m && strcmp(path + n - m, suffix) == 0;
}

/* Packs as the name that was asked for says, whatever a link of that name leads to. */
static kv_err start(kv__pack *pack, const char *path, kv_diag *diag)
{
    enum { STREAM_BYTES = 1 << 18, WINDOW_GZIP = 15 + 16, MEMORY = 8 };
    if (ends_in(path, ".zst")) {
        pack->zstd = ZSTD_createCCtx();
        if (pack->zstd == NULL)
            return kv_fail_memory(diag);
        ZSTD_CCtx_setParameter(pack->zstd, ZSTD_c_compressionLevel, ZSTD_LEVEL);
        ZSTD_CCtx_setParameter(pack->zstd, ZSTD_c_checksumFlag, 1);
    } else if (ends_in(path, ".gz")) {
        if (deflateInit2(&pack->gzip, GZIP_LEVEL, Z_DEFLATED, WINDOW_GZIP, MEMORY,
                         Z_DEFAULT_STRATEGY) != Z_OK)
            return kv_fail_memory(diag);
        pack->is_gzip = true;
    }
    pack->stream = fopencookie(pack, "w", (cookie_io_functions_t){.write = write_stream});
    if (pack->stream == NULL)
        return kv_fail_memory(diag);
    setvbuf(pack->stream, NULL, _IOFBF, STREAM_BYTES);
    return KV_OK;
}

static kv_err open_file(kv__pack *pack, const char *path, kv_diag *diag)
{
    static const char suffix[] = ".part";
    bool direct = false;
    if (strcmp(path, "-") == 0) {
        pack->path = strdup(path);
        pack->file = stdout;
        return pack->path != NULL ? KV_OK : kv_fail_memory(diag);
    }
    kv_err err = kv_path_output(path, &pack->path, &direct, diag);
    if (err != KV_OK)
        return err;
    if (!direct) {
        size_t bytes = strlen(pack->path) + sizeof suffix;
        pack->part = malloc(bytes);
        if (pack->part == NULL)
            return kv_fail_memory(diag);
        snprintf(pack->part, bytes, "%s%s", pack->path, suffix);
    }
    pack->file = fopen(direct ? pack->path : pack->part, "wb");
    if (pack->file == NULL)
        return kv_fail(diag, KV_ERR_IO, &(kv_mark){path, 0, 0}, "cannot be written: %s",
                       strerror(errno));
    return KV_OK;
}

kv_err kv__pack_open(const char *path, kv__pack **out, kv_diag *diag)
{
    kv__pack *pack = calloc(1, sizeof *pack);
    if (pack == NULL)
        return kv_fail_memory(diag);
    kv_err err = open_file(pack, path, diag);
    if (err == KV_OK)
        err = start(pack, path, diag);
    if (err != KV_OK) {
        kv__pack_close(pack, false, NULL);
        return err;
    }
    *out = pack;
    return KV_OK;
}

/* Writes what is still held back; false if anything went wrong. */
static bool finish(kv__pack *pack)
{
    if (pack->stream != NULL && fclose(pack->stream) != 0)
        pack->failed = true;
    pack->stream = NULL;
    if (!pack->failed && pack->zstd != NULL)
        pack->failed = !pack_zstd(pack, NULL, 0, true);
    if (!pack->failed && pack->is_gzip)
        pack->failed = !pack_gzip(pack, NULL, 0, true);
    if (pack->file == stdout)
        pack->failed |= fflush(stdout) != 0;
    else if (pack->file != NULL)
        pack->failed |= fclose(pack->file) != 0;
    return !pack->failed;
}

kv_err kv__pack_close(kv__pack *pack, bool keep, kv_diag *diag)
{
    kv_err err = KV_OK;
    if (pack == NULL)
        return KV_OK;
    errno = 0;
    bool whole = finish(pack);
    bool named = pack->part == NULL || (keep && whole && rename(pack->part, pack->path) == 0);
    if (keep && (!whole || !named))
        err = kv_fail(diag, KV_ERR_IO, &(kv_mark){pack->path, 0, 0}, "cannot be written: %s",
                      errno != 0 ? strerror(errno) : "the system took no more");
    if (pack->part != NULL && !named)
        remove(pack->part);
    if (pack->is_gzip)
        deflateEnd(&pack->gzip);
    ZSTD_freeCCtx(pack->zstd);
    free(pack->path);
    free(pack->part);
    free(pack);
    return err;
}
