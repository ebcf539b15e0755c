/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Which policies a file of recorded attention suffices for. */
#ifndef KVSIM_SIM_COMMANDS_TRACE_SUFFICES_H
#define KVSIM_SIM_COMMANDS_TRACE_SUFFICES_H

#include "policies/method.h"
#include "traces/attention.h"

/* Takes what is said of one policy with its default settings: lacks is NULL where every example
 * suffices, else what the first that does not lacks and how to record it. */
typedef void (*kv_suffices_take)(void *closure, const kv_method *method, const char *lacks);

/* Asks for every policy, in the order of kv_method_get. Reads no rows. */
kv_err kv__trace_suffices(const kv_attention *trace, kv_suffices_take take, void *closure,
                          kv_diag *diag) KV_MUST_USE;

#endif
