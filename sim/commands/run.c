/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "analysis/rank.h"
#include "analysis/serving_results.h"
#include "analysis/summary.h"
#include "sim/attention_run.h"
#include "sim/command.h"
#include "sim/ranks.h"
#include "sim/serving/serving_run.h"

#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { RESUME = 'r', SHARD = 256 + 3, SET = 256 + 4, STEPWISE = 256 + 6, TRACE_EVENTS = 256 + 7 };

static const kv_option options[] = {
    {'o', "output", "RESULTS.db", "where results go; NAME.db in the current folder if not given"},
    {'j', "jobs", "N", "threads; as many as there are processors if not given"},
    {'r', "resume", NULL, "go on with a run that was interrupted"},
    {0, "shard", "I/N", "do part I of N only; `kvsim merge` joins the parts"},
    {0, "set", "KEY=VALUE", "override a setting of the experiment; may be repeated"},
    {'q', "quiet", NULL, "no progress and no summary"},
    {0, "stepwise", NULL, "serving: take every step by itself; slower, the same results"},
    {0, "trace-events", "FILE", "serving: write what happens in the first point for Perfetto"},
    {.name = NULL},
};

static int run(const kv_command *self, int argc, char **argv);

KV_COMMAND_DEFINE(run) = {
    .name = "run",
    .arguments = "EXPERIMENT.yaml [OPTION]...",
    .brief = "Runs an experiment and writes its results to SQLite",
    .options = options,
    .run = run,
};

typedef struct settings {
    const char *experiment, *output;
    const char **set;
    int sets, threads, shard, shards;
    const char *trace_events;
    bool resume, quiet, stepwise;
    kv_attention_job *job; /* NULL: no attention part */
} settings;

/* --- Progress ---------------------------------------------------------------------- */

typedef struct progress_line {
    bool shown;
    struct timespec started;
} progress_line;

static double seconds_since(const struct timespec *then)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)(now.tv_sec - then->tv_sec) + 1e-9 * (double)(now.tv_nsec - then->tv_nsec);
}

static void show_progress(void *closure, int done, int total)
{
    progress_line *line = closure;
    double elapsed = seconds_since(&line->started);
    double left = done > 0 ? elapsed / done * (total - done) : 0;
    line->shown = true;
    fprintf(stderr, "\r%d of %d examples, %d:%02d left ", done, total, (int)left / 60,
            (int)left % 60);
    fflush(stderr);
}

static void show_points(void *closure, int done, int total)
{
    progress_line *line = closure;
    line->shown = true;
    fprintf(stderr, "\r%d of %d servers ", done, total);
    fflush(stderr);
}

static void show_warning(void *closure, const char *text)
{
    fprintf(stderr, "kvsim: warning: %s\n", text);
}

static void clear_progress(const progress_line *line)
{
    if (line->shown)
        fprintf(stderr, "\r%60s\r", "");
}

static void print_warning(void *closure, const char *text)
{
    clear_progress(closure);
    fprintf(stderr, "kvsim: warning: %s\n", text);
}

/* --- The command line -------------------------------------------------------------- */

static bool parse_shard(const char *text, int *shard, int *shards)
{
    char rest;
    return sscanf(text, "%d/%d%c", shard, shards, &rest) == 2 && *shard >= 1 && *shards >= 1 &&
           *shard <= *shards;
}

static bool parse_jobs(const char *text, int *threads)
{
    char *end;
    long value = strtol(text, &end, 10);
    *threads = (int)value;
    return *end == '\0' && end != text && value >= 1 && value <= 1024;
}

static int parse_option(const kv_command *self, int option, settings *s)
{
    switch (option) {
    case 'o':
        s->output = optarg;
        return KV_EXIT_OK;
    case 'j':
        if (!parse_jobs(optarg, &s->threads))
            return kv__usage_error(self, "--jobs %s: expected a number from 1 to 1024", optarg);
        return KV_EXIT_OK;
    case RESUME:
        s->resume = true;
        return KV_EXIT_OK;
    case SHARD:
        if (!parse_shard(optarg, &s->shard, &s->shards))
            return kv__usage_error(self, "--shard %s: expected I/N with 1 <= I <= N, as in 2/4",
                                   optarg);
        return KV_EXIT_OK;
    case SET:
        s->set[s->sets++] = optarg;
        return KV_EXIT_OK;
    case 'q':
        s->quiet = true;
        return KV_EXIT_OK;
    case STEPWISE:
        s->stepwise = true;
        return KV_EXIT_OK;
    case TRACE_EVENTS:
        s->trace_events = optarg;
        return KV_EXIT_OK;
    default:
        return KV_EXIT_USAGE;
    }
}

static int parse_command_line(const kv_command *self, int argc, char **argv, settings *s)
{
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    s->threads = processors > 0 && processors < 1024 ? (int)processors : 1;
    for (int option; (option = kv__option_next(self, argc, argv)) != -1;) {
        int status = parse_option(self, option, s);
        if (status != KV_EXIT_OK)
            return status;
    }
    if (argc - optind != 1)
        return kv__usage_error(self, "expected one experiment file");
    s->experiment = argv[optind];
    return KV_EXIT_OK;
}

/* --- The run ----------------------------------------------------------------------- */

static char *experiment_text(const kv_experiment *experiment, kv_diag *diag)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    kv_err err = out ? kv_experiment_write(experiment, out) : kv_fail_memory(diag);
    if (out != NULL && fclose(out) != 0)
        err = kv_fail_memory(diag);
    if (err == KV_OK)
        return text;
    if (diag->code == KV_OK)
        kv_fail(diag, err, NULL, "the experiment cannot be written as text");
    free(text);
    return NULL;
}

static kv_err run_serving(const kv_experiment *experiment, kv_run *handle, const settings *s,
                          kv_diag *diag)
{
    progress_line line = {0};
    kv_serving_plan plan;
    kv_err err =
        kv_serving_plan_init(&plan, experiment->serving, experiment->model, experiment->seed, diag);
    if (err != KV_OK)
        return err;
    plan.replayed = experiment->has_attention ? &experiment->attention.points : NULL;
    kv_serving_run_options how = {.stepwise = s->stepwise,
                                  .threads = s->threads,
                                  .trace_events = s->trace_events,
                                  .progress_closure = &line,
                                  .warn = s->quiet ? NULL : show_warning};
    if (!s->quiet && isatty(STDERR_FILENO))
        how.progress = show_points;
    err = kv_serving_run_plan(&plan, handle, &how, diag);
    clear_progress(&line);
    kv_serving_plan_fini(&plan);
    return err;
}

static kv_err run_attention(kv_run *handle, const settings *s, kv_diag *diag)
{
    progress_line line = {0};
    clock_gettime(CLOCK_MONOTONIC, &line.started);
    kv_attention_run_options attention = {.threads = s->threads,
                                          .runner = kv__ranks_sweep,
                                          .progress_closure = &line,
                                          .warn = print_warning,
                                          .warn_closure = &line};
    if (!s->quiet && isatty(STDERR_FILENO))
        attention.progress = show_progress;
    kv_err err = kv_attention_run(s->job, handle, &attention, diag);
    clear_progress(&line);
    return err;
}

static kv_err run_parts(const kv_experiment *experiment, kv_run *handle, const settings *s,
                        kv_diag *diag)
{
    kv_err err = KV_OK;
    if (experiment->has_attention)
        err = run_attention(handle, s, diag);
    if (err == KV_OK && experiment->serving != NULL)
        err = run_serving(experiment, handle, s, diag);
    return err == KV_OK ? kv_run_finish(handle, diag) : err;
}

/* Finds mistakes in the serving part before anything is written. */
static kv_err check_serving(const kv_experiment *experiment, kv_diag *diag)
{
    kv_serving_plan plan;
    kv_err err =
        kv_serving_plan_init(&plan, experiment->serving, experiment->model, experiment->seed, diag);
    if (err != KV_OK)
        return err;
    plan.replayed = experiment->has_attention ? &experiment->attention.points : NULL;
    for (int i = 0; i < plan.combinations && err == KV_OK; i++) {
        kv_serving_point point;
        err = kv_serving_plan_point(&plan, i, &point, diag);
        if (err == KV_OK)
            kv_serving_point_fini(&point);
    }
    kv_serving_plan_fini(&plan);
    return err;
}

/* What the ranking lacks, and why. */
static void print_refused(const kv_attention_job *job)
{
    for (int i = 0; kv_attention_refused(job, i) != NULL; i++)
        printf("%snot ranked: %s\n", i == 0 ? "\n" : "", kv_attention_refused(job, i));
}

/* rank_at: share at which the ranking that takes the summary's place compares; 0: none. */
static kv_err print_curves(kv_results *results, const kv_run *handle, double rank_at,
                           const kv_attention_job *job, kv_diag *diag)
{
    kv_curve_filter filter = {.run_id = kv_run_id(handle)};
    kv_curves *curves;
    kv_err err = kv_curves_load(results, &filter, &curves, diag);
    if (err != KV_OK)
        return err;
    err = rank_at > 0 ? kv_rank_write(curves, rank_at, stdout, diag)
                      : kv_summary_write(curves, kv__terminal_columns(), stdout, diag);
    kv_curves_free(curves);
    if (err == KV_OK && rank_at > 0)
        print_refused(job);
    return err;
}

static kv_err print_summary(kv_results *results, const kv_experiment *experiment,
                            const kv_run *handle, const settings *s, kv_diag *diag)
{
    kv_err err = KV_OK;
    if (experiment->has_attention)
        err = print_curves(results, handle, experiment->attention.rank.kv_footprint, s->job, diag);
    if (err == KV_OK && experiment->serving != NULL)
        err = kv_serving_summary(results, kv_run_id(handle), stdout, diag);
    return err;
}

static kv_err run_into(kv_results *results, const kv_experiment *experiment, const settings *s,
                       kv_diag *diag)
{
    kv_run *handle = NULL;
    char *text = experiment_text(experiment, diag);
    if (text == NULL)
        return diag->code;
    kv_run_info info = {.name = experiment->name,
                        .experiment = text,
                        .seed = experiment->seed,
                        .version = PACKAGE_VERSION,
                        .shard = s->shard,
                        .shards = s->shards};
    kv_err err = kv_run_begin(results, &info, s->resume, &handle, diag);
    bool already = err == KV_OK && kv_run_is_finished(handle);
    if (err == KV_OK && !already)
        err = run_parts(experiment, handle, s, diag);
    if (err == KV_OK && !s->quiet && s->shards <= 1)
        err = print_summary(results, experiment, handle, s, diag);
    kv_run_free(handle);
    free(text);
    return err;
}

/* Ranks beyond the first replay examples and send what they find; the first one writes it. */
static kv_err help_rank_0(const settings *s, kv_diag *diag)
{
    kv_attention_run_options attention = {.threads = s->threads, .runner = kv__ranks_sweep};
    return kv_attention_run(s->job, NULL, &attention, diag);
}

/* Finds every mistake that can be found before anything is written. */
static kv_err prepare(const kv_experiment *experiment, settings *s, kv_diag *diag)
{
    progress_line line = {0};
    bool speaks = kv__ranks_mine() == 0;
    kv_err err = KV_OK;
    if (experiment->serving != NULL)
        err = check_serving(experiment, diag);
    else if (s->trace_events != NULL)
        err = kv_fail(diag, KV_ERR_INPUT, NULL,
                      "--trace-events shows a server, but the experiment has no section `serving`");
    if (err == KV_OK && experiment->has_attention)
        err = kv_attention_prepare(experiment, speaks ? print_warning : NULL, &line, &s->job, diag);
    return err;
}

static kv_err write_results(const kv_experiment *experiment, const settings *s, kv_diag *diag)
{
    kv_results *results = NULL;
    char named[512];
    snprintf(named, sizeof named, "%s.db", experiment->name);
    const char *output = s->output ? s->output : named;
    kv_err err = kv_results_open(output, KV_RESULTS_WRITE, &results, diag);
    if (err == KV_OK)
        err = run_into(results, experiment, s, diag);
    kv_results_close(results);
    if (err == KV_OK && !s->quiet)
        printf("Results: %s\n", output);
    return err;
}

static kv_err run_experiment(settings *s, kv_diag *diag)
{
    kv_experiment *experiment = NULL;
    kv_err err = kv_experiment_read(s->experiment, s->set, s->sets, &experiment, diag);
    if (err != KV_OK)
        return err;
    err = prepare(experiment, s, diag);
    if (err == KV_OK && kv__ranks_mine() == 0)
        err = write_results(experiment, s, diag);
    else if (err == KV_OK && s->job != NULL)
        err = help_rank_0(s, diag);
    kv_attention_job_free(s->job);
    kv_experiment_free(experiment);
    return err;
}

/* Rank 0 speaks for all, and stops them. Another rank that alone has failed (a file that its
 * machine lacks) speaks when rank 0 has had time to and has not. */
static int report(const kv_diag *diag)
{
    if (kv__ranks_mine() > 0)
        sleep(2);
    return kv__report_error(diag);
}

static int run(const kv_command *self, int argc, char **argv)
{
    settings s = {.shard = 1, .shards = 1};
    s.set = calloc((size_t)argc + 1, sizeof *s.set);
    if (s.set == NULL)
        return KV_EXIT_FAILED;
    int status = parse_command_line(self, argc, argv, &s);
    kv_diag diag = {0};
    if (status == KV_EXIT_OK &&
        (kv__ranks_start(&diag) != KV_OK || run_experiment(&s, &diag) != KV_OK))
        status = report(&diag);
    free(s.set);
    kv__ranks_stop(status);
    return status;
}
