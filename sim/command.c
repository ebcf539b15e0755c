/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "sim/command.h"

#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define KV_COMMAND(id) extern const kv_command kv__command_##id;
#include "sim/command_registry.inc"
#undef KV_COMMAND

static const kv_command *const command_table[] = {
#define KV_COMMAND(id) &kv__command_##id,
#include "sim/command_registry.inc"
#undef KV_COMMAND
    NULL};

const kv_command *const *kv__command_all(void)
{
    return command_table;
}

enum { MAX_OPTIONS = 32, HELP = 'h', FIRST_LONG = 256 };

static void print_help(const kv_command *command)
{
    printf("Usage: kvsim %s %s\n%s.\n\n", command->name, command->arguments, command->brief);
    for (const kv_option *o = command->options; o != NULL && o->name != NULL; o++) {
        char left[64];
        char letter[8] = "    ";
        if (o->letter)
            snprintf(letter, sizeof letter, "-%c, ", o->letter);
        snprintf(left, sizeof left, "%s--%s%s%s", letter, o->name, o->argument ? "=" : "",
                 o->argument ? o->argument : "");
        printf("  %-30s %s\n", left, o->help);
    }
    printf("  %-30s %s\n", "-h, --help", "print this help");
    if (command->more != NULL)
        command->more();
}

int kv__option_next(const kv_command *command, int argc, char **argv)
{
    struct option longs[MAX_OPTIONS + 2] = {{0}};
    char shorts[2 * MAX_OPTIONS + 4] = "h";
    int n = 0, s = 1;
    for (const kv_option *o = command->options; o != NULL && o->name != NULL && n < MAX_OPTIONS;
         o++, n++) {
        longs[n] = (struct option){o->name, o->argument ? required_argument : no_argument, NULL,
                                   o->letter ? o->letter : FIRST_LONG + n};
        if (o->letter) {
            shorts[s++] = o->letter;
            if (o->argument)
                shorts[s++] = ':';
        }
    }
    longs[n] = (struct option){"help", no_argument, NULL, HELP};
    char program[] = "kvsim", *name = argv[0];
    argv[0] = program; /* which messages of getopt begin with */
    int found = getopt_long(argc, argv, shorts, longs, NULL);
    argv[0] = name;
    if (found == HELP) {
        print_help(command);
        exit(KV_EXIT_OK);
    }
    if (found == '?')
        fprintf(stderr, "`kvsim %s --help` tells more\n", command->name);
    return found;
}

int kv__terminal_columns(void)
{
    const char *columns = getenv("COLUMNS");
    struct winsize size;
    if (columns != NULL && atoi(columns) > 0)
        return atoi(columns);
    if (isatty(STDOUT_FILENO) && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
        return size.ws_col;
    return 80;
}

int kv__report_error(const kv_diag *diag)
{
    char words[2048];
    kv_diag_format(diag, words, sizeof words);
    fprintf(stderr, "kvsim: %s\n", words);
    return diag->code == KV_ERR_INPUT || diag->code == KV_ERR_UNSUPPORTED ? KV_EXIT_USAGE
                                                                          : KV_EXIT_FAILED;
}

int kv__usage_error(const kv_command *command, const char *format, ...)
{
    fprintf(stderr, "kvsim: ");
    va_list args;
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "\n`kvsim %s --help` tells more\n", command->name);
    return KV_EXIT_USAGE;
}
