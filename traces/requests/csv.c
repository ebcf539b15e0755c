/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "traces/csv_requests.h"
#include "traces/field.h"

#include <inttypes.h>
#include <string.h>

static int probe(const char *path, const char *head, size_t head_bytes);
static kv_err open(void *state, const kv_request_env *env, kv_diag *diag);
static void write_header(FILE *out);
static void write_row(FILE *out, const kv_request *request, const char *tenant);

typedef struct csv_config {
    char *column[KV_ROLES]; /* NULL: a known name if the file has it */
    int time_unit;          /* index into unit_choices */
    long long block_tokens;
} csv_config;

#define COLUMN(role, name_, help_)                                                                 \
    {                                                                                              \
        .name = name_, .type = KV_TEXT, .offset = offsetof(csv_config, column[role]),              \
        .help = help_                                                                              \
    }

static const kv_param columns[] = {
    COLUMN(KV_ROLE_ARRIVAL, "arrival", "column of the arrival: a number in time_unit, or a date"),
    COLUMN(KV_ROLE_PROMPT, "prompt", "column of the prompt tokens"),
    COLUMN(KV_ROLE_OUTPUT, "output", "column of the output tokens"),
    COLUMN(KV_ROLE_SESSION, "session", "column that names the session"),
    COLUMN(KV_ROLE_TURN, "turn", "column of the number within the session"),
    COLUMN(KV_ROLE_TENANT, "tenant", "column that names the tenant"),
    COLUMN(KV_ROLE_THINK, "think_time", "column of the time since the answer before, in time_unit"),
    COLUMN(KV_ROLE_BLOCKS, "blocks", "column of the names of the prompt's blocks, between spaces"),
    COLUMN(KV_ROLE_BLOCK_TOKENS, "block_tokens", "column of the tokens per block"),
    {.name = NULL}};

static const char *const unit_choices[] = {"s", "ms", "us", "ns", NULL};
static const int units[] = {KV_UNIT_S, KV_UNIT_MS, KV_UNIT_US, KV_UNIT_NS};

static const kv_param params[] = {{.name = "time_unit",
                                   .type = KV_CHOICE,
                                   .offset = offsetof(csv_config, time_unit),
                                   .fallback = "s",
                                   .choices = unit_choices,
                                   .help = "what times that are numbers count"},
                                  {.name = "block_tokens",
                                   .type = KV_INT,
                                   .offset = offsetof(csv_config, block_tokens),
                                   .fallback = "512",
                                   .min = 1,
                                   .max = 1 << 20,
                                   .unit = "tokens",
                                   .help = "tokens per block of the column blocks"},
                                  {.name = NULL}};

KV_REQUEST_FORMAT_DEFINE(csv) = {
    .name = "csv",
    .brief = "any CSV with a header: columns by name, so also the exports of Vidur and others",
    .config_bytes = sizeof(csv_config),
    .params = params,
    .columns = columns,
    .state_bytes = sizeof(kv__csv_requests),
    .probe = probe,
    .open = open,
    .next = kv__csv_requests_next,
    .mark = kv__csv_requests_mark,
    .write_header = write_header,
    .write = write_row,
    .close = kv__csv_requests_close,
};

enum { KNOWN_MOST = 8 };

/* Names that columns have in files we know of. */
static const char *const known[KV_ROLES][KNOWN_MOST] = {
    [KV_ROLE_ARRIVAL] = {"arrival", "arrived_at", "arrival_time", "timestamp", "TIMESTAMP"},
    [KV_ROLE_PROMPT] = {"prompt", "prompt_tokens", "num_prefill_tokens", "input_tokens",
                        "input_length", "ContextTokens"},
    [KV_ROLE_OUTPUT] = {"output", "output_tokens", "num_decode_tokens", "completion_tokens",
                        "output_length", "GeneratedTokens"},
    [KV_ROLE_SESSION] = {"session", "session_id"},
    [KV_ROLE_TURN] = {"turn"},
    [KV_ROLE_TENANT] = {"tenant"},
    [KV_ROLE_THINK] = {"think_time"},
    [KV_ROLE_BLOCKS] = {"blocks"},
    [KV_ROLE_BLOCK_TOKENS] = {"block_tokens"},
};

/* A header that names both lengths as others do. */
static int probe(const char *path, const char *head, size_t head_bytes)
{
    char line[512];
    size_t length = strcspn(head, "\r\n");
    if (length == 0 || length >= sizeof line - 2)
        return 0;
    line[0] = ',';
    memcpy(line + 1, head, length);
    memcpy(line + 1 + length, ",", 2);
    int lengths = 0;
    for (int role = KV_ROLE_PROMPT; role <= KV_ROLE_OUTPUT; role++)
        for (int i = 0; i < KNOWN_MOST && known[role][i] != NULL; i++) {
            const char *at = strstr(line, known[role][i]);
            size_t n = strlen(known[role][i]);
            if (at != NULL && at[-1] == ',' && at[n] == ',') {
                lengths++;
                break;
            }
        }
    return lengths == 2 ? 50 : 0;
}

/* The name to look for: what the user said, else the known name that the file has. */
static const char *name_for(const csv_config *config, const kv_csv *csv, kv__role role)
{
    if (config->column[role] != NULL)
        return config->column[role];
    for (int i = 0; i < KNOWN_MOST && known[role][i] != NULL; i++)
        if (kv_csv_find(csv, known[role][i]) >= 0)
            return known[role][i];
    return role == KV_ROLE_PROMPT || role == KV_ROLE_OUTPUT ? known[role][0] : NULL;
}

/* Arrivals are asked for as recorded, and no column has them. */
static kv_err no_arrival(const kv__csv_requests *s, kv_diag *diag)
{
    char there[400];
    kv__csv_requests_list(s, there, sizeof there);
    return kv_fail(
        diag, KV_ERR_INPUT, &(kv_mark){kv__text_path(s->env.text), 1, 0},
        "the trace records no arrival times: no column is called %s, %s, %s or %s; there "
        "are: %s. Name it (`arrival: COLUMN`), or set `arrivals: poisson` (or `gamma`, "
        "`even`) and `rate`",
        known[KV_ROLE_ARRIVAL][0], known[KV_ROLE_ARRIVAL][1], known[KV_ROLE_ARRIVAL][2],
        known[KV_ROLE_ARRIVAL][3], there);
}

static kv_err open(void *state, const kv_request_env *env, kv_diag *diag)
{
    const csv_config *config = env->config;
    kv__csv_requests *s = state;
    kv__csv_layout layout = {.unit = units[config->time_unit],
                             .block_tokens = (int32_t)config->block_tokens};
    kv_err err = kv__csv_requests_header(s, env, diag);
    for (int r = 0; err == KV_OK && r < KV_ROLES; r++)
        layout.column[r] = name_for(config, s->csv, (kv__role)r);
    if (err == KV_OK && layout.column[KV_ROLE_ARRIVAL] == NULL &&
        env->options->arrivals == KV_ARRIVALS_RECORDED)
        err = no_arrival(s, diag);
    if (err == KV_OK)
        err = kv__csv_requests_layout(s, &layout, diag);
    return err;
}

static void write_header(FILE *out)
{
    fputs("arrival,prompt,output,session,turn,tenant,think_time,block_tokens,blocks\n", out);
}

static void write_row(FILE *out, const kv_request *r, const char *tenant)
{
    kv__write_time(out, r->arrival_ns, KV_UNIT_S);
    fprintf(out, ",%" PRId32 ",%" PRId32 ",", r->prompt_tokens, r->output_tokens);
    if (r->session != KV_NO_SESSION)
        fprintf(out, "%" PRIu64 ",%" PRId32, r->session & INT64_MAX, r->turn);
    else
        putc(',', out);
    putc(',', out);
    if (tenant != NULL)
        kv_csv_write(tenant, out);
    putc(',', out);
    if (r->think_time_ns >= 0)
        kv__write_time(out, r->think_time_ns, KV_UNIT_S);
    putc(',', out);
    if (r->block_count > 0)
        fprintf(out, "%" PRId32, r->block_tokens);
    putc(',', out);
    for (int32_t i = 0; i < r->block_count; i++)
        fprintf(out, "%s%" PRIu64, i > 0 ? " " : "", r->blocks[i] & INT64_MAX);
    putc('\n', out);
}
