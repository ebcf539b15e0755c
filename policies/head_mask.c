/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/head_mask.h"
#include "sim/base/file.h"

#include <ctype.h>
#include <errno.h>
#include <hdf5.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- Text -------------------------------------------------------------------------- */

/* The numbers of a file. */
typedef struct table {
    int layers, columns;
    const char *column; /* what a number of a row belongs to */
    double *out;        /* [layers][columns] */
} table;

/* One line of numbers. */
static kv_err read_line(char *line, const kv_mark *mark, const table *t, double *out, kv_diag *diag)
{
    char *at = line;
    for (int h = 0; h < t->columns; h++) {
        char *end;
        out[h] = strtod(at, &end);
        kv_mark here = {mark->path, mark->line, (int)(at - line) + 1};
        if (end == at || (*end != '\0' && !isspace((unsigned char)*end)))
            return kv_fail(diag, KV_ERR_INPUT, &here,
                           "expected %d numbers per line, one per %s; number %d is missing or "
                           "is none",
                           t->columns, t->column, h + 1);
        if (!isfinite(out[h]))
            return kv_fail(diag, KV_ERR_INPUT, &here, "expected a finite number");
        at = end;
    }
    for (; *at != '\0'; at++)
        if (!isspace((unsigned char)*at))
            return kv_fail(diag, KV_ERR_INPUT, mark,
                           "more than the %d %ss that the recorded model has", t->columns,
                           t->column);
    return KV_OK;
}

static bool is_blank(const char *line)
{
    while (isspace((unsigned char)*line))
        line++;
    return *line == '\0' || *line == '#';
}

static kv_err read_lines(FILE *in, const char *path, const table *t, kv_diag *diag)
{
    char *line = NULL;
    size_t room = 0;
    int layer = 0;
    kv_mark mark = {path, 0, 0};
    kv_err err = KV_OK;
    while (err == KV_OK && getline(&line, &room, in) != -1) {
        mark.line++;
        if (is_blank(line))
            continue;
        if (layer == t->layers)
            err = kv_fail(diag, KV_ERR_INPUT, &mark,
                          "more than the %d layers that the recorded model has", t->layers);
        else
            err = read_line(line, &mark, t, t->out + (size_t)layer++ * (size_t)t->columns, diag);
    }
    free(line);
    if (err == KV_OK && ferror(in))
        err = kv_fail(diag, KV_ERR_IO, &mark, "cannot be read: %s", strerror(errno));
    if (err == KV_OK && layer < t->layers)
        err = kv_fail(diag, KV_ERR_INPUT, &mark,
                      "ends after %d lines of numbers; the recorded model has %d layers", layer,
                      t->layers);
    return err;
}

static kv_err read_text(const char *path, const table *t, kv_diag *diag)
{
    kv_mark mark = {path, 0, 0};
    FILE *in = fopen(path, "r");
    if (in == NULL)
        return kv_fail(diag, KV_ERR_INPUT, &mark, "cannot be opened: %s", strerror(errno));
    kv_err err = read_lines(in, path, t, diag);
    fclose(in);
    return err;
}

/* --- HDF5 -------------------------------------------------------------------------- */

/* The only dataset of the root group; empty if there is none or more than one. */
static herr_t find_only(hid_t group, const char *name, const H5L_info_t *info, void *closure)
{
    char *found = closure;
    H5O_info_t object;
    if (info->type != H5L_TYPE_HARD ||
        H5Oget_info_by_name2(group, name, &object, H5O_INFO_BASIC, H5P_DEFAULT) < 0 ||
        object.type != H5O_TYPE_DATASET)
        return 0;
    if (found[0] != '\0') {
        found[0] = '\0';
        return 1;
    }
    snprintf(found, 256, "%s", name);
    return 0;
}

/* A row per layer; the rest of the dimensions make up its numbers. */
static bool fits(hid_t space, const table *t)
{
    hsize_t shape[H5S_MAX_RANK] = {0}, numbers = 1;
    int rank = H5Sget_simple_extent_ndims(space);
    if (rank < 2 || H5Sget_simple_extent_dims(space, shape, NULL) != rank)
        return false;
    for (int d = 1; d < rank; d++)
        numbers *= shape[d];
    return shape[0] == (hsize_t)t->layers && numbers == (hsize_t)t->columns;
}

static kv_err read_dataset(hid_t file, const kv_mark *mark, const char *name, const table *t,
                           kv_diag *diag)
{
    hid_t dataset = H5Dopen2(file, name, H5P_DEFAULT);
    if (dataset < 0)
        return kv_fail(diag, KV_ERR_INPUT, mark, "has no dataset '%s'", name);
    hid_t space = H5Dget_space(dataset);
    kv_err err = KV_OK;
    if (!fits(space, t))
        err =
            kv_fail(diag, KV_ERR_INPUT, mark, "dataset '%s' is not a matrix of %d layers x %d %ss",
                    name, t->layers, t->columns, t->column);
    else if (H5Dread(dataset, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, t->out) < 0)
        err = kv_fail(diag, KV_ERR_INPUT, mark, "dataset '%s' cannot be read as numbers", name);
    for (int i = 0; err == KV_OK && i < t->layers * t->columns; i++)
        if (!isfinite(t->out[i]))
            err = kv_fail(diag, KV_ERR_INPUT, mark, "dataset '%s'[%d, %d] is not finite", name,
                          i / t->columns, i % t->columns);
    H5Sclose(space);
    H5Dclose(dataset);
    return err;
}

static kv_err read_hdf5(const char *path, const char *dataset, const table *t, kv_diag *diag)
{
    char only[256] = "";
    kv_mark mark = {path, 0, 0};
    hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    if (file < 0)
        return kv_fail(diag, KV_ERR_INPUT, &mark, "cannot be opened as an HDF5 file");
    if (dataset == NULL)
        H5Literate(file, H5_INDEX_NAME, H5_ITER_INC, NULL, find_only, only);
    kv_err err;
    if (dataset == NULL && only[0] == '\0')
        err = kv_fail(diag, KV_ERR_INPUT, &mark,
                      "holds no dataset or several at its root; name one as FILE.h5:DATASET");
    else
        err = read_dataset(file, &mark, dataset ? dataset : only, t, diag);
    H5Fclose(file);
    return err;
}

/* Splits "file.h5:dataset"; answers whether the path names HDF5 at all. */
static bool split_hdf5(char *path, char **dataset)
{
    static const char *const endings[] = {".h5", ".hdf5"};
    char *colon = strrchr(path, ':');
    for (int split = 0; split < 2; split++) {
        char *end = split ? colon : path + strlen(path);
        for (size_t e = 0; end != NULL && e < sizeof endings / sizeof *endings; e++) {
            size_t n = strlen(endings[e]);
            if ((size_t)(end - path) < n || strncmp(end - n, endings[e], n) != 0)
                continue;
            *dataset = split ? colon + 1 : NULL;
            if (split)
                *colon = '\0';
            return true;
        }
    }
    return false;
}

kv_err kv_layer_numbers_read(const char *path, int layers, int columns, const char *column,
                             double **out, kv_diag *diag)
{
    table t = {layers, columns, column, calloc((size_t)layers * (size_t)columns, sizeof(double))};
    char *file = strdup(path), *dataset = NULL;
    kv_err err;
    if (t.out == NULL || file == NULL)
        err = kv_fail_memory(diag);
    else if (split_hdf5(file, &dataset))
        err = read_hdf5(file, dataset, &t, diag);
    else
        err = read_text(file, &t, diag);
    free(file);
    if (err != KV_OK) {
        free(t.out);
        return err;
    }
    *out = t.out;
    return KV_OK;
}

kv_err kv_layer_numbers_load(const char *directory, const char *path, int layers, int columns,
                             const char *column, double **out, kv_diag *diag)
{
    char *resolved = kv_path_resolve(directory, path);
    kv_err err = resolved != NULL
                     ? kv_layer_numbers_read(resolved, layers, columns, column, out, diag)
                     : kv_fail_memory(diag);
    free(resolved);
    return err;
}

kv_err kv_head_mask_read(const char *path, int layers, int kv_heads, double **out, kv_diag *diag)
{
    return kv_layer_numbers_read(path, layers, kv_heads, "KV head", out, diag);
}

/* --- Policies that are a mask ------------------------------------------------------ */

typedef struct mask_plan {
    int kv_heads;
    bool streams[]; /* [layers * kv_heads] */
} mask_plan;

/* Marks the count least important heads; importance NULL: the first ones, as only counts matter. */
static void choose_streaming(const double *importance, int heads, long long count, bool *streams)
{
    for (long long i = 0; i < count; i++) {
        int least = -1;
        for (int h = 0; h < heads; h++)
            if (!streams[h] && (least < 0 || (importance && importance[h] < importance[least])))
                least = h;
        streams[least] = true;
    }
}

kv_err kv_head_mask_prepare(const void *config, const char *directory, const kv_shape *shape,
                            void **out, kv_diag *diag)
{
    const kv_retention_config *c = config;
    int heads = shape->layers * shape->kv_heads;
    double *importance = NULL;
    mask_plan *plan = calloc(1, sizeof *plan + (size_t)heads * sizeof(bool));
    if (plan == NULL)
        return kv_fail_memory(diag);
    plan->kv_heads = shape->kv_heads;
    if (c->heads != NULL) {
        kv_err err = kv_layer_numbers_load(directory, c->heads, shape->layers, shape->kv_heads,
                                           "KV head", &importance, diag);
        if (err != KV_OK) {
            free(plan);
            return err;
        }
    }
    choose_streaming(importance, heads, llrint(c->sparsity * heads), plan->streams);
    free(importance);
    *out = plan;
    return KV_OK;
}

void kv_head_mask_release(void *plan)
{
    free(plan);
}

long long kv_head_mask_quota(const void *config, const kv_quota_query *query)
{
    const kv_retention_config *c = config;
    const mask_plan *plan = query->plan;
    long long streaming = c->sinks_tokens + c->window_tokens;
    bool streams =
        plan ? plan->streams[query->layer * plan->kv_heads + query->kv_head] : query->kv_head == 0;
    if (!streams)
        return query->candidates;
    return streaming < query->candidates ? streaming : query->candidates;
}

kv_pins kv_head_mask_pins(const void *config, const kv_quota_query *query, long long quota)
{
    const kv_retention_config *c = config;
    long long sinks = c->sinks_tokens < quota ? c->sinks_tokens : quota;
    return (kv_pins){.first = (int)sinks, .last = (int)(quota - sinks)};
}

int kv_head_mask_class(const void *plan, int layer, int kv_head)
{
    const mask_plan *p = plan;
    return p->streams[layer * p->kv_heads + kv_head];
}

double kv_head_mask_share(const void *config)
{
    const kv_retention_config *c = config;
    return c->sparsity;
}

bool kv_head_mask_counts_only(const void *config)
{
    const kv_retention_config *c = config;
    return c->heads == NULL;
}
