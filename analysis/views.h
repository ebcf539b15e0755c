/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* The views of the results database that are there for people. Internal. */
#ifndef KVSIM_ANALYSIS_VIEWS_H
#define KVSIM_ANALYSIS_VIEWS_H

#include "analysis/schema.h"

extern const kv_table kv__view_tables[];

#endif
