/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "sim/sweep.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* Examples of one trace and task are replayed at the same points: one kv_replay serves them. */
typedef struct family {
    int trace;
    const char *task;
    bool calibrates, calibration_only;
    kv_replay *replay;
    int *point; /* [points] index in the sweep of each point of the replay */
    int points;
} family;

typedef struct crew {
    const kv_sweep *sweep;
    const bool *wants;
    kv_sweep_sink sink;
    void *closure;
    kv_sweep_progress progress;
    void *progress_closure;
    family *family;
    int *family_of; /* [examples] */
    int families;
    pthread_mutex_t lock; /* guards all below, the sink and the progress */
    int next, done, total;
    kv_err err;
    kv_diag diag;
} crew;

/* --- Families ---------------------------------------------------------------------- */

static bool applies(const kv_sweep_point *point, const family *f)
{
    return (point->info.calibration_only ? f->calibrates : !f->calibration_only) &&
           (point->info.task == NULL || strcmp(point->info.task, f->task) == 0);
}

/* Some policies choose by a file alone; without it only counts are known: no attention to replay.
 */
static kv_err check_file(const kv_replay_point *point, kv_diag *diag)
{
    kv_scorer scorer = kv_retention_scorer(point->policy, point->config);
    const kv_scorer who[] = {{point->policy, point->config}, scorer};
    for (size_t i = 0; i < sizeof who / sizeof *who; i++)
        if (who[i].policy->file != NULL && who[i].policy->counts_only(who[i].config))
            return kv_fail(diag, KV_ERR_INPUT, &point->mark,
                           "%s: give %s; without it only counts are known", who[i].policy->name,
                           who[i].policy->file);
    return KV_OK;
}

static kv_err family_init(family *f, const kv_sweep *sweep, const kv_sweep_example *example,
                          kv_diag *diag)
{
    f->trace = example->trace;
    f->task = example->info.task;
    f->calibrates = example->info.calibrates;
    f->calibration_only = example->info.calibration_only;
    f->point = malloc((size_t)(sweep->points + 1) * sizeof *f->point);
    kv_replay_point *points = malloc((size_t)(sweep->points + 1) * sizeof *points);
    if (f->point == NULL || points == NULL) {
        free(points);
        return kv_fail_memory(diag);
    }
    kv_err err = KV_OK;
    for (int p = 0; p < sweep->points && err == KV_OK; p++) {
        if (!applies(&sweep->point[p], f))
            continue;
        err = check_file(&sweep->point[p].replay, diag);
        f->point[f->points] = p;
        points[f->points++] = sweep->point[p].replay;
    }
    if (err == KV_OK)
        err = kv_replay_new(points, f->points, kv_attention_shape(sweep->trace[f->trace]),
                            &sweep->options, &f->replay, diag);
    free(points);
    return err;
}

static bool same_family(const family *f, const kv_sweep_example *example)
{
    return f->trace == example->trace && f->calibrates == example->info.calibrates &&
           f->calibration_only == example->info.calibration_only &&
           strcmp(f->task, example->info.task) == 0;
}

static kv_err families_init(crew *c, kv_diag *diag)
{
    const kv_sweep *sweep = c->sweep;
    c->family = calloc((size_t)sweep->examples + 1, sizeof *c->family);
    c->family_of = malloc((size_t)(sweep->examples + 1) * sizeof *c->family_of);
    if (c->family == NULL || c->family_of == NULL)
        return kv_fail_memory(diag);
    for (int e = 0; e < sweep->examples; e++) {
        int f = 0;
        while (f < c->families && !same_family(&c->family[f], &sweep->example[e]))
            f++;
        c->family_of[e] = f;
        if (f < c->families)
            continue;
        kv_err err = family_init(&c->family[c->families++], sweep, &sweep->example[e], diag);
        if (err != KV_OK)
            return err;
    }
    return KV_OK;
}

static void crew_fini(crew *c)
{
    for (int f = 0; f < c->families; f++) {
        kv_replay_free(c->family[f].replay);
        free(c->family[f].point);
    }
    free(c->family);
    free(c->family_of);
}

/* --- One example ------------------------------------------------------------------- */

/* Kept sets in the sweep's numbering of points. The positions stay the result's. */
static int list_sets(const family *f, const kv_sweep *sweep, const kv_replay_result *result,
                     kv_retained_set *sets)
{
    int n = 0, per_point = result->layers * result->kv_heads;
    for (int p = 0; p < f->points; p++) {
        if (sweep->point[f->point[p]].info.calibration_only)
            continue;
        for (int i = 0; i < per_point; i++) {
            const kv_retained *retained = &result->retained[(size_t)p * per_point + i];
            if (retained->position == NULL)
                continue;
            sets[n++] = (kv_retained_set){f->point[p], i / result->kv_heads, i % result->kv_heads,
                                          retained->position, retained->count};
        }
    }
    return n;
}

static kv_err deliver(crew *c, int example, const family *f, const kv_replay_result *result,
                      kv_diag *diag)
{
    size_t slots = (size_t)result->turns + 1, points = (size_t)c->sweep->points;
    size_t sets = (size_t)f->points * (size_t)result->layers * (size_t)result->kv_heads;
    kv_record *record = malloc(points * slots * sizeof *record + 1);
    kv_retained_set *set = result->retained ? malloc(sets * sizeof *set + 1) : NULL;
    kv_err err = KV_OK;
    if (record == NULL || (result->retained != NULL && set == NULL))
        err = kv_fail_memory(diag);
    for (size_t i = 0; err == KV_OK && i < points * slots; i++)
        for (int m = 0; m < KV_MEASURES; m++)
            record[i].value[m] = NAN;
    for (int p = 0; err == KV_OK && p < f->points; p++)
        memcpy(record + (size_t)f->point[p] * slots, result->record + (size_t)p * slots,
               slots * sizeof *record);
    int set_count = set && err == KV_OK ? list_sets(f, c->sweep, result, set) : 0;
    if (err == KV_OK) {
        pthread_mutex_lock(&c->lock);
        err = c->sink(c->closure, example, record, set, set_count, diag);
        c->done++;
        if (c->progress != NULL)
            c->progress(c->progress_closure, c->done, c->total);
        pthread_mutex_unlock(&c->lock);
    }
    free(record);
    free(set);
    return err;
}

static kv_err replay_example(crew *c, int example, kv_diag *diag)
{
    const kv_sweep_example *e = &c->sweep->example[example];
    const family *f = &c->family[c->family_of[example]];
    kv_replay_result result;
    kv_err err = kv_replay_example(f->replay, c->sweep->trace[e->trace], e->index, &result, diag);
    if (err != KV_OK)
        return err;
    err = deliver(c, example, f, &result, diag);
    kv_replay_result_fini(&result);
    return err;
}

/* --- Threads ----------------------------------------------------------------------- */

/* The next example to replay, or -1 when there is none left or something failed. */
static int take_example(crew *c)
{
    pthread_mutex_lock(&c->lock);
    while (c->next < c->sweep->examples && c->wants != NULL && !c->wants[c->next])
        c->next++;
    int example = c->err == KV_OK && c->next < c->sweep->examples ? c->next++ : -1;
    pthread_mutex_unlock(&c->lock);
    return example;
}

static void *work(void *closure)
{
    crew *c = closure;
    for (int example = take_example(c); example >= 0; example = take_example(c)) {
        kv_diag diag = {0};
        kv_err err = replay_example(c, example, &diag);
        if (err == KV_OK)
            continue;
        pthread_mutex_lock(&c->lock);
        if (c->err == KV_OK) {
            c->err = err;
            c->diag = diag;
        }
        pthread_mutex_unlock(&c->lock);
    }
    return NULL;
}

static void run_threads(crew *c)
{
    int threads = c->sweep->threads, started = 0;
    pthread_t *thread = calloc((size_t)threads, sizeof *thread);
    while (thread != NULL && started < threads - 1 &&
           pthread_create(&thread[started], NULL, work, c) == 0)
        started++;
    work(c); /* this thread works too, alone if no other could be had */
    for (int t = 0; t < started; t++)
        pthread_join(thread[t], NULL);
    free(thread);
}

kv_err kv_sweep_run(const kv_sweep *sweep, const bool *wants, kv_sweep_sink sink, void *closure,
                    kv_sweep_progress progress, void *progress_closure, kv_diag *diag)
{
    crew c = {.sweep = sweep,
              .wants = wants,
              .sink = sink,
              .closure = closure,
              .progress = progress,
              .progress_closure = progress_closure};
    for (int e = 0; e < sweep->examples; e++)
        c.total += wants == NULL || wants[e];
    kv_err err = families_init(&c, diag);
    if (err == KV_OK) {
        pthread_mutex_init(&c.lock, NULL);
        run_threads(&c);
        pthread_mutex_destroy(&c.lock);
        err = c.err;
        if (err != KV_OK && diag != NULL && diag->code == KV_OK)
            *diag = c.diag;
    }
    crew_fini(&c);
    return err;
}

kv_err kv_sweep_check(const kv_sweep *sweep, kv_diag *diag)
{
    crew c = {.sweep = sweep};
    kv_err err = families_init(&c, diag);
    for (int e = 0; e < sweep->examples && err == KV_OK; e++)
        err = kv_replay_check(c.family[c.family_of[e]].replay,
                              sweep->trace[sweep->example[e].trace], sweep->example[e].index, diag);
    crew_fini(&c);
    return err;
}
