/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "traces/request.h"

#include "traces/request_format.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KV_REQUEST_FORMAT(id) extern const kv_request_format kv__request_format_##id;
#include "traces/request_registry.inc"
#undef KV_REQUEST_FORMAT

static const kv_request_format *const format_table[] = {
#define KV_REQUEST_FORMAT(id) &kv__request_format_##id,
#include "traces/request_registry.inc"
#undef KV_REQUEST_FORMAT
    NULL};

enum { FORMATS = sizeof format_table / sizeof format_table[0] - 1 };

static const char *const on_error_choices[] = {"stop", "skip", NULL};
static const char *const arrivals_choices[] = {"recorded", "even",     "poisson",
                                               "gamma",    "together", NULL};
static const char *const hashes_choices[] = {"chained", "content", NULL};

const kv_param kv_request_params[] = {
    {.name = "on_error",
     .type = KV_CHOICE,
     .offset = offsetof(kv_request_options, on_error),
     .fallback = "stop",
     .choices = on_error_choices,
     .help = "what a malformed row does: stop the run, or be skipped and counted"},
    {.name = "arrivals",
     .type = KV_CHOICE,
     .offset = offsetof(kv_request_options, arrivals),
     .fallback = "recorded",
     .choices = arrivals_choices,
     .flags = KV_PARAM_SWEEP,
     .help = "where arrival times come from: the trace, gaps drawn at `rate`, or all at once"},
    {.name = "hashes",
     .type = KV_CHOICE,
     .offset = offsetof(kv_request_options, hashes),
     .fallback = "chained",
     .choices = hashes_choices,
     .help = "what the name of a block tells: all tokens up to its end, or its own (content)"},
    {.name = "speedup",
     .type = KV_REAL,
     .offset = offsetof(kv_request_options, speedup),
     .fallback = "1",
     .min = 0,
     .max = 1e9,
     .flags = KV_PARAM_SWEEP | KV_PARAM_OPEN_MIN,
     .help = "recorded times are divided by this"},
    {.name = "rate",
     .type = KV_REAL,
     .offset = offsetof(kv_request_options, rate),
     .min = 0,
     .max = 1e9,
     .flags = KV_PARAM_SWEEP | KV_PARAM_OPEN_MIN,
     .unit = "requests/s",
     .help = "mean rate of arrivals that are not recorded"},
    {.name = "burstiness",
     .type = KV_REAL,
     .offset = offsetof(kv_request_options, burstiness),
     .fallback = "1",
     .min = 0,
     .max = 100,
     .flags = KV_PARAM_SWEEP | KV_PARAM_OPEN_MIN,
     .help = "coefficient of variation of the gaps of `arrivals: gamma`"},
    {.name = "limit",
     .type = KV_INT,
     .offset = offsetof(kv_request_options, limit),
     .fallback = "0",
     .min = 0,
     .max = 9e15,
     .unit = "requests",
     .flags = KV_PARAM_SWEEP,
     .help = "the trace ends after this many requests; 0: where it ends"},
    {.name = "sort_window",
     .type = KV_INT,
     .offset = offsetof(kv_request_options, sort_window),
     .fallback = "0",
     .min = 0,
     .max = 1e7,
     .unit = "requests",
     .help = "requests held back to bring an unsorted trace into order; 0: it must be sorted"},
    {.name = "unnamed_blocks",
     .type = KV_BOOL,
     .offset = offsetof(kv_request_options, unnamed_blocks),
     .fallback = "false",
     .help =
         "whether a row may name fewer blocks than its prompt has, or none where others do; what "
         "has no name is shared with no one"},
    {.name = "seed",
     .type = KV_INT,
     .offset = offsetof(kv_request_options, seed),
     .fallback = "1",
     .min = 0,
     .max = 9e15,
     .flags = KV_PARAM_SWEEP,
     .help = "of everything about the requests that is drawn"},
    {.name = NULL}};

const kv_request_format *const *kv_request_format_all(void)
{
    return format_table;
}

const kv_request_format *kv_request_format_find(const char *name)
{
    for (const kv_request_format *const *f = format_table; *f != NULL; f++)
        if (strcmp((*f)->name, name) == 0)
            return *f;
    return NULL;
}

enum { HEAD_BYTES = 4096 };

/* The beginning of a file, unpacked, as text. */
static kv_err read_head(const char *path, char head[HEAD_BYTES + 1], size_t *bytes, kv_diag *diag)
{
    static const char byte_order_mark[] = "\xEF\xBB\xBF";
    kv__text *text;
    *bytes = 0;
    head[0] = '\0';
    kv_err err = kv__text_open(path, &text, diag);
    if (err != KV_OK)
        return err;
    *bytes = fread(head, 1, HEAD_BYTES, kv__text_stream(text));
    if (*bytes >= 3 && memcmp(head, byte_order_mark, 3) == 0)
        memmove(head, head + 3, *bytes -= 3);
    head[*bytes] = '\0';
    const kv_diag *failure = kv__text_failure(text);
    if (failure != NULL && diag != NULL)
        *diag = *failure;
    err = failure != NULL ? failure->code : KV_OK;
    kv__text_close(text);
    return err;
}

/* The format that is surest of a file; a directory or a pattern is judged by its name alone. */
static kv_err probe(const char *path, const kv_request_format **out, kv_diag *diag)
{
    char head[HEAD_BYTES + 1];
    size_t bytes;
    kv_diag words = {0};
    kv_err err = read_head(path, head, &bytes, &words);
    int surest = 0;
    for (const kv_request_format *const *f = format_table; *f != NULL; f++) {
        bool asked = (*f)->probe != NULL && (err == KV_OK || (*f)->takes_many);
        int sure = asked ? (*f)->probe(path, head, bytes) : 0;
        if (sure > surest) {
            surest = sure;
            *out = *f;
        }
    }
    if (surest > 0)
        return KV_OK;
    if (err != KV_OK && diag != NULL)
        *diag = words;
    return err != KV_OK ? err
                        : kv_fail(diag, KV_ERR_INPUT, &(kv_mark){path, 0, 0}, "%s",
                                  bytes == 0 ? "is empty, expected a request trace"
                                             : "not a request trace that is known by its "
                                               "looks: name its format (`kvsim list traces`)");
}

static kv_err find_format(const char *path, const char *name, const kv_request_format **out,
                          kv_diag *diag)
{
    const char *names[FORMATS + 1];
    if (name == NULL && path != NULL && strcmp(path, "-") != 0)
        return probe(path, out, diag);
    if (name == NULL)
        return kv_fail(diag, KV_ERR_INPUT, NULL,
                       "the format of standard input cannot be found by looking: name it");
    *out = kv_request_format_find(name);
    if (*out != NULL)
        return KV_OK;
    for (int i = 0; i < FORMATS; i++)
        names[i] = format_table[i]->name;
    const char *near = kv_nearest(name, names, FORMATS);
    return kv_fail(diag, KV_ERR_INPUT, NULL,
                   "there is no request format '%s'%s%s%s; `kvsim list traces` names them", name,
                   near ? ", did you mean '" : "", near ? near : "", near ? "'?" : "");
}

enum { TABLES = 3 };

/* The parameter tables of a format; NULL where it has none. */
static const kv_param *table_of(const kv_request_format *format, int i)
{
    const kv_param *const tables[TABLES] = {format->params, format->shared_params, format->columns};
    return tables[i];
}

static kv_err set_defaults(kv_request_spec *spec, kv_diag *diag)
{
    const kv_request_format *format = spec->format;
    kv_err err = kv_params_default(kv_request_params, &spec->options, diag);
    if (err != KV_OK || format->config_bytes == 0)
        return err;
    spec->config = calloc(1, format->config_bytes);
    if (spec->config == NULL)
        return kv_fail_memory(diag);
    for (int i = 0; err == KV_OK && i < TABLES; i++)
        if (table_of(format, i) != NULL)
            err = kv_params_default(table_of(format, i), spec->config, diag);
    return err;
}

kv_err kv_request_spec_init(kv_request_spec *spec, const char *path, const char *format_name,
                            kv_diag *diag)
{
    const kv_request_format *format = NULL;
    kv_err err = find_format(path, format_name, &format, diag);
    if (err != KV_OK)
        return err;
    if (path == NULL && !format->no_file)
        return kv_fail(diag, KV_ERR_INPUT, NULL, "format %s needs a file", format->name);
    *spec = (kv_request_spec){.format = format};
    if (path != NULL && (spec->path = strdup(path)) == NULL)
        return kv_fail_memory(diag);
    err = set_defaults(spec, diag);
    if (err != KV_OK)
        kv_request_spec_fini(spec);
    return err;
}

void kv_request_spec_fini(kv_request_spec *spec)
{
    for (int i = 0; spec->config != NULL && i < TABLES; i++)
        if (table_of(spec->format, i) != NULL)
            kv_params_fini(table_of(spec->format, i), spec->config);
    free(spec->config);
    free(spec->path);
    *spec = (kv_request_spec){0};
}

static kv_err no_setting(const kv_request_spec *spec, const char *name, const kv_mark *mark,
                         kv_diag *diag)
{
    const kv_param *tables[] = {kv_request_params, spec->format->params,
                                spec->format->shared_params};
    const char *names[64];
    int count = 0;
    for (int t = 0; t < 3; t++)
        for (const kv_param *p = tables[t]; p != NULL && p->name != NULL && count < 64; p++)
            names[count++] = p->name;
    const char *near = kv_nearest(name, names, count);
    return kv_fail(diag, KV_ERR_INPUT, mark, "format %s has no setting '%s'%s%s%s",
                   spec->format->name, name, near ? ", did you mean '" : "", near ? near : "",
                   near ? "'?" : "");
}

/* The row of a setting of the format, NULL if it has none of that name. */
static const kv_param *find_setting(const kv_request_format *format, const char *name)
{
    static const char columns[] = "columns.";
    const kv_param *param = NULL;
    if (strncmp(name, columns, sizeof columns - 1) == 0)
        return format->columns == NULL ? NULL
                                       : kv_param_find(format->columns, name + sizeof columns - 1);
    if (format->params != NULL)
        param = kv_param_find(format->params, name);
    if (param == NULL && format->shared_params != NULL)
        param = kv_param_find(format->shared_params, name);
    return param;
}

const kv_param *kv_request_spec_param(const kv_request_spec *spec, const char *name)
{
    const kv_param *param = kv_param_find(kv_request_params, name);
    return param != NULL ? param : find_setting(spec->format, name);
}

kv_err kv_request_spec_set(kv_request_spec *spec, const char *name, const char *text,
                           const kv_mark *mark, kv_diag *diag)
{
    const kv_param *param = kv_param_find(kv_request_params, name);
    if (param != NULL)
        return kv_param_set(param, &spec->options, text, mark, diag);
    param = find_setting(spec->format, name);
    return param == NULL ? no_setting(spec, name, mark, diag)
                         : kv_param_set(param, spec->config, text, mark, diag);
}
