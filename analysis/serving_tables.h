/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* The tables of serving. Internal: one list for analysis/schema.c. */
#ifndef KVSIM_ANALYSIS_SERVING_TABLES_H
#define KVSIM_ANALYSIS_SERVING_TABLES_H

#include "analysis/schema.h"

extern const kv_table kv__serving_tables[];

#endif
