/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* What the parts of a run see of it. Internal. */
#ifndef KVSIM_ANALYSIS_RUN_H
#define KVSIM_ANALYSIS_RUN_H

#include "analysis/results.h"

#include <sqlite3.h>

kv_results *kv__run_results(const kv_run *run);
const kv_run_info *kv__run_info(const kv_run *run); /* shard and shards are 0 for a whole run */

/* Which row of `run` a number ?1 means: the latest for 0. */
#define KV__RUN_IS "id = CASE ?1 WHEN 0 THEN (SELECT id FROM latest_run) ELSE ?1 END"
/* Prepares a query that has one row, of the run ?1, and steps to it; that there is none is an
 * error. The caller finalizes *row, also after an error. */
kv_err kv__run_row(kv_results *results, const char *sql, long long run_id, sqlite3_stmt **row,
                   kv_diag *diag) KV_MUST_USE;

#endif
