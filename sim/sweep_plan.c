/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "sim/sweep_plan.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --- Traces ------------------------------------------------------------------------ */

static kv_err grow_traces(kv_sweep_plan *plan, kv_diag *diag)
{
    size_t n = (size_t)plan->traces + 1;
    void *trace = realloc(plan->trace, n * sizeof *plan->trace);
    if (trace != NULL)
        plan->trace = trace;
    void *digest = realloc(plan->digest, n * sizeof *plan->digest);
    if (digest != NULL)
        plan->digest = digest;
    void *name = realloc(plan->trace_name, n * sizeof *plan->trace_name);
    if (name != NULL)
        plan->trace_name = name;
    return trace && digest && name ? KV_OK : kv_fail_memory(diag);
}

/* The trace that holds the bytes of the next one, by its digest; the next itself if there is none.
 * A file that is reached by two names counts once. */
static int same_contents(const kv_sweep_plan *plan)
{
    int t = 0;
    while (t < plan->traces && strcmp(plan->digest[t], plan->digest[plan->traces]) != 0)
        t++;
    return t;
}

kv_err kv_sweep_plan_trace(kv_sweep_plan *plan, const char *path, const char *name, int *trace,
                           kv_diag *diag)
{
    for (*trace = 0; *trace < plan->traces; (*trace)++)
        if (strcmp(kv_attention_path(plan->trace[*trace]), path) == 0)
            return KV_OK;
    kv_attention *open;
    kv_err err = grow_traces(plan, diag);
    if (err == KV_OK)
        err = kv_attention_open(path, &open, diag);
    if (err != KV_OK)
        return err;
    char *copy = strdup(name);
    err = copy ? kv_attention_digest(open, plan->digest[plan->traces], diag) : kv_fail_memory(diag);
    if (err == KV_OK)
        *trace = same_contents(plan);
    if (err != KV_OK || *trace < plan->traces) {
        free(copy);
        kv_attention_close(open);
        return err;
    }
    plan->trace[plan->traces] = open;
    plan->trace_name[plan->traces++] = copy;
    return KV_OK;
}

/* --- Examples ---------------------------------------------------------------------- */

static bool is_wanted(const kv_texts *tasks, const char *task)
{
    for (int t = 0; tasks != NULL && t < tasks->count; t++)
        if (strcmp(tasks->text[t], task) == 0)
            return true;
    return tasks == NULL || tasks->count == 0;
}

static kv_sweep_example *find_example(const kv_sweep_plan *plan, int trace, int index)
{
    for (int e = 0; e < plan->examples; e++)
        if (plan->example[e].trace == trace && plan->example[e].index == index)
            return &plan->example[e];
    return NULL;
}

static kv_err add_example(kv_sweep_plan *plan, int trace, int index, bool calibrates, kv_diag *diag)
{
    const kv_example *e = kv_attention_example(plan->trace[trace], index);
    if (plan->examples == plan->example_room) {
        int room = plan->example_room ? 2 * plan->example_room : 64;
        void *grown = realloc(plan->example, (size_t)room * sizeof *plan->example);
        if (grown == NULL)
            return kv_fail_memory(diag);
        plan->example = grown;
        plan->example_room = room;
    }
    plan->example[plan->examples++] = (kv_sweep_example){.trace = trace,
                                                         .index = index,
                                                         .info = {.name = e->name,
                                                                  .task = e->task,
                                                                  .turns = e->turns,
                                                                  .prompt_tokens = e->prompt_tokens,
                                                                  .full_score = e->full_score,
                                                                  .calibrates = calibrates,
                                                                  .calibration_only = calibrates}};
    return KV_OK;
}

kv_err kv_sweep_plan_examples(kv_sweep_plan *plan, int trace, const kv_texts *tasks,
                              bool calibrates, kv_diag *diag)
{
    kv_err err = KV_OK;
    for (int i = 0; i < kv_attention_examples(plan->trace[trace]) && err == KV_OK; i++) {
        const kv_example *example = kv_attention_example(plan->trace[trace], i);
        kv_sweep_example *listed = find_example(plan, trace, i);
        if (listed != NULL)
            listed->info.calibrates |= calibrates;
        else if (is_wanted(tasks, example->task))
            err = add_example(plan, trace, i, calibrates, diag);
    }
    return err;
}

/* --- Points ------------------------------------------------------------------------ */

kv_err kv_sweep_plan_point(kv_sweep_plan *plan, const kv_point_spec *spec, const char *task,
                           bool calibration_only, int *point, kv_diag *diag)
{
    if (plan->points == plan->point_room) {
        int room = plan->point_room ? 2 * plan->point_room : 64;
        void *grown = realloc(plan->point, (size_t)room * sizeof *plan->point);
        if (grown == NULL)
            return kv_fail_memory(diag);
        plan->point = grown;
        plan->point_room = room;
    }
    kv_sweep_point *p = &plan->point[plan->points];
    *p = (kv_sweep_point){.replay = {.policy = spec->policy,
                                     .config = spec->config,
                                     .part = spec->part,
                                     .parts = spec->parts,
                                     .directory = spec->directory,
                                     .chunk_tokens = spec->chunk_tokens,
                                     .mark = spec->mark},
                          .implied = spec->implied,
                          .info = {.policy = kv_spec_name(spec),
                                   .params_json = kv_spec_params_json(spec),
                                   .curve_json = kv_spec_curve_json(spec),
                                   .label = kv_spec_label(spec),
                                   .saves = kv_spec_saves(spec),
                                   .task = task,
                                   .chunk_tokens = spec->chunk_tokens,
                                   .keep = kv_spec_keep(spec),
                                   .calibration_only = calibration_only}};
    *point = plan->points++;
    bool good = p->info.policy && p->info.params_json && p->info.curve_json && p->info.label;
    return good ? KV_OK : kv_fail_memory(diag);
}

/* --- The whole --------------------------------------------------------------------- */

static kv_err add_traces(kv_sweep_plan *plan, const kv_files *traces, const kv_texts *tasks,
                         bool calibrates, kv_diag *diag)
{
    kv_err err = KV_OK;
    int index;
    for (int t = 0; t < traces->count && err == KV_OK; t++) {
        err = kv_sweep_plan_trace(plan, traces->path[t], traces->name[t], &index, diag);
        if (err == KV_OK)
            err = kv_sweep_plan_examples(plan, index, tasks, calibrates, diag);
    }
    return err;
}

static bool has_task(const kv_sweep_plan *plan, const char *task)
{
    for (int e = 0; e < plan->examples; e++)
        if (strcmp(plan->example[e].info.task, task) == 0)
            return true;
    return false;
}

/* The task of a recorded example that is spelt most like this one, or NULL. */
static const char *nearest_task(const kv_sweep_plan *plan, const char *task)
{
    const char *best = NULL;
    for (int t = 0; t < plan->traces; t++)
        for (int e = 0; e < kv_attention_examples(plan->trace[t]); e++) {
            const char *pair[] = {kv_attention_example(plan->trace[t], e)->task, best};
            const char *near = kv_nearest(task, pair, best != NULL ? 2 : 1);
            best = near != NULL ? near : best;
        }
    return best;
}

/* A task that no example has is a mistyped one. */
static kv_err check_tasks(const kv_sweep_plan *plan, const kv_texts *tasks, kv_diag *diag)
{
    for (int t = 0; t < tasks->count; t++) {
        const char *near = nearest_task(plan, tasks->text[t]);
        if (!has_task(plan, tasks->text[t]))
            return kv_fail(diag, KV_ERR_INPUT, &tasks->mark[t],
                           "tasks: no example of the traces has the task '%s'%s%s%s; `kvsim trace "
                           "info` lists those of a trace",
                           tasks->text[t], near ? " (did you mean '" : "", near ? near : "",
                           near ? "'?)" : "");
    }
    return KV_OK;
}

kv_err kv_sweep_plan_attention(kv_sweep_plan *plan, const kv_attention_config *attention,
                               kv_diag *diag)
{
    const kv_files *measured = &attention->calibration.traces;
    int index;
    kv_err err = add_traces(plan, &attention->traces, &attention->tasks, false, diag);
    if (err == KV_OK && attention->calibration.file != NULL)
        err = add_traces(plan, measured->count > 0 ? measured : &attention->traces,
                         &attention->tasks, true, diag);
    for (int p = 0; p < attention->points.count && err == KV_OK; p++)
        err = kv_sweep_plan_point(plan, &attention->points.point[p], NULL, false, &index, diag);
    return err == KV_OK ? check_tasks(plan, &attention->tasks, diag) : err;
}

kv_sweep kv_sweep_plan_sweep(const kv_sweep_plan *plan, const kv_attention_config *attention,
                             long long seed, const kv_replay_cache *cache, int threads)
{
    bool timed = attention->step_time.prefill_token_ns > 0;
    /* Paths and digests may move while traces are added, so they are filled in now. */
    for (int e = 0; e < plan->examples; e++) {
        plan->example[e].info.trace = plan->trace_name[plan->example[e].trace];
        plan->example[e].info.digest = plan->digest[plan->example[e].trace];
    }
    return (kv_sweep){
        .trace = plan->trace,
        .traces = plan->traces,
        .point = plan->point,
        .points = plan->points,
        .example = plan->example,
        .examples = plan->examples,
        .options = {.seed = (uint64_t)seed,
                    .page_tokens = attention->page_tokens,
                    .cache = cache ? *cache : (kv_replay_cache){.entry_bytes = 0},
                    .prefill_token_s = timed ? 1e-9 * attention->step_time.prefill_token_ns : 1,
                    .decode_step_s = timed ? 1e-9 * attention->step_time.decode_ns : 1,
                    .analytic = attention->footprint_model == KV_FOOTPRINT_ANALYTIC,
                    .compress_with = attention->compress_with,
                    .keep_sets = attention->keep_sets},
        .threads = threads};
}

kv_err kv_sweep_list(const kv_sweep *sweep, kv_points_plan *out, kv_diag *diag)
{
    kv_point_info *point = malloc(((size_t)sweep->points + 1) * sizeof *point);
    kv_example_info *example = malloc(((size_t)sweep->examples + 1) * sizeof *example);
    if (point == NULL || example == NULL) {
        free(point);
        free(example);
        return kv_fail_memory(diag);
    }
    for (int p = 0; p < sweep->points; p++)
        point[p] = sweep->point[p].info;
    for (int e = 0; e < sweep->examples; e++)
        example[e] = sweep->example[e].info;
    out->point = point;
    out->points = sweep->points;
    out->example = example;
    out->examples = sweep->examples;
    return KV_OK;
}

static void free_point(kv_sweep_point *point)
{
    free((char *)point->info.policy);
    free((char *)point->info.params_json);
    free((char *)point->info.curve_json);
    free((char *)point->info.label);
}

void kv_sweep_plan_remove(kv_sweep_plan *plan, int point)
{
    free_point(&plan->point[point]);
    plan->points--;
    memmove(&plan->point[point], &plan->point[point + 1],
            (size_t)(plan->points - point) * sizeof *plan->point);
}

void kv_sweep_plan_fini(kv_sweep_plan *plan)
{
    for (int p = 0; p < plan->points; p++)
        free_point(&plan->point[p]);
    for (int t = 0; t < plan->traces; t++) {
        kv_attention_close(plan->trace[t]);
        free(plan->trace_name[t]);
    }
    free(plan->trace);
    free(plan->digest);
    free(plan->trace_name);
    free(plan->point);
    free(plan->example);
    memset(plan, 0, sizeof *plan);
}
