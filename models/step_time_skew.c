/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Alpha of a number of decodes is the weighted median of (t_skew - t_mean) / (t_max - t_mean) over
 * the rows with that number, weights (t_max - t_mean) / t_skew: what makes the sum of relative
 * errors least, and is not ruled by the largest shapes as least squares is. */
#include "config.h"

#include "models/step_time_skew.h"
#include "sim/base/file.h"
#include "sim/base/yaml.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MEAN, MAX, SKEW, DECODES, PREFILL, COLUMNS };

/* A measured shape. */
typedef struct shape {
    double decodes, alpha, weight;
} shape;

static int by_decodes(const void *left, const void *right)
{
    const shape *a = left, *b = right;
    if (a->decodes != b->decodes)
        return a->decodes < b->decodes ? -1 : 1;
    return (a->alpha > b->alpha) - (a->alpha < b->alpha);
}

/* Shapes are sorted by alpha. */
static double weighted_median(const shape *shapes, size_t count)
{
    double all = 0, sum = 0;
    for (size_t i = 0; i < count; i++)
        all += shapes[i].weight;
    size_t at = 0;
    for (; at + 1 < count; at++)
        if ((sum += shapes[at].weight) >= all / 2)
            break;
    return fmin(1, fmax(0, shapes[at].alpha));
}

static kv_err make_curve(shape *shapes, size_t count, kv__curve *out)
{
    double *x = calloc(count + 1, sizeof *x), *y = calloc(count + 1, sizeof *y);
    size_t points = 0;
    kv_err err = x != NULL && y != NULL ? KV_OK : KV_ERR_MEMORY;
    if (err == KV_OK)
        qsort(shapes, count, sizeof *shapes, by_decodes);
    for (size_t from = 0, to = 0; err == KV_OK && from < count; from = to) {
        while (to < count && shapes[to].decodes == shapes[from].decodes)
            to++;
        x[points] = log2(shapes[from].decodes);
        y[points++] = weighted_median(shapes + from, to - from);
    }
    if (err == KV_OK)
        err = kv__curve_add(out, x, y, points, 1);
    free(x);
    free(y);
    return err;
}

/* The rows with or without prefill, those that tell nothing left out. */
static kv_err fit(const kv__csv *csv, bool prefill, kv__curve *out)
{
    shape *shapes = calloc(csv->rows + 1, sizeof *shapes);
    size_t count = 0;
    if (shapes == NULL)
        return KV_ERR_MEMORY;
    for (size_t r = 0; r < csv->rows; r++) {
        const double *v = &csv->value[COLUMNS * r];
        double gap = v[MAX] - v[MEAN];
        if ((v[PREFILL] > 0) == prefill && gap > 0 && v[SKEW] > 0)
            shapes[count++] = (shape){.decodes = fmax(1, v[DECODES]),
                                      .alpha = (v[SKEW] - v[MEAN]) / gap,
                                      .weight = gap / v[SKEW]};
    }
    kv_err err = make_curve(shapes, count, out);
    free(shapes);
    return err;
}

/* Whether meta.yaml says that the measured skew is not to be used. Profilers write what they like
 * in that file, so what cannot be read says nothing. */
static bool disabled(const char *path)
{
    kv_document *document;
    kv_diag ignored = {0};
    if (kv_document_read(path, &document, &ignored) != KV_OK)
        return false;
    const kv_node *node = kv_document_root(document);
    const char *const keys[] = {"skew_fit", "enabled"};
    for (int k = 0; k < 2 && node != NULL; k++)
        node = kv_node_get_kind(node) == KV_NODE_MAP ? kv_node_find(node, keys[k]) : NULL;
    const char *text =
        node != NULL && kv_node_get_kind(node) == KV_NODE_SCALAR ? kv_node_text(node, NULL) : NULL;
    bool off = text != NULL && strcmp(text, "false") == 0;
    kv_document_free(document);
    return off;
}

kv_err kv__skew_read(const char *directory, kv__skew *out, kv_diag *diag)
{
    static const char *const columns[] = {"?t_mean_us", "?t_max_us", "?t_skew_us",
                                          "?n",         "?pc",       NULL};
    *out = (kv__skew){0};
    char *path = kv_path_resolve(directory, "skew.csv");
    char *meta = kv_path_resolve(directory, "meta.yaml");
    char *above = kv_path_resolve(directory, "../meta.yaml");
    kv__csv csv = {0};
    bool absent = true;
    kv_err err = path != NULL && meta != NULL && above != NULL ? KV_OK : kv_fail_memory(diag);
    if (err == KV_OK && !disabled(meta) && !disabled(above))
        err = kv__csv_read(path, NULL, columns, &csv, &absent, diag);
    for (int prefill = 0; prefill < 2 && err == KV_OK && !absent; prefill++)
        if (fit(&csv, prefill != 0, &out->alpha[prefill]) != KV_OK)
            err = kv_fail_memory(diag);
    kv__csv_fini(&csv);
    free(path);
    free(meta);
    free(above);
    if (err != KV_OK)
        kv__skew_fini(out);
    return err;
}

void kv__skew_fini(kv__skew *skew)
{
    kv__curve_fini(&skew->alpha[0]);
    kv__curve_fini(&skew->alpha[1]);
}

double kv__skew_alpha(const kv__skew *skew, double decodes, bool prefill)
{
    const kv__curve *curve = &skew->alpha[prefill && skew->alpha[1].points > 0];
    if (decodes < 2 || curve->points == 0)
        return 0;
    double at = fmax(curve->x[0], fmin(curve->x[curve->points - 1], log2(decodes)));
    return kv__curve_at(curve, at);
}
