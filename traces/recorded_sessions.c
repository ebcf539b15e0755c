/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "traces/recorded_sessions.h"

#include <inttypes.h>
#include <stdlib.h>

/* Names of requests that belong to no session: not those of any session, which files write in 63
 * bits. */
#define ALONE (UINT64_C(1) << 63)

static kv_err load(void *closure, kv__session *out, kv_diag *diag)
{
    kv__recorded *r = closure;
    (void)diag;
    if (r->given == r->count)
        return KV_END;
    *out = r->session[r->given].session;
    r->session[r->given++].session = (kv__session){0};
    return KV_OK;
}

kv_err kv__recorded_init(kv__recorded *recorded, const kv_request_env *env,
                         kv_err (*row)(void *state, kv_request *out, kv_diag *diag),
                         kv_mark (*mark)(const void *state), void *state, kv_diag *diag)
{
    static const kv__session_config config = {
        .closed = 1, .arrivals = KV_SESSIONS_RECORDED, .rate = 1, .burstiness = 1};
    recorded->env = env;
    recorded->row = row;
    recorded->mark = mark;
    recorded->state = state;
    recorded->last_ns = INT64_MIN;
    return kv__sessions_init(&recorded->sessions, &config, env, load, recorded, diag);
}

void kv__recorded_fini(kv__recorded *recorded)
{
    for (uint32_t i = 0; i < recorded->count; i++) {
        kv__session_fini(&recorded->session[i].session);
        free(recorded->session[i].number);
    }
    free(recorded->session);
    kv__map_fini(&recorded->by_name);
    kv__sessions_fini(&recorded->sessions);
}

static kv__recorded_session *add_session(kv__recorded *r, uint64_t name, int64_t start_ns)
{
    if (r->count == r->allocated) {
        uint32_t allocated = r->allocated == 0 ? 64 : 2 * r->allocated;
        kv__recorded_session *larger = realloc(r->session, allocated * sizeof *larger);
        if (larger == NULL)
            return NULL;
        r->session = larger;
        r->allocated = allocated;
    }
    if (kv__map_add(&r->by_name, name, r->count) != KV_OK)
        return NULL;
    kv__recorded_session *s = &r->session[r->count++];
    *s = (kv__recorded_session){.session = {.name = name, .start_ns = start_ns}};
    return s;
}

/* The session of a row, made if it is the first. */
static kv_err find_session(kv__recorded *r, const kv_request *row, kv__recorded_session **out,
                           kv_diag *diag)
{
    bool alone = row->session == KV_NO_SESSION;
    uint64_t name = alone ? ALONE | r->count : row->session;
    uint32_t place = kv__map_get(&r->by_name, name);
    *out = place != KV_MAP_ABSENT ? &r->session[place] : add_session(r, name, row->arrival_ns);
    if (*out == NULL)
        return kv_fail_memory(diag);
    (*out)->session.anonymous = alone;
    return KV_OK;
}

/* The place in the session of the turn of that number; -1: it has none. */
static int32_t place_of(const kv__recorded_session *s, int32_t number)
{
    int32_t i = s->session.turns - 1;
    while (i >= 0 && s->number[i] != number)
        i--;
    return i;
}

static kv_err check(const kv__recorded *r, const kv__recorded_session *s, const kv_request *row,
                    const kv_mark *mark, kv_diag *diag)
{
    if (row->arrival_ns == INT64_MIN)
        return kv_fail(
            diag, KV_ERR_INPUT, mark,
            "has no arrival time, which the closed loop needs of the first of a session");
    if (row->arrival_ns < r->last_ns)
        return kv_fail(diag, KV_ERR_INPUT, mark,
                       "arrives before the request before it: sort the trace");
    if (row->prompt_tokens < 1)
        return kv_fail(diag, KV_ERR_INPUT, mark, "the prompt has no tokens");
    if ((int64_t)(row->block_count - 1) * row->block_tokens >= row->prompt_tokens)
        return kv_fail(diag, KV_ERR_INPUT, mark, "more blocks than the prompt has");
    if (s == NULL)
        return KV_OK;
    if (place_of(s, row->turn) >= 0)
        return kv_fail(diag, KV_ERR_INPUT, mark,
                       "turn %" PRId32 " of its session is there twice: the closed loop needs to "
                       "know which follows which",
                       row->turn);
    if (row->after_turn >= 0 && place_of(s, row->after_turn) < 0)
        return kv_fail(diag, KV_ERR_INPUT, mark,
                       "follows turn %" PRId32
                       " of its session, which is not in the trace before it",
                       row->after_turn);
    if (row->block_count > 0 && s->session.block_tokens > 0 &&
        s->session.contents != row->names_contents)
        return kv_fail(diag, KV_ERR_INPUT, mark,
                       "names of blocks tell contents in one row of a session and not in another");
    if (row->block_count > 0 && s->session.block_tokens > 0 &&
        s->session.block_tokens != row->block_tokens)
        return kv_fail(diag, KV_ERR_INPUT, mark,
                       "blocks of %" PRId32 " tokens in a session with blocks of %" PRId32,
                       row->block_tokens, s->session.block_tokens);
    return KV_OK;
}

static kv_err note_number(kv__recorded_session *s, int32_t number)
{
    if (s->session.turns == s->numbers_allocated) {
        int32_t allocated = s->numbers_allocated == 0 ? 8 : 2 * s->numbers_allocated;
        int32_t *larger = realloc(s->number, (size_t)allocated * sizeof *larger);
        if (larger == NULL)
            return KV_ERR_MEMORY;
        s->number = larger;
        s->numbers_allocated = allocated;
    }
    s->number[s->session.turns] = number;
    return KV_OK;
}

static kv_err add_row(kv__recorded *r, const kv_request *row, kv_diag *diag)
{
    kv_mark mark = r->mark(r->state);
    uint32_t place =
        row->session == KV_NO_SESSION ? KV_MAP_ABSENT : kv__map_get(&r->by_name, row->session);
    kv__recorded_session *s = place != KV_MAP_ABSENT ? &r->session[place] : NULL;
    static const kv__recorded_session none;
    kv_err err = check(r, s != NULL ? s : &none, row, &mark, diag);
    if (err == KV_OK && s == NULL)
        err = find_session(r, row, &s, diag);
    if (err != KV_OK)
        return err;
    r->last_ns = row->arrival_ns;
    kv__turn turn = {.at_ns = row->arrival_ns - s->session.start_ns,
                     .think_ns = row->think_time_ns,
                     .prompt_tokens = row->prompt_tokens,
                     .output_tokens = row->output_tokens,
                     .agent = row->agent,
                     .after = row->after_turn >= 0 ? place_of(s, row->after_turn) : -1};
    if (turn.after >= 0 && turn.think_ns < 0) {
        turn.think_ns = turn.at_ns - s->session.turn[turn.after].at_ns;
        turn.assumed = true;
    }
    if (row->block_count > 0) {
        s->session.block_tokens = row->block_tokens;
        s->session.contents = row->names_contents;
    }
    err = note_number(s, row->turn);
    if (err == KV_OK)
        err = kv__session_add(&s->session, &turn, row->blocks, row->block_count);
    return err == KV_OK ? KV_OK : kv_fail_memory(diag);
}

/* Reads all rows. After an error it can be called again for those behind. */
static kv_err read_rows(kv__recorded *r, kv_diag *diag)
{
    kv_err err = KV_OK;
    while (!r->read && err == KV_OK) {
        kv_request row;
        err = r->row(r->state, &row, diag);
        if (err == KV_OK)
            err = add_row(r, &row, diag);
        r->read = err == KV_END;
    }
    return err == KV_END ? KV_OK : err;
}

kv_err kv__recorded_next(kv__recorded *recorded, kv_request *out, kv_diag *diag)
{
    kv_err err = read_rows(recorded, diag);
    return err == KV_OK ? kv__sessions_next(&recorded->sessions, out, diag) : err;
}

kv_err kv__recorded_peek(kv__recorded *recorded, int64_t *arrival_ns, kv_diag *diag)
{
    kv_err err = read_rows(recorded, diag);
    return err == KV_OK ? kv__sessions_peek(&recorded->sessions, arrival_ns, diag) : err;
}
