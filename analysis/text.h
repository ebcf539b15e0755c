/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Text that comes from traces and experiments, on its way into files of other formats. Internal. */
#ifndef KVSIM_ANALYSIS_TEXT_H
#define KVSIM_ANALYSIS_TEXT_H

#include <stdbool.h>
#include <stdio.h>

/* Bytes of the UTF-8 character that text starts with: 1..4; 0 if it is a control character or not
 * UTF-8 (overlong, surrogate, beyond U+10FFFF, cut off, U+FFFE or U+FFFF). */
int kv__character(const char *text);

/* What a character of that many bytes (by kv__character) does to the direction of text. */
typedef enum kv_direction {
    KV_DIRECTION_NONE,
    KV_DIRECTION_RIGHT,      /* a letter that runs from the right, or a mark that says so */
    KV_DIRECTION_EMBED,      /* begins an embedding or an override, which U+202C ends */
    KV_DIRECTION_END_EMBED,  /* U+202C */
    KV_DIRECTION_ISOLATE,    /* begins an isolate, which U+2069 ends */
    KV_DIRECTION_END_ISOLATE /* U+2069 */
} kv_direction;
kv_direction kv__direction(const char *text, int bytes);

/* Writes that many bytes of text for a terminal: a question mark for what would change the terminal
 * or turn the text around it, that is control characters, broken UTF-8 and marks of direction. */
void kv__plain_write(const char *text, int bytes, FILE *out);

/* True if DejaVu Sans, the font of pictures, has a character of that many bytes. Others are drawn
 * as boxes of any size where no other font is installed. */
bool kv__drawable(const char *text, int bytes);

/* Width of a text in a sans-serif font of that size, in the same unit, for laying out: that of
 * DejaVu Sans, which is wider than most. */
double kv__text_width(const char *text, double size);

#endif
