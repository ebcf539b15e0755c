/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* What a request trace cannot tell of a policy, from a replay of attention: how much each head
 * keeps where that depends on scores, and how much a read policy reads. Internal to sim/serving. */
#ifndef KVSIM_SIM_SERVING_PROFILE_H
#define KVSIM_SIM_SERVING_PROFILE_H

#include "analysis/results.h"
#include "models/model.h"
#include "sim/policy_spec.h"

#include <stdbool.h>

/* Where profiles come from. */
typedef struct kv_profile_source {
    kv_results *results; /* NULL: there is none yet */
    long long run_id;
} kv_profile_source;

/* Whether a replay of these points will know what the two calls below ask for, as far as the spec
 * needs them: KV_ERR_UNSUPPORTED, saying what to do, if not. */
kv_err kv__profile_expect(const kv_point_list *coming, const kv_point_spec *spec,
                          long long chunk_tokens, kv_diag *diag) KV_MUST_USE;

/* [layers * kv_heads] of the served model, for kv_counts_rule.profile; the caller frees it. For
 * each head the mean over the recorded examples of the entries that it kept after the prompt, over
 * its quota there. A served model of another shape takes the layer at the same depth and the mean
 * of its heads. KV_ERR_UNSUPPORTED, saying what to do, where the source does not know the policy.
 */
kv_err kv__profile_heads_of(const kv_profile_source *source, const kv_point_spec *spec,
                            long long chunk_tokens, const kv_model *model, double **out,
                            kv_diag *diag) KV_MUST_USE;

/* Shares of what is retained that a point with a read policy reads: of bytes while decoding, of
 * scores in prefill. */
kv_err kv__profile_reads_of(const kv_profile_source *source, const kv_point_spec *spec,
                            long long chunk_tokens, double *decode, double *prefill,
                            kv_diag *diag) KV_MUST_USE;

/* Entries of a head that a decode step of a policy with entries in host memory fetches: what the
 * replay read of a head on average, less the home_entries that are on the device. */
kv_err kv__profile_fetches_of(const kv_profile_source *source, const kv_point_spec *spec,
                              long long chunk_tokens, int64_t home_entries, int64_t *fetched,
                              kv_diag *diag) KV_MUST_USE;

#endif
