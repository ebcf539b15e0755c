/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "sim/serving/plan_requests.h"

#include "sim/base/file.h"
#include "sim/serving/foresight.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static kv_err scalar(const kv_node *node, const char *key, const char **text, kv_diag *diag)
{
    kv_mark mark = kv_node_mark(node);
    if (kv_node_get_kind(node) != KV_NODE_SCALAR || (*text = kv_node_text(node, NULL)) == NULL)
        return kv_fail(diag, KV_ERR_INPUT, &mark, "%s: expected one value", key);
    return KV_OK;
}

static bool is_file_or_format(const char *key)
{
    return strcmp(key, "file") == 0 || strcmp(key, "format") == 0;
}

/* Sets what stands in a mapping of `requests`; prefix is "" or "columns.". */
static kv_err set_requests(kv_request_spec *spec, const kv_grid *grid, int combination,
                           const char *prefix, kv_diag *diag)
{
    const kv_node *map = grid->map;
    kv_err err = KV_OK;
    for (int i = 0; i < kv_node_count(map) && err == KV_OK; i++) {
        const char *key = kv_node_key(map, i), *text;
        const kv_node *value =
            *prefix == '\0' ? kv_grid_pick(grid, combination, i) : kv_node_at(map, i);
        char name[256];
        if (*prefix == '\0' && is_file_or_format(key))
            continue;
        snprintf(name, sizeof name, "%s%s", prefix, key);
        kv_mark mark = kv_node_mark(value);
        if (kv_node_get_kind(value) == KV_NODE_MAP && *prefix == '\0') {
            snprintf(name, sizeof name, "%s.", key);
            err = set_requests(spec, &(kv_grid){value, 1}, 0, name, diag);
        } else if ((err = scalar(value, name, &text, diag)) == KV_OK) {
            err = kv_request_spec_set(spec, name, text, &mark, diag);
        }
    }
    return err;
}

/* What describes the trace has one value. */
static kv_err check_lists(const kv_serving_plan *plan, const kv_node *map, kv_diag *diag)
{
    for (int i = 0; i < kv_node_count(map); i++) {
        const kv_param *param = kv_request_spec_param(&plan->requests, kv_node_key(map, i));
        kv_mark mark = kv_node_mark(kv_node_at(map, i));
        if (kv_node_get_kind(kv_node_at(map, i)) == KV_NODE_LIST && param != NULL &&
            (param->flags & KV_PARAM_SWEEP) == 0)
            return kv_fail(diag, KV_ERR_INPUT, &mark, "requests.%s: expected one value, not a list",
                           kv_node_key(map, i));
    }
    return KV_OK;
}

/* An error of no place is one of what stands here; of a trace, it was asked for here. */
static kv_err locate(const kv_node *node, kv_diag *diag)
{
    kv_mark mark = kv_node_mark(node);
    return diag->path[0] != '\0' ? kv_fail_from(diag, &mark) : kv_fail_at(diag, &mark);
}

/* A named format is not looked for in the file, so a file that is not there shows later. */
static kv_err check_file(const kv_request_spec *spec, kv_diag *diag)
{
    const char *path = spec->path;
    if (path == NULL || strcmp(path, "-") == 0 || spec->format->takes_many ||
        access(path, F_OK) == 0)
        return KV_OK;
    return kv_fail(diag, KV_ERR_INPUT, &(kv_mark){path, 0, 0}, "%s", strerror(errno));
}

/* There is a file, or a format that needs none, and its name can be found out. */
static kv_err check_named(const kv_node *map, const char *file, const char *format, kv_diag *diag)
{
    static const char *const keys[] = {"file", "format"};
    kv_mark mark = kv_node_mark(map);
    const kv_request_format *found = format != NULL ? kv_request_format_find(format) : NULL;
    if (format != NULL && found == NULL)
        return KV_OK; /* said better later */
    if (file != NULL && strcmp(file, "-") == 0 && format == NULL)
        return kv_fail(diag, KV_ERR_INPUT, &mark,
                       "requests: standard input needs its `format` (`kvsim list traces`)");
    if (file != NULL || (found != NULL && found->no_file))
        return KV_OK;
    for (int i = 0; i < kv_node_count(map); i++)
        if (!is_file_or_format(kv_node_key(map, i)) &&
            kv_param_find(kv_request_params, kv_node_key(map, i)) == NULL &&
            kv_nearest(kv_node_key(map, i), keys, 2) != NULL) {
            mark = kv_node_key_mark(map, i);
            return kv_fail(diag, KV_ERR_INPUT, &mark,
                           "requests has no setting '%s', did you mean '%s'?", kv_node_key(map, i),
                           kv_nearest(kv_node_key(map, i), keys, 2));
        }
    return kv_fail(diag, KV_ERR_INPUT, &mark,
                   "requests: `file` is missing%s%s; expected a trace, or `format: synth`, which "
                   "makes requests up",
                   format != NULL ? " for format " : "", format != NULL ? format : "");
}

kv_err kv__plan_requests_init(kv_serving_plan *plan, kv_diag *diag)
{
    const kv_node *map = plan->grid[KV_SERVING_REQUESTS].map;
    const kv_node *file = kv_node_find(map, "file"), *format = kv_node_find(map, "format");
    const char *file_text = NULL, *format_text = NULL;
    kv_err err = file != NULL ? scalar(file, "file", &file_text, diag) : KV_OK;
    if (err == KV_OK && format != NULL)
        err = scalar(format, "format", &format_text, diag);
    if (err != KV_OK)
        return err;
    err = check_named(map, file_text, format_text, diag);
    if (err != KV_OK)
        return err;
    kv_mark mark = kv_node_mark(file != NULL ? file : map);
    char *directory = kv_path_directory(mark.path != NULL ? mark.path : "");
    char *path = file_text != NULL && directory != NULL && strcmp(file_text, "-") != 0
                     ? kv_path_resolve(directory, file_text)
                     : NULL;
    err = kv_request_spec_init(&plan->requests, path != NULL ? path : file_text, format_text, diag);
    free(path);
    free(directory);
    if (err != KV_OK)
        return locate(format != NULL ? format : file != NULL ? file : map, diag);
    if (check_file(&plan->requests, diag) != KV_OK)
        return locate(file, diag);
    err = check_lists(plan, map, diag);
    return err == KV_OK
               ? set_requests(&plan->requests, &plan->grid[KV_SERVING_REQUESTS], 0, "", diag)
               : err;
}

kv_err kv__plan_requests_pick(const kv_serving_plan *plan, int combination, kv_request_spec *out,
                              kv_diag *diag)
{
    const kv_request_spec *spec = &plan->requests;
    *out = (kv_request_spec){0};
    kv_err err = kv_request_spec_init(out, spec->path, spec->format->name, diag);
    kv_mark mark = kv_node_mark(plan->grid[KV_SERVING_REQUESTS].map);
    if (err == KV_OK)
        err = set_requests(out, &plan->grid[KV_SERVING_REQUESTS], combination, "", diag);
    return err == KV_OK ? kv_request_spec_check(out, &mark, diag) : err;
}

bool kv__plan_requests_once(const kv_serving_plan *plan)
{
    const char *path = plan->requests.path;
    struct stat file;
    return path != NULL &&
           (strcmp(path, "-") == 0 ||
            (stat(path, &file) == 0 && !S_ISREG(file.st_mode) && !S_ISDIR(file.st_mode)));
}

kv_err kv__plan_requests_twice(const kv_serving_plan *plan, const kv_serving_point *point,
                               kv_diag *diag)
{
    kv_mark mark = kv_node_mark(plan->grid[KV_SERVING_REQUESTS].map);
    if (!kv__plan_requests_once(plan) || !kv_foresight_needed(&point->settings))
        return KV_OK;
    return kv_fail(
        diag, KV_ERR_INPUT, &mark,
        "replacement belady reads the requests twice, first to know the future; '%s' can "
        "be read once: expected a file",
        plan->requests.path);
}

static void write_table(const kv_param *table, const void *config, FILE *out)
{
    for (const kv_param *p = table; p != NULL && p->name != NULL; p++) {
        if (kv_param_absent(p, config))
            continue;
        fprintf(out, ",\"%s\":", p->name);
        kv_param_json(p, config, out);
    }
}

void kv__plan_requests_json(const kv_request_spec *spec, FILE *out)
{
    fprintf(out, "{\"format\":\"%s\"", spec->format->name);
    write_table(kv_request_params, &spec->options, out);
    write_table(spec->format->params, spec->config, out);
    write_table(spec->format->shared_params, spec->config, out);
    fputc('}', out);
}
