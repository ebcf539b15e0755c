/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* What a request trace is like, so that others like it can be drawn: lengths and prefix sharing as
 * they occurred together, and the rate and burstiness of arrivals. */
#ifndef KVSIM_TRACES_LIKENESS_H
#define KVSIM_TRACES_LIKENESS_H

#include "traces/request.h"

#include <gsl/gsl_rng.h>

enum { KV_LIKENESS_MOST = 1 << 16 }; /* requests kept; of longer traces a uniform sample */

/* One request of the trace. */
typedef struct kv__like {
    int32_t prompt_tokens, output_tokens;
    int32_t named_blocks;  /* blocks that the prompt names */
    int32_t shared_blocks; /* of these, leading ones that an earlier request named */
    int64_t distance;      /* requests since the last one named the deepest of those; 0: none did */
} kv__like;

typedef struct kv__likeness {
    kv__like *like; /* [count] */
    int32_t count;
    int64_t requests; /* of the trace */
    int32_t block_tokens;
    double mean_gap_s, burstiness; /* of the arrivals; 0: not recorded */
} kv__likeness;

/* Reads a trace that was opened with KV_ARRIVALS_IF_RECORDED. A trace without requests is an error.
 */
kv_err kv__likeness_read(kv_request_reader *reader, gsl_rng *rng, kv__likeness *out,
                         kv_diag *diag) KV_MUST_USE;
void kv__likeness_fini(kv__likeness *likeness);

#endif
