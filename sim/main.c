/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* kvsim: finds the command and runs it. Nothing else lives here. */
#include "config.h"

#include "sim/command.h"

#include <hdf5.h>
#include <errno.h>
#include <gsl/gsl_errno.h>
#include <stdio.h>
#include <string.h>

static void print_help(void)
{
    puts("Usage: kvsim COMMAND [OPTION]... [ARGUMENT]...\n"
         "Trace-driven KV-cache simulator: replays recorded attention and request traces.\n");
    for (const kv_command *const *c = kv__command_all(); *c != NULL; c++)
        printf("  %-10s %s\n", (*c)->name, (*c)->brief);
    puts("\n`kvsim help COMMAND` tells more; the manual is kvsim(1).");
}

static int print_version(void)
{
    puts("kvsim " PACKAGE_VERSION "\n"
         "License GPL-3.0-or-later. There is no warranty.");
    return KV_EXIT_OK;
}

/* Foreign libraries are quieted here, once: their handlers belong to the process, not to a library.
 */
static void quiet_libraries(void)
{
    gsl_set_error_handler_off();
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
}

static int dispatch(int argc, char **argv)
{
    if (argc < 2) {
        print_help();
        return KV_EXIT_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        print_help();
        return KV_EXIT_OK;
    }
    if (strcmp(argv[1], "--version") == 0)
        return print_version();
    if (strcmp(argv[1], "help") == 0) {
        char help[] = "--help";
        char *asked[] = {argv[0], argc > 2 ? argv[2] : help, argc > 2 ? help : NULL, NULL};
        return dispatch(argc > 2 ? 3 : 2, asked);
    }
    const char *names[64];
    int count = 0;
    for (const kv_command *const *c = kv__command_all(); *c != NULL; c++) {
        if (strcmp((*c)->name, argv[1]) == 0)
            return (*c)->run(*c, argc - 1, argv + 1);
        if (count < 64)
            names[count++] = (*c)->name;
    }
    const char *near = kv_nearest(argv[1], names, count);
    fprintf(stderr, "kvsim: there is no command '%s'%s%s%s; `kvsim --help` lists them\n", argv[1],
            near ? ", did you mean '" : "", near ? near : "", near ? "'?" : "");
    return KV_EXIT_USAGE;
}

/* What was printed may still be on its way: a full disk shows only now. */
static int finish(int status)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return status;
    fprintf(stderr, "kvsim: standard output cannot be written: %s\n", strerror(errno));
    return status == KV_EXIT_OK ? KV_EXIT_FAILED : status;
}

int main(int argc, char **argv)
{
    quiet_libraries();
    return finish(dispatch(argc, argv));
}
