/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "sim/sizing.h"

#include <math.h>

static kv_err peak_of(const kv_footprint_case *c, long long prompt_tokens, double *out,
                      kv_diag *diag)
{
    kv_footprint f;
    kv_footprint_case longer = *c;
    longer.prompt_tokens = prompt_tokens;
    kv_err err = kv_footprint_compute(&longer, &f, diag);
    *out = err == KV_OK ? f.peak_bytes : NAN;
    return err;
}

/* The longest prompt whose peak fits, by bisection: the peak grows with the prompt. */
static kv_err find_context(const kv_footprint_case *c, double room, kv_sizing *out, kv_diag *diag)
{
    long long limit = c->model->max_context > 0 ? c->model->max_context : INT32_MAX;
    long long low = 0, high = limit - c->generated_tokens + 1; /* low fits, high does not */
    double peak;
    kv_err err = KV_OK;
    while (err == KV_OK && high - low > 1) {
        long long middle = low + (high - low) / 2;
        err = peak_of(c, middle, &peak, diag);
        if (err == KV_OK && peak <= room) {
            low = middle;
            out->context_bytes = peak;
        } else {
            high = middle;
        }
    }
    out->context_tokens = low > 0 ? low + c->generated_tokens : 0;
    out->context_is_models = low > 0 && out->context_tokens == limit;
    return err;
}

bool kv_sizing_is_too_long(const kv_model *model, long long prompt_tokens,
                           long long generated_tokens)
{
    return model->max_context > 0 && prompt_tokens + generated_tokens > model->max_context;
}

kv_err kv_sizing_find(const kv_footprint_case *c, double room_bytes, kv_sizing *out, kv_diag *diag)
{
    *out = (kv_sizing){.batch = 0};
    kv_err err = peak_of(c, c->prompt_tokens, &out->peak_bytes, diag);
    bool too_long = kv_sizing_is_too_long(c->model, c->prompt_tokens, c->generated_tokens);
    if (err == KV_OK && room_bytes > 0 && out->peak_bytes > 0 && !too_long)
        out->batch = (long long)fmin(floor(room_bytes / out->peak_bytes), 1e15);
    return err == KV_OK ? find_context(c, room_bytes, out, diag) : err;
}
