/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "traces/request_writer.h"

#include "traces/pack.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct kv_request_writer {
    const kv_request_format *format;
    kv__pack *pack;
};

static bool has_part(const char *path, const char *extension)
{
    const char *found = strstr(path, extension);
    char next = found == NULL ? '?' : found[strlen(extension)];
    return next == '\0' || next == '.';
}

static kv_err find_format(const char *path, const char *name, const kv_request_format **out,
                          kv_diag *diag)
{
    char known[256] = "";
    *out = kv_request_format_find(name != NULL             ? name
                                  : has_part(path, ".csv") ? "csv"
                                                           : "mooncake");
    if (*out != NULL && (*out)->write != NULL)
        return KV_OK;
    for (const kv_request_format *const *f = kv_request_format_all(); *f != NULL; f++)
        if ((*f)->write != NULL)
            snprintf(known + strlen(known), sizeof known - strlen(known), " %s", (*f)->name);
    return kv_fail(diag, KV_ERR_INPUT, NULL, "cannot write the format %s, only:%s", name, known);
}

kv_err kv_request_writer_open(const char *path, const char *format_name, kv_request_writer **out,
                              kv_diag *diag)
{
    const kv_request_format *format;
    kv_err err = find_format(path, format_name, &format, diag);
    if (err != KV_OK)
        return err;
    kv_request_writer *writer = calloc(1, sizeof *writer);
    if (writer == NULL)
        return kv_fail_memory(diag);
    writer->format = format;
    err = kv__pack_open(path, &writer->pack, diag);
    if (err != KV_OK) {
        free(writer);
        return err;
    }
    if (format->write_header != NULL)
        format->write_header(kv__pack_stream(writer->pack));
    *out = writer;
    return KV_OK;
}

kv_err kv_request_write(kv_request_writer *writer, const kv_request *request, const char *tenant,
                        kv_diag *diag)
{
    FILE *stream = kv__pack_stream(writer->pack);
    writer->format->write(stream, request, tenant);
    if (!ferror(stream))
        return KV_OK;
    return kv_fail(diag, KV_ERR_IO, NULL, "writing the trace failed: %s", strerror(errno));
}

const kv_request_format *kv_request_writer_format(const kv_request_writer *writer)
{
    return writer->format;
}

kv_err kv_request_writer_close(kv_request_writer *writer, bool keep, kv_diag *diag)
{
    if (writer == NULL)
        return KV_OK;
    kv_err err = kv__pack_close(writer->pack, keep, diag);
    free(writer);
    return err;
}
