/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Rows of settings that read policies share, as retention_params.h has them for retention. `type`
 * is the policy's configuration struct; fallback NULL: absent. */
#ifndef KVSIM_POLICIES_READ_PARAMS_H
#define KVSIM_POLICIES_READ_PARAMS_H

#include "policies/read.h"

#include <math.h>

enum { KV_READ_MOST = 1 << 30 }; /* above any recording; sums of such counts stay exact */

#define KV_READ_ROW(type_of, row_name, row_type, field, row_fallback, low, high, of, words)        \
    {                                                                                              \
        .name = row_name, .type = row_type, .offset = offsetof(type_of, field),                    \
        .fallback = row_fallback, .min = low, .max = high, .flags = KV_PARAM_SWEEP, .unit = of,    \
        .help = words                                                                              \
    }
#define KV_READ_COUNT(type_of, row_name, field, row_fallback, low, of, words)                      \
    KV_READ_ROW(type_of, row_name, KV_INT, field, row_fallback, low, KV_READ_MOST, of, words)
#define KV_READ_REAL(type_of, row_name, field, row_fallback, low, high, of, words)                 \
    KV_READ_ROW(type_of, row_name, KV_REAL, field, row_fallback, low, high, of, words)

#define KV_READ_SHARE(type_of, field, row_fallback)                                                \
    KV_READ_REAL(type_of, "share", field, row_fallback, 0, 1, "fraction",                          \
                 "share of the present entries that each row reads; or give read")
#define KV_READ_SINKS(type_of, field, row_fallback)                                                \
    KV_READ_COUNT(type_of, "sinks", field, row_fallback, 0, "tokens",                              \
                  "first tokens of the sequence, always read")
#define KV_READ_LOCAL(type_of, field, row_fallback)                                                \
    KV_READ_COUNT(type_of, "local", field, row_fallback, 0, "tokens", "newest entries, always read")

#define KV_READ_PAGE(type_of, field, row_fallback)                                                 \
    KV_READ_COUNT(type_of, "page", field, row_fallback, 1, "tokens",                               \
                  "entries of a page; pages are read whole")

#endif
