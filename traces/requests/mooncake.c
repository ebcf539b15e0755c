/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "traces/field.h"
#include "traces/json_text.h"
#include "traces/recorded_sessions.h"
#include "traces/request_format.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static int probe(const char *path, const char *head, size_t head_bytes);
static kv_err open(void *state, const kv_request_env *env, kv_diag *diag);
static kv_err next(void *state, kv_request *out, kv_diag *diag);
static kv_err peek(void *state, int64_t *arrival_ns, kv_diag *diag);
static void completed(void *state, uint64_t session, int32_t turn, int64_t end_ns);
static bool is_closed(const void *config);
static void close(void *state);
static void write_row(FILE *out, const kv_request *request, const char *tenant);

typedef struct mooncake_config {
    long long block_tokens;
    int closed; /* 0: open loop, 1: closed loop */
} mooncake_config;

typedef struct mooncake {
    kv__recorded recorded; /* in the closed loop */
    kv_request_env env;
    uint64_t *blocks; /* [allocated] of the current request */
    size_t allocated;
    size_t taken; /* ids that take_ids has put into blocks */
} mooncake;

static const char *const loop_choices[] = {"open", "closed", NULL};

static const kv_param params[] = {{.name = "loop",
                                   .type = KV_CHOICE,
                                   .offset = offsetof(mooncake_config, closed),
                                   .fallback = "open",
                                   .choices = loop_choices,
                                   .flags = KV_PARAM_SWEEP,
                                   .help =
                                       "open: turns arrive when recorded; closed: `delay` after "
                                       "the answer before, if rows have session_id and turn"},
                                  {.name = "block_tokens",
                                   .type = KV_INT,
                                   .offset = offsetof(mooncake_config, block_tokens),
                                   .fallback = "512",
                                   .min = 1,
                                   .max = 1 << 20,
                                   .unit = "tokens",
                                   .help = "tokens per entry of hash_ids"},
                                  {.name = NULL}};

/* Beside the four keys of the published traces, `session_id` (number or text), `turn` and `delay`
 * (ms since the answer before), which other tools add and kvsim writes; `agent` and `after` (the
 * turn that is followed, null: none; the one before if not given), which kvsim writes where there
 * are sub-agents; `hashes` ("content": hash_ids name contents alone). Further keys are ignored. */
KV_REQUEST_FORMAT_DEFINE(mooncake) = {
    .name = "mooncake",
    .brief = "one JSON object per line: timestamp (ms), input_length, output_length, hash_ids",
    .cite =
        "Qin et al., Mooncake, FAST 2025; https://github.com/kvcache-ai/Mooncake FAST25-release",
    .config_bytes = sizeof(mooncake_config),
    .params = params,
    .state_bytes = sizeof(mooncake),
    .probe = probe,
    .open = open,
    .next = next,
    .peek = peek,
    .completed = completed,
    .waits = is_closed,
    .write = write_row,
    .close = close,
};

static int probe(const char *path, const char *head, size_t head_bytes)
{
    return kv__json_lines_probe(head, "\"input_length\"");
}

static kv_err next_row(void *state, kv_request *out, kv_diag *diag);
static kv_mark mark_of(const void *state);

static kv_err open(void *state, const kv_request_env *env, kv_diag *diag)
{
    mooncake *s = state;
    s->env = *env;
    return is_closed(env->config)
               ? kv__recorded_init(&s->recorded, &s->env, next_row, mark_of, s, diag)
               : KV_OK;
}

static void close(void *state)
{
    mooncake *s = state;
    if (is_closed(s->env.config))
        kv__recorded_fini(&s->recorded);
    free(s->blocks);
}

static bool is_closed(const void *config)
{
    return ((const mooncake_config *)config)->closed == 1;
}

static kv_mark mark_of(const void *state)
{
    return kv__text_mark(((const mooncake *)state)->env.text);
}

static kv_err next(void *state, kv_request *out, kv_diag *diag)
{
    mooncake *s = state;
    return is_closed(s->env.config) ? kv__recorded_next(&s->recorded, out, diag)
                                    : next_row(s, out, diag);
}

static kv_err peek(void *state, int64_t *arrival_ns, kv_diag *diag)
{
    return kv__recorded_peek(&((mooncake *)state)->recorded, arrival_ns, diag);
}

static void completed(void *state, uint64_t session, int32_t turn, int64_t end_ns)
{
    kv__sessions_completed(&((mooncake *)state)->recorded.sessions, session, turn, end_ns);
}

/* Tokens per block: what the row says, else the setting. */
static kv_err read_block_size(const mooncake *s, const json_t *row, const kv__json_place *place,
                              int32_t *out, kv_diag *diag)
{
    const mooncake_config *config = s->env.config;
    *out = (int32_t)config->block_tokens;
    if (json_object_get(row, "block_size") == NULL)
        return KV_OK;
    kv_err err = kv__json_tokens(row, "block_size", place, out, diag);
    if (err == KV_OK && *out == 0)
        return kv_fail(diag, KV_ERR_INPUT, &place->mark, "'block_size' is 0");
    return err;
}

/* What the names tell, where the row says it (kvsim writes it). */
static kv_err read_hashes(const json_t *row, const kv__json_place *place, bool *content,
                          kv_diag *diag)
{
    const json_t *said = json_object_get(row, "hashes");
    const char *text = said != NULL ? json_string_value(said) : "chained";
    *content = text != NULL && strcmp(text, "content") == 0;
    if (text == NULL || (!*content && strcmp(text, "chained") != 0))
        return kv_fail(diag, KV_ERR_INPUT, &place->mark,
                       "'hashes': expected \"chained\" or \"content\"");
    return KV_OK;
}

static kv_err make_room(mooncake *s, size_t count, kv_diag *diag)
{
    if (count <= s->allocated)
        return KV_OK;
    uint64_t *larger = realloc(s->blocks, 2 * count * sizeof *larger);
    if (larger == NULL)
        return kv_fail_memory(diag);
    s->blocks = larger;
    s->allocated = 2 * count;
    return KV_OK;
}

static kv_err read_blocks(mooncake *s, const json_t *ids, const kv__json_place *place,
                          kv_request *out, kv_diag *diag)
{
    size_t count = s->taken > 0 ? s->taken : json_array_size(ids);
    if (count > (size_t)out->prompt_tokens)
        return kv_fail(diag, KV_ERR_INPUT, &place->mark, "more hash_ids than tokens");
    kv_err err = make_room(s, count, diag);
    for (size_t i = 0; i < count && s->taken == 0 && err == KV_OK; i++) {
        int64_t id;
        err = kv__json_whole(json_array_get(ids, i), "hash_ids", place, &id, diag);
        s->blocks[i] = (uint64_t)id;
    }
    if (err != KV_OK)
        return err;
    out->blocks = count > 0 ? s->blocks : NULL;
    out->block_count = (int32_t)count;
    out->block_tokens = count > 0 ? out->block_tokens : 0;
    return KV_OK;
}

/* --- Ids without jansson: most of a row is ids, and a node for each costs most of the time -------
 */

static char *skip_space(char *at)
{
    return at + strspn(at, " \t");
}

/* The value of the key hash_ids of the object that the text is, or NULL. Text that is no JSON may
 * give anything, which is harmless. */
static char *find_ids(char *at)
{
    static const char key[] = "hash_ids";
    for (int depth = 0; *at != '\0'; at++) {
        depth += (*at == '{' || *at == '[') - (*at == '}' || *at == ']');
        if (*at != '"')
            continue;
        char *name = ++at;
        for (; *at != '"' && *at != '\0'; at++)
            at += *at == '\\' && at[1] != '\0';
        if (*at == '\0')
            return NULL;
        bool found = depth == 1 && (size_t)(at - name) == sizeof key - 1 &&
                     memcmp(name, key, sizeof key - 1) == 0;
        char *colon = skip_space(at + 1);
        if (found && *colon == ':')
            return skip_space(colon + 1);
    }
    return NULL;
}

/* Reads a whole number of at most 18 digits; NULL: it is something else. */
static char *read_id(char *at, uint64_t *out)
{
    enum { MOST_DIGITS = 18 };
    char *begin = at;
    for (*out = 0; *at >= '0' && *at <= '9' && at - begin <= MOST_DIGITS; at++)
        *out = 10 * *out + (uint64_t)(*at - '0');
    bool plain = at > begin && at - begin <= MOST_DIGITS && (*begin != '0' || at - begin == 1);
    return plain ? at : NULL;
}

/* Takes the ids out of a row, which then has an empty array in their place. Nothing happens, and
 * jansson sees all of it, where the array is not as plain as those of the published traces. */
static kv_err take_ids(mooncake *s, char *line, kv_diag *diag)
{
    char *begin = find_ids(line), *at;
    size_t count = 0;
    s->taken = 0;
    if (begin == NULL || *begin != '[')
        return KV_OK;
    for (at = skip_space(begin + 1);; at = skip_space(at + 1)) {
        kv_err err = make_room(s, count + 1, diag);
        if (err != KV_OK)
            return err;
        at = read_id(at, &s->blocks[count++]);
        if (at == NULL)
            return KV_OK;
        at = skip_space(at);
        if (*at != ',')
            break;
    }
    if (*at != ']')
        return KV_OK;
    memset(begin + 1, ' ', (size_t)(at - begin - 1));
    s->taken = count;
    return KV_OK;
}

static kv_err read_session(const json_t *row, const kv__json_place *place, kv_request *out,
                           kv_diag *diag)
{
    int64_t number;
    const json_t *session = json_object_get(row, "session_id");
    const json_t *turn = json_object_get(row, "turn");
    if (session == NULL || json_is_null(session))
        return KV_OK;
    kv_err err = KV_OK;
    if (json_is_string(session))
        out->session = kv__name_of(json_string_value(session));
    else if ((err = kv__json_whole(session, "session_id", place, &number, diag)) == KV_OK)
        out->session = (uint64_t)number;
    if (err == KV_OK && turn != NULL && !json_is_null(turn))
        err = kv__json_tokens(row, "turn", place, &out->turn, diag);
    out->after_turn = out->turn - 1;
    const json_t *after = json_object_get(row, "after"), *agent = json_object_get(row, "agent");
    if (err == KV_OK && json_is_null(after))
        out->after_turn = -1;
    else if (err == KV_OK && after != NULL)
        err = kv__json_tokens(row, "after", place, &out->after_turn, diag);
    if (err == KV_OK && agent != NULL)
        err = kv__json_tokens(row, "agent", place, &out->agent, diag);
    if (err == KV_OK && out->agent >= KV_AGENTS_MOST)
        return kv_fail(diag, KV_ERR_INPUT, &place->mark, "'agent' is above %d", KV_AGENTS_MOST - 1);
    return err;
}

static kv_err read_row(mooncake *s, const json_t *row, const kv__json_place *place, kv_request *out,
                       kv_diag *diag)
{
    json_t *ids;
    if (!json_is_object(row))
        return kv_fail(diag, KV_ERR_INPUT, &place->mark, "not a JSON object");
    kv_err err = kv__json_tokens(row, "input_length", place, &out->prompt_tokens, diag);
    if (err == KV_OK)
        err = kv__json_tokens(row, "output_length", place, &out->output_tokens, diag);
    if (err == KV_OK)
        err = kv__json_time(row, "timestamp", KV_UNIT_MS, place, &out->arrival_ns, diag);
    if (err <= KV_OK)
        err = kv__json_time(row, "delay", KV_UNIT_MS, place, &out->think_time_ns, diag);
    if (err == KV_OK && out->think_time_ns < 0)
        return kv_fail(diag, KV_ERR_INPUT, &place->mark, "'delay' is negative");
    if (err <= KV_OK)
        err = read_session(row, place, out, diag);
    if (err == KV_OK)
        err = kv__json_array(row, "hash_ids", place, &ids, diag);
    if (err == KV_OK)
        err = read_block_size(s, row, place, &out->block_tokens, diag);
    if (err == KV_OK)
        err = read_hashes(row, place, &out->names_contents, diag);
    if (err == KV_OK)
        err = read_blocks(s, ids, place, out, diag);
    return err == KV_END ? KV_OK : err;
}

static kv_err next_row(void *state, kv_request *out, kv_diag *diag)
{
    mooncake *s = state;
    char *line;
    size_t bytes;
    json_t *row;
    kv__json_place place = {0};
    kv_err err = kv__json_line(s->env.text, &line, &bytes, &place.mark, diag);
    if (err == KV_OK)
        err = take_ids(s, line, diag);
    if (err == KV_OK)
        err = kv__json_parse(line, bytes, &place.mark, &row, diag);
    if (err != KV_OK)
        return err;
    *out = kv__request_blank;
    err = read_row(s, row, &place, out, diag);
    json_decref(row);
    return err;
}

/* A block size other than that of the published traces is written into each row. */
static void write_row(FILE *out, const kv_request *r, const char *tenant)
{
    enum { PUBLISHED_BLOCK_TOKENS = 512 };
    const uint64_t *names = r->contents != NULL ? r->contents : r->blocks;
    fputs("{\"timestamp\": ", out);
    kv__write_time(out, r->arrival_ns, KV_UNIT_MS);
    fprintf(out, ", \"input_length\": %" PRId32 ", \"output_length\": %" PRId32 ", \"hash_ids\": [",
            r->prompt_tokens, r->output_tokens);
    for (int32_t i = 0; i < r->block_count; i++)
        fprintf(out, "%s%" PRIu64, i > 0 ? ", " : "", names[i] & INT64_MAX);
    putc(']', out);
    if (r->block_count > 0 && r->block_tokens != PUBLISHED_BLOCK_TOKENS)
        fprintf(out, ", \"block_size\": %" PRId32, r->block_tokens);
    if (r->contents != NULL)
        fputs(", \"hashes\": \"content\"", out);
    if (r->session != KV_NO_SESSION)
        fprintf(out, ", \"session_id\": %" PRIu64 ", \"turn\": %" PRId32, r->session & INT64_MAX,
                r->turn);
    if (r->session != KV_NO_SESSION && r->agent > 0)
        fprintf(out, ", \"agent\": %" PRId32, r->agent);
    if (r->session != KV_NO_SESSION && r->after_turn < 0 && r->turn > 0)
        fputs(", \"after\": null", out);
    else if (r->session != KV_NO_SESSION && r->after_turn != r->turn - 1)
        fprintf(out, ", \"after\": %" PRId32, r->after_turn);
    if (r->think_time_ns >= 0) {
        fputs(", \"delay\": ", out);
        kv__write_time(out, r->think_time_ns, KV_UNIT_MS);
    }
    fputs("}\n", out);
}
