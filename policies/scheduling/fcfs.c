/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/scheduling.h"

KV_QUEUE_ORDER_DEFINE(fcfs) = {
    .name = "fcfs",
    .brief = "first come, first served",
};
