/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "analysis/report.h"
#include "analysis/schema.h"
#include "sim/command.h"

#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FORMAT = 256 + 1, TABLE, RUN };

/* The places of long options are those of the values above. */
static const kv_option options[] = {
    {'o', "output", "FILE", "write FILE; default: standard output"},
    {0, "format", "FORMAT", "html (the page), csv or json (a table); default: html"},
    {0, "table", "TABLE", "of csv and json: the table or view to write, see docs/results.md"},
    {0, "run", "ID", "of html: the run to show; default: the latest"},
    {.name = NULL},
};

static int report(const kv_command *self, int argc, char **argv);
static void list_tables(void);

KV_COMMAND_DEFINE(report) = {
    .name = "report",
    .arguments = "RESULTS.db [OPTION]...",
    .brief = "Writes a page about a run, or its tables as CSV or JSON",
    .options = options,
    .more = list_tables,
    .run = report,
};

typedef enum report_format { HTML, CSV, JSON } report_format;

typedef struct report_request {
    const char *output, *table;
    report_format format;
    long long run_id;
} report_request;

static bool parse_format(const char *text, report_format *out)
{
    static const char *const names[] = {"html", "csv", "json"};
    for (int f = HTML; f <= JSON; f++) {
        if (strcmp(names[f], text) == 0) {
            *out = (report_format)f;
            return true;
        }
    }
    return false;
}

static void list_tables(void)
{
    puts("\nTables and views:");
    for (const kv_table *const *part = kv_schema_parts(); *part != NULL; part++)
        for (const kv_table *table = *part; table->name != NULL; table++)
            if (!kv_schema_is_work(table))
                printf("  %s\n", table->name);
}

/* Takes one option; false after a message if it is wrong. */
static bool take_option(const kv_command *self, int option, report_request *request)
{
    char *end;
    switch (option) {
    case 'o':
        request->output = optarg;
        return true;
    case FORMAT:
        if (parse_format(optarg, &request->format))
            return true;
        kv__usage_error(self, "'%s' is no format; expected html, csv or json", optarg);
        return false;
    case TABLE:
        request->table = optarg;
        return true;
    case RUN:
        request->run_id = strtoll(optarg, &end, 10);
        if (request->run_id > 0 && *end == '\0')
            return true;
        kv__usage_error(self, "'%s' is no run; expected a number from 1", optarg);
        return false;
    default:
        return false;
    }
}

static int report(const kv_command *self, int argc, char **argv)
{
    report_request request = {0};
    for (int option; (option = kv__option_next(self, argc, argv)) != -1;)
        if (!take_option(self, option, &request))
            return KV_EXIT_USAGE;
    if (argc - optind != 1)
        return kv__usage_error(self, "expected one RESULTS.db");
    if ((request.format == HTML) != (request.table == NULL))
        return kv__usage_error(self, "--table goes with --format csv or json, and they with it");
    if (request.output == NULL && request.format == HTML && isatty(STDOUT_FILENO))
        return kv__usage_error(self, "standard output is a terminal; give -o report.html");
    kv_diag diag = {0};
    kv_results *results = NULL;
    kv_err err = kv_results_open(argv[optind], KV_RESULTS_READ, &results, &diag);
    if (err == KV_OK && request.format == HTML)
        err = kv_report_write(results, request.run_id, request.output, &diag);
    else if (err == KV_OK)
        err = kv_export_table(results, request.table,
                              request.format == CSV ? KV_EXPORT_CSV : KV_EXPORT_JSON,
                              request.output, &diag);
    kv_results_close(results);
    return err == KV_OK ? KV_EXIT_OK : kv__report_error(&diag);
}
