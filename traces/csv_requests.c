/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "traces/csv_requests.h"

#include "traces/field.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const role_names[KV_ROLES] = {"arrival",    "prompt", "output",
                                                 "session",    "turn",   "tenant",
                                                 "think_time", "blocks", "block_tokens"};

kv_err kv__csv_requests_header(kv__csv_requests *state, const kv_request_env *env, kv_diag *diag)
{
    state->env = *env;
    kv_err err =
        kv_csv_attach(kv__text_stream(env->text), kv__text_path(env->text), &state->csv, diag);
    if (err == KV_ERR_IO && kv__text_failure(env->text) != NULL && diag != NULL)
        *diag = *kv__text_failure(env->text); /* which knows more than that reading failed */
    return err;
}

void kv__csv_requests_list(const kv__csv_requests *state, char *out, size_t out_bytes)
{
    const kv_csv *csv = state->csv;
    size_t used = 0;
    out[0] = '\0';
    for (int i = 0; i < kv_csv_columns(csv) && used < out_bytes; i++) {
        int n = snprintf(out + used, out_bytes - used, "%s%s", i > 0 ? ", " : "",
                         kv_csv_column(csv, i));
        used += n > 0 ? (size_t)n : 0;
    }
}

static kv_err no_column(const kv__csv_requests *state, kv__role role, const char *name,
                        kv_diag *diag)
{
    char columns[600];
    kv__csv_requests_list(state, columns, sizeof columns);
    return kv_fail(diag, KV_ERR_INPUT, &(kv_mark){kv__text_path(state->env.text), 1, 0},
                   "there is no column '%s' for the %s; there are: %s", name, role_names[role],
                   columns);
}

kv_err kv__csv_requests_layout(kv__csv_requests *state, const kv__csv_layout *layout, kv_diag *diag)
{
    state->unit = layout->unit;
    state->block_tokens = layout->block_tokens;
    for (int r = 0; r < KV_ROLES; r++) {
        const char *name = layout->column[r];
        state->column[r] = name == NULL ? -1 : kv_csv_find(state->csv, name);
        if (name != NULL && state->column[r] < 0 && !layout->optional[r])
            return no_column(state, (kv__role)r, name, diag);
    }
    return KV_OK;
}

kv_mark kv__csv_requests_mark(const void *state)
{
    return kv_csv_mark(((const kv__csv_requests *)state)->csv, -1);
}

void kv__csv_requests_close(void *state)
{
    kv__csv_requests *s = state;
    kv_csv_close(s->csv);
    free(s->blocks);
}

/* The field of a role in the current row, NULL if there is none or, where that may be, it is empty.
 */
static const char *field_of(const kv__csv_requests *s, kv__role role)
{
    return s->column[role] < 0 ? NULL : kv_csv_field(s->csv, s->column[role]);
}

static const char *field_unless_empty(const kv__csv_requests *s, kv__role role)
{
    const char *field = field_of(s, role);
    return field == NULL || *field == '\0' ? NULL : field;
}

static kv_err wrong_field(const kv__csv_requests *s, kv__role role, const char *words,
                          kv_diag *diag)
{
    kv_mark mark = kv_csv_mark(s->csv, s->column[role]);
    return kv_fail(diag, KV_ERR_INPUT, &mark, "column '%s': '%.64s' %s",
                   kv_csv_column(s->csv, s->column[role]), field_of(s, role), words);
}

static kv_err read_numbers(const kv__csv_requests *s, kv_request *r, kv_diag *diag)
{
    const struct {
        kv__role role;
        int32_t *out;
        bool may_be_empty;
    } counts[] = {{KV_ROLE_PROMPT, &r->prompt_tokens, false},
                  {KV_ROLE_OUTPUT, &r->output_tokens, false},
                  {KV_ROLE_TURN, &r->turn, true}};
    const char *words = NULL;
    for (int i = 0; i < 3; i++) {
        kv__role role = counts[i].role;
        const char *field =
            counts[i].may_be_empty ? field_unless_empty(s, role) : field_of(s, role);
        if (field != NULL && (words = kv__read_tokens(field, counts[i].out)) != NULL)
            return wrong_field(s, role, words, diag);
    }
    if (field_of(s, KV_ROLE_ARRIVAL) != NULL)
        words = kv__read_time(field_of(s, KV_ROLE_ARRIVAL), s->unit, &r->arrival_ns);
    if (words != NULL)
        return wrong_field(s, KV_ROLE_ARRIVAL, words, diag);
    const char *think = field_unless_empty(s, KV_ROLE_THINK);
    if (think != NULL)
        words = kv__read_time(think, s->unit, &r->think_time_ns);
    if (think != NULL && words == NULL && r->think_time_ns < 0)
        words = "is negative";
    return words != NULL ? wrong_field(s, KV_ROLE_THINK, words, diag) : KV_OK;
}

static kv_err add_block(kv__csv_requests *s, int32_t count, uint64_t block, kv_diag *diag)
{
    if (count == s->blocks_allocated) {
        int32_t allocated = count == 0 ? 256 : 2 * count;
        uint64_t *larger = realloc(s->blocks, (size_t)allocated * sizeof *larger);
        if (larger == NULL)
            return kv_fail_memory(diag);
        s->blocks = larger;
        s->blocks_allocated = allocated;
    }
    s->blocks[count] = block;
    return KV_OK;
}

/* Names of blocks, between spaces. */
static kv_err read_blocks(kv__csv_requests *s, kv_request *r, kv_diag *diag)
{
    const char *p = field_unless_empty(s, KV_ROLE_BLOCKS);
    while (p != NULL && *p != '\0') {
        char name[32];
        int64_t block;
        size_t length = strcspn(p, " ");
        snprintf(name, sizeof name, "%.*s", (int)(length < sizeof name ? length : sizeof name), p);
        const char *words = length == 0 ? NULL : kv__read_whole(name, &block);
        if (words != NULL)
            return wrong_field(s, KV_ROLE_BLOCKS, "is not a list of whole numbers", diag);
        kv_err err = length == 0 ? KV_OK : add_block(s, r->block_count, (uint64_t)block, diag);
        if (err != KV_OK)
            return err;
        r->block_count += length > 0;
        p += length + (p[length] == ' ');
    }
    const char *size = field_unless_empty(s, KV_ROLE_BLOCK_TOKENS);
    r->block_tokens = s->block_tokens;
    const char *words = size == NULL ? NULL : kv__read_tokens(size, &r->block_tokens);
    if (size != NULL && (words != NULL || r->block_tokens == 0))
        return wrong_field(s, KV_ROLE_BLOCK_TOKENS, words != NULL ? words : "is no size", diag);
    r->blocks = r->block_count > 0 ? s->blocks : NULL;
    r->block_tokens = r->block_count > 0 ? r->block_tokens : 0;
    return KV_OK;
}

kv_err kv__csv_requests_next(void *state, kv_request *out, kv_diag *diag)
{
    kv__csv_requests *s = state;
    kv_err err = kv_csv_next(s->csv, diag);
    if (err != KV_OK)
        return err;
    *out = kv__request_blank;
    err = read_numbers(s, out, diag);
    if (err == KV_OK)
        err = read_blocks(s, out, diag);
    const char *session = field_unless_empty(s, KV_ROLE_SESSION);
    if (session != NULL) {
        out->session = kv__name_of(session);
        out->after_turn = out->turn - 1;
    }
    const char *tenant = field_of(s, KV_ROLE_TENANT);
    if (err == KV_OK && tenant != NULL) {
        kv_mark mark = kv_csv_mark(s->csv, s->column[KV_ROLE_TENANT]);
        err = kv__tenant_number(s->env.tenants, tenant, &mark, &out->tenant, diag);
    }
    return err;
}
