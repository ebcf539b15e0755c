/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "traces/json_text.h"
#include "traces/request_format.h"
#include "traces/session.h"

#include <stdlib.h>
#include <string.h>

static int probe(const char *path, const char *head, size_t head_bytes);
static kv_err open(void *state, const kv_request_env *env, kv_diag *diag);
static void close(void *state);

typedef struct sharegpt_config {
    kv__session_config session;
    double chars_per_token;
    long long think_time_ns;
    long long block_tokens;
    long long turns;
} sharegpt_config;

typedef struct sharegpt {
    kv__sessions sessions; /* first */
    kv_request_env env;
    kv__json_items items;
    uint64_t conversations;
    uint64_t *id; /* [id_allocated] blocks of one prompt */
    int32_t id_allocated;
} sharegpt;

#define FIELD(name_) .offset = offsetof(sharegpt_config, name_)

static const kv_param params[] = {
    {.name = "chars_per_token",
     .type = KV_REAL,
     FIELD(chars_per_token),
     .fallback = "4",
     .min = 0,
     .max = 1e6,
     .flags = KV_PARAM_OPEN_MIN,
     .unit = "characters",
     .help = "estimate for messages that record no `tokens`"},
    {.name = "think_time",
     .type = KV_DURATION,
     FIELD(think_time_ns),
     .fallback = "10s",
     .min = 0,
     .max = 9e18,
     .flags = KV_PARAM_SWEEP,
     .help = "from an answer to the next turn, which is not recorded"},
    {.name = "block_tokens",
     .type = KV_INT,
     FIELD(block_tokens),
     .fallback = "64",
     .min = 1,
     .max = 1 << 20,
     .unit = "tokens",
     .help = "tokens per block that the turns of a conversation share"},
    {.name = "turns",
     .type = KV_INT,
     FIELD(turns),
     .fallback = "0",
     .min = 0,
     .max = 1e6,
     .unit = "turns",
     .help = "of each conversation, the first ones only; 0: all"},
    {.name = NULL}};

/* A turn is an answer and all that stands before it. A message counts its `tokens` where it records
 * them, else its characters over chars_per_token, rounded up. The file may be of any size: one
 * conversation is held at a time. */
KV_REQUEST_FORMAT_DEFINE(sharegpt) = {
    .name = "sharegpt",
    .brief = "a JSON array of conversations in messages, whose lengths count",
    .cite = "datasets in the form of ShareGPT: conversations[].from and .value, or "
            "messages[].role and .content",
    .config_bytes = sizeof(sharegpt_config),
    .params = params,
    .shared_params = kv__session_params,
    .state_bytes = sizeof(sharegpt),
    .probe = probe,
    .open = open,
    .next = kv__sessions_next,
    .peek = kv__sessions_peek,
    .completed = kv__sessions_completed,
    .close = close,
};

static int probe(const char *path, const char *head, size_t head_bytes)
{
    bool messages =
        strstr(head, "\"conversations\"") != NULL || strstr(head, "\"messages\"") != NULL;
    return head[strspn(head, " \t\r\n")] == '[' && messages ? 80 : 0;
}

/* --- One conversation ------------------------------------------------------------------------ */

static const json_t *one_of(const json_t *object, const char *name, const char *other)
{
    const json_t *value = json_object_get(object, name);
    return value != NULL ? value : json_object_get(object, other);
}

static bool is_answer(const json_t *message)
{
    static const char *const answering[] = {"gpt",  "assistant", "chatgpt", "bing",
                                            "bard", "model",     NULL};
    const char *role = json_string_value(one_of(message, "from", "role"));
    for (const char *const *a = answering; role != NULL && *a != NULL; a++)
        if (strcmp(role, *a) == 0)
            return true;
    return false;
}

static size_t characters(const char *utf8)
{
    size_t count = 0;
    for (; *utf8 != '\0'; utf8++)
        count += (*utf8 & 0xC0) != 0x80;
    return count;
}

/* What is known while the messages of a conversation are gone through. */
typedef struct reading {
    const sharegpt_config *config;
    kv__json_place place;
    int64_t before; /* tokens of all messages before */
    bool estimated; /* one of them was */
    bool answered;  /* the message before was an answer: another one continues it */
} reading;

static kv_err count_tokens(const json_t *message, reading *r, int64_t *out, kv_diag *diag)
{
    const json_t *tokens = json_object_get(message, "tokens");
    const char *text = json_string_value(one_of(message, "value", "content"));
    if (!json_is_object(message))
        return kv_fail(diag, KV_ERR_INPUT, &r->place.mark, "%snot an object", r->place.within);
    if (tokens != NULL && !json_is_null(tokens))
        return kv__json_whole(tokens, "tokens", &r->place, out, diag);
    if (text == NULL)
        return kv_fail(diag, KV_ERR_INPUT, &r->place.mark,
                       "%sneither 'value' nor 'content' nor 'tokens'", r->place.within);
    double estimate = (double)characters(text) / r->config->chars_per_token;
    *out = estimate < 9e18 ? (int64_t)estimate + ((double)(int64_t)estimate < estimate) : INT64_MAX;
    r->estimated = true;
    return KV_OK;
}

/* The first blocks of a conversation, into s->id: its number and theirs. */
static kv_err name_blocks(sharegpt *s, int32_t count)
{
    if (count > s->id_allocated) {
        uint64_t *larger = realloc(s->id, 2 * (size_t)count * sizeof *larger);
        if (larger == NULL)
            return KV_ERR_MEMORY;
        s->id = larger;
        s->id_allocated = 2 * count;
    }
    for (int32_t i = 0; i < count; i++)
        s->id[i] = (s->conversations << 32) + (uint64_t)i;
    return KV_OK;
}

static kv_err add_turn(sharegpt *s, const reading *r, int64_t answer, kv__session *out,
                       kv_diag *diag)
{
    const sharegpt_config *c = r->config;
    if (r->before > INT32_MAX || answer > INT32_MAX)
        return kv_fail(diag, KV_ERR_INPUT, &r->place.mark, "%sabove 2147483647 tokens",
                       r->place.within);
    kv__turn turn = {.think_ns = c->think_time_ns,
                     .prompt_tokens = (int32_t)r->before,
                     .output_tokens = (int32_t)answer,
                     .after = out->turns - 1,
                     .assumed = r->estimated};
    if (__builtin_mul_overflow(c->think_time_ns, (int64_t)out->turns, &turn.at_ns))
        turn.at_ns = INT64_MAX;
    int32_t blocks = (int32_t)(r->before / c->block_tokens);
    kv_err err = name_blocks(s, blocks);
    if (err == KV_OK)
        err = kv__session_add(out, &turn, s->id, blocks);
    return err == KV_OK ? KV_OK : kv_fail_memory(diag);
}

static kv_err read_message(sharegpt *s, const json_t *message, reading *r, kv__session *out,
                           kv_diag *diag)
{
    int64_t tokens = 0;
    kv_err err = count_tokens(message, r, &tokens, diag);
    bool answers = is_answer(message);
    bool wanted = r->config->turns == 0 || out->turns < r->config->turns;
    if (err == KV_OK && answers && !r->answered && r->before > 0 && wanted)
        err = add_turn(s, r, tokens, out, diag);
    r->answered = answers;
    if (__builtin_add_overflow(r->before, tokens, &r->before))
        r->before = INT64_MAX;
    return err;
}

static kv_err read_conversation(sharegpt *s, const json_t *item, const kv_mark *mark,
                                kv__session *out, kv_diag *diag)
{
    reading r = {.config = s->env.config, .place = {.mark = *mark}};
    const json_t *messages = one_of(item, "conversations", "messages");
    if (!json_is_array(messages))
        return kv_fail(diag, KV_ERR_INPUT, mark,
                       "neither 'conversations' nor 'messages' is an array here");
    out->block_tokens = (int32_t)r.config->block_tokens;
    out->name = s->conversations;
    kv_err err = KV_OK;
    for (size_t i = 0; err == KV_OK && i < json_array_size(messages); i++) {
        snprintf(r.place.within, sizeof r.place.within, "message %zu: ", i);
        err = read_message(s, json_array_get(messages, i), &r, out, diag);
    }
    if (err == KV_OK && out->turns == 0)
        err = kv_fail(diag, KV_ERR_INPUT, mark,
                      "a conversation without a turn: expected a message of the user and an answer "
                      "behind it; `on_error: skip` passes over it and counts it");
    return err;
}

/* The next conversation. */
static kv_err load(void *closure, kv__session *out, kv_diag *diag)
{
    sharegpt *s = closure;
    size_t bytes;
    kv_mark mark;
    json_t *item = NULL;
    kv_err err = kv__json_item(&s->items, s->env.text, &bytes, &mark, diag);
    if (err != KV_OK)
        return err;
    err = kv__json_parse(s->items.buffer, bytes, &mark, &item, diag);
    if (err == KV_OK)
        err = read_conversation(s, item, &mark, out, diag);
    json_decref(item);
    s->conversations++;
    return err;
}

static kv_err open(void *state, const kv_request_env *env, kv_diag *diag)
{
    sharegpt *s = state;
    const sharegpt_config *config = env->config;
    s->env = *env;
    return kv__sessions_init(&s->sessions, &config->session, env, load, s, diag);
}

static void close(void *state)
{
    sharegpt *s = state;
    kv__sessions_fini(&s->sessions);
    free(s->items.buffer);
    free(s->id);
}
