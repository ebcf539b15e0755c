/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* How the big arrays of a file are stored. */
#include "config.h"

#include "traces/attention_private.h"

#include <string.h>

_Static_assert((int)KV_STORAGES == (int)KV__ARRAYS, "one description for each array");

static void add_array(const kv_attention *attention, const kv__array *array, kv_storage *out)
{
    const char *type = array->element == KV__F16 ? "f16" : "f32";
    out->mapped = array->offset >= 0 && (out->examples == 0 || out->mapped);
    out->type = out->type == NULL || strcmp(out->type, type) == 0 ? type : "mixed";
    out->examples++;
    out->bytes += (double)attention->shape.layers * array->heads * array->rows * array->width *
                  array->element;
    out->stored_bytes += (double)H5Dget_storage_size(array->dataset.id);
}

static kv_err add_example(const kv_attention *attention, const kv_example *example,
                          kv_storage out[KV_STORAGES], kv_diag *diag)
{
    kv__array array[KV__ARRAYS];
    kv_err err = kv__arrays_open(attention, example, array, diag);
    for (int id = 0; id < KV__ARRAYS; id++) {
        if (array[id].dataset.id >= 0)
            add_array(attention, &array[id], &out[id]);
        kv__array_close(&array[id]);
    }
    return err;
}

kv_err kv_attention_storage(const kv_attention *attention, kv_storage out[KV_STORAGES],
                            kv_diag *diag)
{
    kv__h5_guard guard;
    kv_err err = KV_OK;
    for (int id = 0; id < KV__ARRAYS; id++)
        out[id] = (kv_storage){.name = kv__array_names[id]};
    kv__h5_enter(&guard);
    for (int i = 0; i < attention->examples && err == KV_OK; i++)
        err = add_example(attention, &attention->example[i], out, diag);
    kv__h5_leave(&guard);
    return err;
}
