/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "sim/base/csv.h"
#include "sim/base/json.h"
#include "sim/base/unit.h"
#include "sim/command.h"
#include "sim/policy_spec.h"
#include "sim/serving/plan.h"
#include "sim/sizing.h"

#include <getopt.h>
#include <math.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const kv_option options[] = {
    {'m', "model", "MODEL", "catalogue name, YAML file, or {...} as in an experiment"},
    {'p', "prompt", "TOKENS", "prompt tokens"},
    {'g', "generate", "TOKENS", "generated tokens [0]"},
    {'c', "chunk", "TOKENS", "tokens prefilled in one step [whole]"},
    {0, "csv", NULL, "rows prompt,generate,chunk,policy on stdin, answers appended"},
    {0, "json", NULL, "one JSON object"},
    {'d', "device", "DEVICE", "adds the largest batch and the longest context that fit"},
    {0, "tensor-parallel", "N", "devices that share the model, with --device [1]"},
    {.name = NULL}};

static int footprint(const kv_command *self, int argc, char **argv);

KV_COMMAND_DEFINE(footprint) = {
    .name = "footprint",
    .arguments = "--model MODEL --prompt N [--generate N] [--chunk N] POLICY...",
    .brief = "Answers KV footprint, peak and bytes of policies from lengths alone",
    .options = options,
    .run = footprint,
};

/* What the command line says. */
typedef struct arguments {
    const char *model, *device_name;
    long long prompt, generate, chunk, tensor_parallel;
    bool csv, json;
    kv_device *device; /* NULL: none is asked about */
    kv_capacity_settings memory;
    kv_capacity capacity;
    double kv_copies; /* see kv_model_kv_copies */
} arguments;

/* What is said of a policy. */
typedef struct reply {
    kv_footprint footprint;
    kv_sizing sizing; /* where there is a device */
} reply;

static const kv_param length_rows[] = {
    {.name = "--prompt",
     .type = KV_INT,
     .offset = offsetof(arguments, prompt),
     .min = 1,
     .max = INT32_MAX},
    {.name = "--generate",
     .type = KV_INT,
     .offset = offsetof(arguments, generate),
     .min = 0,
     .max = INT32_MAX},
    {.name = "--chunk", .type = KV_CHUNK, .offset = offsetof(arguments, chunk)},
    {.name = "--tensor-parallel",
     .type = KV_INT,
     .offset = offsetof(arguments, tensor_parallel),
     .min = 1,
     .max = 1024},
    {.name = NULL}};

static kv_err take_option(arguments *a, int option, kv_diag *diag)
{
    enum { CSV = 256 + 4, JSON, TENSOR_PARALLEL = 256 + 7 };
    switch (option) {
    case 'm':
        a->model = optarg;
        return KV_OK;
    case 'p':
        return kv_param_set(&length_rows[0], a, optarg, NULL, diag);
    case 'g':
        return kv_param_set(&length_rows[1], a, optarg, NULL, diag);
    case 'c':
        return kv_param_set(&length_rows[2], a, optarg, NULL, diag);
    case 'd':
        a->device_name = optarg;
        return KV_OK;
    case TENSOR_PARALLEL:
        return kv_param_set(&length_rows[3], a, optarg, NULL, diag);
    case CSV:
        a->csv = true;
        return KV_OK;
    default:
        a->json = true;
        return KV_OK;
    }
}

/* --- One answer ---------------------------------------------------------------------------------
 */

static kv_err answer(const kv_model *model, const kv_point_spec *point, const arguments *a,
                     reply *out, kv_diag *diag)
{
    const kv_retention *policy = point->policy;
    for (int i = 0; i < point->parts; i++)
        if (point->part[i].method.family == KV_FAMILY_READ)
            return kv_fail(diag, KV_ERR_UNSUPPORTED, &point->mark,
                           "%s is a read policy: what it reads depends on the recorded rows; "
                           "`kvsim run` measures it",
                           point->part[i].method.name);
    kv_shape shape = {.model = model->name,
                      .layers = (int)model->layers,
                      .heads = (int)model->attention.heads,
                      .kv_heads = kv_model_kv_heads(model),
                      .head_dim = (int)model->attention.head_dim};
    kv_footprint_case c = {
        .model = model,
        .format = kv_model_cache_format(model),
        .policy = policy,
        .config = point->config,
        .part = point->part,
        .parts = point->parts,
        .prompt_tokens = a->prompt,
        .generated_tokens = a->generate,
        .chunk_tokens = point->chunk_tokens == KV_CHUNK_NOT_GIVEN ? a->chunk : point->chunk_tokens,
        .published = true};
    void *plan = NULL;
    kv_err err = KV_OK;
    bool counts_only = policy->counts_only != NULL && policy->counts_only(point->config);
    if (policy->prepare != NULL && !counts_only)
        err = policy->prepare(point->config, point->directory, &shape, &plan, diag);
    c.plan = plan;
    if (err == KV_OK)
        err = kv_footprint_compute(&c, &out->footprint, diag);
    if (err == KV_OK && a->device != NULL)
        err = kv_sizing_find(&c, a->capacity.room * a->memory.tensor_parallel / a->kv_copies,
                             &out->sizing, diag);
    if (plan != NULL && policy->release != NULL)
        policy->release(plan);
    return err;
}

/* --- Table and JSON
 * -------------------------------------------------------------------------------- */

/* A policy as it was written, name:key=value,... made flow YAML. The caller frees it. */
static char *flow_yaml(const char *text)
{
    const char *colon = strchr(text, ':');
    char *out = NULL;
    size_t bytes;
    if (text[0] == '{' || text[0] == '[' || colon == NULL)
        return strdup(text);
    FILE *file = open_memstream(&out, &bytes);
    if (file == NULL)
        return NULL;
    fprintf(file, "{%.*s: {", (int)(colon - text), text);
    for (const char *c = colon + 1; *c != '\0'; c++)
        fputs(*c == '=' ? ": " : *c == ',' ? ", " : (char[]){*c, '\0'}, file);
    fputs("}}", file);
    if (fclose(file) == 0)
        return out;
    free(out);
    return NULL;
}

static kv_err parse_policies(int count, char **text, kv_point_list *points, kv_diag *diag)
{
    kv_err err = KV_OK;
    for (int i = 0; err == KV_OK && i < count; i++) {
        char *yaml = flow_yaml(text[i]);
        kv_mark mark = {.path = "POLICY"};
        err = yaml == NULL ? kv_fail_memory(diag)
                           : kv_policy_parse_text(yaml, &mark, "", points, diag);
        free(yaml);
    }
    return err;
}

/* The settings of a point for people: the budget, then what differs from defaults. */
static void print_policy(const kv_point_spec *point, FILE *out)
{
    char *label = kv_spec_label(point);
    fputs(label == NULL ? point->policy->name : label, out);
    for (const kv_param *p = point->policy->params; p->name != NULL; p++) {
        char *value = p->flags & KV_PARAM_BUDGET ? kv_param_text(p, point->config) : NULL;
        if (value != NULL && value[0] != '\0')
            fprintf(out, " %s=%s", p->name, value);
        free(value);
    }
    if (point->chunk_tokens > 0)
        fprintf(out, " chunk_size=%lld", point->chunk_tokens);
    if (point->chunk_tokens == 0)
        fputs(" chunk_size=whole", out);
    free(label);
}

static void print_bytes(double bytes, FILE *out)
{
    static const char *const unit[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
    int u = 0;
    for (; fabs(bytes) >= 1024 && u < 5; u++)
        bytes /= 1024;
    fprintf(out, "%7.2f %-3s", bytes, unit[u]);
}

static void print_line(const char *sign, const char *what, double bytes)
{
    printf("  %s ", sign);
    print_bytes(bytes, stdout);
    printf("  %s\n", what);
}

/* How much memory is left for the cache, term by term. */
static void print_memory(const arguments *a)
{
    const kv_capacity *c = &a->capacity;
    char what[128], copies[64] = "";
    if (a->kv_copies != 1)
        snprintf(copies, sizeof copies, " over %.4g copies of each entry", a->kv_copies);
    printf("\n%s", a->device->name);
    if (a->memory.tensor_parallel > 1)
        printf(", each of %g", a->memory.tensor_parallel);
    snprintf(what, sizeof what, "%g of the memory, as serving.memory_utilization",
             a->memory.utilization);
    putchar('\n');
    print_line(" ", what, c->used);
    print_line("-", a->memory.tensor_parallel > 1 ? "its part of the weights" : "weights",
               c->weights);
    snprintf(what, sizeof what, "activations of %g tokens in a step", a->memory.step_tokens);
    print_line("-", what, c->activations);
    print_line("-", "runtime", c->reserve);
    print_line("=", "left for the KV cache", c->room);
    printf("batch: that%s%s over peak bytes; longest context: the longest that fits alone\n",
           a->memory.tensor_parallel > 1 ? " times the devices" : "", copies);
}

static void print_sizing(const kv_sizing *sizing)
{
    printf("%8lld  %10lld%s  ", sizing->batch, sizing->context_tokens,
           sizing->context_is_models ? "*" : " ");
}

static void print_table(const kv_model *model, const arguments *a, const kv_point_list *points,
                        const reply *r)
{
    bool models_own = false;
    printf("%s, %lld prompt + %lld generated tokens, chunk size ", model->name, a->prompt,
           a->generate);
    printf(a->chunk > 0 ? "%lld" : "whole", a->chunk);
    printf("; %.0f bytes of KV per token",
           kv_model_token_bytes(model, kv_model_cache_format(model)));
    if (kv_model_state_bytes(model) > 0)
        printf(", %.0f of state", kv_model_state_bytes(model));
    putchar('\n');
    if (a->device != NULL)
        print_memory(a);
    printf("\n%10s  %10s  %11s  %10s  ", "footprint", "peak", "peak bytes", "byte-steps");
    if (a->device != NULL)
        printf("%8s  %10s   ", "batch", "context");
    puts("policy");
    for (int i = 0; i < points->count; i++) {
        const kv_footprint *f = &r[i].footprint;
        printf("%10.6f  %10.6f  ", f->footprint, f->peak);
        print_bytes(f->peak_bytes, stdout);
        printf("  %10.4g  ", f->byte_steps);
        if (a->device != NULL)
            print_sizing(&r[i].sizing);
        models_own = models_own || r[i].sizing.context_is_models;
        print_policy(&points->point[i], stdout);
        putchar('\n');
    }
    if (models_own)
        puts("* the longest that the model takes");
    if (a->device != NULL && a->capacity.room <= 0)
        puts("the weights leave no room; --tensor-parallel divides them");
    if (a->device != NULL && kv_sizing_is_too_long(model, a->prompt, a->generate))
        printf("the model takes at most %lld tokens, so none of %lld is in a batch\n",
               (long long)model->max_context, a->prompt + a->generate);
}

static void print_json_numbers(int count, const char *const *name, const double *value)
{
    for (int k = 0; k < count; k++) {
        printf("%s\"%s\":", k > 0 ? "," : "", name[k]);
        kv_json_real(value[k], stdout);
    }
}

static void print_json_memory(const arguments *a)
{
    static const char *const names[] = {"memory_bytes",     "used_bytes",    "weight_bytes",
                                        "activation_bytes", "reserve_bytes", "kv_bytes"};
    const kv_capacity *c = &a->capacity;
    const double values[] = {c->memory, c->used, c->weights, c->activations, c->reserve, c->room};
    printf(",\"device\":");
    kv_json_string(a->device->name, stdout);
    printf(",\"tensor_parallel\":%g,\"kv_copies\":%.17g,\"memory_per_device\":{",
           a->memory.tensor_parallel, a->kv_copies);
    print_json_numbers(6, names, values);
    putchar('}');
}

static void print_json_point(const kv_point_spec *p, const arguments *a, const reply *r)
{
    static const char *const names[] = {"kv_footprint", "kv_peak", "kv_bytes_peak",
                                        "kv_byte_steps"};
    const kv_footprint *f = &r->footprint;
    const double values[] = {f->footprint, f->peak, f->peak_bytes, f->byte_steps};
    long long chunk = p->chunk_tokens == KV_CHUNK_NOT_GIVEN ? a->chunk : p->chunk_tokens;
    char *name = kv_spec_name(p), *params = kv_spec_params_json(p);
    printf("{\"policy\":");
    kv_json_string(name != NULL ? name : p->policy->name, stdout);
    free(name);
    printf(",\"params\":%s,\"chunk_size\":", params != NULL ? params : "null");
    free(params);
    printf(chunk > 0 ? "%lld," : "null,", chunk);
    print_json_numbers(4, names, values);
    if (a->device != NULL)
        printf(",\"batch\":%lld,\"context\":%lld,\"context_is_models\":%s,\"context_bytes\":%.17g",
               r->sizing.batch, r->sizing.context_tokens,
               r->sizing.context_is_models ? "true" : "false", r->sizing.context_bytes);
    putchar('}');
}

static void print_json(const kv_model *model, const arguments *a, const kv_point_list *points,
                       const reply *r)
{
    printf("{\"model\":");
    kv_json_string(model->name, stdout);
    printf(",\"prompt\":%lld,\"generate\":%lld,\"kv_bytes_per_token\":", a->prompt, a->generate);
    kv_json_real(kv_model_token_bytes(model, kv_model_cache_format(model)), stdout);
    printf(",\"state_bytes\":");
    kv_json_real(kv_model_state_bytes(model), stdout);
    if (a->device != NULL)
        print_json_memory(a);
    printf(",\"points\":[");
    for (int i = 0; i < points->count; i++) {
        fputs(i > 0 ? "," : "", stdout);
        print_json_point(&points->point[i], a, &r[i]);
    }
    puts("]}");
}

/* The device, and memory settings as serving has them by default. */
static kv_err find_device(const kv_model *model, arguments *a, kv_diag *diag)
{
    kv_serving_config config = {0};
    kv_err err = a->device_name != NULL ? kv_device_find(a->device_name, &a->device, diag) : KV_OK;
    if (err != KV_OK || a->device == NULL)
        return err;
    for (int p = 0; p < KV_SERVING_PARTS && err == KV_OK; p++)
        err = kv_params_default(kv_serving_parts[p].params,
                                (char *)&config + kv_serving_parts[p].offset, diag);
    a->memory = (kv_capacity_settings){.utilization = config.memory_utilization,
                                       .activation_bytes = (double)config.activation_bytes,
                                       .reserve_bytes = (double)config.reserve_bytes,
                                       .step_tokens = (double)config.scheduler.max_batched_tokens,
                                       .tensor_parallel =
                                           a->tensor_parallel > 0 ? (double)a->tensor_parallel : 1};
    for (int p = 0; p < KV_SERVING_PARTS; p++)
        kv_params_fini(kv_serving_parts[p].params, (char *)&config + kv_serving_parts[p].offset);
    kv_capacity_find(a->device, model, &a->memory, &a->capacity);
    a->kv_copies = kv_model_kv_copies(model, (int)a->memory.tensor_parallel);
    return err;
}

static kv_err run_points(const kv_model *model, arguments *a, int count, char **text, kv_diag *diag)
{
    kv_point_list points = {0};
    kv_err err = parse_policies(count, text, &points, diag);
    reply *f = calloc((size_t)points.count + 1, sizeof *f);
    if (err == KV_OK && f == NULL)
        err = kv_fail_memory(diag);
    if (err == KV_OK)
        err = find_device(model, a, diag);
    for (int i = 0; err == KV_OK && i < points.count; i++)
        err = answer(model, &points.point[i], a, &f[i], diag);
    if (err == KV_OK)
        (a->json ? print_json : print_table)(model, a, &points, f);
    free(f);
    kv_device_free(a->device);
    kv_point_list_fini(&points);
    return err;
}

/* --- CSV
 * ------------------------------------------------------------------------------------------ */

/* Where the columns of a table are. */
typedef struct columns {
    int prompt, generate, chunk, policy;
} columns;

/* What is appended to each row. */
enum { ANSWERS = 3 };
static const char *const answer_columns[ANSWERS] = {"kv_footprint", "kv_peak", "kv_bytes_peak"};

static kv_err find_columns(const kv_csv *csv, columns *c, kv_diag *diag)
{
    kv_err err = kv_csv_need(csv, "prompt", &c->prompt, diag);
    if (err == KV_OK)
        err = kv_csv_need(csv, "generate", &c->generate, diag);
    if (err == KV_OK)
        err = kv_csv_need(csv, "chunk", &c->chunk, diag);
    if (err == KV_OK)
        err = kv_csv_need(csv, "policy", &c->policy, diag);
    for (int a = 0; a < ANSWERS && err == KV_OK; a++) {
        int column = kv_csv_find(csv, answer_columns[a]);
        kv_mark mark = column >= 0 ? kv_csv_column_mark(csv, column) : (kv_mark){0};
        if (column >= 0)
            err = kv_fail(diag, KV_ERR_INPUT, &mark,
                          "there is a column %s already; leave out what is to be appended",
                          answer_columns[a]);
    }
    return err;
}

static kv_err answer_row(const kv_model *model, const kv_csv *csv, const columns *c,
                         kv_footprint *out, kv_diag *diag)
{
    arguments row = {0};
    reply r;
    kv_point_list points = {0};
    kv_mark mark = kv_csv_mark(csv, c->policy);
    kv_err err = kv_csv_int(csv, c->prompt, 1, INT32_MAX, &row.prompt, diag);
    if (err == KV_OK)
        err = kv_csv_int(csv, c->generate, 0, INT32_MAX - row.prompt, &row.generate, diag);
    if (err == KV_OK && strcmp(kv_csv_field(csv, c->chunk), "whole") != 0)
        err = kv_csv_int(csv, c->chunk, 1, INT32_MAX, &row.chunk, diag);
    if (err == KV_OK)
        err = kv_policy_parse_text(kv_csv_field(csv, c->policy), &mark, "", &points, diag);
    if (err == KV_OK && points.count != 1)
        err = kv_fail(diag, KV_ERR_INPUT, &mark,
                      "the policy stands for %d combinations; expected one", points.count);
    if (err == KV_OK)
        err = answer(model, &points.point[0], &row, &r, diag);
    if (err == KV_OK)
        *out = r.footprint;
    kv_point_list_fini(&points);
    return err;
}

static void copy_header(const kv_csv *csv, FILE *out)
{
    for (int i = 0; i < kv_csv_columns(csv); i++, putc(',', out))
        kv_csv_write(kv_csv_column(csv, i), out);
    for (int a = 0; a < ANSWERS; a++)
        fprintf(out, "%s%c", answer_columns[a], a + 1 < ANSWERS ? ',' : '\n');
}

static void copy_row(const kv_csv *csv, const kv_footprint *f, FILE *out)
{
    for (int i = 0; i < kv_csv_columns(csv); i++, putc(',', out))
        kv_csv_write(kv_csv_field(csv, i), out);
    fprintf(out, "%.17g,%.17g,%.17g\n", f->footprint, f->peak, f->peak_bytes);
}

/* Rows are printed once all are answered, so that wrong input leaves nothing half written. */
static kv_err run_rows(const kv_model *model, FILE *out, kv_diag *diag)
{
    columns c;
    kv_csv *csv = NULL;
    kv_err err = kv_csv_attach(stdin, "stdin", &csv, diag);
    if (err == KV_OK)
        err = find_columns(csv, &c, diag);
    if (err == KV_OK)
        copy_header(csv, out);
    while (err == KV_OK && (err = kv_csv_next(csv, diag)) == KV_OK) {
        kv_footprint f;
        err = answer_row(model, csv, &c, &f, diag);
        if (err == KV_OK)
            copy_row(csv, &f, out);
    }
    kv_csv_close(csv);
    return err == KV_END ? KV_OK : err;
}

static kv_err run_csv(const kv_model *model, kv_diag *diag)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    if (out == NULL)
        return kv_fail_memory(diag);
    kv_err err = run_rows(model, out, diag);
    if (fclose(out) != 0 && err == KV_OK)
        err = kv_fail_memory(diag);
    if (err == KV_OK)
        fwrite(text, 1, bytes, stdout);
    free(text);
    return err;
}

/* --- The command
 * ------------------------------------------------------------------------------------ */

/* What is missing or too much on the command line, or NULL. */
static const char *usage_of(const arguments *a, int policies)
{
    if (a->model == NULL)
        return "expected --model; `kvsim list models` shows the catalogue";
    if (a->device_name == NULL && a->tensor_parallel > 0)
        return "--tensor-parallel goes with --device";
    if (a->csv && (policies > 0 || a->prompt > 0 || a->json || a->device_name != NULL))
        return "--csv reads lengths and policies from stdin; it goes with --model alone";
    if (!a->csv && a->prompt == 0)
        return "expected --prompt, a number of tokens";
    if (!a->csv && policies == 0)
        return "expected policies, such as full or '{snapkv: {keep: 0.3, evict: chunked}}'";
    return NULL;
}

static int footprint(const kv_command *self, int argc, char **argv)
{
    arguments a = {0};
    kv_diag diag = {0};
    kv_err err = KV_OK;
    for (int option; err == KV_OK && (option = kv__option_next(self, argc, argv)) != -1;) {
        if (option == '?')
            return KV_EXIT_USAGE;
        err = take_option(&a, option, &diag);
    }
    const char *usage = err == KV_OK ? usage_of(&a, argc - optind) : NULL;
    if (usage != NULL)
        return kv__usage_error(self, "%s", usage);
    kv_model *model = NULL;
    if (err == KV_OK)
        err = kv_model_find(a.model, &model, &diag);
    if (err == KV_OK)
        err = a.csv ? run_csv(model, &diag)
                    : run_points(model, &a, argc - optind, argv + optind, &diag);
    kv_model_free(model);
    if (err == KV_OK && (fflush(stdout) != 0 || ferror(stdout)))
        err = kv_fail(&diag, KV_ERR_IO, NULL, "standard output cannot be written");
    return err == KV_OK ? KV_EXIT_OK : kv__report_error(&diag);
}
