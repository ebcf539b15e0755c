/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Names of a server's blocks, from those of a trace. A trace's blocks may be larger or smaller; one
 * size must be a multiple of the other. Internal to sim/serving. */
#ifndef KVSIM_SIM_SERVING_NAMES_H
#define KVSIM_SIM_SERVING_NAMES_H

#include "sim/serving/serving.h"

/* splitmix64: spreads numbers over all 64-bit names. */
static inline uint64_t kv__spread_name(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/* Whole blocks of the server that the names of a prompt cover. */
kv_err kv__named_blocks(const kv_serving_settings *settings, const kv_request *request,
                        int32_t *out, kv_diag *diag) KV_MUST_USE;
/* The name of the server's block i: of the trace block that it ends in, and where in it. */
uint64_t kv__block_name(const kv_request *request, int32_t block_tokens, int32_t i);
/* The name of what it holds, wherever it stands: a part of a block of the trace, or several of
 * them. The request's contents must be known. */
uint64_t kv__block_content(const kv_request *request, int32_t block_tokens, int32_t i);

#endif
