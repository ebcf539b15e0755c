/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* The scheduler again, as plainly as it can be written: one step at a time, every block an object
 * in one list, no shared code with sim/serving. It is what the real one is compared with. */
#ifndef KVSIM_TESTS_SERVING_REFERENCE_H
#define KVSIM_TESTS_SERVING_REFERENCE_H

#include "sim/serving/serving.h"

typedef struct reference_request {
    kv_request in;
    int64_t first_ns, last_ns; /* of its answer; -1 */
    int32_t cached, preemptions;
    bool rejected;
} reference_request;

/* Runs all requests, sorted by arrival, on one replica under fcfs and lru. Of tiers only what a
 * swap does to the first is known here: its capacity in blocks and its link. */
void reference_run(const kv_serving_settings *settings, const kv_step_time *time, int64_t entries,
                   reference_request *request, int count);

#endif
