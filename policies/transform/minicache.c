/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* MiniCache: deep neighbouring layers have keys and values of like direction, so that a pair of
 * layers shares one direction per token and keeps two lengths. */
#include "config.h"

#include "policies/retention_params.h"
#include "policies/scoring.h"
#include "policies/transform/merge.h"
#include "policies/transform/quantise.h"

#include <math.h>

typedef struct minicache_config {
    double t;              /* where between the lower (0) and the upper layer's direction (1) */
    double retain;         /* share of the entries that stay unmerged */
    long long start_layer; /* first layer of the first pair; -1: the middle */
} minicache_config;

static const kv_param params[] = {
    KV_ROW_OF_REAL(
        minicache_config, "t", t, "0.6", 0, 1, "fraction",
        "way from the lower layer's direction to the upper one's, along the great circle"),
    KV_ROW_OF_REAL(
        minicache_config, "retain", retain, "0.05", 0, 1, "fraction",
        "entries of a step that stay unmerged, those with the widest angles, of keys and of "
        "values each"),
    KV_ROW_OF_COUNT(minicache_config, "start_layer", start_layer, NULL, 0, "layers",
                    "first layer of the first pair; half of the layers if not given"),
    KV_ROW_END};

static int first_layer(const minicache_config *config, const kv_shape *shape)
{
    if (config->start_layer < 0)
        return shape->layers / 2;
    return config->start_layer < shape->layers ? (int)config->start_layer : shape->layers;
}

static int partner(const void *opaque, const kv_shape *shape, int layer)
{
    int start = first_layer(opaque, shape);
    if (layer < start)
        return -1;
    int other = (layer - start) % 2 == 0 ? layer + 1 : layer - 1;
    return other < shape->layers ? other : -1;
}

static kv_err fits(const void *opaque, const kv_shape *shape, const kv_mark *mark, kv_diag *diag)
{
    const minicache_config *config = opaque;
    int start = first_layer(config, shape);
    long long given = config->start_layer < 0 ? start : config->start_layer;
    if (start + 1 < shape->layers)
        return KV_OK;
    return kv_fail(
        diag, KV_ERR_UNSUPPORTED, mark,
        "minicache: no pair of layers begins at start_layer %lld, as the recording has %d "
        "layers",
        given, shape->layers);
}

/* The angle of two vectors, 0..pi; -1: one of them is zero. */
static double angle_of(const float *x, const float *y, int width)
{
    double xx = 0, yy = 0, xy = 0;
    for (int d = 0; d < width; d++) {
        xx += (double)x[d] * x[d];
        yy += (double)y[d] * y[d];
        xy += (double)x[d] * y[d];
    }
    if (!(xx > 0) || !(yy > 0))
        return -1;
    return acos(fmax(-1, fmin(1, xy / sqrt(xx) / sqrt(yy))));
}

/* Spherical interpolation of the two directions, at this layer's own length. own: this layer's
 * vector, rewritten; t: weight of this layer. */
static void interpolate(float *own, const float *other, int width, double t, double angle)
{
    double length_own = kv_score_norm(own, width), length_other = kv_score_norm(other, width),
           s = sin(angle);
    double a = s > 1e-9 ? sin(t * angle) / s : t, b = s > 1e-9 ? sin((1 - t) * angle) / s : 1 - t;
    for (int d = 0; d < width; d++)
        own[d] = (float)(length_own * (a * own[d] / length_own + b * other[d] / length_other));
}

/* Merges tokens order[0..n) of keys or values with the partner's, the widest angles aside. */
static void merge(const kv_transform_step *step, float *numbers, const float *other, int n,
                  double t)
{
    const minicache_config *config = step->config;
    int width = step->view->shape->head_dim, retained = (int)floor(config->retain * n + 0.5);
    double *angle = step->work, *sorted = angle + n;
    if (n == 0 || retained >= n)
        return;
    for (int i = 0; i < n; i++)
        sorted[i] = angle[i] = angle_of(kv_stored_row(numbers, step, step->order[i]),
                                        other + (size_t)step->order[i] * (size_t)width, width);
    double widest = kv_range_trim(sorted, n, 0, retained).high;
    for (int i = 0; i < n; i++)
        if (angle[i] >= 0 && angle[i] <= widest && angle[i] < 3.141592)
            interpolate(kv_stored_row(numbers, step, step->order[i]),
                        other + (size_t)step->order[i] * (size_t)width, width, t, angle[i]);
}

static void apply(const kv_transform_step *step)
{
    const minicache_config *config = step->config;
    int layer = step->view->layer, other = partner(config, step->view->shape, layer);
    if (other < 0)
        return;
    double t = layer > other ? config->t : 1 - config->t;
    int n = kv_stored_pending(step, 1);
    merge(step, step->key, step->partner_key, n, t);
    merge(step, step->value, step->partner_value, n, t);
    for (int i = 0; i < n; i++)
        kv_stored_mark(step, step->order[i], 1);
}

static size_t work_doubles(const void *config, const kv_shape *shape, int tokens)
{
    return 2 * (size_t)tokens;
}

/* A pair stores one direction and two lengths; each layer is charged half of it. */
static double bytes(const void *opaque, const kv_transform_size *size)
{
    const minicache_config *config = opaque;
    if (partner(config, size->shape, size->layer) < 0)
        return 1;
    return config->retain + (1 - config->retain) * (0.5 + 1.0 / size->shape->head_dim);
}

KV_TRANSFORM_DEFINE(minicache) = {
    .name = "minicache",
    .brief = "lets two neighbouring layers share the directions of keys and values",
    .cite = "MiniCache (Liu et al. 2024, arXiv 2405.14366)",
    .stage = "compression",
    .config_bytes = sizeof(minicache_config),
    .params = params,
    .needs = KV_NEEDS_KEYS | KV_NEEDS_VALUES | KV_NEEDS_FULL,
    .changes = KV_CHANGES_KEYS | KV_CHANGES_VALUES,
    .state_doubles = 1,
    .fits = fits,
    .partner = partner,
    .work_doubles = work_doubles,
    .apply = apply,
    .bytes = bytes,
};
