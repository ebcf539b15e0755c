/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Positions without gaps: the entries that stay are turned to stand side by side, right before the
 * next token, as if what left had never been there. */
#include "config.h"

#include "policies/retention_params.h"
#include "policies/rotary.h"
#include "policies/transform.h"
#include "policies/transform/merge.h"

#include <math.h>

typedef struct rerotate_config {
    double rope_theta; /* 0: the recording's rotary embedding */
} rerotate_config;

static const kv_param params[] = {
    KV_ROW_OF_REAL(rerotate_config, "rope_theta", rope_theta, "0", 0, INFINITY, "",
                   "base of the rotary embedding; 0: the recording says"),
    KV_ROW_END};

static unsigned needs_of(const void *config)
{
    return ((const rerotate_config *)config)->rope_theta > 0 ? 0 : KV_NEEDS_ROPE;
}

/* out = key moved by so many positions, in single precision. work: [width]. */
static void move(const kv_rotation *r, const float *key, double positions, double *work, float *out)
{
    for (int d = 0; d < r->width; d++)
        work[d] = key[d];
    kv_rotation_move(r, positions, work);
    for (int d = 0; d < r->width; d++)
        out[d] = (float)work[d];
}

/* Whether the stored key is the recorded one, moved as we moved it: nobody else has changed it. */
static bool is_ours(const kv_rotation *r, const float *recorded, const float *stored, double moved,
                    double *work)
{
    for (int d = 0; d < r->width; d++)
        work[d] = recorded[d];
    kv_rotation_move(r, moved, work);
    for (int d = 0; d < r->width; d++)
        if (stored[d] != (float)work[d])
            return false;
    return true;
}

/* state: how far each token has been moved. A key that is still the recorded one is moved from
 * there, so that errors of many small moves do not add up. */
static void apply(const kv_transform_step *step)
{
    const rerotate_config *config = step->config;
    int width = step->view->shape->head_dim;
    kv_rotation r = {kv_layer_rope(step->view->source), config->rope_theta, width};
    for (int i = 0; i < step->presents; i++) {
        int token = step->present[i];
        double place = step->step_end - step->presents + i - token, *moved = &step->state[token];
        float *key = kv_stored_row(step->key, step, token);
        const float *recorded = step->recorded_key + (size_t)token * (size_t)width;
        if (place == *moved)
            continue;
        if (is_ours(&r, recorded, key, *moved, step->work))
            move(&r, recorded, place, step->work, key);
        else
            move(&r, key, place - *moved, step->work, key);
        *moved = place;
    }
}

static size_t work_doubles(const void *config, const kv_shape *shape, int tokens)
{
    return (size_t)shape->head_dim;
}

KV_TRANSFORM_DEFINE(rerotate) = {
    .name = "rerotate",
    .brief = "turns the keys that stay to positions without gaps",
    .cite = "FINCH (Corallo and Papotti 2024, TACL); KeyRerotationPress of kvpress",
    .stage = "compression",
    .config_bytes = sizeof(rerotate_config),
    .params = params,
    .needs = KV_NEEDS_KEYS | KV_NEEDS_VALUES,
    .changes = KV_CHANGES_KEYS,
    .evicted = true,
    .state_doubles = 1,
    .needs_of = needs_of,
    .work_doubles = work_doubles,
    .apply = apply,
};
