/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/scheduling.h"

static bool before(const kv_waiting *a, const kv_waiting *b);

KV_QUEUE_ORDER_DEFINE(priority) = {
    .name = "priority",
    .brief = "the tenant of the lowest number goes first, its requests in order of arrival",
    .before = before,
};

static bool before(const kv_waiting *a, const kv_waiting *b)
{
    return a->priority < b->priority;
}
