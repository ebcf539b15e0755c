/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "sim/serving/serving_output.h"

#include <errno.h>
#include <string.h>

typedef union any_record {
    kv_request_row request;
    kv__timeline_row sample;
    kv_tier_row tier;
    kv_serving_row end;
} any_record;

static const size_t record_bytes[] = {
    [KV__OUTPUT_REQUEST] = sizeof(kv_request_row),
    [KV__OUTPUT_SAMPLE] = sizeof(kv__timeline_row),
    [KV__OUTPUT_TIER] = sizeof(kv_tier_row),
    [KV__OUTPUT_END] = sizeof(kv_serving_row),
};

static kv_err io_error(kv_diag *diag)
{
    return kv_fail(diag, KV_ERR_IO, NULL, "a temporary file: %s", strerror(errno));
}

kv_err kv__output_hold(kv__output *out, kv_diag *diag)
{
    *out = (kv__output){.held = tmpfile()};
    return out->held != NULL ? KV_OK : io_error(diag);
}

static kv_err write_row(kv_serving_rows *rows, kv__output_kind kind, const any_record *any,
                        kv_diag *diag)
{
    const kv__timeline_row *s = &any->sample;
    switch (kind) {
    case KV__OUTPUT_REQUEST:
        return kv_serving_rows_request(rows, &any->request, diag);
    case KV__OUTPUT_SAMPLE:
        return kv_serving_rows_sample(rows, s->time_s, s->tier, s->used_bytes, s->running,
                                      s->waiting, diag);
    case KV__OUTPUT_TIER:
        return kv_serving_rows_tier(rows, &any->tier, diag);
    default:
        return kv_serving_rows_end(rows, &any->end, diag);
    }
}

kv_err kv__output_put(kv__output *out, kv__output_kind kind, const void *record, kv_diag *diag)
{
    if (out->held == NULL) {
        any_record any;
        memcpy(&any, record, record_bytes[kind]);
        return write_row(out->rows, kind, &any, diag);
    }
    bool ok =
        putc((int)kind, out->held) != EOF && fwrite(record, record_bytes[kind], 1, out->held) == 1;
    return ok ? KV_OK : io_error(diag);
}

kv_err kv__output_release(kv__output *out, kv_serving_rows *rows, kv_diag *diag)
{
    if (fflush(out->held) != 0 || fseek(out->held, 0, SEEK_SET) != 0)
        return io_error(diag);
    kv_err err = KV_OK;
    for (int kind; err == KV_OK && (kind = getc(out->held)) != EOF;) {
        any_record any;
        if (fread(&any, record_bytes[kind], 1, out->held) != 1)
            return io_error(diag);
        err = write_row(rows, (kv__output_kind)kind, &any, diag);
    }
    return err == KV_OK && ferror(out->held) ? io_error(diag) : err;
}
