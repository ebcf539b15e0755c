/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "traces/field.h"
#include "traces/file_list.h"
#include "traces/json_text.h"
#include "traces/request_format.h"
#include "traces/session.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int probe(const char *path, const char *head, size_t head_bytes);
static kv_err open(void *state, const kv_request_env *env, kv_diag *diag);
static void close(void *state);

enum { MOST_DEPTH = 16, MOST_DOCUMENT_BYTES = 1 << 28 };

/* A recorded request before it is sorted in. */
typedef struct raw_turn {
    const json_t *request;
    int64_t at_ns, end_ns; /* end_ns: arrival plus api_time, if that was recorded */
    int64_t think_ns;
    int32_t agent, place; /* place: in file order */
    int32_t after;        /* place of the request that it follows, -1: none */
    bool assumed;
} raw_turn;

typedef struct coding_agent {
    kv__sessions sessions; /* first */
    kv_request_env env;
    kv__file_list files;
    size_t next_file;
    raw_turn *raw; /* [raw_allocated] of the session that is being loaded */
    int32_t raw_count, raw_allocated;
    int32_t agents;
    uint64_t *id;     /* [id_allocated] blocks of one prompt */
    uint64_t id_base; /* what the session adds to its ids */
    size_t id_allocated;
} coding_agent;

/* One JSON document per session: requests with `t` (s), `in`, `out`, `hash_ids`, `think_time`,
 * `api_time`; items with `requests` of their own are sub-agents, whose `t` counts from theirs.
 *
 * A sub-agent begins after the last request of its caller that had ended by then. Its caller does
 * not wait for it: the caller's next think time, as recorded, covers that. Where a think time is
 * missing it is the gap between the recorded end before and this arrival. */
KV_REQUEST_FORMAT_DEFINE(coding_agent) = {
    .name = "coding-agent",
    .brief = "sessions of coding agents with think time and sub-agents, one JSON document each",
    .cite = "https://github.com/callanjfox/kv-cache-tester",
    .config_bytes = sizeof(kv__session_config),
    .shared_params = kv__session_params,
    .state_bytes = sizeof(coding_agent),
    .takes_many = true,
    .probe = probe,
    .open = open,
    .next = kv__sessions_next,
    .peek = kv__sessions_peek,
    .completed = kv__sessions_completed,
    .close = close,
};

static const char *const suffixes[] = {".json", ".json.zst", ".json.gz", NULL};

static int probe(const char *path, const char *head, size_t head_bytes)
{
    kv__file_list files = {0};
    if (head_bytes > 0)
        return head[0] == '{' && strstr(head, "\"block_size\"") != NULL &&
                       strstr(head, "\"requests\"") != NULL
                   ? 90
                   : 0;
    bool some = kv__file_list_init(&files, path, suffixes, NULL) == KV_OK &&
                !(files.count == 1 && strcmp(files.path[0], path) == 0);
    kv__file_list_fini(&files);
    return some ? 50 : 0;
}

/* --- One document ---------------------------------------------------------------------------- */

static kv_err add_raw(coding_agent *s, const raw_turn *turn, kv_diag *diag)
{
    if (s->raw_count == s->raw_allocated) {
        int32_t allocated = s->raw_allocated == 0 ? 256 : 2 * s->raw_allocated;
        raw_turn *larger = realloc(s->raw, (size_t)allocated * sizeof *larger);
        if (larger == NULL)
            return kv_fail_memory(diag);
        s->raw = larger;
        s->raw_allocated = allocated;
    }
    s->raw[s->raw_count++] = *turn;
    return KV_OK;
}

/* The line of requests that is being collected: of one agent, within one level of the document. */
typedef struct collecting {
    int64_t base_ns; /* what `t` counts from */
    int32_t agent, depth;
    int32_t before; /* place of the latest, -1: none yet */
    int32_t caller; /* what the first one follows, -1: nothing */
} collecting;

static kv_err collect(coding_agent *s, const json_t *requests, collecting *line,
                      const kv_mark *mark, kv_diag *diag);

/* The last request of the caller's line that had ended when a sub-agent began, one second allowed
 * for the rounding of recorded times; -1: none had. */
static int32_t caller_of(const coding_agent *s, const collecting *line, int64_t at_ns)
{
    const int64_t rounding_ns = 1000000000;
    int32_t place = line->before;
    while (place >= 0 && s->raw[place].end_ns > at_ns + rounding_ns)
        place = s->raw[place].agent == line->agent ? s->raw[place].after : -1;
    return place >= 0 && s->raw[place].agent == line->agent ? place : -1;
}

static kv_err collect_agent(coding_agent *s, const json_t *item, json_t *requests,
                            const collecting *line, const kv__json_place *place, kv_diag *diag)
{
    int64_t at_ns = 0;
    kv_err err = kv__json_time(item, "t", KV_UNIT_S, place, &at_ns, diag);
    if (err > KV_OK)
        return err;
    if (line->depth == MOST_DEPTH || s->agents == KV_AGENTS_MOST)
        return kv_fail(diag, KV_ERR_INPUT, &place->mark,
                       "%ssub-agents nest too deep or are too many", place->within);
    if (__builtin_add_overflow(at_ns, line->base_ns, &at_ns))
        return kv_fail(diag, KV_ERR_INPUT, &place->mark, "%s't' is too large", place->within);
    collecting inner = {.base_ns = at_ns,
                        .agent = s->agents++,
                        .depth = line->depth + 1,
                        .before = -1,
                        .caller = caller_of(s, line, at_ns)};
    return collect(s, requests, &inner, &place->mark, diag);
}

/* Reads when a request arrived and what it waited for. */
static kv_err read_times(const coding_agent *s, const collecting *line, const kv__json_place *place,
                         raw_turn *turn, kv_diag *diag)
{
    int64_t api_ns = 0;
    kv_err err = kv__json_time(turn->request, "t", KV_UNIT_S, place, &turn->at_ns, diag);
    if (err == KV_END)
        return kv_fail(diag, KV_ERR_INPUT, &place->mark, "%s't' is missing", place->within);
    if (err == KV_OK)
        err = kv__json_time(turn->request, "api_time", KV_UNIT_S, place, &api_ns, diag);
    if (err > KV_OK)
        return err;
    if (__builtin_add_overflow(turn->at_ns, line->base_ns, &turn->at_ns) ||
        __builtin_add_overflow(turn->at_ns, api_ns, &turn->end_ns))
        return kv_fail(diag, KV_ERR_INPUT, &place->mark, "%s't' is too large", place->within);
    if (turn->at_ns < 0 || api_ns < 0)
        return kv_fail(diag, KV_ERR_INPUT, &place->mark, "%s't' or 'api_time' is negative",
                       place->within);
    turn->after = line->before >= 0 ? line->before : line->caller;
    err = kv__json_time(turn->request, "think_time", KV_UNIT_S, place, &turn->think_ns, diag);
    bool calls = line->before < 0 && line->caller >= 0; /* the first of a sub-agent */
    turn->assumed = err == KV_END && turn->after >= 0 && !calls;
    if (err == KV_END || calls) {
        int64_t gap_ns = turn->after < 0 ? 0 : turn->at_ns - s->raw[turn->after].end_ns;
        turn->think_ns = gap_ns > 0 ? gap_ns : 0;
    }
    if (turn->think_ns < 0)
        return kv_fail(diag, KV_ERR_INPUT, &place->mark, "%s'think_time' is negative",
                       place->within);
    return err > KV_OK ? err : KV_OK;
}

static kv_err collect(coding_agent *s, const json_t *requests, collecting *line,
                      const kv_mark *mark, kv_diag *diag)
{
    kv_err err = KV_OK;
    for (size_t i = 0; err == KV_OK && i < json_array_size(requests); i++) {
        const json_t *item = json_array_get(requests, i);
        json_t *inner;
        kv__json_place place = {.mark = *mark};
        snprintf(place.within, sizeof place.within,
                 "%srequests[%zu]: ", line->agent > 0 ? "sub-agent's " : "", i);
        if (!json_is_object(item))
            return kv_fail(diag, KV_ERR_INPUT, mark, "%snot an object", place.within);
        err = kv__json_array(item, "requests", &place, &inner, diag);
        if (err == KV_OK) {
            err = collect_agent(s, item, inner, line, &place, diag);
            continue;
        }
        raw_turn turn = {.request = item, .agent = line->agent, .place = s->raw_count};
        if (err == KV_END)
            err = read_times(s, line, &place, &turn, diag);
        if (err == KV_OK)
            err = add_raw(s, &turn, diag);
        line->before = turn.place;
    }
    return err;
}

static int by_time(const void *a, const void *b)
{
    const raw_turn *x = a, *y = b;
    if (x->at_ns != y->at_ns)
        return x->at_ns < y->at_ns ? -1 : 1;
    return (x->place > y->place) - (x->place < y->place);
}

/* The blocks of a prompt into s->id. */
static kv_err read_ids(coding_agent *s, const json_t *request, const kv__json_place *place,
                       size_t *count, kv_diag *diag)
{
    json_t *ids = NULL;
    kv_err err = kv__json_array(request, "hash_ids", place, &ids, diag);
    *count = json_array_size(ids);
    if (err != KV_OK)
        return err == KV_END ? KV_OK : err;
    if (*count > s->id_allocated) {
        uint64_t *larger = realloc(s->id, 2 * *count * sizeof *larger);
        if (larger == NULL)
            return kv_fail_memory(diag);
        s->id = larger;
        s->id_allocated = 2 * *count;
    }
    for (size_t i = 0; i < *count; i++) {
        int64_t id;
        err = kv__json_whole(json_array_get(ids, i), "hash_ids", place, &id, diag);
        if (err != KV_OK)
            return err;
        if (id > UINT32_MAX)
            return kv_fail(diag, KV_ERR_INPUT, &place->mark, "%san entry of 'hash_ids' is above %u",
                           place->within, UINT32_MAX);
        s->id[i] = s->id_base + (uint64_t)id;
    }
    return KV_OK;
}

static kv_err add_turn(coding_agent *s, const raw_turn *raw, const int32_t *turn_of_place,
                       const kv_mark *mark, kv__session *out, kv_diag *diag)
{
    size_t ids;
    kv__json_place place = {.mark = *mark};
    kv__turn turn = {.at_ns = raw->at_ns,
                     .think_ns = raw->think_ns,
                     .agent = raw->agent,
                     .after = raw->after < 0 ? -1 : turn_of_place[raw->after],
                     .assumed = raw->assumed};
    snprintf(place.within, sizeof place.within, "request at t %.9g: ", (double)raw->at_ns / 1e9);
    kv_err err = kv__json_tokens(raw->request, "in", &place, &turn.prompt_tokens, diag);
    if (err == KV_OK)
        err = kv__json_tokens(raw->request, "out", &place, &turn.output_tokens, diag);
    if (err == KV_OK && turn.prompt_tokens == 0)
        return kv_fail(diag, KV_ERR_INPUT, mark, "%sthe prompt has no tokens", place.within);
    if (err == KV_OK)
        err = read_ids(s, raw->request, &place, &ids, diag);
    if (err != KV_OK)
        return err;
    if (ids > 0 && (int64_t)(ids - 1) * out->block_tokens >= turn.prompt_tokens)
        return kv_fail(diag, KV_ERR_INPUT, mark,
                       "%s%zu blocks of %d tokens are more than a prompt of %d tokens has",
                       place.within, ids, out->block_tokens, turn.prompt_tokens);
    return kv__session_add(out, &turn, s->id, (int32_t)ids) == KV_OK ? KV_OK : kv_fail_memory(diag);
}

/* Sorts the collected requests by time; turns are numbered in that order. */
static kv_err add_turns(coding_agent *s, const kv_mark *mark, kv__session *out, kv_diag *diag)
{
    int32_t *turn_of_place = malloc((size_t)(s->raw_count + 1) * sizeof *turn_of_place);
    if (turn_of_place == NULL)
        return kv_fail_memory(diag);
    if (s->raw_count > 0)
        qsort(s->raw, (size_t)s->raw_count, sizeof *s->raw, by_time);
    for (int32_t i = 0; i < s->raw_count; i++)
        turn_of_place[s->raw[i].place] = i;
    kv_err err = KV_OK;
    for (int32_t i = 0; err == KV_OK && i < s->raw_count; i++)
        if (s->raw[i].after >= 0 && turn_of_place[s->raw[i].after] > i)
            err = kv_fail(diag, KV_ERR_INPUT, mark,
                          "request at t %.9g: 't' goes back within its agent",
                          (double)s->raw[i].at_ns / 1e9);
        else
            err = add_turn(s, &s->raw[i], turn_of_place, mark, out, diag);
    free(turn_of_place);
    return err;
}

/* Local ids get the number of their session above them, global ones stay as they are. */
static kv_err read_document(coding_agent *s, const json_t *root, const kv_mark *mark,
                            kv__session *out, kv_diag *diag)
{
    json_t *requests;
    kv__json_place place = {.mark = *mark};
    const char *scope = json_string_value(json_object_get(root, "hash_id_scope"));
    if (!json_is_object(root))
        return kv_fail(diag, KV_ERR_INPUT, mark, "not a JSON object");
    kv_err err = kv__json_tokens(root, "block_size", &place, &out->block_tokens, diag);
    if (err == KV_OK && out->block_tokens == 0)
        return kv_fail(diag, KV_ERR_INPUT, mark, "'block_size' is 0");
    if (err == KV_OK)
        err = kv__json_array(root, "requests", &place, &requests, diag);
    if (err == KV_END)
        return kv_fail(diag, KV_ERR_INPUT, mark, "'requests' is missing");
    bool global = scope != NULL && strcmp(scope, "global") == 0;
    out->name = (uint64_t)s->next_file;
    s->id_base = global ? 0 : ((uint64_t)s->next_file + 1) << 32;
    s->raw_count = 0;
    s->agents = 1;
    collecting line = {.before = -1, .caller = -1};
    if (err == KV_OK)
        err = collect(s, requests, &line, mark, diag);
    return err == KV_OK ? add_turns(s, mark, out, diag) : err;
}

/* --- Many documents -------------------------------------------------------------------------- */

static kv_err read_all(kv__text *file, const char *path, char **text, size_t *bytes, kv_diag *diag)
{
    enum { STEP = 1 << 18 };
    for (size_t got = STEP; got > 0; *bytes += got) {
        char *larger = *bytes > MOST_DOCUMENT_BYTES ? NULL : realloc(*text, *bytes + STEP);
        if (*bytes > MOST_DOCUMENT_BYTES)
            return kv_fail(diag, KV_ERR_INPUT, &(kv_mark){path, 0, 0},
                           "a session of more than %d bytes", MOST_DOCUMENT_BYTES);
        if (larger == NULL)
            return kv_fail_memory(diag);
        *text = larger;
        got = fread(*text + *bytes, 1, STEP, kv__text_stream(file));
    }
    const kv_diag *failure = kv__text_failure(file);
    if (failure != NULL && diag != NULL && diag->code == KV_OK)
        *diag = *failure;
    return failure != NULL ? failure->code : KV_OK;
}

static kv_err read_file(const char *path, char **text, size_t *bytes, kv_diag *diag)
{
    kv__text *file = NULL;
    *text = NULL;
    *bytes = 0;
    kv_err err = kv__text_open(path, &file, diag);
    if (err == KV_OK)
        err = read_all(file, path, text, bytes, diag);
    kv__text_close(file);
    return err;
}

/* Loads the next file that has requests. */
static kv_err load(void *closure, kv__session *out, kv_diag *diag)
{
    coding_agent *s = closure;
    kv_err err = KV_OK;
    while (err == KV_OK && out->turns == 0) {
        char *text;
        size_t bytes;
        json_t *root = NULL;
        if (s->next_file == s->files.count)
            return KV_END;
        const kv_mark mark = {s->files.path[s->next_file], 1, 0};
        err = read_file(mark.path, &text, &bytes, diag);
        if (err == KV_OK)
            err = kv__json_parse(text, bytes, &mark, &root, diag);
        if (err == KV_OK)
            err = read_document(s, root, &(kv_mark){mark.path, 0, 0}, out, diag);
        json_decref(root);
        free(text);
        s->next_file++;
    }
    return err;
}

static kv_err open(void *state, const kv_request_env *env, kv_diag *diag)
{
    coding_agent *s = state;
    s->env = *env;
    kv_err err = kv__file_list_init(&s->files, env->path, suffixes, diag);
    return err != KV_OK ? err : kv__sessions_init(&s->sessions, env->config, env, load, s, diag);
}

static void close(void *state)
{
    coding_agent *s = state;
    kv__sessions_fini(&s->sessions);
    kv__file_list_fini(&s->files);
    free(s->raw);
    free(s->id);
}
