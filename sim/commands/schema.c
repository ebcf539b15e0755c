/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* kvsim schema: the JSON Schema of experiment files, for editors and checkers. */
#include "config.h"

#include "sim/command.h"
#include "sim/schema.h"

#include <getopt.h>

static const kv_option options[] = {{.name = NULL}};
static int schema(const kv_command *self, int argc, char **argv);

KV_COMMAND_DEFINE(schema) = {
    .name = "schema",
    .arguments = "",
    .brief = "Prints the JSON Schema of experiment files",
    .options = options,
    .run = schema,
};

static int schema(const kv_command *self, int argc, char **argv)
{
    while (kv__option_next(self, argc, argv) != -1)
        return KV_EXIT_USAGE;
    if (optind < argc)
        return kv__usage_error(self, "expected no argument, found '%s'", argv[optind]);
    kv_schema_write(stdout);
    return KV_EXIT_OK;
}
