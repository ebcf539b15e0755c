/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Quantities with units: sizes, rates and times as users write them. */
#ifndef KVSIM_BASE_UNIT_H
#define KVSIM_BASE_UNIT_H

#include "sim/base/diag.h"

/* One unit of a kind of quantity; tables go from the largest to the smallest, 1 among them, and end
 * with a NULL name. */
typedef struct kv_unit {
    const char *name;
    double factor; /* of the base unit: byte, byte per second, nanosecond */
} kv_unit;

extern const kv_unit kv_units_bytes[];    /* TiB, TB, ... B */
extern const kv_unit kv_units_rate[];     /* TiB/s, ... B/s */
extern const kv_unit kv_units_duration[]; /* h, min, s, ms, us, ns */

/* Reads "256GiB" or "256 GiB" into base units. what names the setting in messages. */
kv_err kv_quantity_parse(const kv_unit *units, const char *what, const char *text, double *out,
                         const kv_mark *mark, kv_diag *diag) KV_MUST_USE;

/* Writes a quantity with the largest unit that divides it, so that it reads back equal and one
 * quantity has one text: 274877906944 is "256GiB". Needs 48 bytes. */
void kv_quantity_text(const kv_unit *units, double value, char out[48]);

/* Reads a plain decimal number ("-1.5e3"); false if text is anything else. end (may be NULL) gets
 * what follows the number, which must else be nothing. */
int kv_number_parse(const char *text, double *out, const char **end);

#endif
