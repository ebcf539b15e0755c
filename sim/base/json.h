/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* The two JSON values that need care when they are written: text and reals. */
#ifndef KVSIM_BASE_JSON_H
#define KVSIM_BASE_JSON_H

#include <stdio.h>

enum { KV_REAL_TEXT = 32 }; /* bytes that any double needs as text */

/* Writes a double in the fewest digits that read back equal; "null" if it is not finite. */
void kv_real_text(double value, char out[KV_REAL_TEXT]);

/* Writes text (UTF-8) as a JSON string with its quotes. */
void kv_json_string(const char *text, FILE *out);

/* Writes kv_real_text. */
void kv_json_real(double value, FILE *out);

#endif
