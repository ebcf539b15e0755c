/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "traces/unpack.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <zlib.h>
#include <zstd.h>

enum { INPUT_BYTES = 1 << 17, MAGIC_BYTES = 4 };

typedef enum packing { PLAIN, ZSTD, GZIP } packing;

struct kv__unpack {
    char *path;
    FILE *file;   /* as it is */
    FILE *stream; /* unpacked */
    kv_diag failure;
    packing packing;
    ZSTD_DStream *zstd;
    z_stream gzip;
    bool gzip_started;
    bool in_frame;          /* the compressed frame that was begun is not complete yet */
    bool at_end;            /* of the file */
    size_t start, end;      /* what of input is not consumed yet */
    size_t most_line_bytes; /* 0: no limit */
    size_t line_bytes;      /* given out since the last line end */
    unsigned char input[INPUT_BYTES];
};

static kv_err fail(const kv__unpack *unpack, kv_err code, const char *words, kv_diag *diag)
{
    return kv_fail(diag, code, &(kv_mark){unpack->path, 0, 0}, "%s", words);
}

FILE *kv__unpack_stream(kv__unpack *unpack)
{
    return unpack->stream;
}

const kv_diag *kv__unpack_failure(const kv__unpack *unpack)
{
    return unpack->failure.code == KV_OK ? NULL : &unpack->failure;
}

/* Reads more of the file behind what is not consumed, which moves to the front. */
static kv_err refill(kv__unpack *unpack, kv_diag *diag)
{
    size_t left = unpack->end - unpack->start;
    memmove(unpack->input, unpack->input + unpack->start, left);
    unpack->start = 0;
    unpack->end = left + fread(unpack->input + left, 1, INPUT_BYTES - left, unpack->file);
    if (ferror(unpack->file))
        return fail(unpack, KV_ERR_IO, strerror(errno), diag);
    unpack->at_end = unpack->end == left;
    return KV_OK;
}

static packing packing_of(const unsigned char *head, size_t bytes)
{
    static const unsigned char zstd_magic[] = {0x28, 0xB5, 0x2F, 0xFD};
    static const unsigned char gzip_magic[] = {0x1F, 0x8B};
    if (bytes >= sizeof zstd_magic && memcmp(head, zstd_magic, sizeof zstd_magic) == 0)
        return ZSTD;
    if (bytes >= sizeof zstd_magic && (head[0] & 0xF0) == 0x50 &&
        memcmp(head + 1, "\x2A\x4D\x18", 3) == 0)
        return ZSTD; /* a skippable frame stands first */
    return bytes >= sizeof gzip_magic && memcmp(head, gzip_magic, sizeof gzip_magic) == 0 ? GZIP
                                                                                          : PLAIN;
}

static kv_err start(kv__unpack *unpack, kv_diag *diag)
{
    kv_err err = KV_OK;
    while (err == KV_OK && !unpack->at_end && unpack->end < MAGIC_BYTES)
        err = refill(unpack, diag);
    if (err != KV_OK)
        return err;
    unpack->packing = packing_of(unpack->input, unpack->end);
    if (unpack->packing == ZSTD) {
        unpack->zstd = ZSTD_createDStream();
        return unpack->zstd == NULL ? kv_fail_memory(diag) : KV_OK;
    }
    if (unpack->packing == GZIP) {
        enum { ANY_WINDOW_GZIP_ONLY = 15 + 16 };
        unpack->gzip_started = inflateInit2(&unpack->gzip, ANY_WINDOW_GZIP_ONLY) == Z_OK;
        return unpack->gzip_started ? KV_OK : kv_fail_memory(diag);
    }
    return KV_OK;
}

static kv_err open_file(kv__unpack *unpack, kv_diag *diag)
{
    if (strcmp(unpack->path, "-") == 0) {
        unpack->file = stdin;
        return KV_OK;
    }
    struct stat about;
    unpack->file = fopen(unpack->path, "rb");
    if (unpack->file == NULL)
        return fail(unpack, KV_ERR_INPUT, strerror(errno), diag);
    if (fstat(fileno(unpack->file), &about) == 0 && S_ISDIR(about.st_mode))
        return fail(unpack, KV_ERR_INPUT, "is a directory, expected a file", diag);
    return KV_OK;
}

static kv_err step_plain(kv__unpack *unpack, void *buffer, size_t bytes, size_t *got)
{
    size_t here = unpack->end - unpack->start;
    *got = here < bytes ? here : bytes;
    memcpy(buffer, unpack->input + unpack->start, *got);
    unpack->start += *got;
    return KV_OK;
}

static kv_err step_zstd(kv__unpack *unpack, void *buffer, size_t bytes, size_t *got, kv_diag *diag)
{
    ZSTD_inBuffer in = {unpack->input, unpack->end, unpack->start};
    ZSTD_outBuffer to = {buffer, bytes, 0};
    size_t left = ZSTD_decompressStream(unpack->zstd, &to, &in);
    if (ZSTD_isError(left))
        return kv_fail(diag, KV_ERR_INPUT, &(kv_mark){unpack->path, 0, 0},
                       "the zstd data is damaged: %s", ZSTD_getErrorName(left));
    unpack->start = in.pos;
    unpack->in_frame = left != 0;
    *got = to.pos;
    return KV_OK;
}

static kv_err step_gzip(kv__unpack *unpack, void *buffer, size_t bytes, size_t *got, kv_diag *diag)
{
    z_stream *z = &unpack->gzip;
    z->next_in = unpack->input + unpack->start;
    z->avail_in = (uInt)(unpack->end - unpack->start);
    z->next_out = buffer;
    z->avail_out = bytes < UINT32_MAX ? (uInt)bytes : UINT32_MAX;
    uInt room = z->avail_out;
    unpack->in_frame = true;
    int status = inflate(z, Z_NO_FLUSH);
    if (status != Z_OK && status != Z_STREAM_END && status != Z_BUF_ERROR)
        return kv_fail(diag, KV_ERR_INPUT, &(kv_mark){unpack->path, 0, 0},
                       "the gzip data is damaged: %s", z->msg != NULL ? z->msg : "unknown reason");
    unpack->start = unpack->end - z->avail_in;
    *got = room - z->avail_out;
    if (status == Z_STREAM_END) { /* another member may follow */
        inflateReset(z);
        unpack->in_frame = false;
    }
    return KV_OK;
}

static kv_err step(kv__unpack *unpack, void *buffer, size_t bytes, size_t *got, kv_diag *diag)
{
    if (unpack->packing == ZSTD)
        return step_zstd(unpack, buffer, bytes, got, diag);
    if (unpack->packing == GZIP)
        return step_gzip(unpack, buffer, bytes, got, diag);
    return step_plain(unpack, buffer, bytes, got);
}

/* Fills buffer with up to `bytes` bytes; *got == 0 only at the end. */
static kv_err unpack_some(kv__unpack *unpack, void *buffer, size_t bytes, size_t *got,
                          kv_diag *diag)
{
    *got = 0;
    for (;;) {
        if (unpack->start == unpack->end && !unpack->at_end) {
            kv_err err = refill(unpack, diag);
            if (err != KV_OK)
                return err;
        }
        bool starved = unpack->start == unpack->end;
        if (starved && !unpack->in_frame)
            return KV_OK;
        kv_err err = step(unpack, buffer, bytes, got, diag);
        if (err != KV_OK || *got > 0)
            return err;
        if (starved && unpack->in_frame)
            return fail(unpack, KV_ERR_INPUT, "ends in the middle of its compressed data", diag);
    }
}

static kv_err check_line(kv__unpack *unpack, const char *buffer, size_t bytes, kv_diag *diag)
{
    const char *last = memrchr(buffer, '\n', bytes);
    unpack->line_bytes =
        last == NULL ? unpack->line_bytes + bytes : (size_t)(buffer + bytes - last - 1);
    if (unpack->line_bytes <= unpack->most_line_bytes)
        return KV_OK;
    return kv_fail(diag, KV_ERR_INPUT, &(kv_mark){unpack->path, 0, 0},
                   "a line of more than %zu bytes, expected lines of text",
                   unpack->most_line_bytes);
}

void kv__unpack_limit_lines(kv__unpack *unpack, size_t most_bytes)
{
    unpack->most_line_bytes = most_bytes;
}

static ssize_t read_stream(void *cookie, char *buffer, size_t bytes)
{
    kv__unpack *unpack = cookie;
    size_t got;
    kv_err err = unpack_some(unpack, buffer, bytes, &got, &unpack->failure);
    if (err == KV_OK && unpack->most_line_bytes > 0)
        err = check_line(unpack, buffer, got, &unpack->failure);
    if (err == KV_OK)
        return (ssize_t)got;
    errno = EIO;
    return -1;
}

static kv_err make_stream(kv__unpack *unpack, kv_diag *diag)
{
    enum { STREAM_BYTES = 1 << 18 };
    unpack->stream = fopencookie(unpack, "r", (cookie_io_functions_t){.read = read_stream});
    if (unpack->stream == NULL)
        return kv_fail_memory(diag);
    setvbuf(unpack->stream, NULL, _IOFBF, STREAM_BYTES);
    return KV_OK;
}

kv_err kv__unpack_open(const char *path, kv__unpack **out, kv_diag *diag)
{
    kv__unpack *unpack = calloc(1, sizeof *unpack);
    if (unpack == NULL)
        return kv_fail_memory(diag);
    unpack->path = strdup(path);
    kv_err err = unpack->path == NULL ? kv_fail_memory(diag) : open_file(unpack, diag);
    if (err == KV_OK)
        err = start(unpack, diag);
    if (err == KV_OK)
        err = make_stream(unpack, diag);
    if (err != KV_OK) {
        kv__unpack_close(unpack);
        return err;
    }
    *out = unpack;
    return KV_OK;
}

void kv__unpack_close(kv__unpack *unpack)
{
    if (unpack == NULL)
        return;
    if (unpack->stream != NULL)
        fclose(unpack->stream);
    if (unpack->gzip_started)
        inflateEnd(&unpack->gzip);
    ZSTD_freeDStream(unpack->zstd);
    if (unpack->file != NULL && unpack->file != stdin)
        fclose(unpack->file);
    free(unpack->path);
    free(unpack);
}
