/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Sessions: requests that follow one another, and the order in which those of many sessions arrive.
 *
 * A session is a list of turns in order of their recorded time. Turns of one agent form a line:
 * each follows the one before. A sub-agent's line begins after the turn that called it. In the open
 * loop a turn arrives when it was recorded to, counted from the start of its session; in the closed
 * loop it arrives its think time after the answer that it follows ended. Sessions start by an
 * arrival process of their own. Memory holds the sessions that are under way and one more; prompts
 * are kept as what they add to the prompt before. */
#ifndef KVSIM_TRACES_SESSION_H
#define KVSIM_TRACES_SESSION_H

#include "traces/arrivals.h"
#include "traces/request_format.h"

/* One request of a session. The format fills the first part. */
typedef struct kv__turn {
    int64_t at_ns;    /* recorded arrival, from the start of the session */
    int64_t think_ns; /* >= 0: from the end of the answer that it follows */
    int32_t prompt_tokens, output_tokens;
    int32_t agent; /* 0 .. KV_AGENTS_MOST-1; 0: the main line */
    int32_t after; /* the turn that it follows, earlier in the list; -1: none */
    bool assumed;  /* something of it was not recorded */
    /* Set by kv__session_add. */
    int32_t kept_blocks; /* of the agent's prompt before, that this one begins with too */
    int32_t new_blocks;  /* behind those: id[first_id .. first_id + new_blocks) */
    size_t first_id;
    int32_t first_follower, next_follower; /* turns that wait for this one, as a list; -1: none */
} kv__turn;

enum { KV_AGENTS_MOST = 4096 };

/* Blocks of an agent's latest prompt. */
typedef struct kv__line {
    uint64_t *block;
    int32_t count, allocated;
} kv__line;

typedef struct kv__session {
    uint64_t name;  /* unique among the sessions of a reader */
    bool anonymous; /* a single request that belongs to no session */
    int32_t block_tokens;
    bool contents;    /* names of blocks tell contents, see kv_request.names_contents */
    int64_t start_ns; /* set by kv__sessions, but for KV_SESSIONS_RECORDED */
    kv__turn *turn;
    int32_t turns, turns_allocated;
    int32_t given; /* turns given out */
    uint64_t *id;  /* names of blocks */
    size_t ids, ids_allocated;
    kv__line *line; /* [lines] by agent */
    int32_t lines;
} kv__session;

void kv__session_fini(kv__session *session);
/* Appends a turn whose prompt has these blocks, named as in the whole trace. */
kv_err kv__session_add(kv__session *session, const kv__turn *turn, const uint64_t *ids,
                       int32_t id_count) KV_MUST_USE;

/* --- Settings that session formats take ------------------------------------------------------ */

typedef enum kv__session_arrivals {
    KV_SESSIONS_POISSON,
    KV_SESSIONS_GAMMA,
    KV_SESSIONS_EVEN,
    KV_SESSIONS_TOGETHER,
    KV_SESSIONS_RECORDED /* as `load` says: for formats that record it, no setting */
} kv__session_arrivals;

/* First member of their configuration: how sessions start and how their turns follow. */
typedef struct kv__session_config {
    int closed;        /* 0: open loop, 1: closed loop */
    int arrivals;      /* kv__session_arrivals */
    double rate;       /* sessions per second, on average */
    double burstiness; /* coefficient of variation of the gaps of KV_SESSIONS_GAMMA */
    double swing;      /* share by which the rate swings around its mean */
    long long swing_period_ns;
    double burst_factor;         /* rate within a burst over rate between bursts; 1: no bursts */
    long long burst_ns, calm_ns; /* mean durations of bursts and of what is between them */
} kv__session_config;

extern const kv_param kv__session_params[];

/* --- Many sessions --------------------------------------------------------------------------- */

/* Fills a zeroed session with the next one that has turns; KV_END after the last. After
 * KV_ERR_INPUT it can be called again for the one behind. */
typedef kv_err kv__session_load(void *closure, kv__session *out, kv_diag *diag);

typedef struct kv__ready {
    int64_t at_ns;
    uint64_t order; /* of the session by start: breaks ties */
    int32_t turn;
    uint32_t place; /* of the session in live */
} kv__ready;

typedef struct kv__live_session {
    kv__session session;
    uint64_t order;
    uint32_t next_free;
} kv__live_session;

/* Zeroed, kv__sessions_fini may be called. First member of the state of a session format. */
typedef struct kv__sessions {
    int64_t *assumed; /* counts turns of which something was assumed */
    kv__session_config config;
    kv__session_load *load;
    void *closure;
    gsl_rng *rng;
    kv__arrivals starts;
    kv__live_session *live; /* [live_used of live_allocated] */
    uint32_t live_used, live_allocated, first_free;
    struct kv__map *by_name; /* place in live */
    kv__ready *ready;        /* a heap of turns whose arrival is known */
    size_t ready_count, ready_allocated;
    kv__session ahead; /* the next session, if has_ahead */
    bool has_ahead, ended;
    uint64_t started;  /* sessions so far */
    size_t ungiven;    /* turns of live sessions that were not given out yet */
    uint32_t finished; /* place of the session whose last turn was given out, to be freed */
} kv__sessions;

kv_err kv__sessions_init(kv__sessions *sessions, const kv__session_config *config,
                         const kv_request_env *env, kv__session_load *load, void *closure,
                         kv_diag *diag) KV_MUST_USE;
void kv__sessions_fini(kv__sessions *sessions);
/* Slots of kv_request_format, for formats whose state begins with a kv__sessions. */
kv_err kv__sessions_next(void *state, kv_request *out, kv_diag *diag) KV_MUST_USE;
kv_err kv__sessions_peek(void *state, int64_t *arrival_ns, kv_diag *diag) KV_MUST_USE;
void kv__sessions_completed(void *state, uint64_t session, int32_t turn, int64_t end_ns);

#endif
