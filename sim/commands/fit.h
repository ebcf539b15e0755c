/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#ifndef KVSIM_SIM_COMMANDS_FIT_H
#define KVSIM_SIM_COMMANDS_FIT_H

#include <stdbool.h>

/* Fits the step times of an experiment's server and prints the fits: the roofline to its tables,
 * and, if its requests are a measured run, step_overhead. sets[0..count): KEY=VALUE. Returns the
 * exit status. */
int kv__fit_steps(const char *experiment, const char *const *sets, int count, bool quiet);

#endif
