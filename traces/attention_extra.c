/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Numbers per token that a recording may hold beside probs, q, k and v, one layer at a time, and
 * the rotary embedding of its queries and keys. They are small: HDF5 reads and converts them. */
#include "config.h"

#include "traces/attention_private.h"

#include <math.h>
#include <stdlib.h>

/* What each of them is: per KV head or per query head, and within which bounds. */
static const struct {
    const char *name;
    bool per_kv_head, has_rows; /* [L,H,N] or [L,H,M,N], the most over M is taken */
    double least, most;
} extras[KV_EXTRAS] = {
    [KV_EXTRA_TOKEN_SCORES] = {"token_scores", true, false, -INFINITY, INFINITY},
    [KV_EXTRA_RECONSTRUCTION] = {"reconstruction", false, true, 0, 1.001},
    [KV_EXTRA_VALUE_OUT] = {"value_out", false, false, 0, INFINITY},
};

int kv__extra_heads(const kv_shape *shape, kv_extra id)
{
    return extras[id].per_kv_head ? shape->kv_heads : shape->heads;
}

/* Opens and checks one of them; rows gets M. Leaves dataset->id below 0 where there is none. */
static kv_err open_extra(const kv_attention *a, const kv_example *e, const kv__h5 *group,
                         kv_extra id, kv__h5 *dataset, long long *rows, kv_diag *diag)
{
    bool has_rows = extras[id].has_rows;
    long long found[4] = {0};
    const long long extents[4] = {a->shape.layers, kv__extra_heads(&a->shape, id),
                                  has_rows ? KV__H5_ANY : e->total_tokens, e->total_tokens};
    kv_err err =
        kv__h5_open_child(group, extras[id].name, H5I_DATASET, false, H5P_DEFAULT, dataset, diag);
    if (err != KV_OK || dataset->id < 0)
        return err;
    err = kv__h5_check_dataset(dataset, H5T_FLOAT, has_rows ? 4 : 3, extents, found, diag);
    *rows = has_rows ? found[2] : 1;
    if (err == KV_OK && (*rows < 1 || *rows > KV__MAX_TOKENS))
        err = kv__h5_wrong(dataset, diag, "has %lld rows, expected 1 or more", *rows);
    if (err != KV_OK)
        kv__h5_close(dataset);
    return err;
}

kv_err kv__extras_check(const kv_attention *a, const kv__h5 *group, kv_example *e, kv_diag *diag)
{
    kv_err err = KV_OK;
    for (int id = 0; id < KV_EXTRAS && err == KV_OK; id++) {
        kv__h5 dataset;
        long long rows;
        err = open_extra(a, e, group, (kv_extra)id, &dataset, &rows, diag);
        if (err != KV_OK)
            break;
        e->has_extra[id] = dataset.id >= 0;
        kv__h5_close(&dataset);
    }
    return err;
}

/* Reads row m of one head of a layer. */
static kv_err read_row(const kv__h5 *dataset, bool has_rows, const hsize_t start[4], int tokens,
                       float *out, kv_diag *diag)
{
    hsize_t from[4] = {start[0], start[1], has_rows ? start[2] : 0, 0};
    hsize_t count[4] = {1, 1, has_rows ? 1 : (hsize_t)tokens, (hsize_t)tokens};
    hsize_t width = (hsize_t)tokens;
    hid_t space = H5Dget_space(dataset->id), memory = H5Screate_simple(1, &width, NULL);
    herr_t status = H5Sselect_hyperslab(space, H5S_SELECT_SET, from, NULL, count, NULL);
    if (status >= 0)
        status = H5Dread(dataset->id, H5T_NATIVE_FLOAT, memory, space, H5P_DEFAULT, out);
    H5Sclose(memory);
    H5Sclose(space);
    return status >= 0 ? KV_OK : kv__h5_failed(dataset, diag, "cannot be read");
}

static kv_err check_row(const kv__h5 *dataset, kv_extra id, const hsize_t at[4], const float *row,
                        int tokens, kv_diag *diag)
{
    for (int j = 0; j < tokens; j++) {
        bool within = row[j] >= extras[id].least && row[j] <= extras[id].most;
        if (isfinite(row[j]) && within)
            continue;
        return kv__h5_wrong(dataset, diag,
                            "[layer %d, head %d, row %d, token %d] is %g, expected a finite "
                            "number%s",
                            (int)at[0], (int)at[1], (int)at[2], j, (double)row[j],
                            isfinite(extras[id].most)    ? " from 0 to 1"
                            : isfinite(extras[id].least) ? " from 0"
                                                         : "");
    }
    return KV_OK;
}

static kv_err load_entered(const kv_attention *a, const kv_example *e, kv_extra id, int layer,
                           float *out, float *row, kv_diag *diag)
{
    kv__h5 group, dataset = {.id = H5I_INVALID_HID};
    long long rows = 0;
    int tokens = e->total_tokens, heads = kv__extra_heads(&a->shape, id);
    kv_err err = kv__example_open_group(a, e, &group, diag);
    if (err == KV_OK)
        err = open_extra(a, e, &group, id, &dataset, &rows, diag);
    for (int h = 0; h < heads && err == KV_OK; h++, out += tokens)
        for (long long m = 0; m < rows && err == KV_OK; m++) {
            const hsize_t at[4] = {(hsize_t)layer, (hsize_t)h, (hsize_t)m, 0};
            float *to = m == 0 ? out : row;
            err = read_row(&dataset, extras[id].has_rows, at, tokens, to, diag);
            if (err == KV_OK)
                err = check_row(&dataset, id, at, to, tokens, diag);
            for (int j = 0; m > 0 && j < tokens; j++)
                out[j] = out[j] > row[j] ? out[j] : row[j];
        }
    kv__h5_close(&dataset);
    kv__h5_close(&group);
    return err;
}

kv_err kv__extra_load(const kv_attention *a, const kv_example *e, kv_extra id, int layer,
                      kv__buffer *out, kv_diag *diag)
{
    size_t tokens = (size_t)e->total_tokens, heads = (size_t)kv__extra_heads(&a->shape, id);
    kv_err err = kv__buffer_reserve(out, (heads + 1) * tokens, sizeof(float), diag);
    if (err != KV_OK)
        return err;
    float *numbers = out->data;
    kv__h5_guard guard;
    kv__h5_enter(&guard);
    err = load_entered(a, e, id, layer, numbers, numbers + heads * tokens, diag);
    kv__h5_leave(&guard);
    return err;
}

/* --- Scores of the prompt's tokens ------------------------------------------------------------ */

kv_err kv__example_read_prompt_scores(const kv__h5 *group, kv_example *e, kv_diag *diag)
{
    kv__h5 dataset;
    const long long extent = e->prompt_tokens;
    kv_err err =
        kv__h5_open_child(group, "prompt_scores", H5I_DATASET, false, H5P_DEFAULT, &dataset, diag);
    if (err != KV_OK || dataset.id < 0)
        return err;
    float *scores = NULL;
    err = kv__h5_check_dataset(&dataset, H5T_FLOAT, 1, &extent, NULL, diag);
    if (err == KV_OK) {
        e->prompt_scores = scores = malloc((size_t)extent * sizeof *scores);
        err = scores != NULL ? kv__h5_read_all(&dataset, H5T_NATIVE_FLOAT, scores, diag)
                             : kv_fail_memory(diag);
    }
    for (int i = 0; i < e->prompt_tokens && err == KV_OK; i++)
        if (!isfinite(scores[i]))
            err = kv__h5_wrong(&dataset, diag, "[%d] is not a finite number", i);
    kv__h5_close(&dataset);
    return err;
}

/* --- Rotary embedding ------------------------------------------------------------------------- */

static kv_err read_frequencies(const kv__h5 *file, const kv_shape *shape, kv_rope *rope,
                               kv_diag *diag)
{
    kv__h5 dataset;
    const long long any = KV__H5_ANY;
    long long pairs = 0;
    kv_err err = kv__h5_open_child(file, "rope_frequencies", H5I_DATASET, false, H5P_DEFAULT,
                                   &dataset, diag);
    if (err != KV_OK || dataset.id < 0)
        return err;
    err = kv__h5_check_dataset(&dataset, H5T_FLOAT, 1, &any, &pairs, diag);
    if (err == KV_OK && (pairs < 1 || pairs > shape->head_dim / 2))
        err = kv__h5_wrong(&dataset, diag, "has %lld numbers, expected 1 to head_dim/2 = %d", pairs,
                           shape->head_dim / 2);
    if (err == KV_OK) {
        rope->frequency = malloc((size_t)pairs * sizeof *rope->frequency);
        err = rope->frequency != NULL
                  ? kv__h5_read_all(&dataset, H5T_NATIVE_DOUBLE, rope->frequency, diag)
                  : kv_fail_memory(diag);
    }
    for (int j = 0; j < pairs && err == KV_OK; j++)
        if (!isfinite(rope->frequency[j]))
            err = kv__h5_wrong(&dataset, diag, "[%d] is not a finite number", j);
    rope->pairs = (int)pairs;
    kv__h5_close(&dataset);
    return err;
}

static kv_err from_theta(const kv__h5 *file, const kv_shape *shape, kv_rope *rope, kv_diag *diag)
{
    double theta = 0;
    kv_err err = kv__h5_get_real(file, "rope_theta", &theta, diag);
    if (err == KV_OK && !(theta > 0 && theta < 1e30))
        err = kv__h5_wrong(file, diag, "attribute 'rope_theta' is %g, expected a base above 0",
                           theta);
    if (err != KV_OK)
        return err;
    rope->pairs = shape->head_dim / 2;
    rope->frequency = malloc((size_t)rope->pairs * sizeof *rope->frequency + 1);
    if (rope->frequency == NULL)
        return kv_fail_memory(diag);
    kv_rope_frequencies(theta, rope->pairs, rope->frequency);
    return KV_OK;
}

void kv_rope_frequencies(double theta, int pairs, double *frequency)
{
    for (int j = 0; j < pairs; j++)
        frequency[j] = pow(theta, -(double)j / pairs);
}

kv_err kv__rope_read(const kv__h5 *file, const kv_shape *shape, kv_rope *rope, kv_diag *diag)
{
    long long interleaved = 0;
    kv_err err = read_frequencies(file, shape, rope, diag);
    if (err == KV_OK && rope->pairs == 0 && kv__h5_has_attribute(file, "rope_theta"))
        err = from_theta(file, shape, rope, diag);
    if (err == KV_OK && kv__h5_has_attribute(file, "rope_interleaved"))
        err = kv__h5_get_int(file, "rope_interleaved", 0, 1, &interleaved, diag);
    rope->interleaved = interleaved == 1;
    return err;
}
