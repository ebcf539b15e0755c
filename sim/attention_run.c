/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "sim/attention_run.h"
#include "sim/attention_cache.h"
#include "sim/idle.h"
#include "sim/measured.h"
#include "sim/sweep_plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct kv_attention_job {
    const kv_experiment *experiment;
    kv_sweep_plan plan;
    kv_measured *measured; /* NULL: nothing was measured */
    char *accuracy_spec;   /* what was measured, as the results keep it */
    kv_replay_cache cache; /* its layers are the job's */
    char **refused;        /* [refusals] what was left out, and why */
    int refusals;
};

/* --- What traces cannot serve ------------------------------------------------------- */

const char *kv_attention_refused(const kv_attention_job *job, int index)
{
    return index < job->refusals ? job->refused[index] : NULL;
}

static kv_err add_refusal(kv_attention_job *job, const char *policy, const char *why, kv_diag *diag)
{
    size_t bytes = strlen(policy) + strlen(why) + 3;
    char **grown = realloc(job->refused, ((size_t)job->refusals + 1) * sizeof *grown);
    char *text = malloc(bytes);
    if (grown != NULL)
        job->refused = grown;
    if (grown == NULL || text == NULL) {
        free(text);
        return kv_fail_memory(diag);
    }
    snprintf(text, bytes, "%s: %s", policy, why);
    for (int i = 0; i < job->refusals; i++)
        if (strcmp(job->refused[i], text) == 0) {
            free(text);
            return KV_OK;
        }
    job->refused[job->refusals++] = text;
    return KV_OK;
}

/* Takes out each point that a trace lacks something for. */
static kv_err drop_refused(kv_attention_job *job, kv_diag *diag)
{
    kv_sweep_plan *plan = &job->plan;
    kv_sweep sweep =
        kv_sweep_plan_sweep(plan, &job->experiment->attention, job->experiment->seed, NULL, 1);
    kv_err err = KV_OK;
    sweep.points = 1;
    for (int p = 0; p < plan->points && err == KV_OK;) {
        kv_diag why = {0};
        sweep.point = &plan->point[p];
        err = kv_sweep_check(&sweep, &why);
        if (err == KV_ERR_UNSUPPORTED) {
            err = add_refusal(job, plan->point[p].info.policy, why.text, diag);
            kv_sweep_plan_remove(plan, p);
        } else if (err != KV_OK && diag != NULL) {
            *diag = why;
        } else {
            p++;
        }
    }
    return err;
}

/* Latent vectors are no keys and values: what a transform would make of them is not known. */
static kv_err check_latent(const kv_model *model, const kv_sweep_plan *plan, kv_diag *diag)
{
    for (int p = 0; p < plan->points && model->attention.kv_rank > 0; p++) {
        const kv_replay_point *point = &plan->point[p].replay;
        for (int i = 0; i < point->parts; i++)
            if (point->part[i].method.family == KV_FAMILY_TRANSFORM)
                return kv_fail(diag, KV_ERR_UNSUPPORTED, &point->mark,
                               "%s transforms keys and values, but %s caches latent vectors",
                               point->part[i].method.name, model->name);
    }
    return KV_OK;
}

/* How the experiment's model stores what was recorded; all zero: none is given. Every trace must
 * have its shape: its bytes would mean nothing otherwise. */
static kv_err model_cache(const kv_experiment *experiment, const kv_sweep_plan *plan,
                          kv_replay_cache *cache, kv_diag *diag)
{
    if (experiment->model == NULL)
        return KV_OK;
    kv_model *model;
    kv_err err = kv_model_get(experiment->model, &model, diag);
    if (err != KV_OK)
        return err;
    kv_mark mark = kv_node_mark(experiment->model);
    err = check_latent(model, plan, diag);
    for (int t = 0; t < plan->traces && err == KV_OK; t++) {
        const char *path = kv_attention_path(plan->trace[t]);
        const kv_shape *shape = kv_attention_shape(plan->trace[t]);
        const kv_shape *first = kv_attention_shape(plan->trace[0]);
        free((kv_counts_layer *)cache->layer);
        cache->layer = NULL;
        err = kv_attention_cache_of(model, shape, path, &mark, cache, diag);
        if (err == KV_OK && (shape->layers != first->layers || shape->kv_heads != first->kv_heads))
            err = kv_fail(diag, KV_ERR_INPUT, &mark,
                          "%s was recorded with %d layers of %d KV heads, %s with %d of %d; with "
                          "`model`, record all traces alike",
                          path, shape->layers, shape->kv_heads, kv_attention_path(plan->trace[0]),
                          first->layers, first->kv_heads);
    }
    kv_model_free(model);
    return err;
}

static kv_err put(void *closure, int example, const kv_record *record, const kv_retained_set *sets,
                  int set_count, kv_diag *diag)
{
    return kv_points_put(closure, example, record, sets, set_count, diag);
}

static kv_err replay(const kv_sweep *sweep, kv_points *points,
                     const kv_attention_run_options *options, kv_diag *diag)
{
    bool *wants = malloc(((size_t)sweep->examples + 1) * sizeof *wants);
    if (wants == NULL)
        return kv_fail_memory(diag);
    for (int e = 0; e < sweep->examples; e++)
        wants[e] = points != NULL && kv_points_wants(points, e);
    kv_sweep_runner runner = options->runner ? options->runner : kv_sweep_run;
    kv_err err =
        runner(sweep, wants, put, points, options->progress, options->progress_closure, diag);
    free(wants);
    return err;
}

/* The plan as the results keep it. accuracy_spec: what was measured, NULL if nothing was. */
static kv_err begin_points(const kv_experiment *experiment, const kv_sweep *sweep,
                           const char *accuracy_spec, kv_run *run, kv_points **points,
                           kv_diag *diag)
{
    kv_points_plan plan = {.critical = {experiment->attention.critical.threshold,
                                        experiment->attention.critical.confidence,
                                        (int)experiment->attention.critical.resamples},
                           .accuracy_model = accuracy_spec ? "calibrated" : NULL,
                           .accuracy_spec = accuracy_spec};
    kv_err err = kv_sweep_list(sweep, &plan, diag);
    if (err != KV_OK)
        return err;
    err = kv_points_begin(run, &plan, points, diag);
    free((kv_point_info *)plan.point);
    free((kv_example_info *)plan.example);
    return err;
}

/* Adds what was measured, if the experiment names a file of it. */
static kv_err plan_calibration(const kv_attention_config *attention, kv_sweep_plan *plan,
                               void (*warn)(void *closure, const char *text), void *closure,
                               kv_measured **measured, char **spec, kv_diag *diag)
{
    char *skipped = NULL;
    if (attention->calibration.file == NULL)
        return KV_OK;
    kv_err err = kv_measured_read(attention->calibration.file, measured, diag);
    if (err == KV_OK)
        err = kv_measured_plan(*measured, &attention->tasks, plan, spec, &skipped, diag);
    if (skipped != NULL && warn != NULL)
        warn(closure, skipped);
    free(skipped);
    return err;
}

static kv_err warn_of_idle(const kv_sweep_plan *plan, void (*warn)(void *closure, const char *text),
                           void *closure, kv_diag *diag)
{
    int count = 0;
    for (int p = 0; p < plan->points; p++)
        count += 1 + KV_SCORERS_MOST + plan->point[p].replay.parts;
    kv_idle_point *point = malloc(((size_t)count + 1) * sizeof *point);
    if (point == NULL)
        return kv_fail_memory(diag);
    count = 0;
    for (int p = 0; p < plan->points; p++) {
        const kv_replay_point *replay = &plan->point[p].replay;
        const kv_method retention = kv_method_of_retention(replay->policy);
        kv_idle_point *kept = &point[count++];
        *kept = (kv_idle_point){.method = retention, .config = replay->config};
        count += kv_idle_scorers(kept, &point[count]);
        for (int i = 0; i < replay->parts; i++)
            point[count++] = (kv_idle_point){.method = replay->part[i].method,
                                             .config = replay->part[i].config,
                                             .beside = replay->policy};
    }
    kv_idle_settings(point, count, warn, closure);
    free(point);
    return KV_OK;
}

static kv_sweep sweep_of(const kv_attention_job *job, int threads)
{
    kv_sweep sweep = kv_sweep_plan_sweep(&job->plan, &job->experiment->attention,
                                         job->experiment->seed, &job->cache, threads);
    sweep.options.keep_profiles = job->experiment->serving != NULL;
    return sweep;
}

kv_err kv_attention_prepare(const kv_experiment *experiment,
                            void (*warn)(void *closure, const char *text), void *warn_closure,
                            kv_attention_job **out, kv_diag *diag)
{
    kv_attention_job *job = calloc(1, sizeof *job);
    if (job == NULL)
        return kv_fail_memory(diag);
    job->experiment = experiment;
    kv_err err = kv_sweep_plan_attention(&job->plan, &experiment->attention, diag);
    if (err == KV_OK && experiment->attention.skip_refused)
        err = drop_refused(job, diag);
    if (err == KV_OK && warn != NULL)
        err = warn_of_idle(&job->plan, warn, warn_closure, diag);
    bool ranked = experiment->attention.rank.kv_footprint > 0; /* the ranking says it */
    for (int i = 0; i < job->refusals && warn != NULL && !ranked; i++)
        warn(warn_closure, job->refused[i]);
    if (err == KV_OK)
        err = plan_calibration(&experiment->attention, &job->plan, warn, warn_closure,
                               &job->measured, &job->accuracy_spec, diag);
    if (err == KV_OK)
        err = model_cache(experiment, &job->plan, &job->cache, diag);
    if (err == KV_OK) {
        kv_sweep sweep = sweep_of(job, 1);
        err = kv_sweep_check(&sweep, diag);
    }
    if (err != KV_OK) {
        kv_attention_job_free(job);
        return err;
    }
    *out = job;
    return KV_OK;
}

void kv_attention_job_free(kv_attention_job *job)
{
    if (job == NULL)
        return;
    kv_sweep_plan_fini(&job->plan);
    kv_measured_free(job->measured);
    free(job->accuracy_spec);
    free((kv_counts_layer *)job->cache.layer);
    for (int i = 0; i < job->refusals; i++)
        free(job->refused[i]);
    free(job->refused);
    free(job);
}

kv_err kv_attention_run(const kv_attention_job *job, kv_run *run,
                        const kv_attention_run_options *options, kv_diag *diag)
{
    kv_points *points = NULL;
    kv_sweep sweep = sweep_of(job, options->threads);
    kv_err err = KV_OK;
    if (run != NULL)
        err = begin_points(job->experiment, &sweep, job->accuracy_spec, run, &points, diag);
    if (err == KV_OK)
        err = replay(&sweep, points, options, diag);
    if (err == KV_OK && run != NULL)
        err = kv_points_finish(points, diag);
    if (err == KV_OK && run != NULL && options->warn != NULL)
        err = kv_run_warnings(run, options->warn, options->warn_closure, diag);
    kv_points_free(points);
    return err;
}
