/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Running gnuplot. A script goes to its standard input and the picture comes from its standard
 * output, so that no path or shell is in between; every text in a script is quoted here. Internal.
 */
#ifndef KVSIM_ANALYSIS_GNUPLOT_H
#define KVSIM_ANALYSIS_GNUPLOT_H

#include "sim/base/diag.h"

#include <stdio.h>

/* Writes text as a string that gnuplot takes literally: in single quotes, without control
 * characters. Use it where `noenhanced` holds, or markup in the text would be obeyed. */
void kv__gnuplot_text(FILE *script, const char *text);

/* Runs a script; what gnuplot draws is written to the file descriptor. KV_ERR_UNSUPPORTED if there
 * is no gnuplot. */
kv_err kv__gnuplot_run(FILE *script, int picture, kv_diag *diag) KV_MUST_USE;

#endif
