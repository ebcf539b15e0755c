/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* kvsim trace: finds out what kind of trace each file is and has that kind do what was asked;
 * writes request traces. */
#include "config.h"

#include "sim/command.h"
#include "sim/commands/trace.h"
#include "sim/commands/trace_requests.h"

#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

static int trace(const kv_command *self, int argc, char **argv);

static const kv_option options[] = {
    {.letter = 'j', .name = "json", .help = "info: one JSON object per file"},
    {.letter = 'q', .name = "quiet", .help = "no progress"},
    {.letter = 'f', .name = "format", .argument = "NAME", .help = "requests: what the files are"},
    {.letter = 's',
     .name = "set",
     .argument = "NAME=VALUE",
     .help = "requests: a setting of the format, as in an experiment"},
    {.letter = 'l',
     .name = "lru-blocks",
     .argument = "N",
     .help = "info: prefix hits of an LRU cache of N blocks (or `unlimited`)"},
    {.letter = 'r',
     .name = "replacement",
     .argument = "NAME",
     .help =
         "info: the same of a cache with this replacement policy; may be given again, or `all`"},
    {.letter = 'o',
     .name = "output",
     .argument = "FILE",
     .help = "synth, convert: what to write, packed if it ends in .zst or .gz; - is stdout"},
    {.letter = 't',
     .name = "to",
     .argument = "NAME",
     .help = "synth, convert: format to write, csv or mooncake; by the name of the output if not "
             "given"},
    {.name = "like", .argument = "FILE", .help = "synth: make a trace that is like this one"},
    {.name = NULL},
};

/* What kv__option_next answers for --like, the last row of the table. */
enum { OPTION_LIKE = 256 + sizeof options / sizeof *options - 2 };

KV_COMMAND_DEFINE(trace) = {
    .name = "trace",
    .arguments = "info|verify [OPTION]... FILE...\n"
                 "       kvsim trace synth [OPTION]... [OUTPUT]\n"
                 "       kvsim trace convert [OPTION]... FILE [OUTPUT]",
    .brief = "Shows what traces hold, checks all of it, makes and converts request traces",
    .options = options,
    .run = trace,
};

/* In the order of asking: what knows its files by their first bytes comes first. */
static const kv_trace_kind *const kinds[] = {
    &kv__trace_attention,
    &kv__trace_requests, /* takes all that is left: it says best what is wrong with it */
    NULL,
};

static kv_err info(const kv_trace_kind *kind, const char *path, const kv_trace_options *o,
                   kv_diag *diag)
{
    return kind->info(path, o, stdout, diag);
}

static kv_err verify(const kv_trace_kind *kind, const char *path, const kv_trace_options *o,
                     kv_diag *diag)
{
    return kind->verify(path, o, stdout, diag);
}

/* What may be asked: of each file by its kind, or of all arguments together. */
static const struct action {
    const char *name;
    kv_err (*of_file)(const kv_trace_kind *kind, const char *path, const kv_trace_options *o,
                      kv_diag *diag);
    kv_err (*of_all)(char **arguments, const kv_trace_options *o, kv_diag *diag);
    int least, most; /* arguments */
} actions[] = {{"info", info, NULL, 1, INT_MAX},
               {"verify", verify, NULL, 1, INT_MAX},
               {"synth", NULL, kv__trace_synth, 0, 1},
               {"convert", NULL, kv__trace_convert, 1, 2}};
enum { ACTIONS = sizeof actions / sizeof *actions };

static const struct action *find_action(const char *name)
{
    for (int i = 0; i < ACTIONS; i++)
        if (strcmp(actions[i].name, name) == 0)
            return &actions[i];
    return NULL;
}

static kv_err find_kind(const char *path, const kv_trace_kind **out, kv_diag *diag)
{
    for (const kv_trace_kind *const *kind = kinds; *kind != NULL; kind++)
        if ((*kind)->probe(path)) {
            *out = *kind;
            return KV_OK;
        }
    return kv_fail(diag, KV_ERR_BUG, &(kv_mark){.path = path}, "no kind of trace takes this");
}

static int run_file(const struct action *action, const char *path, const kv_trace_options *o)
{
    const kv_trace_kind *kind = NULL;
    kv_diag diag = {0};
    kv_err err = find_kind(path, &kind, &diag);
    if (err == KV_OK)
        err = action->of_file(kind, path, o, &diag);
    return err == KV_OK ? KV_EXIT_OK : kv__report_error(&diag);
}

static bool take_option(kv_trace_options *o, int c)
{
    o->json |= c == 'j';
    o->quiet |= c == 'q';
    if (c == 'f')
        o->format = optarg;
    if (c == 'l')
        o->lru_blocks = optarg;
    if (c == 'o')
        o->output = optarg;
    if (c == 't')
        o->to = optarg;
    if (c == OPTION_LIKE)
        o->like = optarg;
    if ((c == 's' && o->settings == KV_TRACE_MOST_SETTINGS) ||
        (c == 'r' && o->replacements == KV_TRACE_MOST_POLICIES))
        return false;
    if (c == 'r')
        o->replacement[o->replacements++] = optarg;
    if (c == 's')
        o->setting[o->settings++] = optarg;
    return true;
}

static int run_all(const struct action *action, char **arguments, const kv_trace_options *o)
{
    kv_diag diag = {0};
    kv_err err = action->of_all(arguments, o, &diag);
    return err == KV_OK ? KV_EXIT_OK : kv__report_error(&diag);
}

static int run_action(const struct action *action, char **arguments, const kv_trace_options *o)
{
    int status = KV_EXIT_OK;
    if (action->of_all != NULL)
        return run_all(action, arguments, o);
    for (; *arguments != NULL; arguments++) {
        int one = run_file(action, *arguments, o);
        status = one > status ? one : status;
    }
    return status;
}

static int trace(const kv_command *self, int argc, char **argv)
{
    kv_trace_options o = {0};
    for (int c; (c = kv__option_next(self, argc, argv)) != -1;) {
        if (c == '?')
            return KV_EXIT_USAGE;
        if (!take_option(&o, c))
            return kv__usage_error(self, "more than %d settings or %d policies",
                                   KV_TRACE_MOST_SETTINGS, KV_TRACE_MOST_POLICIES);
    }
    if (optind >= argc)
        return kv__usage_error(self, "expected info, verify, synth or convert");
    const struct action *action = find_action(argv[optind]);
    if (action == NULL)
        return kv__usage_error(self, "expected info, verify, synth or convert, not '%s'",
                               argv[optind]);
    int arguments = argc - optind - 1;
    if (arguments < action->least)
        return kv__usage_error(self, "%s: expected %s", action->name,
                               action->most == INT_MAX ? "at least one file" : "a file");
    if (arguments > action->most)
        return kv__usage_error(self, "%s: too many arguments", action->name);
    return run_action(action, argv + optind + 1, &o);
}
