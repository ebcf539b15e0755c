/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Opening and closing a file of recorded attention, and looking into it. */
#include "config.h"

#include "sim/base/digest.h"
#include "traces/attention_private.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static kv_err check_format(const kv__h5 *file, kv_diag *diag)
{
    char *format = NULL;
    long long version;
    if (!kv__h5_has_attribute(file, "format"))
        return kv__h5_wrong(file, diag,
                            "is not recorded attention: the root has no attribute 'format' that "
                            "says kvsim.attention (docs/trace-format.md)");
    kv_err err = kv__h5_get_text(file, "format", &format, diag);
    if (err != KV_OK)
        return err;
    if (strcmp(format, "kvsim.attention") != 0)
        err = kv__h5_wrong(file, diag, "attribute 'format' is '%.64s', expected kvsim.attention",
                           format);
    free(format);
    if (err == KV_OK)
        err = kv__h5_get_int(file, "version", 1, 1 << 30, &version, diag);
    if (err == KV_OK && version != 1)
        err = kv__h5_wrong(file, diag, "has version %lld of the format; this kvsim reads version 1",
                           version);
    return err;
}

/* The attributes of the model that are counts. */
static const struct count_attribute {
    const char *name;
    size_t offset; /* of the int in kv_shape */
    int most;
} count_attributes[] = {
    {"num_layers", offsetof(kv_shape, layers), KV__MAX_LAYERS},
    {"num_heads", offsetof(kv_shape, heads), KV__MAX_HEADS},
    {"num_kv_heads", offsetof(kv_shape, kv_heads), KV__MAX_HEADS},
    {"head_dim", offsetof(kv_shape, head_dim), KV__MAX_HEAD_DIM},
};

static kv_err read_shape(kv_attention *a, kv_diag *diag)
{
    kv_shape *shape = &a->shape;
    kv_err err = kv__h5_get_text(&a->file, "model", &a->model, diag);
    for (size_t i = 0; i < sizeof count_attributes / sizeof *count_attributes; i++) {
        const struct count_attribute *c = &count_attributes[i];
        long long value = 0;
        if (err == KV_OK)
            err = kv__h5_get_int(&a->file, c->name, 1, c->most, &value, diag);
        *(int *)((char *)shape + c->offset) = (int)value;
    }
    if (err != KV_OK)
        return err;
    shape->model = a->model;
    if (shape->heads % shape->kv_heads != 0)
        return kv__h5_wrong(&a->file, diag, "num_heads %d is not a multiple of num_kv_heads %d",
                            shape->heads, shape->kv_heads);
    shape->scale = 1 / sqrt(shape->head_dim);
    if (kv__h5_has_attribute(&a->file, "scale"))
        err = kv__h5_get_real(&a->file, "scale", &shape->scale, diag);
    if (err == KV_OK && !(shape->scale > 0 && shape->scale < 1e6))
        err = kv__h5_wrong(&a->file, diag, "attribute 'scale' is %g, expected a factor above 0",
                           shape->scale);
    return err;
}

static kv_err read_quantum(kv_attention *a, kv_diag *diag)
{
    long long bits = 0;
    if (!kv__h5_has_attribute(&a->file, "probs_quantum_bits"))
        return KV_OK;
    kv_err err = kv__h5_get_int(&a->file, "probs_quantum_bits", 1, 60, &bits, diag);
    a->quantum_bits = (int)bits;
    return err;
}

static kv_err read_examples(kv_attention *a, kv_diag *diag)
{
    char **names = NULL;
    int count = 0;
    kv_err err = kv__h5_check_links(&a->file, NULL, NULL, diag);
    if (err == KV_OK)
        err =
            kv__h5_open_child(&a->file, "examples", H5I_GROUP, true, H5P_DEFAULT, &a->group, diag);
    if (err == KV_OK)
        err = kv__h5_check_links(&a->group, &names, &count, diag);
    if (err == KV_OK && count == 0)
        err = kv__h5_wrong(&a->group, diag, "holds no example");
    if (err == KV_OK) {
        a->example = calloc((size_t)count, sizeof *a->example);
        err = a->example != NULL ? KV_OK : kv_fail_memory(diag);
    }
    for (int i = 0; i < count && err == KV_OK; i++) {
        a->examples = i + 1;
        err = kv__example_read(a, names[i], &a->example[i], diag);
    }
    kv__h5_free_names(names, count);
    return err;
}

/* HDF5's descriptor, so that what is mapped is the file that was checked. */
static void find_descriptor(kv_attention *a)
{
    void *handle = NULL;
    struct stat status;
    a->fd = -1;
    if (H5Fget_vfd_handle(a->file.id, H5P_DEFAULT, &handle) < 0 || handle == NULL)
        return;
    int fd = *(int *)handle;
    if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode))
        return;
    a->fd = fd;
    a->file_bytes = status.st_size;
}

static kv_err open_entered(kv_attention *a, kv_diag *diag)
{
    kv_err err = kv__h5_open(a->path, &a->file, diag);
    if (err != KV_OK)
        return err;
    find_descriptor(a);
    err = check_format(&a->file, diag);
    if (err == KV_OK)
        err = read_shape(a, diag);
    if (err == KV_OK)
        err = read_quantum(a, diag);
    if (err == KV_OK)
        err = kv__rope_read(&a->file, &a->shape, &a->rope, diag);
    return err == KV_OK ? read_examples(a, diag) : err;
}

static void close_entered(kv_attention *a)
{
    kv__h5_close(&a->group);
    kv__h5_close(&a->file);
}

/* Opens and closes the file as this process will in one that may crash over it. */
static void try_opening(void *closure)
{
    kv_attention *a = closure;
    a->trial = true;
    if (open_entered(a, NULL) == KV_OK)
        kv__example_try_tokens(a);
    close_entered(a);
}

static kv_err survive_opening(kv_attention *a, kv_diag *diag)
{
    enum { LEAST_SECONDS = 5, BYTES_PER_SECOND = 16 << 20, MOST_SECONDS = 3600 };
    const kv_mark mark = {.path = a->path};
    struct stat status;
    long long bytes = stat(a->path, &status) == 0 ? (long long)status.st_size : 0;
    long long seconds = LEAST_SECONDS + bytes / BYTES_PER_SECOND;
    kv__h5_end end =
        kv__h5_survives(try_opening, a, seconds < MOST_SECONDS ? (int)seconds : MOST_SECONDS);
    if (end == KV__H5_RETURNED)
        return KV_OK;
    return kv_fail(diag, KV_ERR_INPUT, &mark, "is damaged: HDF5 %s over it; write the file anew",
                   end == KV__H5_CRASHED ? "crashes" : "comes to no end");
}

kv_err kv_attention_open(const char *path, kv_attention **out, kv_diag *diag)
{
    kv_attention *a = calloc(1, sizeof *a);
    if (a == NULL)
        return kv_fail_memory(diag);
    a->file.id = a->group.id = H5I_INVALID_HID;
    a->path = strdup(path);
    kv__h5_guard guard;
    kv__h5_enter(&guard);
    kv_err err = a->path != NULL ? survive_opening(a, diag) : kv_fail_memory(diag);
    if (err == KV_OK)
        err = open_entered(a, diag);
    kv__h5_leave(&guard);
    if (err == KV_OK)
        *out = a;
    else
        kv_attention_close(a);
    return err;
}

void kv_attention_close(kv_attention *a)
{
    if (a == NULL)
        return;
    kv__h5_guard guard;
    kv__h5_enter(&guard);
    close_entered(a);
    kv__h5_leave(&guard);
    for (int i = 0; i < a->examples; i++)
        kv__example_fini(&a->example[i]);
    free(a->example);
    free(a->rope.frequency);
    free(a->model);
    free(a->path);
    free(a);
}

const char *kv_attention_path(const kv_attention *attention)
{
    return attention->path;
}

const kv_shape *kv_attention_shape(const kv_attention *attention)
{
    return &attention->shape;
}

const kv_rope *kv_attention_rope(const kv_attention *attention)
{
    return &attention->rope;
}

int kv_attention_examples(const kv_attention *attention)
{
    return attention->examples;
}

const kv_example *kv_attention_example(const kv_attention *attention, int index)
{
    return &attention->example[index];
}

kv_err kv_attention_digest(const kv_attention *attention, char out[65], kv_diag *diag)
{
    return kv__file_sha256(attention->path, out, diag);
}
