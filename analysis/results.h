/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* The results database: one SQLite file that holds runs and what they found.
 *
 * A file holds any number of runs. A run is one experiment from begin to finish; its parts
 * (analysis/points.h for attention) write their tables in between. Killed anywhere and begun again
 * with `resume`, a run ends with the tables that one uninterrupted run would have written: of all
 * columns only run.started_at, finished_at and wall_seconds depend on the clock.
 * docs/results.md lists every table and column; it is made from the tables in analysis/schema.h. */
#ifndef KVSIM_ANALYSIS_RESULTS_H
#define KVSIM_ANALYSIS_RESULTS_H

#include "sim/base/diag.h"

#include <stdbool.h>

struct sqlite3;

typedef struct kv_results kv_results; /* an open file */
typedef struct kv_run kv_run;         /* one run of an open file */

typedef enum kv_results_mode {
    KV_RESULTS_READ, /* the file must exist; nothing is written, not even beside it */
    KV_RESULTS_WRITE /* the file is made if it does not exist */
} kv_results_mode;

/* Opens a file. One that is no results database, or of another schema version, is refused
 * untouched (KV_ERR_INPUT). */
kv_err kv_results_open(const char *path, kv_results_mode mode, kv_results **out,
                       kv_diag *diag) KV_MUST_USE;
/* Closes it; runs of it must be freed before. NULL is fine. */
void kv_results_close(kv_results *results);
/* The path it was opened by; borrowed. */
const char *kv_results_path(const kv_results *results);
/* The connection, for parts that write tables of their own; borrowed. Foreign keys are on. */
struct sqlite3 *kv_results_handle(kv_results *results);

/* What makes one run the same as another. Texts are copied. */
typedef struct kv_run_info {
    const char *name;       /* of the experiment */
    const char *experiment; /* the whole YAML text as resolved */
    long long seed;
    const char *version; /* of kvsim */
    int shard;           /* 1..shards: which part this run does */
    int shards;          /* 0 or 1: the run does everything */
} kv_run_info;

/* Begins a run. Without `resume` a new one is added to the file. With it, the latest run of the
 * same experiment, seed, version and shard goes on, whether it had finished (kv_run_is_finished:
 * there is nothing to do) or not; a file without runs gets a new one; a file with other runs only
 * is an error that says what differs. */
kv_err kv_run_begin(kv_results *results, const kv_run_info *info, bool resume, kv_run **out,
                    kv_diag *diag) KV_MUST_USE;
/* Frees it, finished or not. NULL is fine. */
void kv_run_free(kv_run *run);
/* The id in table `run`. */
long long kv_run_id(const kv_run *run);
/* True if `resume` found it in the file. */
bool kv_run_is_resumed(const kv_run *run);
/* True if the run had finished when it was begun (again), or has by now. */
bool kv_run_is_finished(const kv_run *run);
/* Finishes a run whose parts are all written: sets finished_at and tidies the file. A shard stays
 * unfinished in the file, for kv_results_merge to find. */
kv_err kv_run_finish(kv_run *run, kv_diag *diag) KV_MUST_USE;

/* Calls `each` with what a reader of the run's results should know (table `warning`), in order. */
kv_err kv_run_warnings(kv_run *run, void (*each)(void *closure, const char *text), void *closure,
                       kv_diag *diag) KV_MUST_USE;

/* Makes the file `out_path` from the complete shards of one run, as if one run had done it all.
 * Refused (KV_ERR_INPUT) if shards differ in experiment or traces, or if examples are missing or
 * doubled; the message names them. The file appears only when it is complete; `force` replaces one
 * that exists. */
kv_err kv_results_merge(const char *out_path, const char *const *shard_paths, int shards,
                        bool force, kv_diag *diag) KV_MUST_USE;

#endif
