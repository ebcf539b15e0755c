/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "analysis/plot.h"
#include "sim/command.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TASK = 256 + 1, POLICY, CHUNK, TURN, AXIS, KEEP, EXAMPLE, POINT, RUN, SIZE, MOST = 64 };

/* The places of long options are those of the values above. */
static const kv_option options[] = {
    {'o', "output", "FILE", "write FILE.svg, .png or .pdf; default: SVG on standard output"},
    {0, "task", "TASK", "show this task; may be repeated"},
    {0, "policy", "POLICY", "show this policy (a name or a label); may be repeated"},
    {0, "chunk-size", "N", "show this chunk size (tokens or whole); may be repeated"},
    {0, "turn", "N", "show this turn; default: all together"},
    {0, "axis", "AXIS", "what footprints count: entries (default), bytes, reads or prefill"},
    {0, "keep", "FRACTION", "of heads and retained: the budget nearest to this"},
    {0, "example", "NAME", "of heads and retained: this example"},
    {0, "point", "N", "of latency, timeline and chunk: this serving point, from 0"},
    {0, "run", "ID", "show this run; default: the latest"},
    {0, "size", "WIDTHxHEIGHT", "size in pixels"},
    {.name = NULL},
};

static int plot(const kv_command *self, int argc, char **argv);
static void list_kinds(void);

KV_COMMAND_DEFINE(plot) = {
    .name = "plot",
    .arguments = "RESULTS.db KIND [OPTION]...",
    .brief = "Draws what a run found",
    .options = options,
    .more = list_kinds,
    .run = plot,
};

typedef struct plot_request {
    kv_plot_options options;
    const char *output;
    const char *task[MOST], *policy[MOST];
    long long chunk[MOST];
} plot_request;

static bool parse_count(const char *text, long long *out)
{
    char *end;
    *out = strtoll(text, &end, 10);
    return *out > 0 && *out < 1000000 && *end == '\0';
}

static bool parse_size(const char *text, int *width, int *height)
{
    int end = 0;
    return sscanf(text, "%dx%d%n", width, height, &end) == 2 && text[end] == '\0' &&
           *width >= 300 && *height >= 200 && *width <= 20000 && *height <= 20000;
}

/* An option's name, with what it takes where that is not plain. */
static const char *expected(int option)
{
    switch (option) {
    case 'o':
        return "output (expected FILE.svg, FILE.png or FILE.pdf)";
    case SIZE:
        return "size (expected WIDTHxHEIGHT from 300x200 to 20000x20000)";
    case AXIS:
        return "axis (expected entries, bytes, reads or prefill)";
    case KEEP:
        return "keep (expected a fraction above 0, at most 1)";
    case CHUNK:
        return "chunk-size (expected a number of tokens, or whole)";
    case POINT:
        return "point (expected a whole number from 0)";
    case TURN:
        return "turn (expected a whole number from 1)";
    case RUN:
        return "run (expected a whole number from 1)";
    default:
        return options[option - 256].name;
    }
}

/* Takes one option; false after a message if it is wrong. */
static bool take_option(const kv_command *self, int option, plot_request *request)
{
    kv_curve_filter *filter = &request->options.filter;
    long long number = 0;
    char *end;
    bool good = true;
    switch (option) {
    case 'o':
        request->output = optarg;
        good = kv_plot_format_of(optarg, &request->options.format);
        break;
    case TASK:
        if ((good = filter->task_count < MOST))
            request->task[filter->task_count++] = optarg;
        break;
    case POLICY:
        if ((good = filter->policy_count < MOST))
            request->policy[filter->policy_count++] = optarg;
        break;
    case CHUNK:
        if ((good = filter->chunk_count < MOST && kv_chunk_parse(optarg, &number)))
            request->chunk[filter->chunk_count++] = number;
        break;
    case AXIS:
        good = kv_axis_parse(optarg, &filter->axis);
        break;
    case KEEP:
        request->options.keep = strtod(optarg, &end);
        good = end != optarg && *end == '\0' && request->options.keep > 0 &&
               request->options.keep <= 1;
        break;
    case EXAMPLE:
        request->options.example = optarg;
        break;
    case POINT:
        number = strtoll(optarg, &end, 10);
        good = end != optarg && *end == '\0' && number >= 0 && number < 1000000000;
        request->options.point = number + 1;
        break;
    case TURN:
    case RUN:
        good = parse_count(optarg, &number);
        if (option == TURN)
            filter->turn = (int)number;
        else
            filter->run_id = number;
        break;
    case SIZE:
        good = parse_size(optarg, &request->options.width, &request->options.height);
        break;
    default:
        return false;
    }
    if (!good)
        kv__usage_error(self, "'%s' is no value for --%s", optarg, expected(option));
    return good;
}

static const kv_plot_kind *find_kind(const kv_command *self, const char *name)
{
    const char *names[MOST];
    char all[512] = "";
    int count = 0;
    size_t end = 0;
    const kv_plot_kind *kind = kv_plot_find(name);
    if (kind != NULL)
        return kind;
    for (const kv_plot_kind *const *k = kv_plot_all(); *k != NULL && count < MOST; k++) {
        if (end < sizeof all)
            end += (size_t)snprintf(all + end, sizeof all - end, "%s%s", count > 0 ? ", " : "",
                                    (*k)->name);
        names[count++] = (*k)->name;
    }
    const char *near = kv_nearest(name, names, count);
    kv__usage_error(self, "there is no plot '%s'%s%s%s; expected %s", name,
                    near ? ", did you mean '" : "", near ? near : "", near ? "'?" : "", all);
    return NULL;
}

static void list_kinds(void)
{
    puts("\nKinds:");
    for (const kv_plot_kind *const *k = kv_plot_all(); *k != NULL; k++)
        printf("  %-10s %s\n", (*k)->name, (*k)->brief);
}

static int plot(const kv_command *self, int argc, char **argv)
{
    plot_request request = {.options.format = KV_PLOT_SVG};
    kv_curve_filter *filter = &request.options.filter;
    for (int option; (option = kv__option_next(self, argc, argv)) != -1;)
        if (!take_option(self, option, &request))
            return KV_EXIT_USAGE;
    if (argc - optind != 2)
        return kv__usage_error(self, "expected RESULTS.db and a kind of plot");
    const kv_plot_kind *kind = find_kind(self, argv[optind + 1]);
    if (kind == NULL)
        return KV_EXIT_USAGE;
    if (request.output == NULL && isatty(STDOUT_FILENO))
        return kv__usage_error(self, "standard output is a terminal; give -o FILE");
    filter->tasks = filter->task_count ? request.task : NULL;
    filter->policies = filter->policy_count ? request.policy : NULL;
    filter->chunks = filter->chunk_count ? request.chunk : NULL;
    kv_diag diag = {0};
    kv_results *results = NULL;
    kv_err err = kv_results_open(argv[optind], KV_RESULTS_READ, &results, &diag);
    if (err == KV_OK)
        err = kv_plot_draw(results, kind, &request.options, request.output, &diag);
    kv_results_close(results);
    return err == KV_OK ? KV_EXIT_OK : kv__report_error(&diag);
}
