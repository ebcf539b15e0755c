/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "tests/synthetic.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_TEXTS = 2000 };

/* A curve of the sweep; `half` is the footprint at which half of the answers survive. */
typedef struct curve {
    const char *policy, *settings, *label;
    int chunk_tokens;
    double half;
} curve;

static const curve small_curves[] = {
    {"full", "", "full", 0, 0}, {"snapkv", "\"evict\":\"chunked\"", "snapkv chunked", 64, 0.3}};

static const curve large_curves[] = {
    {"full", "", "full", 0, 0},
    {"streaming", "\"sinks\":4", "streaming", 1, 0.62},
    {"snapkv", "\"evict\":\"postfill\",\"window\":16", "snapkv postfill", 0, 0.07},
    {"snapkv", "\"evict\":\"chunked\",\"window\":16", "snapkv chunked", 32, 0.55},
    {"snapkv", "\"evict\":\"chunked\",\"window\":16", "snapkv chunked", 64, 0.45},
    {"snapkv", "\"evict\":\"chunked\",\"window\":16", "snapkv chunked", 128, 0.38},
    {"snapkv", "\"evict\":\"patched\",\"window\":16", "snapkv patched", 32, 0.26},
    {"snapkv", "\"evict\":\"patched\",\"window\":16", "snapkv patched", 64, 0.2},
    {"snapkv", "\"evict\":\"patched\",\"window\":16", "snapkv patched", 128, 0.16},
    {"h2o", "", "h2o", 64, 0.5},
    {"tova", "", "tova", 64, 0.33},
    {"keydiff", "", "keydiff", 64, 0.42},
};

typedef struct task {
    const char *name;
    int examples, turns;
    double ease; /* shifts every curve's half */
} task;

static const task small_tasks[] = {{"kv_multiturn", 3, 2, 0.05}, {"kv_recall", 4, 1, 0}};
static const task large_tasks[] = {
    {"icl", 8, 5, -0.1}, {"kv_multiturn", 8, 5, 0.04}, {"kv_recall", 16, 1, 0}, {"lm", 8, 1, -1}};

static const double keeps[] = {0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9};

/* A fraction that depends on three numbers and looks random. */
static double noise(unsigned a, unsigned b, unsigned c)
{
    unsigned h = a * 2654435761u ^ b * 2246822519u ^ c * 3266489917u;
    h = (h ^ h >> 15) * 2246822519u;
    h = (h ^ h >> 13) * 3266489917u;
    return (double)(h >> 8) / 16777216.0;
}

static void add_points(kv_synthetic *s, const curve *curves, size_t count, int budgets, int *text)
{
    for (size_t c = 0; c < count; c++) {
        bool full = strcmp(curves[c].policy, "full") == 0;
        for (int k = 0; k < (full ? 1 : budgets); k++) {
            char *params = s->text[(*text)++], *settings = s->text[(*text)++];
            const char *comma = *curves[c].settings ? "," : "";
            snprintf(settings, sizeof s->text[0], "{%s}", curves[c].settings);
            if (full)
                snprintf(params, sizeof s->text[0], "{}");
            else
                snprintf(params, sizeof s->text[0], "{%s%s\"keep\":%g}", curves[c].settings, comma,
                         keeps[k]);
            s->point[s->plan.points++] = (kv_point_info){
                .policy = curves[c].policy,
                .params_json = params,
                .curve_json = settings,
                .label = curves[c].label,
                .chunk_tokens = curves[c].chunk_tokens,
                .keep = full ? NAN : keeps[k],
            };
        }
    }
}

static void add_examples(kv_synthetic *s, const task *tasks, size_t count, int *text)
{
    for (size_t t = 0; t < count; t++) {
        for (int e = 0; e < tasks[t].examples; e++) {
            char *name = s->text[(*text)++];
            snprintf(name, sizeof s->text[0], "%04d", s->plan.examples);
            s->example[s->plan.examples++] = (kv_example_info){
                .trace = "made-up.h5",
                .digest = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
                .name = name,
                .task = tasks[t].name,
                .turns = tasks[t].turns,
                .full_score = e % 8 == 7 ? 0.5 : 1.0,
            };
        }
    }
}

kv_synthetic *kv_synthetic_new(kv_synthetic_size size)
{
    int text = 0;
    kv_synthetic *s = calloc(1, sizeof *s);
    s->point = calloc(MOST_TEXTS, sizeof *s->point);
    s->example = calloc(MOST_TEXTS, sizeof *s->example);
    s->text = calloc(MOST_TEXTS, sizeof *s->text);
    if (size == KV_SYNTHETIC_SMALL) {
        add_points(s, small_curves, sizeof small_curves / sizeof small_curves[0], 4, &text);
        add_examples(s, small_tasks, sizeof small_tasks / sizeof small_tasks[0], &text);
    } else {
        add_points(s, large_curves, sizeof large_curves / sizeof large_curves[0], 7, &text);
        add_examples(s, large_tasks, sizeof large_tasks / sizeof large_tasks[0], &text);
    }
    s->plan.point = s->point;
    s->plan.example = s->example;
    s->plan.critical = (kv_critical_info){0.9, 0.95, 200};
    s->info = (kv_run_info){.name = "made-up sweep",
                            .experiment = "name: made-up sweep\nseed: 1\nattention:\n"
                                          "  traces: [made-up.h5]\n",
                            .seed = 1,
                            .version = "0.0-test"};
    return s;
}

void kv_synthetic_free(kv_synthetic *s)
{
    free(s->point);
    free(s->example);
    free(s->text);
    free(s);
}

/* Half of a curve's answers survive at this footprint, on one task. */
static double half_of(const kv_point_info *point, const char *task_name)
{
    double half = 0.3, ease = 0;
    for (size_t c = 0; c < sizeof large_curves / sizeof large_curves[0]; c++)
        if (large_curves[c].chunk_tokens == point->chunk_tokens &&
            strcmp(large_curves[c].label, point->label) == 0)
            half = large_curves[c].half;
    for (size_t t = 0; t < sizeof large_tasks / sizeof large_tasks[0]; t++)
        if (strcmp(large_tasks[t].name, task_name) == 0)
            ease = large_tasks[t].ease;
    return half + ease;
}

static void fill_record(const kv_synthetic *s, int p, int e, int turn, kv_record *out)
{
    const kv_point_info *point = &s->point[p];
    const kv_example_info *example = &s->example[e];
    double keep = isnan(point->keep) ? 1.0 : point->keep;
    double jitter = noise((unsigned)p, (unsigned)e, (unsigned)turn) - 0.5;
    double footprint = keep >= 1 ? 1.0 : keep + 0.06 * (1 - keep) + 0.02 * keep * jitter;
    double alive =
        keep >= 1 ? 1.0
                  : 1 / (1 + exp(-(footprint - half_of(point, example->task)) * 14 - 3 * jitter));
    bool evidence = strcmp(example->task, "lm") != 0;
    for (int m = 0; m < KV_MEASURES; m++)
        out->value[m] = alive;
    for (int m = KV_M_FOOTPRINT; m <= KV_M_PEAK_PAGE; m++)
        out->value[m] = fmin(1.0, footprint * (1 + 0.02 * m));
    out->value[KV_M_FOOTPRINT] = footprint;
    out->value[KV_M_BYTES_SECONDS] = footprint * 1e9;
    out->value[KV_M_PEAK_BYTES] = floor(footprint * 1e6);
    for (int m = KV_M_EVIDENCE_RECALL; m <= KV_M_EVICTED_EVERYWHERE; m++)
        out->value[m] = evidence ? alive : NAN;
    out->value[KV_M_EVIDENCE_OUTPUT] = evidence ? alive : NAN;
    out->value[KV_M_QUERY_INTACT] = evidence ? 1 - (1 - alive) / 8 : NAN;
    out->value[KV_M_OUTPUT_ERROR] = out->value[KV_M_OUTPUT_WORST] = 1 - alive;
}

kv_record *kv_synthetic_records(const kv_synthetic *s, int example)
{
    int slots = s->example[example].turns + 1;
    kv_record *records = calloc((size_t)(s->plan.points * slots), sizeof *records);
    for (int p = 0; p < s->plan.points; p++)
        for (int t = 0; t < slots; t++)
            fill_record(s, p, example, t, &records[p * slots + t]);
    return records;
}

kv_err kv_synthetic_put(const kv_synthetic *s, kv_points *points, int e, bool with_sets,
                        kv_diag *diag)
{
    static const int32_t position[] = {0, 1, 5, 400};
    kv_retained_set set[4];
    for (int i = 0; i < 4; i++) /* of two points, given from last to first */
        set[i] = (kv_retained_set){1 - i / 2, 0, 1 - i % 2, position, (e + i) % 5};
    kv_record *records = kv_synthetic_records(s, e);
    kv_err err = kv_points_put(points, e, records, with_sets ? set : NULL, with_sets ? 4 : 0, diag);
    free(records);
    return err;
}

kv_err kv_synthetic_points(const kv_synthetic *s, kv_run *run, bool reverse, bool with_sets,
                           kv_diag *diag)
{
    kv_points *points = NULL;
    kv_err err = kv_points_begin(run, &s->plan, &points, diag);
    for (int i = 0; i < s->plan.examples && err == KV_OK; i++) {
        int e = reverse ? s->plan.examples - 1 - i : i;
        if (kv_points_wants(points, e))
            err = kv_synthetic_put(s, points, e, with_sets, diag);
    }
    if (err == KV_OK)
        err = kv_points_finish(points, diag);
    kv_points_free(points);
    return err;
}

kv_err kv_synthetic_run(const kv_synthetic *s, const char *path, bool resume, bool reverse,
                        bool with_sets, kv_diag *diag)
{
    kv_results *results = NULL;
    kv_run *run = NULL;
    kv_err err = kv_results_open(path, KV_RESULTS_WRITE, &results, diag);
    if (err == KV_OK)
        err = kv_run_begin(results, &s->info, resume, &run, diag);
    if (err == KV_OK)
        err = kv_synthetic_points(s, run, reverse, with_sets, diag);
    if (err == KV_OK)
        err = kv_run_finish(run, diag);
    kv_run_free(run);
    kv_results_close(results);
    return err;
}
