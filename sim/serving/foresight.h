/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* What a server cannot know: which blocks the requests to come will ask for. It is read from the
 * trace before the run, for replacement policies that look ahead (belady).
 *
 * The future of a block is the first request in order of the trace that names it and has not been
 * admitted (or rejected) yet, on whichever replica: who routes is not foreseen. In a closed loop
 * the order is that in which requests arrive when answers take no time. A request that is preempted
 * asks again, before all that have not been admitted. Memory grows with the trace: 5 bytes per
 * block that its prompts name, at most 64 per name that differs, 4 per request (in a format of
 * sessions 36), blocks being those of the server. */
#ifndef KVSIM_SIM_SERVING_FORESIGHT_H
#define KVSIM_SIM_SERVING_FORESIGHT_H

#include "sim/serving/live.h"
#include "sim/serving/serving.h"

/* Whether a policy of these settings looks ahead. */
bool kv_foresight_needed(const kv_serving_settings *settings);
/* Reads a source to its end, answers taking no time. by_turn: requests are known again by session
 * and turn (they may come in another order), not by number. It serves one run, which changes it. */
kv_err kv_foresight_read(const kv_serving_settings *settings, const kv_serving_source *source,
                         bool by_turn, kv_foresight **out, kv_diag *diag) KV_MUST_USE;
void kv_foresight_free(kv_foresight *foresight);

/* Where the uses of a request begin, -1 if it was not foreseen. Requests are asked about in the
 * order in which the source gives them. */
int64_t kv__foresight_of(kv_foresight *foresight, const kv_request *request);
/* When a block is used next, KV_NEVER: not again. foresight may be NULL. */
int64_t kv__foresight_next(kv_foresight *foresight, uint64_t key);
/* A request makes the uses of its named blocks, or (made false) will make them again. */
void kv__foresight_make(kv_foresight *foresight, const kv__live *live, bool made);

#endif
