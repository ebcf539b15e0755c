/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Numbers and times as they stand in text files, read without the rounding of floating point.
 *
 * Each function answers NULL, or what is wrong with the text ("is negative"), fit to follow the
 * text itself in a message. */
#ifndef KVSIM_TRACES_FIELD_H
#define KVSIM_TRACES_FIELD_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* The unit of a time, as the power of ten that turns it into nanoseconds. */
enum { KV_UNIT_NS = 0, KV_UNIT_US = 3, KV_UNIT_MS = 6, KV_UNIT_S = 9 };

/* A number of tokens: whole, 0 .. INT32_MAX; "12.0" is 12. */
const char *kv__read_tokens(const char *text, int32_t *out);
/* A whole number, 0 .. INT64_MAX. */
const char *kv__read_whole(const char *text, int64_t *out);
/* A time in a unit ("12.5", "1e3"), or a date and time of day ("2023-11-16 18:15:46.6805900",
 * "2024-05-10T00:00:00Z", with an offset or none), as nanoseconds, rounded half away from zero. */
const char *kv__read_time(const char *text, int unit, int64_t *ns);
/* The same of a double that another library read. */
const char *kv__time_of_real(double value, int unit, int64_t *ns);
/* Writes nanoseconds as a number in a unit, with as many digits as it needs: "1.25". */
void kv__write_time(FILE *out, int64_t ns, int unit);
/* A 64-bit name for any text: a whole number names itself, other text its FNV-1a hash with the
 * highest bit set. */
uint64_t kv__name_of(const char *text);
/* The name of what stands behind something named: of all tokens up to the end of a block. */
uint64_t kv__name_behind(uint64_t before, uint64_t name);

#endif
