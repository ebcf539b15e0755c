/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Sizing from lengths alone: how many sequences, and how long a one, fit the memory that is left
 * for the KV cache. */
#ifndef KVSIM_SIM_SIZING_H
#define KVSIM_SIM_SIZING_H

#include "sim/footprint.h"
#include "sim/serving/capacity.h"

typedef struct kv_sizing {
    double peak_bytes;        /* of the sequence that was asked about */
    long long batch;          /* such sequences, all at their peak at once; 0: none, or they are
                                 longer than the model takes */
    long long context_tokens; /* prompt and answer of the longest one that fits alone with an answer
                                 as long as asked, at most as long as the model takes; 0: none */
    bool context_is_models;   /* the model's own limit, not memory, ends it */
    double context_bytes;     /* its peak */
} kv_sizing;

/* True of sequences that are longer than the model takes. */
bool kv_sizing_is_too_long(const kv_model *model, long long prompt_tokens,
                           long long generated_tokens);

/* room_bytes: of all devices of a group. The prompt of the case is varied for the longest one. */
kv_err kv_sizing_find(const kv_footprint_case *c, double room_bytes, kv_sizing *out,
                      kv_diag *diag) KV_MUST_USE;

#endif
