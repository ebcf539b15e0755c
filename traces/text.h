/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* A text file, read line by line, in memory bounded by its longest line. */
#ifndef KVSIM_TRACES_TEXT_H
#define KVSIM_TRACES_TEXT_H

#include "sim/base/diag.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

enum { KV_TEXT_MOST_LINE_BYTES = 1 << 26 };

typedef struct kv__text kv__text;

/* "-" is standard input; compressed data is unpacked. */
kv_err kv__text_open(const char *path, kv__text **out, kv_diag *diag) KV_MUST_USE;
void kv__text_close(kv__text *text);

/* The next line without its line end (LF or CRLF; the last one may have none), NUL-terminated; the
 * caller may write to it; valid until the next call. KV_END after the last. A byte order mark at
 * the beginning is skipped. A NUL byte in a line is an error. */
kv_err kv__text_line(kv__text *text, char **line, size_t *bytes, kv_diag *diag) KV_MUST_USE;

/* Takes the next byte, for formats that do not come in lines; KV_END: there is none. */
kv_err kv__text_byte(kv__text *text, int *byte, kv_diag *diag) KV_MUST_USE;
/* Puts the byte taken last back. */
void kv__text_unbyte(kv__text *text, int byte);

/* The stream itself, for readers that count lines on their own. */
FILE *kv__text_stream(kv__text *text);

const char *kv__text_path(const kv__text *text);
/* Where the last line or byte stood. */
kv_mark kv__text_mark(const kv__text *text);

/* Says that nothing more can be read although the file itself is sound: its form is lost. */
void kv__text_break(kv__text *text);
bool kv__text_broken(const kv__text *text);
/* What is wrong with the file itself (its compressed data, the disk); NULL if nothing is. */
const kv_diag *kv__text_failure(const kv__text *text);

#endif
