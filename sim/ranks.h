/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Ranks: a sweep spread over processes, also on several machines, by MPI. Part of the program, not
 * of the library, which thereby needs no MPI. Without MPI there is one rank. */
#ifndef KVSIM_SIM_RANKS_H
#define KVSIM_SIM_RANKS_H

#include "sim/sweep.h"

/* Starts MPI if the process was launched as one of several ranks. */
kv_err kv__ranks_start(kv_diag *diag) KV_MUST_USE;
/* Ends it. A rank that failed takes the others with it, with its exit status. */
void kv__ranks_stop(int status);
/* This process among all; rank 0 alone writes results and speaks. */
int kv__ranks_mine(void);
int kv__ranks_count(void);

/* As kv_sweep_run, with the examples spread over all ranks. Every rank calls it with the same
 * sweep; wants, sink and progress are rank 0's, which gets every record. */
kv_err kv__ranks_sweep(const kv_sweep *sweep, const bool *wants, kv_sweep_sink sink, void *closure,
                       kv_sweep_progress progress, void *progress_closure, kv_diag *diag);

#endif
