/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* The JSON Schema of experiment files, from the tables that parse them. */
#ifndef KVSIM_SIM_SCHEMA_H
#define KVSIM_SIM_SCHEMA_H

#include <stdio.h>

/* Writes the schema (draft 2020-12), indented. */
void kv_schema_write(FILE *out);

#endif
