/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* How an experiment's model stores what was recorded of it: windows, shared and latent caches,
 * recurrent states. */
#ifndef KVSIM_SIM_ATTENTION_CACHE_H
#define KVSIM_SIM_ATTENTION_CACHE_H

#include "models/model.h"
#include "sim/replay/replay.h"
#include "traces/attention.h"

/* Describes the cache for a recording of the model's layers, of all or of its attention layers in
 * their order, and of its KV heads; of a latent cache one head or as many as queries have. Refuses
 * another shape at `mark`, naming the trace. out->layer is the caller's (free). */
kv_err kv_attention_cache_of(const kv_model *model, const kv_shape *shape, const char *trace,
                             const kv_mark *mark, kv_replay_cache *out, kv_diag *diag) KV_MUST_USE;

#endif
