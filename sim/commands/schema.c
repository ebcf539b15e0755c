/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* kvsim schema: the JSON Schema of experiment files, for editors and checkers; metadata of results,
 * for datasette. */
#include "config.h"

#include "analysis/schema.h"
#include "sim/command.h"
#include "sim/schema.h"

#include <getopt.h>

static const kv_option options[] = {
    {0, "datasette", "NAME", "metadata by which datasette explains NAME.db instead"},
    {.name = NULL}};
static int schema(const kv_command *self, int argc, char **argv);

KV_COMMAND_DEFINE(schema) = {
    .name = "schema",
    .arguments = "[OPTION]...",
    .brief = "Prints the JSON Schema of experiment files",
    .options = options,
    .run = schema,
};

static int schema(const kv_command *self, int argc, char **argv)
{
    const char *database = NULL;
    for (int option; (option = kv__option_next(self, argc, argv)) != -1; database = optarg)
        if (option == '?')
            return KV_EXIT_USAGE;
    if (optind < argc)
        return kv__usage_error(self, "expected no argument, found '%s'", argv[optind]);
    if (database != NULL)
        kv_schema_datasette(database, stdout);
    else
        kv_schema_write(stdout);
    return KV_EXIT_OK;
}
