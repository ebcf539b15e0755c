/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "traces/field.h"
#include "traces/json_text.h"
#include "traces/request_format.h"

#include <string.h>

static int probe(const char *path, const char *head, size_t head_bytes);
static kv_err open(void *state, const kv_request_env *env, kv_diag *diag);
static kv_err next(void *state, kv_request *out, kv_diag *diag);

typedef struct vllm_bench {
    kv_request_env env;
} vllm_bench;

/* The engine's own time stamps, all of one monotonic clock. When a request was queued counts as its
 * arrival; `first_token_ts` and `last_token_ts` are what `kvsim fit` compares with. */
KV_REQUEST_FORMAT_DEFINE(vllm_bench) = {
    .name = "vllm-bench",
    .brief = "a measured run, one JSON object per line: input_toks, output_toks, queued_ts (s)",
    .cite = "requests.jsonl of the bench of LLMServingSim, "
            "https://github.com/casys-kaist/LLMServingSim",
    .state_bytes = sizeof(vllm_bench),
    .probe = probe,
    .open = open,
    .next = next,
};

static int probe(const char *path, const char *head, size_t head_bytes)
{
    return kv__json_lines_probe(head, "\"queued_ts\"");
}

static kv_err open(void *state, const kv_request_env *env, kv_diag *diag)
{
    ((vllm_bench *)state)->env = *env;
    return KV_OK;
}

static kv_err read_row(const json_t *row, const kv__json_place *place, kv_request *out,
                       kv_diag *diag)
{
    if (!json_is_object(row))
        return kv_fail(diag, KV_ERR_INPUT, &place->mark, "not a JSON object");
    kv_err err = kv__json_tokens(row, "input_toks", place, &out->prompt_tokens, diag);
    if (err == KV_OK)
        err = kv__json_tokens(row, "output_toks", place, &out->output_tokens, diag);
    if (err == KV_OK)
        err = kv__json_time(row, "queued_ts", KV_UNIT_S, place, &out->arrival_ns, diag);
    if (err == KV_END)
        return kv_fail(diag, KV_ERR_INPUT, &place->mark, "'queued_ts' is missing");
    return err;
}

static kv_err next(void *state, kv_request *out, kv_diag *diag)
{
    vllm_bench *s = state;
    char *line;
    size_t bytes;
    json_t *row;
    kv__json_place place = {0};
    kv_err err = kv__json_line(s->env.text, &line, &bytes, &place.mark, diag);
    if (err == KV_OK)
        err = kv__json_parse(line, bytes, &place.mark, &row, diag);
    if (err != KV_OK)
        return err;
    *out = kv__request_blank;
    err = read_row(row, &place, out, diag);
    json_decref(row);
    return err;
}
