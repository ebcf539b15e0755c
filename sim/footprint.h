/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* The analytic KV footprint of a policy on a model, from lengths alone (docs/footprint.md). */
#ifndef KVSIM_SIM_FOOTPRINT_H
#define KVSIM_SIM_FOOTPRINT_H

#include "models/model.h"
#include "policies/method.h"

/* One sequence of a model under a policy. */
typedef struct kv_footprint_case {
    const kv_model *model;
    kv_cache_format format; /* how entries are stored */
    const kv_retention *policy;
    const void *config;
    const void *plan;    /* what `prepare` made; NULL if none */
    const kv_part *part; /* [parts] transforms, which change bytes alone */
    int parts;
    long long prompt_tokens;    /* P, at least 1 */
    long long generated_tokens; /* G; P + G <= INT32_MAX */
    long long chunk_tokens;     /* C; 0: the whole prompt */
    bool published;             /* as papers' evaluation formulas round, see kv_quota_query */
} kv_footprint_case;

typedef struct kv_footprint {
    double footprint;  /* kv_footprint: of full causal attention in every layer of the model */
    double peak;       /* kv_peak: likewise of its N entries per layer and KV head */
    double peak_bytes; /* kv_bytes_peak */
    double byte_steps; /* bytes in memory summed over steps; a chunk has one step per token */
} kv_footprint;

kv_err kv_footprint_compute(const kv_footprint_case *c, kv_footprint *out,
                            kv_diag *diag) KV_MUST_USE;

#endif
