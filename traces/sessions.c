/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "sim/base/map.h"
#include "traces/request_format.h"
#include "traces/session.h"

#include <stdlib.h>
#include <string.h>

#define NONE UINT32_MAX

static const char *const loop_choices[] = {"open", "closed", NULL};
static const char *const arrivals_choices[] = {"poisson", "gamma", "even", "together", NULL};

#define FIELD(name_) .offset = offsetof(kv__session_config, name_)

const kv_param kv__session_params[] = {
    {.name = "loop",
     .type = KV_CHOICE,
     FIELD(closed),
     .fallback = "open",
     .choices = loop_choices,
     .flags = KV_PARAM_SWEEP,
     .help = "open: turns arrive when recorded; closed: a think time after the answer before"},
    {.name = "session_arrivals",
     .type = KV_CHOICE,
     FIELD(arrivals),
     .fallback = "poisson",
     .choices = arrivals_choices,
     .flags = KV_PARAM_SWEEP,
     .help = "how sessions start: at session_rate, or all together at time 0"},
    {.name = "session_rate",
     .type = KV_REAL,
     FIELD(rate),
     .fallback = "0.1",
     .min = 0,
     .max = 1e9,
     .flags = KV_PARAM_SWEEP | KV_PARAM_OPEN_MIN,
     .unit = "sessions/s",
     .help = "mean rate at which sessions start"},
    {.name = "session_burstiness",
     .type = KV_REAL,
     FIELD(burstiness),
     .fallback = "1",
     .min = 0,
     .max = 100,
     .flags = KV_PARAM_SWEEP | KV_PARAM_OPEN_MIN,
     .help = "coefficient of variation of the gaps of `session_arrivals: gamma`"},
    {.name = "swing",
     .type = KV_REAL,
     FIELD(swing),
     .fallback = "0",
     .min = 0,
     .max = 0.99,
     .flags = KV_PARAM_SWEEP,
     .unit = "fraction",
     .help = "share by which the rate swings around its mean, as a sine over swing_period"},
    {.name = "swing_period",
     .type = KV_DURATION,
     FIELD(swing_period_ns),
     .fallback = "24h",
     .min = 1e6,
     .max = 9e18,
     .flags = KV_PARAM_SWEEP,
     .help = "period of the swing"},
    {.name = "burst_factor",
     .type = KV_REAL,
     FIELD(burst_factor),
     .fallback = "1",
     .min = 1,
     .max = 1e6,
     .flags = KV_PARAM_SWEEP,
     .help = "rate within a burst over the rate between bursts; 1: no bursts"},
    {.name = "burst_time",
     .type = KV_DURATION,
     FIELD(burst_ns),
     .fallback = "1min",
     .min = 1e6,
     .max = 9e18,
     .flags = KV_PARAM_SWEEP,
     .help = "mean duration of a burst"},
    {.name = "calm_time",
     .type = KV_DURATION,
     FIELD(calm_ns),
     .fallback = "10min",
     .min = 1e6,
     .max = 9e18,
     .flags = KV_PARAM_SWEEP,
     .help = "mean time between two bursts"},
    {.name = NULL}};

kv_err kv__sessions_init(kv__sessions *sessions, const kv__session_config *config,
                         const kv_request_env *env, kv__session_load *load, void *closure,
                         kv_diag *diag)
{
    enum { STREAM_STARTS = 2 };
    uint64_t seed = (uint64_t)env->options->seed;
    *sessions = (kv__sessions){.assumed = env->assumed,
                               .config = *config,
                               .load = load,
                               .closure = closure,
                               .first_free = NONE,
                               .finished = NONE,
                               .rng = kv__rng_new(seed, STREAM_STARTS),
                               .by_name = calloc(1, sizeof(kv__map))};
    if (sessions->rng == NULL || sessions->by_name == NULL)
        return kv_fail_memory(diag);
    static const kv__gaps gaps[] = {[KV_SESSIONS_POISSON] = KV_GAPS_POISSON,
                                    [KV_SESSIONS_GAMMA] = KV_GAPS_GAMMA,
                                    [KV_SESSIONS_EVEN] = KV_GAPS_EVEN,
                                    [KV_SESSIONS_TOGETHER] = KV_GAPS_EVEN,
                                    [KV_SESSIONS_RECORDED] = KV_GAPS_EVEN};
    kv__arrivals_config starts = {.gaps = gaps[config->arrivals],
                                  .rate = config->rate,
                                  .burstiness = config->burstiness,
                                  .swing = config->swing,
                                  .swing_s = (double)config->swing_period_ns / 1e9,
                                  .burst_factor = config->burst_factor,
                                  .burst_s = (double)config->burst_ns / 1e9,
                                  .calm_s = (double)config->calm_ns / 1e9};
    kv__arrivals_init(&sessions->starts, &starts, sessions->rng);
    return KV_OK;
}

void kv__sessions_fini(kv__sessions *sessions)
{
    for (uint32_t i = 0; i < sessions->live_used; i++)
        kv__session_fini(&sessions->live[i].session);
    if (sessions->by_name != NULL)
        kv__map_fini(sessions->by_name);
    free(sessions->by_name);
    kv__session_fini(&sessions->ahead);
    gsl_rng_free(sessions->rng);
    free(sessions->live);
    free(sessions->ready);
}

/* --- The heap of turns whose arrival is known ------------------------------------------------ */

static bool before(const kv__ready *a, const kv__ready *b)
{
    if (a->at_ns != b->at_ns)
        return a->at_ns < b->at_ns;
    return a->order != b->order ? a->order < b->order : a->turn < b->turn;
}

static void swap(kv__ready *a, kv__ready *b)
{
    kv__ready c = *a;
    *a = *b;
    *b = c;
}

static kv_err reserve_ready(kv__sessions *s, size_t wanted)
{
    if (wanted <= s->ready_allocated)
        return KV_OK;
    kv__ready *larger = realloc(s->ready, 2 * wanted * sizeof *larger);
    if (larger == NULL)
        return KV_ERR_MEMORY;
    s->ready = larger;
    s->ready_allocated = 2 * wanted;
    return KV_OK;
}

/* Room was reserved. */
static void push_ready(kv__sessions *s, kv__ready turn)
{
    size_t i = s->ready_count++;
    s->ready[i] = turn;
    for (; i > 0 && before(&s->ready[i], &s->ready[(i - 1) / 2]); i = (i - 1) / 2)
        swap(&s->ready[i], &s->ready[(i - 1) / 2]);
}

static kv__ready pop_ready(kv__sessions *s)
{
    kv__ready first = s->ready[0];
    s->ready[0] = s->ready[--s->ready_count];
    for (size_t i = 0, child; (child = 2 * i + 1) < s->ready_count; i = child) {
        child += child + 1 < s->ready_count && before(&s->ready[child + 1], &s->ready[child]);
        if (!before(&s->ready[child], &s->ready[i]))
            break;
        swap(&s->ready[child], &s->ready[i]);
    }
    return first;
}

static int64_t add_times(int64_t a, int64_t b)
{
    int64_t sum;
    return __builtin_add_overflow(a, b, &sum) ? INT64_MAX : sum;
}

/* --- Sessions come and go -------------------------------------------------------------------- */

/* Loads the next session, so that its start is known; KV_END: there is none. */
static kv_err look_ahead(kv__sessions *s, kv_diag *diag)
{
    if (s->has_ahead)
        return KV_OK;
    if (s->ended)
        return KV_END;
    kv_err err = s->load(s->closure, &s->ahead, diag);
    if (err != KV_OK) {
        kv__session_fini(&s->ahead);
        s->ended = err == KV_END;
        return err;
    }
    for (int32_t i = 0; i < s->ahead.lines; i++)
        s->ahead.line[i].count = 0; /* the lines are played again from their beginning */
    bool together = s->config.arrivals == KV_SESSIONS_TOGETHER;
    if (s->config.arrivals != KV_SESSIONS_RECORDED)
        s->ahead.start_ns = together ? 0 : kv__arrivals_next(&s->starts);
    s->has_ahead = true;
    return KV_OK;
}

static kv_err take_place(kv__sessions *s, uint32_t *place)
{
    if (s->first_free != NONE) {
        *place = s->first_free;
        s->first_free = s->live[*place].next_free;
        return KV_OK;
    }
    if (s->live_used == s->live_allocated) {
        uint32_t allocated = s->live_allocated == 0 ? 16 : 2 * s->live_allocated;
        kv__live_session *larger = realloc(s->live, allocated * sizeof *larger);
        if (larger == NULL)
            return KV_ERR_MEMORY;
        s->live = larger;
        s->live_allocated = allocated;
    }
    *place = s->live_used++;
    s->live[*place] = (kv__live_session){.next_free = NONE};
    return KV_OK;
}

/* Makes the session that was loaded live. In the open loop all its turns are known to arrive; in
 * the closed one, those that follow none. Room for all is kept, for completions may not fail. */
static kv_err start_session(kv__sessions *s)
{
    uint32_t place;
    kv_err err = reserve_ready(s, s->ungiven + (size_t)s->ahead.turns);
    if (err == KV_OK)
        err = take_place(s, &place);
    if (err == KV_OK)
        err = kv__map_add(s->by_name, s->ahead.name, place);
    if (err != KV_OK)
        return err;
    kv__live_session *live = &s->live[place];
    live->session = s->ahead;
    live->order = s->started++;
    s->ungiven += (size_t)s->ahead.turns;
    s->ahead = (kv__session){0};
    s->has_ahead = false;
    for (int32_t i = 0; i < live->session.turns; i++) {
        const kv__turn *turn = &live->session.turn[i];
        if (!s->config.closed || turn->after < 0)
            push_ready(s, (kv__ready){add_times(live->session.start_ns, turn->at_ns), live->order,
                                      i, place});
    }
    return KV_OK;
}

/* Frees the session whose last turn was lent out until now. */
static void drop_finished(kv__sessions *s)
{
    if (s->finished == NONE)
        return;
    kv__live_session *live = &s->live[s->finished];
    kv__map_remove(s->by_name, live->session.name);
    kv__session_fini(&live->session);
    live->next_free = s->first_free;
    s->first_free = s->finished;
    s->finished = NONE;
}

/* Starts sessions until the earliest known turn is the next of all. KV_END: there is none now. */
static kv_err settle(kv__sessions *s, kv_diag *diag)
{
    for (;;) {
        kv_err err = look_ahead(s, diag);
        if (err > KV_OK)
            return err;
        if (err == KV_END)
            return s->ready_count > 0 ? KV_OK : KV_END;
        if (s->ready_count > 0 && s->ready[0].at_ns < s->ahead.start_ns)
            return KV_OK;
        if (start_session(s) != KV_OK)
            return kv_fail_memory(diag);
    }
}

/* --- What the formats offer ------------------------------------------------------------------ */

kv_err kv__sessions_peek(void *state, int64_t *arrival_ns, kv_diag *diag)
{
    kv__sessions *s = state;
    kv_err err = settle(s, diag);
    if (err == KV_OK)
        *arrival_ns = s->ready[0].at_ns;
    return err;
}

/* The prompt of a turn: what it keeps of its line, and what it adds. */
static void play_prompt(kv__session *session, const kv__turn *turn, kv_request *out)
{
    kv__line *line = &session->line[turn->agent];
    if (turn->new_blocks > 0)
        memcpy(line->block + turn->kept_blocks, session->id + turn->first_id,
               (size_t)turn->new_blocks * sizeof *line->block);
    line->count = turn->kept_blocks + turn->new_blocks;
    out->blocks = line->count > 0 ? line->block : NULL;
    out->block_count = line->count;
    out->block_tokens = line->count > 0 ? session->block_tokens : 0;
    out->names_contents = session->contents;
}

kv_err kv__sessions_next(void *state, kv_request *out, kv_diag *diag)
{
    kv__sessions *s = state;
    kv_err err = settle(s, diag);
    if (err != KV_OK)
        return err;
    drop_finished(s);
    kv__ready ready = pop_ready(s);
    kv__session *session = &s->live[ready.place].session;
    const kv__turn *turn = &session->turn[ready.turn];
    *out = kv__request_blank;
    play_prompt(session, turn, out);
    out->arrival_ns = ready.at_ns;
    out->prompt_tokens = turn->prompt_tokens;
    out->output_tokens = turn->output_tokens;
    out->session = session->anonymous ? KV_NO_SESSION : session->name;
    out->turn = ready.turn;
    out->agent = turn->agent;
    out->after_turn = turn->after;
    out->think_time_ns = turn->after < 0 ? -1 : turn->think_ns;
    *s->assumed += turn->assumed;
    s->ungiven--;
    if (++session->given == session->turns)
        s->finished = ready.place;
    return KV_OK;
}

void kv__sessions_completed(void *state, uint64_t name, int32_t turn, int64_t end_ns)
{
    kv__sessions *s = state;
    uint32_t place = kv__map_get(s->by_name, name);
    if (!s->config.closed || place == KV_MAP_ABSENT)
        return;
    const kv__live_session *live = &s->live[place];
    const kv__session *session = &live->session;
    if (turn < 0 || turn >= session->turns)
        return;
    for (int32_t i = session->turn[turn].first_follower; i >= 0; i = session->turn[i].next_follower)
        push_ready(
            s, (kv__ready){add_times(end_ns, session->turn[i].think_ns), live->order, i, place});
}
