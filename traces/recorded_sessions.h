/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* The closed loop of a format that has a row per request: sessions lie between one another in the
 * file, so all rows are read before the first request is given, and kept as sessions (a prompt as
 * what it adds to the one before). A session starts when its first row was recorded. Internal to
 * traces. */
#ifndef KVSIM_TRACES_RECORDED_SESSIONS_H
#define KVSIM_TRACES_RECORDED_SESSIONS_H

#include "sim/base/map.h"
#include "traces/session.h"

typedef struct kv__recorded_session {
    kv__session session;
    int32_t *number; /* [numbers_allocated] the turns as the file counts them */
    int32_t numbers_allocated;
} kv__recorded_session;

/* First member of the state of such a format. Zeroed, kv__recorded_fini may be called. */
typedef struct kv__recorded {
    kv__sessions sessions;
    const kv_request_env *env;                                  /* borrowed */
    kv_err (*row)(void *state, kv_request *out, kv_diag *diag); /* the next of the file */
    kv_mark (*mark)(const void *state);                         /* where it stands */
    void *state;
    kv__recorded_session *session; /* [count] in order of their first rows */
    uint32_t count, allocated, given;
    kv__map by_name; /* place in session */
    int64_t last_ns;
    bool read;
} kv__recorded;

kv_err kv__recorded_init(kv__recorded *recorded, const kv_request_env *env,
                         kv_err (*row)(void *state, kv_request *out, kv_diag *diag),
                         kv_mark (*mark)(const void *state), void *state,
                         kv_diag *diag) KV_MUST_USE;
void kv__recorded_fini(kv__recorded *recorded);
/* As the slots of kv_request_format. */
kv_err kv__recorded_next(kv__recorded *recorded, kv_request *out, kv_diag *diag) KV_MUST_USE;
kv_err kv__recorded_peek(kv__recorded *recorded, int64_t *arrival_ns, kv_diag *diag) KV_MUST_USE;

#endif
