/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* kvsim trace info and verify of recorded attention. */
#include "config.h"

#include "policies/retention.h"
#include "sim/base/json.h"
#include "sim/commands/trace.h"
#include "sim/commands/trace_suffices.h"
#include "traces/attention.h"
#include "traces/h5.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* --- Summaries -------------------------------------------------------------------------------- */

typedef struct range {
    int least, most;
} range;

static void extend(range *r, int value, bool first)
{
    r->least = first || value < r->least ? value : r->least;
    r->most = first || value > r->most ? value : r->most;
}

/* Examples of one task and mode. */
typedef struct group {
    const char *task;
    kv_mode mode;
    int examples;
    range total, prompt, turns, rows;
    double full_score; /* sum */
} group;

static const char *const mode_names[] = {"single", "multi_turn", "multi_request"};

typedef struct summary {
    const char *path;
    const kv_attention *attention;
    const kv_shape *shape;
    group *group;
    int groups;
    unsigned met;      /* KV_NEEDS_* that every example meets */
    bool every_row;    /* recorded in every example */
    range window;      /* recorded rows in a row that end with the prompt */
    int answer_rows;   /* of all examples that predict an answer token */
    int answer_tokens; /* of all examples */
    kv_storage storage[KV_STORAGES];
} summary;

static group *find_group(summary *s, const kv_example *e)
{
    for (int i = 0; i < s->groups; i++)
        if (s->group[i].mode == e->mode && strcmp(s->group[i].task, e->task) == 0)
            return &s->group[i];
    group *g = &s->group[s->groups++];
    *g = (group){.task = e->task, .mode = e->mode};
    return g;
}

/* How many rows in a row end with the prompt's last. */
static int window_of(const kv_example *e)
{
    int last = kv_example_row(e, e->prompt_tokens - 1), rows = 0;
    while (last - rows >= 0 && e->query_pos[last - rows] == e->prompt_tokens - 1 - rows)
        rows++;
    return rows;
}

static bool has_rows(const kv_example *e)
{
    return e->has_probs || (e->has_q && e->has_k);
}

static unsigned needs_met(const kv_example *e)
{
    unsigned met = 0;
    met |= e->has_k ? KV_NEEDS_KEYS : 0;
    met |= e->has_v ? KV_NEEDS_VALUES : 0;
    met |= has_rows(e) && window_of(e) > 0 ? KV_NEEDS_OBSERVERS : 0;
    met |= has_rows(e) && e->rows == e->total_tokens ? KV_NEEDS_EVERY_ROW : 0;
    return met;
}

static void add_example(summary *s, const kv_example *e, bool first)
{
    group *g = find_group(s, e);
    extend(&g->total, e->total_tokens, g->examples == 0);
    extend(&g->prompt, e->prompt_tokens, g->examples == 0);
    extend(&g->turns, e->turns, g->examples == 0);
    extend(&g->rows, e->rows, g->examples == 0);
    g->full_score += e->full_score;
    g->examples++;
    extend(&s->window, has_rows(e) ? window_of(e) : 0, first);
    s->met &= needs_met(e);
    for (int i = 0; i < e->turns; i++)
        for (int t = e->turn[i].answer_start; t < e->turn[i].answer_end; t++) {
            s->answer_tokens++;
            s->answer_rows += has_rows(e) && kv_example_row(e, t - 1) >= 0;
        }
}

static kv_err summarise(const char *path, const kv_attention *attention, summary *out,
                        kv_diag *diag)
{
    int count = kv_attention_examples(attention);
    *out = (summary){.path = path,
                     .attention = attention,
                     .shape = kv_attention_shape(attention),
                     .group = calloc((size_t)count, sizeof *out->group),
                     .met = ~0u};
    if (out->group == NULL)
        return kv_fail_memory(diag);
    for (int i = 0; i < count; i++)
        add_example(out, kv_attention_example(attention, i), i == 0);
    return kv_attention_storage(attention, out->storage, diag);
}

/* --- What policies need ----------------------------------------------------------------------- */

/* In the words that say how to record it. */
static const struct need {
    unsigned flag;
    const char *name;
    const char *what;
} needs[] = {
    {KV_NEEDS_OBSERVERS, "observation_rows", "rows of the prompt's last tokens"},
    {KV_NEEDS_EVERY_ROW, "every_row", "rows of every token"},
    {KV_NEEDS_KEYS, "keys", "keys (k)"},
    {KV_NEEDS_VALUES, "values", "values (v)"},
};
enum { NEEDS = sizeof needs / sizeof *needs };

/* --- For people ------------------------------------------------------------------------------- */

static void print_range(FILE *out, int width, range r)
{
    char text[32];
    if (r.least == r.most)
        snprintf(text, sizeof text, "%d", r.least);
    else
        snprintf(text, sizeof text, "%d-%d", r.least, r.most);
    fprintf(out, " %*s", width, text);
}

static void print_groups(const summary *s, FILE *out)
{
    int width = (int)strlen("task");
    for (int i = 0; i < s->groups; i++)
        width = (int)strlen(s->group[i].task) > width ? (int)strlen(s->group[i].task) : width;
    fprintf(out, "  %-*s  %-13s %8s %11s %11s %7s %11s %10s\n", width, "task", "mode", "examples",
            "tokens", "prompt", "turns", "rows", "full score");
    for (int i = 0; i < s->groups; i++) {
        const group *g = &s->group[i];
        fprintf(out, "  %-*s  %-13s %8d", width, g->task, mode_names[g->mode], g->examples);
        print_range(out, 11, g->total);
        print_range(out, 11, g->prompt);
        print_range(out, 7, g->turns);
        print_range(out, 11, g->rows);
        fprintf(out, " %10.4f\n", g->full_score / g->examples);
    }
}

static void print_bytes(FILE *out, double bytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    int i = 0;
    for (; bytes >= 1024 && i < 4; i++)
        bytes /= 1024;
    fprintf(out, i ? "%.1f %s" : "%.0f %s", bytes, units[i]);
}

static void print_storage(const summary *s, FILE *out)
{
    int count = kv_attention_examples(s->attention);
    for (int i = 0; i < KV_STORAGES; i++) {
        const kv_storage *t = &s->storage[i];
        if (t->type == NULL)
            continue;
        fprintf(out, "  %-6s %-5s ", t->name, t->type);
        print_bytes(out, t->bytes);
        if (t->mapped) {
            fputs(", contiguous: mapped, not read", out);
        } else {
            fputs(" in ", out);
            print_bytes(out, t->stored_bytes);
            fprintf(out, " of the file (%.2f:1)", t->bytes / t->stored_bytes);
        }
        if (t->examples < count)
            fprintf(out, ", in %d of %d examples", t->examples, count);
        fputc('\n', out);
    }
}

static void print_needs(const summary *s, FILE *out)
{
    fprintf(out, "  answers: rows of %d of %d answer tokens\n", s->answer_rows, s->answer_tokens);
    for (int i = 0; i < NEEDS; i++) {
        bool met = s->met & needs[i].flag;
        fprintf(out, "  policies that need %s: %s", needs[i].what, met ? "yes" : "no");
        if (met && needs[i].flag == KV_NEEDS_OBSERVERS)
            fprintf(out, ", windows of up to %d", s->window.least);
        fputc('\n', out);
    }
}

/* What is to be said of policies, and how far that has come. */
typedef struct saying {
    FILE *out;
    kv_family family;
    int said;
} saying;

static void take_name(void *closure, const kv_method *method, const char *lacks)
{
    saying *s = closure;
    if (lacks == NULL && method->family == s->family)
        fprintf(s->out, "%s %s", s->said++ ? "," : "", method->name);
}

static void take_lack(void *closure, const kv_method *method, const char *lacks)
{
    saying *s = closure;
    if (lacks != NULL)
        fprintf(s->out, "  lacks, for %s: %s\n", method->name, lacks);
}

/* Policies with their default settings, first those that can run. */
static kv_err print_policies(const summary *s, FILE *out, kv_diag *diag)
{
    kv_err err = KV_OK;
    for (int f = 0; f < KV_FAMILIES && err == KV_OK; f++) {
        saying names = {.out = out, .family = (kv_family)f};
        fprintf(out, "  suffices for the %s policies", kv_family_name(names.family));
        err = kv__trace_suffices(s->attention, take_name, &names, diag);
        fputs(names.said > 0 ? "\n" : " none\n", out);
    }
    saying lacks = {.out = out};
    return err == KV_OK ? kv__trace_suffices(s->attention, take_lack, &lacks, diag) : err;
}

static kv_err print_text(const summary *s, FILE *out, kv_diag *diag)
{
    const kv_shape *m = s->shape;
    fprintf(out,
            "%s: recorded attention\n"
            "  model %s: %d layers, %d heads, %d KV heads, head dimension %d, scale %g\n",
            s->path, m->model, m->layers, m->heads, m->kv_heads, m->head_dim, m->scale);
    print_groups(s, out);
    print_storage(s, out);
    print_needs(s, out);
    return print_policies(s, out, diag);
}

/* --- For programs ----------------------------------------------------------------------------- */

static void json_text(FILE *out, const char *name, const char *text)
{
    fprintf(out, "\"%s\":", name);
    kv_json_string(text, out);
}

static void json_real(FILE *out, const char *name, double value)
{
    fprintf(out, "\"%s\":", name);
    kv_json_real(value, out);
}

static void json_range(FILE *out, const char *name, range r)
{
    fprintf(out, ",\"%s\":[%d,%d]", name, r.least, r.most);
}

static void json_group(const group *g, FILE *out)
{
    fputc('{', out);
    json_text(out, "task", g->task);
    fprintf(out, ",\"mode\":\"%s\",\"examples\":%d", mode_names[g->mode], g->examples);
    json_range(out, "total_tokens", g->total);
    json_range(out, "prompt_tokens", g->prompt);
    json_range(out, "turns", g->turns);
    json_range(out, "rows", g->rows);
    fputc(',', out);
    json_real(out, "full_score", g->full_score / g->examples);
    fputc('}', out);
}

static void json_storage(const kv_storage *t, FILE *out)
{
    fprintf(out, "\"%s\":{\"type\":\"%s\",\"examples\":%d,\"mapped\":%s,", t->name, t->type,
            t->examples, t->mapped ? "true" : "false");
    json_real(out, "bytes", t->bytes);
    fputc(',', out);
    json_real(out, "stored_bytes", t->stored_bytes);
    fputc('}', out);
}

static void take_json(void *closure, const kv_method *method, const char *lacks)
{
    saying *s = closure;
    fputs(s->said++ ? ",{" : "{", s->out);
    json_text(s->out, "name", method->name);
    fprintf(s->out, ",\"group\":\"%s\",\"suffices\":%s,\"lacks\":", kv_family_name(method->family),
            lacks == NULL ? "true" : "false");
    if (lacks != NULL)
        kv_json_string(lacks, s->out);
    else
        fputs("null", s->out);
    fputc('}', s->out);
}

static kv_err print_json(const summary *s, FILE *out, kv_diag *diag)
{
    const kv_shape *m = s->shape;
    fputc('{', out);
    json_text(out, "path", s->path);
    fputs(",\"kind\":\"attention\",\"version\":1,", out);
    json_text(out, "model", m->model);
    fprintf(out, ",\"layers\":%d,\"heads\":%d,\"kv_heads\":%d,\"head_dim\":%d,", m->layers,
            m->heads, m->kv_heads, m->head_dim);
    json_real(out, "scale", m->scale);
    fprintf(out, ",\"examples\":%d,\"groups\":[", kv_attention_examples(s->attention));
    for (int i = 0; i < s->groups; i++) {
        fputs(i ? "," : "", out);
        json_group(&s->group[i], out);
    }
    fputs("],\"arrays\":{", out);
    const char *comma = "";
    for (int i = 0; i < KV_STORAGES; i++)
        if (s->storage[i].type != NULL) {
            fputs(comma, out);
            json_storage(&s->storage[i], out);
            comma = ",";
        }
    fprintf(out, "},\"answer_tokens\":%d,\"answer_rows\":%d,\"observation_window\":%d,\"meets\":{",
            s->answer_tokens, s->answer_rows, s->window.least);
    for (int i = 0; i < NEEDS; i++)
        fprintf(out, "%s\"%s\":%s", i ? "," : "", needs[i].name,
                s->met & needs[i].flag ? "true" : "false");
    fputs("},\"policies\":[", out);
    saying all = {.out = out};
    kv_err err = kv__trace_suffices(s->attention, take_json, &all, diag);
    fputs("]}\n", out);
    return err;
}

static kv_err info(const char *path, const kv_trace_options *options, FILE *out, kv_diag *diag)
{
    kv_attention *attention = NULL;
    kv_err err = kv_attention_open(path, &attention, diag);
    if (err != KV_OK)
        return err;
    summary s;
    err = summarise(path, attention, &s, diag);
    if (err == KV_OK)
        err = (options->json ? print_json : print_text)(&s, out, diag);
    free(s.group);
    kv_attention_close(attention);
    return err;
}

/* --- Verify ----------------------------------------------------------------------------------- */

static void show_progress(void *path, double share)
{
    fprintf(stderr, "\r%s: %3.0f %%", (const char *)path, 100 * share);
}

static kv_err verify(const char *path, const kv_trace_options *options, FILE *out, kv_diag *diag)
{
    kv_attention *attention = NULL;
    bool progress = !options->quiet && isatty(STDERR_FILENO);
    kv_err err = kv_attention_open(path, &attention, diag);
    if (err == KV_OK)
        err = kv_attention_verify(attention, progress ? show_progress : NULL, (void *)path, diag);
    if (progress)
        fputs("\r\033[K", stderr);
    if (err == KV_OK)
        fprintf(out, "%s: recorded attention, %d examples, all numbers are in order\n", path,
                kv_attention_examples(attention));
    kv_attention_close(attention);
    return err;
}

const kv_trace_kind kv__trace_attention = {
    .name = "recorded attention",
    .probe = kv__h5_probe,
    .info = info,
    .verify = verify,
};
