/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* The commands of the program: one file each, sim/commands/NAME.c, and one line in sim/sim.am. */
#ifndef KVSIM_SIM_COMMAND_H
#define KVSIM_SIM_COMMAND_H

#include "sim/base/diag.h"

/* Exit statuses of every command. */
enum { KV_EXIT_OK = 0, KV_EXIT_FAILED = 1, KV_EXIT_USAGE = 2 };

/* One option. The table makes getopt's arrays, --help, the completion and is checked against the
 * manual page by a test. */
typedef struct kv_option {
    char letter;          /* 0: no short form */
    const char *name;     /* long form without the dashes; NULL ends the table */
    const char *argument; /* what the argument is called, NULL: takes none */
    const char *help;
} kv_option;

typedef struct kv_command {
    const char *name;
    const char *arguments; /* "EXPERIMENT.yaml [OPTION]..." */
    const char *brief;
    const kv_option *options; /* beside --help; ends with a NULL name */
    void (*more)(void);       /* prints what --help says below the options; NULL: nothing */
    int (*run)(const struct kv_command *self, int argc, char **argv); /* argv[0] is the name */
} kv_command;

#define KV_COMMAND_DEFINE(id) const kv_command kv__command_##id

/* All commands, ended by NULL. */
const kv_command *const *kv__command_all(void);

/* getopt_long over the command's table. Returns the letter or, for options without one, 256 + the
 * row; -1 at the end; '?' after a message for a wrong option (the command then returns
 * KV_EXIT_USAGE). --help is answered here: prints and exits 0. */
int kv__option_next(const kv_command *command, int argc, char **argv);

/* Columns of the terminal that stdout is, by COLUMNS or as the terminal says; 80 if it is none. */
int kv__terminal_columns(void);

/* Prints "kvsim: <message>" and answers the exit status that fits the error. */
int kv__report_error(const kv_diag *diag);

/* Prints "kvsim: ..." and how to get help; answers KV_EXIT_USAGE. */
int kv__usage_error(const kv_command *command, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
