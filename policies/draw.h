/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Random numbers of policies: functions of what they belong to, not of the order of calls. */
#ifndef KVSIM_POLICIES_DRAW_H
#define KVSIM_POLICIES_DRAW_H

#include "policies/retention.h"

/* Uniform in 0..1, 1 excluded: one draw per seed, example, layer, KV head and token. */
double kv_draw(const kv_view *view, long long seed, int kv_head, int token);

#endif
