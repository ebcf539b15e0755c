/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Serving under a retention policy again, as plainly as it can be written: one step at a time, a
 * count for every KV head of every layer, one token after the other, no shared code with
 * sim/serving or policies/counts.c. Without a prefix cache; what fits is decided by a request's
 * first chunk. */
#ifndef KVSIM_TESTS_KEEP_REFERENCE_H
#define KVSIM_TESTS_KEEP_REFERENCE_H

#include "policies/retention.h"
#include "sim/serving/serving.h"

enum { REFERENCE_LAYERS = 4, REFERENCE_KV_HEADS = 4 };

typedef struct keep_reference {
    const kv_serving_settings *settings; /* its `keep` is not looked at */
    const kv_step_time *time;
    const kv_retention *policy;
    const void *config, *plan;
    int64_t pages; /* of memory */
} keep_reference;

typedef struct keep_reference_request {
    kv_request in;
    bool skip;                 /* it is rejected */
    int64_t first_ns, last_ns; /* of its answer; -1 */
    int32_t preemptions;
} keep_reference_request;

/* Runs all requests, sorted by arrival, on one replica under fcfs. */
void keep_reference_run(const keep_reference *reference, keep_reference_request *request,
                        int count);

#endif
