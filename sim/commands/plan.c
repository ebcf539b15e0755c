/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "analysis/plan_results.h"
#include "sim/attention_run.h"
#include "sim/command.h"
#include "sim/experiment.h"
#include "sim/plan/plan.h"

#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { RESUME = 256 + 2, SET };

static const kv_option options[] = {
    {'o', "output", "RESULTS.db", "where results go; NAME.db in the current folder if not given"},
    {'j', "jobs", "N", "threads; as many as there are processors if not given"},
    {0, "resume", NULL, "take up a plan that was stopped in its attention part"},
    {0, "set", "KEY=VALUE", "override a setting of the experiment; may be repeated"},
    {'q', "quiet", NULL, "no progress and no summary"},
    {.name = NULL},
};

static int plan(const kv_command *self, int argc, char **argv);

KV_COMMAND_DEFINE(plan) = {
    .name = "plan",
    .arguments = "EXPERIMENT.yaml [OPTION]...",
    .brief = "Finds the cheapest server that keeps limits on accuracy and latency",
    .options = options,
    .run = plan,
};

typedef struct request {
    const char *experiment, *output;
    const char **set;
    int sets, threads;
    bool resume, quiet, shown;
} request;

/* --- progress --------------------------------------------------------------------------------- */

static void show_progress(void *closure, int done, int total)
{
    request *r = closure;
    r->shown = true;
    fprintf(stderr, "\r%d of %d ", done, total);
    fflush(stderr);
}

static void clear_progress(request *r)
{
    if (r->shown)
        fprintf(stderr, "\r%40s\r", "");
    r->shown = false;
}

static void warn(void *closure, const char *text)
{
    clear_progress(closure);
    fprintf(stderr, "kvsim: warning: %s\n", text);
}

/* --- the command line ------------------------------------------------------------------------- */

static int take_option(const kv_command *self, int option, request *r)
{
    char *end;
    switch (option) {
    case 'o':
        r->output = optarg;
        return KV_EXIT_OK;
    case 'j':
        r->threads = (int)strtol(optarg, &end, 10);
        if (end != optarg && *end == '\0' && r->threads >= 1 && r->threads <= 1024)
            return KV_EXIT_OK;
        return kv__usage_error(self, "--jobs %s: expected a number from 1 to 1024", optarg);
    case RESUME:
        r->resume = true;
        return KV_EXIT_OK;
    case SET:
        r->set[r->sets++] = optarg;
        return KV_EXIT_OK;
    case 'q':
        r->quiet = true;
        return KV_EXIT_OK;
    default:
        return KV_EXIT_USAGE;
    }
}

/* --- the plan --------------------------------------------------------------------------------- */

static kv_err check(const kv_experiment *experiment, const char *path, kv_diag *diag)
{
    kv_mark mark = {path, 0, 0};
    if (!experiment->has_plan)
        return kv_fail(diag, KV_ERR_INPUT, &mark,
                       "there is no section `plan`; expected one with `limits`");
    if (experiment->serving == NULL)
        return kv_fail(diag, KV_ERR_INPUT, &mark,
                       "a plan needs the section `serving`: requests, and devices to choose from");
    return KV_OK;
}

static kv_err run_attention(const kv_experiment *experiment, kv_attention_job *job, kv_run *run,
                            request *r, kv_diag *diag)
{
    if (!experiment->has_attention || experiment->plan.results != NULL)
        return KV_OK;
    kv_attention_run_options how = {.threads = r->threads,
                                    .progress_closure = r,
                                    .warn = r->quiet ? NULL : warn,
                                    .warn_closure = r};
    if (!r->quiet && isatty(STDERR_FILENO))
        how.progress = show_progress;
    kv_err err = kv_attention_run(job, run, &how, diag);
    clear_progress(r);
    return err;
}

/* The results that say accuracies; *out stays NULL if they are this run's own. */
static kv_err open_accuracy(const kv_experiment *experiment, kv_results **out, kv_diag *diag)
{
    if (experiment->plan.results == NULL)
        return KV_OK;
    kv_err err = kv_results_open(experiment->plan.results, KV_RESULTS_READ, out, diag);
    return err == KV_OK ? err : kv_fail_from(diag, &experiment->plan.results_mark);
}

static kv_err search(const kv_experiment *experiment, kv_run *run, kv_results *results, request *r,
                     kv_diag *diag)
{
    kv_results *other = NULL;
    kv_plan_options how = {.threads = r->threads, .closure = r, .warn = r->quiet ? NULL : warn};
    if (!r->quiet && isatty(STDERR_FILENO))
        how.progress = show_progress;
    kv_err err = open_accuracy(experiment, &other, diag);
    bool own = other == NULL && experiment->has_attention;
    if (err == KV_OK)
        err = kv_plan_search(experiment, run, results, own ? results : other,
                             own ? kv_run_id(run) : 0, &how, diag);
    clear_progress(r);
    kv_results_close(other);
    return err;
}

/* A search is written when it is done, so one that was stopped left nothing to take up. */
static void say_what_goes_on(const kv_experiment *experiment, const kv_run *run, const request *r)
{
    bool own = experiment->has_attention && experiment->plan.results == NULL;
    if (!r->quiet && kv_run_is_resumed(run) && !kv_run_is_finished(run))
        fprintf(stderr, "kvsim: run %lld was stopped: %sthe search for servers starts anew\n",
                kv_run_id(run), own ? "its replayed examples are kept, " : "");
}

static kv_err run_into(const kv_experiment *experiment, kv_attention_job *job, kv_results *results,
                       request *r, kv_diag *diag)
{
    kv_run *run = NULL;
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    kv_err err = out != NULL ? kv_experiment_write(experiment, out) : kv_fail_memory(diag);
    if (out != NULL && fclose(out) != 0)
        err = kv_fail_memory(diag);
    kv_run_info info = {.name = experiment->name,
                        .experiment = text,
                        .seed = experiment->seed,
                        .version = PACKAGE_VERSION};
    if (err == KV_OK)
        err = kv_run_begin(results, &info, r->resume, &run, diag);
    bool lacking = err == KV_OK && !kv_run_is_finished(run);
    if (lacking)
        say_what_goes_on(experiment, run, r);
    if (lacking)
        err = run_attention(experiment, job, run, r, diag);
    if (lacking && err == KV_OK)
        err = search(experiment, run, results, r, diag);
    if (lacking && err == KV_OK)
        err = kv_run_finish(run, diag);
    if (err == KV_OK && !r->quiet)
        err = kv_plan_summary(results, kv_run_id(run), stdout, diag);
    kv_run_free(run);
    free(text);
    return err;
}

static kv_err write_results(const kv_experiment *experiment, request *r, kv_diag *diag)
{
    kv_results *results = NULL;
    kv_attention_job *job = NULL;
    char named[512];
    snprintf(named, sizeof named, "%s.db", experiment->name);
    const char *output = r->output ? r->output : named;
    kv_results *accuracy = NULL;
    kv_err err = kv_plan_check(experiment, diag);
    if (err == KV_OK) /* only to see that it can be opened */
        err = open_accuracy(experiment, &accuracy, diag);
    kv_results_close(accuracy);
    if (err == KV_OK && experiment->has_attention && experiment->plan.results == NULL)
        err = kv_attention_prepare(experiment, r->quiet ? NULL : warn, r, &job, diag);
    if (err == KV_OK)
        err = kv_results_open(output, KV_RESULTS_WRITE, &results, diag);
    if (err == KV_OK)
        err = run_into(experiment, job, results, r, diag);
    kv_results_close(results);
    kv_attention_job_free(job);
    if (err == KV_OK && !r->quiet)
        printf("\nResults: %s\n", output);
    return err;
}

static int plan(const kv_command *self, int argc, char **argv)
{
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    request r = {.threads = processors > 0 && processors < 1024 ? (int)processors : 1};
    kv_experiment *experiment = NULL;
    kv_diag diag = {0};
    int status = KV_EXIT_OK;
    r.set = calloc((size_t)argc + 1, sizeof *r.set);
    if (r.set == NULL)
        return KV_EXIT_FAILED;
    for (int option; status == KV_EXIT_OK && (option = kv__option_next(self, argc, argv)) != -1;)
        status = take_option(self, option, &r);
    if (status == KV_EXIT_OK && argc - optind != 1)
        status = kv__usage_error(self, "expected one experiment file");
    if (status == KV_EXIT_OK) {
        r.experiment = argv[optind];
        kv_err err = kv_experiment_read(r.experiment, r.set, r.sets, &experiment, &diag);
        if (err == KV_OK)
            err = check(experiment, r.experiment, &diag);
        if (err == KV_OK)
            err = write_results(experiment, &r, &diag);
        if (err != KV_OK)
            status = kv__report_error(&diag);
    }
    kv_experiment_free(experiment);
    free(r.set);
    return status;
}
