/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Requests held back to bring them into order of arrival; ties keep the order of the file. */
#ifndef KVSIM_TRACES_SORT_WINDOW_H
#define KVSIM_TRACES_SORT_WINDOW_H

#include "traces/request.h"

typedef struct kv__sort_window kv__sort_window;

kv_err kv__sort_window_new(size_t requests, kv__sort_window **out, kv_diag *diag) KV_MUST_USE;
void kv__sort_window_free(kv__sort_window *window);
bool kv__sort_window_full(const kv__sort_window *window);
/* Copies a request, with its blocks, into a window that is not full. */
kv_err kv__sort_window_add(kv__sort_window *window, const kv_request *request,
                           kv_diag *diag) KV_MUST_USE;
/* Takes the earliest one, false if there is none; its blocks are lent until the next add. Adds one
 * to *reordered if one behind it in the file was given out before. */
bool kv__sort_window_take(kv__sort_window *window, kv_request *out, int64_t *reordered);

#endif
