/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* A request trace whose time runs faster or slower: arrivals, and the think times between them, are
 * divided by `speed`. Internal to planning. */
#ifndef KVSIM_SIM_PLAN_SPEED_H
#define KVSIM_SIM_PLAN_SPEED_H

#include "sim/serving/serving.h"

typedef struct kv_speed {
    kv_request_reader *reader; /* borrowed */
    double speed;              /* > 0 */
    int64_t end_ns;            /* of the last completion */
} kv_speed;

/* The source borrows `speed`. */
kv_serving_source kv__speed_source(kv_speed *speed);

#endif
