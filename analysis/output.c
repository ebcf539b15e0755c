/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "analysis/output.h"

#include "sim/base/file.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* mkstemp makes files that others cannot read; a result is like any other file. */
static void set_usual_mode(int file)
{
    mode_t mask = umask(0);
    umask(mask);
    if (fchmod(file, 0666 & ~mask) != 0)
        return; /* the file is only less readable than it might be */
}

/* A file beside the target; what cannot be made leaves nothing behind. */
static bool open_beside(kv_output *out)
{
    size_t bytes = strlen(out->target) + sizeof ".XXXXXX";
    out->made = malloc(bytes);
    if (out->made == NULL)
        return false;
    snprintf(out->made, bytes, "%s.XXXXXX", out->target);
    int file = mkstemp(out->made);
    out->file = file >= 0 ? fdopen(file, "wb") : NULL;
    if (out->file != NULL) {
        set_usual_mode(file);
        return true;
    }
    int why = errno;
    if (file >= 0) {
        close(file);
        unlink(out->made);
    }
    errno = why;
    return false;
}

kv_err kv__output_open(const char *path, kv_output *out, kv_diag *diag)
{
    *out = (kv_output){.file = stdout, .path = path};
    if (path == NULL)
        return KV_OK;
    bool direct = false;
    kv_err err = kv_path_output(path, &out->target, &direct, diag);
    if (err != KV_OK)
        return err;
    if (direct)
        out->file = fopen(path, "wb");
    else if (!open_beside(out))
        out->file = NULL;
    if (out->file != NULL)
        return KV_OK;
    kv_mark mark = {path, 0, 0};
    err = kv_fail(diag, KV_ERR_IO, &mark, "cannot write: %s", strerror(errno));
    free(out->made);
    free(out->target);
    return err;
}

kv_err kv__output_close(kv_output *output, kv_err err, kv_diag *diag)
{
    kv_mark mark = {output->path, 0, 0};
    bool bad = ferror(output->file) != 0;
    if (output->path == NULL) {
        bad = fflush(output->file) != 0 || bad;
        return err == KV_OK && bad
                   ? kv_fail(diag, KV_ERR_IO, NULL, "cannot write: %s", strerror(errno))
                   : err;
    }
    bad = fclose(output->file) != 0 || bad;
    if (err == KV_OK && !bad && output->made != NULL)
        bad = rename(output->made, output->target) != 0;
    if (err == KV_OK && bad)
        err = kv_fail(diag, KV_ERR_IO, &mark, "cannot write: %s", strerror(errno));
    if (err != KV_OK && output->made != NULL)
        unlink(output->made);
    free(output->made);
    free(output->target);
    return err;
}
