/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* What points say in words: names, canonical JSON, labels; and which of them say the same. */
#include "config.h"

#include "sim/policy_spec.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --- Canonical text ---------------------------------------------------------------- */

int kv_spec_named(const kv_point_spec *spec)
{
    return spec->parts + !spec->implied;
}

kv_part kv_spec_get(const kv_point_spec *spec, int index)
{
    if (spec->implied)
        return spec->part[index];
    if (index > 0)
        return spec->part[index - 1];
    return (kv_part){kv_method_of_retention(spec->policy), spec->config};
}

bool kv_spec_same(const kv_point_spec *a, const kv_point_spec *b)
{
    if (kv_spec_named(a) != kv_spec_named(b))
        return false;
    for (int i = 0; i < kv_spec_named(a); i++) {
        kv_part x = kv_spec_get(a, i), y = kv_spec_get(b, i);
        if (x.method.params != y.method.params) /* one name may stand in two families */
            return false;
        for (const kv_param *p = x.method.params; p->name != NULL; p++)
            if (!kv_param_equal(p, x.config, y.config))
                return false;
    }
    return true;
}

/* What writes one of a point's policies. */
typedef bool write_part(const kv_part *part, unsigned skip_flags, bool combined, FILE *out);

/* What `write` says of each policy, with something before, between and after. */
static char *text_of(const kv_point_spec *spec, unsigned skip_flags, const char *const around[3],
                     write_part *write)
{
    char *text = NULL;
    size_t bytes;
    FILE *out = open_memstream(&text, &bytes);
    if (out == NULL)
        return NULL;
    int named = kv_spec_named(spec);
    bool good = true;
    fputs(named > 1 ? around[0] : "", out);
    for (int i = 0; i < named && good; i++) {
        kv_part part = kv_spec_get(spec, i);
        fputs(i > 0 ? around[1] : "", out);
        good = write(&part, skip_flags, named > 1, out);
    }
    fputs(named > 1 ? around[2] : "", out);
    if (fclose(out) == 0 && good)
        return text;
    free(text);
    return NULL;
}

static bool write_name(const kv_part *part, unsigned skip_flags, bool combined, FILE *out)
{
    fputs(part->method.name, out);
    return true;
}

char *kv_spec_name(const kv_point_spec *spec)
{
    static const char *const around[3] = {"", "+", ""};
    return text_of(spec, 0, around, write_name);
}

static bool write_json(const kv_part *part, unsigned skip_flags, bool combined, FILE *out)
{
    if (combined)
        fprintf(out, "\"%s\":", part->method.name);
    kv_params_json(part->method.params, part->config, skip_flags, out);
    return true;
}

static const char *const json_around[3] = {"{", ",", "}"};

char *kv_spec_params_json(const kv_point_spec *spec)
{
    return text_of(spec, 0, json_around, write_json);
}

char *kv_spec_curve_json(const kv_point_spec *spec)
{
    return text_of(spec, KV_PARAM_BUDGET, json_around, write_json);
}

/* A configuration as it is when nothing but the part's preset is given. */
static void *reference_config(const kv_part *part)
{
    const kv_param *params = part->method.params, *row = kv_param_find(params, "preset");
    void *config = calloc(1, part->method.config_bytes);
    if (config == NULL)
        return NULL;
    int preset = row == NULL ? 0 : *(const int *)((const char *)part->config + row->offset);
    kv_err err = kv_params_default(params, config, NULL);
    if (err == KV_OK && preset > 0)
        err = kv_params_preset(params, &part->method.presets[preset - 1], config, NULL);
    if (err == KV_OK)
        return config;
    kv_params_fini(params, config);
    free(config);
    return NULL;
}

static bool write_label(const kv_part *part, unsigned skip_flags, bool combined, FILE *out);

/* The name of the part's preset; NULL: none. */
static const char *preset_of(const kv_part *part)
{
    const kv_param *row = kv_param_find(part->method.params, "preset");
    return row == NULL ? NULL
                       : row->choices[*(const int *)((const char *)part->config + row->offset)];
}

/* "over knorm", "over (expected_attention epsilon 0.01; future 64)". */
static bool write_scorer(const kv_item *item, const kv_part *outer, FILE *out)
{
    kv_part scorer = {kv_method_of_retention(item->of), item->config};
    const char *preset = preset_of(&scorer), *said = preset_of(outer);
    bool same = preset != NULL && said != NULL && strcmp(preset, said) == 0;
    char *label = NULL;
    size_t bytes;
    FILE *text = open_memstream(&label, &bytes);
    if (text == NULL)
        return false;
    bool good =
        write_label(&scorer, KV_PARAM_OUTERMOST | (same ? KV_PARAM_PRESET : 0), false, text);
    good = fclose(text) == 0 && good;
    for (char *comma = label; good && (comma = strstr(comma, ", ")) != NULL;)
        *comma = ';'; /* commas separate the settings of the whole label */
    if (good)
        fprintf(out, strchr(label, ' ') != NULL ? "over (%s)" : "over %s", label);
    free(label);
    return good;
}

/* "chunked", "window 16", "no charge_probes"; false: no memory. */
static bool write_setting(const kv_param *param, const kv_part *part, FILE *out)
{
    if (param->type == KV_ITEM && !kv_param_absent(param, part->config))
        return write_scorer((const kv_item *)((const char *)part->config + param->offset), part,
                            out);
    char *value = kv_param_text(param, part->config);
    if (value == NULL)
        return false;
    if (param->type == KV_BOOL)
        fprintf(out, "%s%s", strcmp(value, "true") == 0 ? "" : "no ", param->name);
    else if (strcmp(param->name, "evict") == 0)
        fputs(value, out);
    else
        fprintf(out, "%s %s", param->name, value);
    free(value);
    return true;
}

static bool write_settings(const kv_part *part, const void *reference, unsigned skip_flags,
                           FILE *out)
{
    const char *separator = part->method.oracle ? ", " : " ";
    fputs(part->method.oracle ? " oracle" : "", out);
    for (const kv_param *p = part->method.params; p->name != NULL; p++) {
        if ((p->flags & skip_flags) || kv_param_equal(p, part->config, reference) ||
            kv_param_replaced(part->method.params, p, part->config))
            continue;
        fputs(separator, out);
        if (!write_setting(p, part, out))
            return false;
        separator = ", ";
    }
    return true;
}

static bool write_label(const kv_part *part, unsigned skip_flags, bool combined, FILE *out)
{
    void *reference = reference_config(part);
    if (reference == NULL)
        return false;
    fputs(part->method.name, out);
    bool good = write_settings(part, reference, KV_PARAM_BUDGET | skip_flags, out);
    kv_params_fini(part->method.params, reference);
    free(reference);
    return good;
}

char *kv_spec_label(const kv_point_spec *spec)
{
    static const char *const around[3] = {"", " + ", ""};
    return text_of(spec, 0, around, write_label);
}

/* True if another point of the list with policies of the same names has another value. */
static bool differs(const kv_point_list *list, const kv_point_spec *spec, int index,
                    const kv_param *param)
{
    kv_part mine = kv_spec_get(spec, index);
    for (int i = 0; i < list->count; i++) {
        const kv_point_spec *other = &list->point[i];
        bool alike = kv_spec_named(other) == kv_spec_named(spec);
        for (int p = 0; p < kv_spec_named(spec) && alike; p++)
            alike =
                strcmp(kv_spec_get(other, p).method.name, kv_spec_get(spec, p).method.name) == 0;
        if (alike && !kv_param_equal(param, mine.config, kv_spec_get(other, index).config))
            return true;
    }
    return false;
}

kv_err kv_spec_write_among(const kv_point_spec *spec, const kv_point_list *list, FILE *out)
{
    for (int i = 0; i < kv_spec_named(spec); i++) {
        kv_part part = kv_spec_get(spec, i);
        const char *separator = " ";
        fprintf(out, "%s%s", i > 0 ? " + " : "", part.method.name);
        for (const kv_param *p = part.method.params; p->name != NULL; p++) {
            if (kv_param_absent(p, part.config) || !differs(list, spec, i, p) ||
                kv_param_replaced(part.method.params, p, part.config))
                continue;
            fputs(separator, out);
            if (!write_setting(p, &part, out))
                return KV_ERR_MEMORY;
            separator = ", ";
        }
    }
    return KV_OK;
}

/* --- Duplicates -------------------------------------------------------------------- */

typedef struct identity {
    char *name;
    char *params;
    const kv_point_spec *point;
} identity;

/* By what the point says, then by place in the list. */
static int by_identity(const void *a, const void *b)
{
    const identity *x = a, *y = b;
    int order = strcmp(x->name, y->name);
    if (order == 0)
        order = strcmp(x->params, y->params);
    if (order == 0)
        order = (x->point->chunk_tokens > y->point->chunk_tokens) -
                (x->point->chunk_tokens < y->point->chunk_tokens);
    return order;
}

static int by_identity_and_place(const void *a, const void *b)
{
    const identity *x = a, *y = b;
    int order = by_identity(a, b);
    return order != 0 ? order : (x->point > y->point) - (x->point < y->point);
}

/* Frees the marked points and closes the gaps. */
static void remove_marked(kv_point_list *list, const bool *doomed)
{
    int kept = 0;
    for (int i = 0; i < list->count; i++) {
        if (doomed[i])
            kv__point_fini(&list->point[i]);
        else
            list->point[kept++] = list->point[i];
    }
    list->count = kept;
}

kv_err kv_point_list_unique(kv_point_list *list, kv_diag *diag)
{
    size_t count = (size_t)list->count;
    identity *sorted = calloc(count + 1, sizeof *sorted);
    bool *doomed = calloc(count + 1, sizeof *doomed);
    bool good = sorted != NULL && doomed != NULL;
    for (size_t i = 0; good && i < count; i++) {
        const kv_point_spec *point = &list->point[i];
        sorted[i] = (identity){kv_spec_name(point), kv_spec_params_json(point), point};
        good = sorted[i].name != NULL && sorted[i].params != NULL;
    }
    if (good)
        qsort(sorted, count, sizeof *sorted, by_identity_and_place);
    for (size_t i = 1; good && i < count; i++)
        doomed[sorted[i].point - list->point] = by_identity(&sorted[i - 1], &sorted[i]) == 0;
    for (size_t i = 0; sorted != NULL && i < count; i++) {
        free(sorted[i].name);
        free(sorted[i].params);
    }
    if (good)
        remove_marked(list, doomed);
    free(sorted);
    free(doomed);
    return good ? KV_OK : kv_fail_memory(diag);
}

const char *kv_spec_saves(const kv_point_spec *spec)
{
    if (spec->parts == 0)
        return "entries";
    const kv_method *last = &spec->part[spec->parts - 1].method;
    if (last->family != KV_FAMILY_READ)
        return "bytes";
    return last->read->phases == KV_READS_PREFILL ? "prefill" : "reads";
}

double kv_spec_keep(const kv_point_spec *spec)
{
    const kv_retention_config *config = spec->config;
    bool has_keep = !spec->implied && kv_param_find(spec->policy->params, "keep") != NULL;
    return has_keep && config->budget_tokens == 0 && config->keep >= 0 ? config->keep : NAN;
}
