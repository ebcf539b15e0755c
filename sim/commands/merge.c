/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "analysis/results.h"
#include "sim/command.h"

#include <getopt.h>
#include <stdbool.h>
#include <stddef.h>

static const kv_option options[] = {
    {'f', "force", NULL, "replace OUT.db if it exists"},
    {.name = NULL},
};

static int merge(const kv_command *self, int argc, char **argv);

KV_COMMAND_DEFINE(merge) = {
    .name = "merge",
    .arguments = "OUT.db SHARD.db...",
    .brief = "Joins the shards of one run into one results database",
    .options = options,
    .run = merge,
};

static int merge(const kv_command *self, int argc, char **argv)
{
    bool force = false;
    for (int option; (option = kv__option_next(self, argc, argv)) != -1;) {
        if (option != 'f')
            return KV_EXIT_USAGE;
        force = true;
    }
    if (argc - optind < 2)
        return kv__usage_error(self, "expected OUT.db and at least one SHARD.db");
    kv_diag diag = {0};
    kv_err err = kv_results_merge(argv[optind], (const char *const *)argv + optind + 1,
                                  argc - optind - 1, force, &diag);
    return err == KV_OK ? KV_EXIT_OK : kv__report_error(&diag);
}
