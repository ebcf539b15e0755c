/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "sim/ranks.h"

#ifndef HAVE_MPI

kv_err kv__ranks_start(kv_diag *diag)
{
    return KV_OK;
}

void kv__ranks_stop(int status)
{
}

int kv__ranks_mine(void)
{
    return 0;
}

int kv__ranks_count(void)
{
    return 1;
}

kv_err kv__ranks_sweep(const kv_sweep *sweep, const bool *wants, kv_sweep_sink sink, void *closure,
                       kv_sweep_progress progress, void *progress_closure, kv_diag *diag)
{
    return kv_sweep_run(sweep, wants, sink, closure, progress, progress_closure, diag);
}

#else

#include <mpi.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* A message is a header and then what it announces. */
enum { TAG_HEADER, TAG_RECORDS, TAG_SETS, TAG_POSITIONS, TAG_DIAG };
enum { EXAMPLE, RECORDS, SETS, POSITIONS, ERROR, HEADER };
enum { NO_MORE = -1 };

static bool is_started(void)
{
    int started = 0, ended = 0;
    MPI_Initialized(&started);
    MPI_Finalized(&ended);
    return started && !ended;
}

/* What the launchers of Open MPI and of the MPICH family set for each rank. */
static bool is_launched(void)
{
    return getenv("OMPI_COMM_WORLD_SIZE") || getenv("PMI_RANK") || getenv("PMIX_RANK");
}

kv_err kv__ranks_start(kv_diag *diag)
{
    int level = MPI_THREAD_SINGLE;
    if (!is_launched())
        return KV_OK;
    if (MPI_Init_thread(NULL, NULL, MPI_THREAD_SERIALIZED, &level) != MPI_SUCCESS ||
        level < MPI_THREAD_SERIALIZED)
        return kv_fail(diag, KV_ERR_IO, NULL,
                       "this MPI cannot be called from threads in turn (MPI_THREAD_SERIALIZED)");
    return KV_OK;
}

void kv__ranks_stop(int status)
{
    if (!is_started())
        return;
    if (status != 0 && kv__ranks_count() > 1)
        MPI_Abort(MPI_COMM_WORLD, status);
    MPI_Finalize();
}

int kv__ranks_mine(void)
{
    int rank = 0;
    if (is_started())
        MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    return rank;
}

int kv__ranks_count(void)
{
    int ranks = 1;
    if (is_started())
        MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    return ranks;
}

/* --- A rank that sends ---------------------------------------------------------------------------
 */

static kv_err send_positions(const kv_retained_set *sets, int count, int total, kv_diag *diag)
{
    int *head = malloc(((size_t)count * 4 + 1) * sizeof *head);
    int32_t *all = malloc(((size_t)total + 1) * sizeof *all);
    if (head == NULL || all == NULL) {
        free(head);
        free(all);
        return kv_fail_memory(diag);
    }
    size_t at = 0;
    for (int i = 0; i < count; i++) {
        memcpy(head + 4 * i,
               (int[]){sets[i].point, sets[i].layer, sets[i].kv_head, sets[i].positions},
               4 * sizeof *head);
        memcpy(all + at, sets[i].position, (size_t)sets[i].positions * sizeof *all);
        at += (size_t)sets[i].positions;
    }
    MPI_Send(head, 4 * count, MPI_INT, 0, TAG_SETS, MPI_COMM_WORLD);
    MPI_Send(all, total, MPI_INT32_T, 0, TAG_POSITIONS, MPI_COMM_WORLD);
    free(head);
    free(all);
    return KV_OK;
}

static kv_err send_example(void *closure, int example, const kv_record *record,
                           const kv_retained_set *sets, int set_count, kv_diag *diag)
{
    const kv_sweep *sweep = closure;
    int records = sweep->points * (sweep->example[example].info.turns + 1), positions = 0;
    for (int i = 0; i < set_count; i++)
        positions += sets[i].positions;
    int header[HEADER] = {example, records, set_count, positions, 0};
    MPI_Send(header, HEADER, MPI_INT, 0, TAG_HEADER, MPI_COMM_WORLD);
    MPI_Send(record, records * KV_MEASURES, MPI_DOUBLE, 0, TAG_RECORDS, MPI_COMM_WORLD);
    return set_count > 0 ? send_positions(sets, set_count, positions, diag) : KV_OK;
}

/* --- Rank 0 receives -----------------------------------------------------------------------------
 */

typedef struct root {
    const kv_sweep *sweep;
    const bool *mine;
    kv_sweep_sink sink;
    void *closure;
    kv_sweep_progress progress;
    void *progress_closure;
    pthread_mutex_t lock; /* the sink and the progress are called by one thread at a time */
    int done, total;
    kv_err err; /* of its own examples */
    kv_diag diag;
} root;

static kv_err root_sink(void *closure, int example, const kv_record *record,
                        const kv_retained_set *sets, int set_count, kv_diag *diag)
{
    root *r = closure;
    pthread_mutex_lock(&r->lock);
    kv_err err = r->sink(r->closure, example, record, sets, set_count, diag);
    r->done++;
    if (r->progress != NULL)
        r->progress(r->progress_closure, r->done, r->total);
    pthread_mutex_unlock(&r->lock);
    return err;
}

static void *root_work(void *closure)
{
    root *r = closure;
    r->err = kv_sweep_run(r->sweep, r->mine, root_sink, r, NULL, NULL, &r->diag);
    return NULL;
}

static kv_err receive_example(root *r, int from, const int *header, kv_diag *diag)
{
    size_t sets = (size_t)header[SETS], positions = (size_t)header[POSITIONS];
    kv_record *record = malloc((size_t)header[RECORDS] * sizeof *record + 1);
    int *head = malloc((4 * sets + 1) * sizeof *head);
    int32_t *all = malloc((positions + 1) * sizeof *all);
    kv_retained_set *set = malloc((sets + 1) * sizeof *set);
    kv_err err = record && head && all && set ? KV_OK : kv_fail_memory(diag);
    if (err == KV_OK) {
        MPI_Recv(record, header[RECORDS] * KV_MEASURES, MPI_DOUBLE, from, TAG_RECORDS,
                 MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        if (sets > 0) {
            MPI_Recv(head, 4 * header[SETS], MPI_INT, from, TAG_SETS, MPI_COMM_WORLD,
                     MPI_STATUS_IGNORE);
            MPI_Recv(all, header[POSITIONS], MPI_INT32_T, from, TAG_POSITIONS, MPI_COMM_WORLD,
                     MPI_STATUS_IGNORE);
        }
        int32_t *at = all;
        for (size_t i = 0; i < sets; at += head[4 * i + 3], i++)
            set[i] = (kv_retained_set){head[4 * i], head[4 * i + 1], head[4 * i + 2], at,
                                       head[4 * i + 3]};
        err = root_sink(r, header[EXAMPLE], record, set, header[SETS], diag);
    }
    free(record);
    free(head);
    free(all);
    free(set);
    return err;
}

/* Receives until every other rank has said that it is done. */
static kv_err receive_all(root *r, kv_diag *diag)
{
    kv_err err = KV_OK;
    for (int others = kv__ranks_count() - 1; others > 0 && err == KV_OK;) {
        int header[HEADER];
        MPI_Status status;
        MPI_Recv(header, HEADER, MPI_INT, MPI_ANY_SOURCE, TAG_HEADER, MPI_COMM_WORLD, &status);
        if (header[EXAMPLE] != NO_MORE) {
            err = receive_example(r, status.MPI_SOURCE, header, diag);
            continue;
        }
        others--;
        if (header[ERROR] == KV_OK)
            continue;
        MPI_Recv(diag, (int)sizeof *diag, MPI_BYTE, status.MPI_SOURCE, TAG_DIAG, MPI_COMM_WORLD,
                 MPI_STATUS_IGNORE);
        err = (kv_err)header[ERROR];
    }
    return err;
}

static kv_err sweep_as_root(root *r, kv_diag *diag)
{
    pthread_t worker;
    pthread_mutex_init(&r->lock, NULL);
    if (pthread_create(&worker, NULL, root_work, r) != 0)
        return kv_fail(diag, KV_ERR_IO, NULL, "no thread could be started");
    kv_err err = receive_all(r, diag);
    pthread_join(worker, NULL);
    pthread_mutex_destroy(&r->lock);
    if (err == KV_OK && r->err != KV_OK) {
        *diag = r->diag;
        err = r->err;
    }
    return err;
}

static kv_err sweep_as_other(const kv_sweep *sweep, const bool *mine, kv_diag *diag)
{
    kv_err err = kv_sweep_run(sweep, mine, send_example, (void *)sweep, NULL, NULL, diag);
    int header[HEADER] = {NO_MORE, 0, 0, 0, err};
    MPI_Send(header, HEADER, MPI_INT, 0, TAG_HEADER, MPI_COMM_WORLD);
    if (err != KV_OK)
        MPI_Send(diag, (int)sizeof *diag, MPI_BYTE, 0, TAG_DIAG, MPI_COMM_WORLD);
    return err;
}

/* Rank 0 tells which examples are wanted; the k-th of them falls to rank k modulo ranks. */
static int share_out(const kv_sweep *sweep, const bool *wants, unsigned char *wanted, bool *mine)
{
    int k = 0;
    for (int e = 0; e < sweep->examples; e++)
        wanted[e] = kv__ranks_mine() == 0 && (wants == NULL || wants[e]);
    MPI_Bcast(wanted, sweep->examples, MPI_UNSIGNED_CHAR, 0, MPI_COMM_WORLD);
    for (int e = 0; e < sweep->examples; e++) {
        mine[e] = wanted[e] && k % kv__ranks_count() == kv__ranks_mine();
        k += wanted[e];
    }
    return k;
}

kv_err kv__ranks_sweep(const kv_sweep *sweep, const bool *wants, kv_sweep_sink sink, void *closure,
                       kv_sweep_progress progress, void *progress_closure, kv_diag *diag)
{
    if (kv__ranks_count() == 1)
        return kv_sweep_run(sweep, wants, sink, closure, progress, progress_closure, diag);
    unsigned char *wanted = malloc((size_t)sweep->examples + 1);
    bool *mine = malloc(((size_t)sweep->examples + 1) * sizeof *mine);
    kv_err err = wanted && mine ? KV_OK : kv_fail_memory(diag);
    if (err == KV_OK) {
        root r = {.sweep = sweep,
                  .mine = mine,
                  .sink = sink,
                  .closure = closure,
                  .progress = progress,
                  .progress_closure = progress_closure,
                  .total = share_out(sweep, wants, wanted, mine)};
        err = kv__ranks_mine() == 0 ? sweep_as_root(&r, diag) : sweep_as_other(sweep, mine, diag);
    }
    free(wanted);
    free(mine);
    return err;
}

#endif
