/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* What the parts of a run see of it. Internal. */
#ifndef KVSIM_ANALYSIS_RUN_H
#define KVSIM_ANALYSIS_RUN_H

#include "analysis/results.h"

kv_results *kv__run_results(const kv_run *run);
const kv_run_info *kv__run_info(const kv_run *run); /* shard and shards are 0 for a whole run */

#endif
