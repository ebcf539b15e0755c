/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/scheduling.h"

static bool before(const kv_waiting *a, const kv_waiting *b);

/* Answers are not known beforehand, so a job is as long as its prompt. */
KV_QUEUE_ORDER_DEFINE(sjf) = {
    .name = "sjf",
    .brief = "the shortest prompt goes first",
    .before = before,
};

static bool before(const kv_waiting *a, const kv_waiting *b)
{
    return a->prompt_tokens < b->prompt_tokens;
}
