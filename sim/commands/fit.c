/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "sim/accuracy_fit.h"
#include "sim/base/csv.h"
#include "sim/base/json.h"
#include "sim/command.h"
#include "sim/commands/fit.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SEED = 256 + 2, POINTS = 256 + 3, SET = 256 + 4 };

static const kv_option options[] = {
    {'t', "traces", "FILE",
     "recorded attention of the examples that were measured; may be repeated"},
    {'j', "jobs", "N", "threads; as many as there are processors if not given"},
    {0, "seed", "N", "of policies that draw random numbers and of intervals [1]"},
    {0, "points", "FILE", "write every measured point with what is predicted for it, as CSV"},
    {0, "set", "KEY=VALUE", "change a setting of the experiment, such as serving.kv_blocks=2588"},
    {'q', "quiet", NULL, "no progress and no warnings"},
    {.name = NULL},
};

static int run(const kv_command *self, int argc, char **argv);

KV_COMMAND_DEFINE(fit) = {
    .name = "fit",
    .arguments = "MEASURED.csv --traces FILE... | EXPERIMENT.yaml",
    .brief = "Calibrates accuracies, or the step times of a server, from measurements",
    .options = options,
    .run = run,
};

typedef struct settings {
    kv_accuracy_fit_options fit;
    const char **trace;
    const char *points; /* NULL: not wanted */
    const char **set;   /* [sets] KEY=VALUE */
    int sets;
    const char *experiment; /* whose step times are fitted; NULL: accuracies are */
    bool quiet;
} settings;

/* --- The command line ------------------------------------------------------------------------- */

static bool parse_number(const char *text, long long least, long long most, long long *out)
{
    char *end;
    *out = strtoll(text, &end, 10);
    return end != text && *end == '\0' && *out >= least && *out <= most;
}

static int parse_option(const kv_command *self, int option, settings *s)
{
    long long number;
    switch (option) {
    case 't':
        s->trace[s->fit.trace_count++] = optarg;
        return KV_EXIT_OK;
    case 'j':
        if (!parse_number(optarg, 1, 1024, &number))
            return kv__usage_error(self, "--jobs %s: expected a number from 1 to 1024", optarg);
        s->fit.threads = (int)number;
        return KV_EXIT_OK;
    case SEED:
        if (!parse_number(optarg, 0, 1LL << 53, &s->fit.seed))
            return kv__usage_error(self, "--seed %s: expected a whole number from 0", optarg);
        return KV_EXIT_OK;
    case POINTS:
        s->points = optarg;
        return KV_EXIT_OK;
    case SET:
        s->set[s->sets++] = optarg;
        return KV_EXIT_OK;
    case 'q':
        s->quiet = true;
        return KV_EXIT_OK;
    default:
        return KV_EXIT_USAGE;
    }
}

static bool is_yaml(const char *path)
{
    const char *dot = strrchr(path, '.');
    return dot != NULL && (strcmp(dot, ".yaml") == 0 || strcmp(dot, ".yml") == 0);
}

static int parse_command_line(const kv_command *self, int argc, char **argv, settings *s)
{
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    s->fit.threads = processors > 0 && processors < 1024 ? (int)processors : 1;
    for (int option; (option = kv__option_next(self, argc, argv)) != -1;) {
        int status = parse_option(self, option, s);
        if (status != KV_EXIT_OK)
            return status;
    }
    if (optind == argc)
        return kv__usage_error(self, "expected a CSV file of measured accuracies");
    s->fit.measured = argv[optind++];
    if (is_yaml(s->fit.measured)) {
        s->experiment = s->fit.measured;
        if (optind < argc || s->fit.trace_count > 0 || s->points != NULL)
            return kv__usage_error(self, "a fit of step times takes an experiment and --set only");
        return KV_EXIT_OK;
    }
    if (s->sets > 0)
        return kv__usage_error(self, "--set: %s is not an experiment", s->fit.measured);
    while (optind < argc) /* --traces a.h5 b.h5 */
        s->trace[s->fit.trace_count++] = argv[optind++];
    if (s->fit.trace_count == 0)
        return kv__usage_error(self, "expected --traces FILE, the recorded examples of %s",
                               s->fit.measured);
    s->fit.traces = s->trace;
    return KV_EXIT_OK;
}

/* --- Progress --------------------------------------------------------------------------------- */

static void show_progress(void *closure, int done, int total)
{
    fprintf(stderr, "\r%d of %d examples ", done, total);
    if (done == total)
        fprintf(stderr, "\r%40s\r", "");
    fflush(stderr);
}

/* --- Tables ----------------------------------------------------------------------------------- */

/* A fraction in percent, or a dash. */
static void print_percent(double value, int width, int digits)
{
    if (isnan(value))
        printf("%*s", width, "-");
    else
        printf("%*.*f", width, digits, 100 * value);
}

static void print_number(double value, int width)
{
    if (isnan(value))
        printf("%*s", width, "-");
    else
        printf("%*.2f", width, value);
}

static int name_width(const kv_calibration_task *task, int tasks)
{
    int width = (int)strlen("all tasks");
    for (int t = 0; t < tasks; t++)
        width = (int)strlen(task[t].name) > width ? (int)strlen(task[t].name) : width;
    return width;
}

static void print_fits(const kv_calibration_task *task, int tasks, int width)
{
    static const char *const kinds[] = {"own", "shared", "none"};
    puts("Fit: pass = g + (1 - g) n(x; b, m) n(q; 5, t)");
    printf("%-*s  %-6s  points  policies   full %%       b       m       t       g  residual %%\n",
           width, "task", "fit");
    for (int t = 0; t < tasks; t++) {
        kv_link link;
        bool none = task[t].kind == KV_CALIBRATION_NONE;
        kv_link_init(&link, task[t].fit.theta, none ? 0 : task[t].fit.parameters);
        printf("%-*s  %-6s  %6d  %8d  ", width, task[t].name, kinds[task[t].kind], task[t].points,
               task[t].policies);
        print_percent(task[t].full_accuracy, 7, 1);
        print_number(none ? NAN : link.output.b, 8);
        print_number(none ? NAN : link.output.m, 8);
        print_number(none ? NAN : link.query.m, 8);
        print_number(task[t].fit.parameters > KV_LINK_GUESS ? link.guess : NAN, 8);
        print_percent(task[t].fit.residual_rms, 12, 2);
        putchar('\n');
    }
}

static void print_errors(const kv_calibration_task *task, int tasks, int width)
{
    double sum = 0;
    int points = 0;
    puts("\nHeld-out policies: each predicted by a fit that has not seen it; errors in points of "
         "percent");
    printf("%-*s    mean     max    bias  single turns  within 95%%  critical footprint\n", width,
           "task");
    for (int t = 0; t < tasks; t++) {
        printf("%-*s  ", width, task[t].name);
        print_percent(task[t].mae, 6, 2);
        print_percent(task[t].max, 8, 1);
        print_percent(task[t].bias, 8, 2);
        print_percent(task[t].turn_mae, 14, 2);
        print_percent(task[t].coverage, 12, 1);
        print_percent(task[t].critical_mae, 10, 2);
        printf(" (%d curves, %d differ)\n", task[t].critical_curves, task[t].critical_differ);
        if (task[t].kind == KV_CALIBRATION_NONE || isnan(task[t].mae))
            continue;
        sum += task[t].mae * task[t].points;
        points += task[t].points;
    }
    if (points > 0) {
        printf("%-*s  ", width, "all tasks");
        print_percent(sum / points, 6, 2);
        putchar('\n');
    }
}

/* Errors of one held-out policy, from its first point on. */
static void print_policy(const kv_calibration_point *point, int points, int first,
                         const kv_points_plan *plan)
{
    const char *policy = plan->point[point[first].point].policy;
    double sum = 0, bias = 0, max = 0;
    int count = 0;
    for (int i = first; i < points && point[i].task == point[first].task; i++) {
        if (!point[i].fitted_to || strcmp(plan->point[point[i].point].policy, policy) != 0)
            continue;
        double error = point[i].held_out - point[i].accuracy;
        sum += fabs(error);
        bias += error;
        max = fmax(max, fabs(error));
        count++;
    }
    printf("  %-16s  %6d", policy, count);
    print_percent(sum / count, 8, 2);
    print_percent(max, 8, 1);
    print_percent(bias / count, 8, 2);
    putchar('\n');
}

static bool begins_policy(const kv_calibration_point *point, int i, const kv_points_plan *plan)
{
    if (point[i].full || !point[i].fitted_to || isnan(point[i].held_out))
        return false;
    for (int j = i - 1; j >= 0 && point[j].task == point[i].task; j--)
        if (point[j].fitted_to &&
            strcmp(plan->point[point[j].point].policy, plan->point[point[i].point].policy) == 0)
            return false;
    return true;
}

static void print_policies(const kv_calibration_task *task, const kv_calibration_point *point,
                           int points, const kv_points_plan *plan)
{
    int shown = -1;
    for (int i = 0; i < points; i++) {
        if (!begins_policy(point, i, plan))
            continue;
        if (point[i].task != shown)
            printf("\n%s\n  %-16s  points    mean     max    bias\n", task[point[i].task].name,
                   "held-out policy");
        shown = point[i].task;
        print_policy(point, points, i, plan);
    }
}

static void write_real(double value, FILE *out)
{
    char text[KV_REAL_TEXT];
    kv_real_text(value, text);
    fprintf(out, ",%s", isnan(value) ? "" : text);
}

static void write_points(const kv_accuracy_fit *fit, FILE *out)
{
    int tasks, points;
    const kv_calibration *calibration = kv_accuracy_fit_calibration(fit);
    const kv_calibration_task *task = kv_calibration_tasks(calibration, &tasks);
    const kv_calibration_point *point = kv_calibration_points(calibration, &points);
    fputs("task,turn,policy,params,chunk_size,n,kv_footprint,accuracy,fitted,held_out,held_out_lo,"
          "held_out_hi,evidence_output,query_intact\n",
          out);
    for (int i = 0; i < points; i++) {
        const kv_point_info *info = &kv_accuracy_fit_plan(fit)->point[point[i].point];
        kv_csv_write(task[point[i].task].name, out);
        if (point[i].turn > 0)
            fprintf(out, ",%d,%s,", point[i].turn, info->policy);
        else
            fprintf(out, ",,%s,", info->policy);
        kv_csv_write(info->params_json, out);
        if (info->chunk_tokens > 0)
            fprintf(out, ",%lld", info->chunk_tokens);
        else
            fputs(",whole", out);
        const double values[] = {point[i].n > 0 ? point[i].n : NAN,
                                 point[i].footprint,
                                 point[i].accuracy,
                                 point[i].fitted,
                                 point[i].held_out,
                                 point[i].held_out_lo,
                                 point[i].held_out_hi,
                                 point[i].output,
                                 point[i].intact};
        for (size_t v = 0; v < sizeof values / sizeof values[0]; v++)
            write_real(values[v], out);
        putc('\n', out);
    }
}

static kv_err save_points(const kv_accuracy_fit *fit, const char *path, kv_diag *diag)
{
    kv_mark mark = {path, 0, 0};
    FILE *out = fopen(path, "w");
    if (out == NULL)
        return kv_fail(diag, KV_ERR_IO, &mark, "cannot be written: %s", strerror(errno));
    write_points(fit, out);
    bool bad = ferror(out) != 0;
    if (fclose(out) != 0 || bad)
        return kv_fail(diag, KV_ERR_IO, &mark, "cannot be written: %s", strerror(errno));
    return KV_OK;
}

static void print_fit(const kv_accuracy_fit *fit)
{
    int tasks, points;
    const kv_calibration *calibration = kv_accuracy_fit_calibration(fit);
    const kv_calibration_task *task = kv_calibration_tasks(calibration, &tasks);
    const kv_calibration_point *point = kv_calibration_points(calibration, &points);
    int width = name_width(task, tasks);
    print_fits(task, tasks, width);
    print_errors(task, tasks, width);
    print_policies(task, point, points, kv_accuracy_fit_plan(fit));
}

static void warn(const kv_accuracy_fit *fit)
{
    int tasks;
    const kv_calibration_task *task =
        kv_calibration_tasks(kv_accuracy_fit_calibration(fit), &tasks);
    if (kv_accuracy_fit_skipped(fit) != NULL)
        fprintf(stderr, "kvsim: warning: %s\n", kv_accuracy_fit_skipped(fit));
    for (int t = 0; t < tasks; t++)
        if (task[t].kind != KV_CALIBRATION_OWN)
            fprintf(stderr,
                    "kvsim: warning: %s: too few points for a fit of its own (at least %d points "
                    "of %d policies with %d different accuracies): %s\n",
                    task[t].name, KV_CALIBRATION_LEAST_POINTS, KV_CALIBRATION_LEAST_POLICIES,
                    KV_CALIBRATION_LEAST_ACCURACIES,
                    task[t].kind == KV_CALIBRATION_SHARED ? "it shares one with the other tasks"
                                                          : "its accuracy would be a proxy");
}

static int fit_and_print(settings *s)
{
    kv_accuracy_fit *fit;
    kv_diag diag = {0};
    if (!s->quiet && isatty(STDERR_FILENO))
        s->fit.progress = show_progress;
    if (kv_accuracy_fit_new(&s->fit, &fit, &diag) != KV_OK)
        return kv__report_error(&diag);
    if (!s->quiet)
        warn(fit);
    print_fit(fit);
    kv_err err = s->points ? save_points(fit, s->points, &diag) : KV_OK;
    kv_accuracy_fit_free(fit);
    return err == KV_OK ? KV_EXIT_OK : kv__report_error(&diag);
}

static int run(const kv_command *self, int argc, char **argv)
{
    settings s = {
        .fit = {.seed = 1, .critical = {.threshold = 0.9, .confidence = 0.95, .resamples = 1000}}};
    s.trace = calloc((size_t)argc + 1, sizeof *s.trace);
    s.set = calloc((size_t)argc + 1, sizeof *s.set);
    int status = s.trace != NULL && s.set != NULL ? parse_command_line(self, argc, argv, &s)
                                                  : KV_EXIT_FAILED;
    if (status == KV_EXIT_OK)
        status = s.experiment != NULL ? kv__fit_steps(s.experiment, s.set, s.sets, s.quiet)
                                      : fit_and_print(&s);
    free(s.trace);
    free(s.set);
    return status;
}
