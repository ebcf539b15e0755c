/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Every setting that a policy of the attention replay lists does something, with and without each
 * of the policy's presets: two admissible values of it differ in what is kept, read, stored or
 * measured of a recording of random numbers, or one of them is refused by name. Which values are
 * right is for other tests. */
#include "tests/kv_test.h"

#include "policies/method.h"
#include "sim/idle.h"
#include "sim/policy_spec.h"
#include "sim/replay/replay.h"
#include "tests/attention_gen.h"

#include <ctype.h>

enum { MOST_SETTINGS = 40, MOST_VALUES = 12, TEXT = 2048 };

/* One setting as text; value may bring others along: "kv_head, heads: kv_heads.tsv". */
typedef struct pair {
    char name[40], value[160];
} pair;

typedef struct settings {
    pair at[MOST_SETTINGS];
    int count;
} settings;

/* --- What is tried ---------------------------------------------------------------------------- */

/* Settings that bite at 60 tokens of prompt and 20 of answer; `keep` last, as some policies have a
 * window in its place. */
static const char base[] =
    "window: 4, sinks: 2, kernel: 3, interval: 3, recent: 6, local: 5, history: 9, lag: 8, "
    "rows: 2, prune_after: 10, most: 1.2, retain: 0.3, future: 7, vertical: 4, slash: 8, last: 8, "
    "group_size: 4, residual: 8, buffer: 4, observers: 8, page: 4, block: 8, blocks: 1, "
    "representatives: 2, compression: 4, skip_layers: 1, heads: kv_heads.tsv, "
    "filters: filters.tsv, read: 16, keep: 0.35";

/* What a policy needs beside that, or a setting of it ("" : any policy, any setting). */
static const struct {
    const char *policy, *setting, *text;
} needs[] = {
    {"headkv", "", "heads: heads.tsv"},
    {"kvmerger", "", "threshold: -0.2"},
    {"kivi", "", "group: 4"},
    {"gear", "", "group: 4"},
    {"cam", "", "merge: 4"},
    {"locret", "", "scores: recorded"},
    {"minference", "block", "pattern: block"},
    {"minference", "blocks", "pattern: block"},
    {"scissorhands", "temperature", "selection: sample, accumulate: false"},
    {"scissorhands", "seed", "selection: sample"},
    {"scissorhands", "decay", "keep: 0.5"},
    {"h2o", "", "recent: "},
    {"h2o", "recent", "window: "},
    {"simlayerkv", "", "threshold: 0.05"},
    {"topk", "share", "read: "},
    {"minference", "last", "vertical: 36, slash: 1"},
    {"", "group_when", "pooling: avg, group: max"},
    {"nacl", "", "random: 0.4"},
    {"", "ratio_arithmetic", "rounding: kvpress, keep: 0.1"},
    {"chunkkv", "", "chunk: 6"},
    {"chunkkv", "ratio_arithmetic", "keep: 0.2"},
    {"chunkkv", "score_over", "chunk: 2"},
    {"simlayerkv", "score_over", "threshold: 0.3"},
};

/* Values where those of the type do not do. */
static const struct {
    const char *policy, *setting, *values; /* separated by | */
} given[] = {
    {"headkv", "heads", "heads.tsv|heads2.tsv"},
    {"headkv", "per", "query_head|kv_head, heads: kv_heads.tsv"},
    {"", "heads", "kv_heads.tsv|kv_heads2.tsv"},
    {"", "filters", "filters.tsv|filters2.tsv"},
    {"", "rope_theta", "0|20"},
    {"", "start_layer", "0|2"},
    {"dynamickv", "most", "1|1.1|5"},
    {"", "scorer",
     "knorm, window: , sinks: , kernel: |{keydiff: {sinks: 3}}, window: , sinks: , kernel: "},
};

/* What a policy stands beside, and when entries leave. */
typedef struct context {
    const char *beside, *text;
    long long chunk;
} context;
static const context keeping[] = {{NULL, "evict: postfill", 0},
                                  {NULL, "evict: online", 13},
                                  {NULL, "evict: chunked, keep: 0.6", 13},
                                  {NULL, "evict: interval", 13},
                                  {NULL, "evict: patched", 13},
                                  {NULL, "", 13},
                                  {NULL, "window: 9, sinks: 0", 0},
                                  {NULL, "keep: 0.8", 0}};
static const context storing[] = {{"{snapkv: {keep: 0.4, window: 4, kernel: 3}}", "", 0},
                                  {"{h2o: {keep: 0.3}}", "", 13},
                                  {"full", "", 0}};
static const context reading[] = {{NULL, "", 0}, {"{snapkv: {keep: 0.6, window: 4}}", "", 0}};

/* --- Recording -------------------------------------------------------------------------------- */

static void put(hid_t group, const char *name, int rank, const hsize_t *dims, hid_t type,
                unsigned salt)
{
    size_t n = 1;
    for (int i = 0; i < rank; i++)
        n *= dims[i];
    double *values = calloc(n, sizeof *values);
    for (size_t i = 0; i < n; i++) {
        salt = salt * 1664525u + 1013904223u;
        values[i] = type == H5T_STD_U8LE ? salt >> 30 == 0 : (double)(salt >> 20) / 4096;
    }
    hid_t space = H5Screate_simple(rank, dims, NULL);
    hid_t set = H5Dcreate2(group, name, type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(H5Dwrite(set, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0);
    H5Dclose(set);
    H5Sclose(space);
    free(values);
}

/* A recording with all that any policy needs. */
static kv_attention *record(void)
{
    kv_gen gen = kv_gen_default();
    char path[4200];
    kv_attention *trace = NULL;
    kv_diag diag = {0};
    gen.layers = 4;
    gen.tokens = 80;
    gen.examples = 1;
    snprintf(path, sizeof path, "%s", kv_gen_path("settings.h5"));
    kv_gen_write(path, &gen);
    kv_gen_set_real(path, "/", "rope_theta", 1000);
    hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    hid_t example = H5Gopen2(file, "examples/0000", H5P_DEFAULT);
    put(example, "modality", 1, (hsize_t[]){80}, H5T_STD_U8LE, 1);
    put(example, "prompt_scores", 1, (hsize_t[]){60}, H5T_IEEE_F32LE, 2);
    put(example, "token_scores", 3, (hsize_t[]){4, 2, 80}, H5T_IEEE_F32LE, 3);
    put(example, "value_out", 3, (hsize_t[]){4, 4, 80}, H5T_IEEE_F32LE, 4);
    put(example, "reconstruction", 4, (hsize_t[]){4, 4, 3, 80}, H5T_IEEE_F32LE, 5);
    H5Gclose(example);
    H5Fclose(file);
    if (kv_attention_open(path, &trace, &diag) != KV_OK)
        fail_msg("%s", diag.text);
    remove(path);
    return trace;
}

static void write_table(const char *name, int columns, unsigned salt)
{
    FILE *out = fopen(kv_gen_path(name), "w");
    assert_non_null(out);
    for (int l = 0; l < 4; l++)
        for (int i = 0; i < columns; i++) {
            salt = salt * 1664525u + 1013904223u;
            fprintf(out, "%s%.4f", i ? "\t" : l ? "\n" : "", (double)(salt >> 16) / 65536);
        }
    fputc('\n', out);
    fclose(out);
}

static const struct {
    const char *name;
    int columns;
} tables[] = {{"kv_heads.tsv", 2}, {"kv_heads2.tsv", 2}, {"heads.tsv", 4},
              {"heads2.tsv", 4},   {"filters.tsv", 16},  {"filters2.tsv", 16}};

/* --- Settings --------------------------------------------------------------------------------- */

static void drop(settings *s, int at)
{
    s->at[at] = s->at[--s->count];
}

/* Adds a setting that the policy has, in place of what is there of that name; how much is kept is
 * said once. An empty value takes it out. */
static void add(settings *s, const kv_method *method, const char *name, const char *value)
{
    const kv_param *row = kv_param_find(method->params, name);
    for (int i = s->count - 1; row != NULL && i >= 0; i--) {
        const kv_param *other = kv_param_find(method->params, s->at[i].name);
        if (other == row || (row->flags & other->flags & KV_PARAM_BUDGET))
            drop(s, i);
    }
    if (row == NULL || *value == '\0')
        return;
    assert_true(s->count < MOST_SETTINGS);
    snprintf(s->at[s->count].name, sizeof s->at[0].name, "%s", name);
    snprintf(s->at[s->count++].value, sizeof s->at[0].value, "%s", value);
}

/* Adds "a: 1, b: 2". */
static void add_text(settings *s, const kv_method *method, const char *text)
{
    char copy[TEXT], *state = NULL;
    snprintf(copy, sizeof copy, "%s", text);
    for (char *one = strtok_r(copy, ",", &state); one != NULL; one = strtok_r(NULL, ",", &state)) {
        char *colon = strchr(one, ':');
        assert_non_null(colon);
        *colon = '\0';
        while (isspace((unsigned char)*one))
            one++;
        add(s, method, one, colon + 2);
    }
}

/* A value and what it brings along. */
static void add_value(settings *s, const kv_method *method, const char *name, const char *value)
{
    char text[TEXT];
    snprintf(text, sizeof text, "%s: %s", name, value);
    add_text(s, method, text);
}

static int split(const char *text, char values[][160])
{
    int n = 0;
    while (*text != '\0') {
        size_t length = strcspn(text, "|");
        assert_true(n < MOST_VALUES && length < 160);
        snprintf(values[n++], 160, "%.*s", (int)length, text);
        text += length + (text[length] == '|');
    }
    return n;
}

/* Values within the bounds of a setting. */
static int values_of(const kv_method *method, const kv_param *row, char values[][160])
{
    static const double whole[] = {1, 2, 3, 5, 8, 12, 0, 30}, real[] = {0.1, 0.35, 0.8, 0, 1.5, 6};
    bool is_whole = row->type == KV_INT, bounded = row->min != row->max;
    int n = 0;
    for (size_t i = 0; i < sizeof given / sizeof *given; i++)
        if (strcmp(given[i].setting, row->name) == 0 &&
            (*given[i].policy == '\0' || strcmp(given[i].policy, method->name) == 0))
            return split(given[i].values, values);
    if (row->type == KV_BOOL)
        return split("false|true", values);
    for (; row->type == KV_CHOICE && row->choices[n] != NULL; n++)
        snprintf(values[n], 160, "%s", row->choices[n]);
    size_t count = is_whole ? sizeof whole / sizeof *whole : sizeof real / sizeof *real;
    for (size_t i = 0; (is_whole || row->type == KV_REAL) && i < count; i++) {
        double x = is_whole ? whole[i] : real[i];
        bool odd = !(row->flags & KV_PARAM_ODD) || fmod(x, 2) == 1;
        if (odd && (!bounded || (x >= row->min && x <= row->max)))
            snprintf(values[n++], 160, "%g", x);
    }
    return n;
}

/* --- Replays ---------------------------------------------------------------------------------- */

static uint64_t mix(uint64_t hash, const void *data, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        hash = (hash ^ ((const unsigned char *)data)[i]) * 1099511628211u;
    return hash;
}

static void watch(void *closure, const kv_replay_watch *e)
{
    *(uint64_t *)closure = mix(*(uint64_t *)closure, e->present, (size_t)e->presents * 4);
}

static void watch_read(void *closure, const kv_replay_read *e)
{
    *(uint64_t *)closure = mix(*(uint64_t *)closure, e->chosen, (size_t)e->count * 4);
}

typedef enum outcome { REPLAYED, REFUSED } outcome;

/* What a point makes of the recording, as one number; or why it is refused. */
static outcome replay(kv_attention *trace, const kv_point_spec *spec, long long chunk,
                      uint64_t *print, kv_diag *diag)
{
    kv_replay_point point = {.policy = spec->policy,
                             .config = spec->config,
                             .part = spec->part,
                             .parts = spec->parts,
                             .directory = spec->directory,
                             .chunk_tokens = chunk};
    kv_replay_options options = {.seed = 3,
                                 .page_tokens = 16,
                                 .prefill_token_s = 1,
                                 .decode_step_s = 1,
                                 .watch = watch,
                                 .watch_read = watch_read,
                                 .watch_closure = print};
    kv_replay *one = NULL;
    kv_replay_result result = {0};
    *print = 14695981039346656037u;
    kv_err err = kv_replay_new(&point, 1, kv_attention_shape(trace), &options, &one, diag);
    if (err == KV_OK)
        err = kv_replay_example(one, trace, 0, &result, diag);
    if (err == KV_OK)
        *print = mix(*print, result.record, (size_t)(1 + result.turns) * sizeof *result.record);
    kv_replay_result_fini(&result);
    kv_replay_free(one);
    return err == KV_OK ? REPLAYED : REFUSED;
}

/* The settings as a user writes them, with what stands beside the policy. */
static kv_err parse(const kv_method *method, const settings *s, const char *beside,
                    kv_point_list *list, kv_diag *diag)
{
    char text[2 * TEXT], folder[4096];
    int used = snprintf(text, sizeof text, "[%s%s{%s: {", beside ? beside : "", beside ? ", " : "",
                        method->name);
    for (int i = 0; i < s->count; i++)
        used += snprintf(text + used, sizeof text - (size_t)used, "%s%s: %s", i ? ", " : "",
                         s->at[i].name, s->at[i].value);
    snprintf(text + used, sizeof text - (size_t)used, "}}]");
    snprintf(folder, sizeof folder, "%s", kv_gen_path(""));
    kv_mark mark = {"settings", 1, 1};
    return kv_policy_parse_text(text, &mark, folder, list, diag);
}

static outcome run(kv_attention *trace, const kv_method *method, const settings *s,
                   const context *where, uint64_t *print, kv_diag *diag)
{
    kv_point_list list = {0};
    outcome got = REFUSED;
    if (parse(method, s, where->beside, &list, diag) == KV_OK)
        got = replay(trace, &list.point[0], where->chunk, print, diag);
    kv_point_list_fini(&list);
    return got;
}

/* All settings of a point but one: those of the base and what the policy needs for the one. */
static settings others(const kv_method *method, const char *preset, const kv_param *row,
                       const char *context_text)
{
    settings s = {.count = 0};
    add_text(&s, method, base);
    add_text(&s, method, context_text);
    for (size_t i = 0; i < sizeof needs / sizeof *needs; i++)
        if ((*needs[i].policy == '\0' || strcmp(needs[i].policy, method->name) == 0) &&
            (*needs[i].setting == '\0' || strcmp(needs[i].setting, row->name) == 0))
            add_text(&s, method, needs[i].text);
    if (preset != NULL)
        add(&s, method, "preset", preset);
    return s;
}

/* Whether two values of the setting differ in one context. *refused: a value was, by the setting's
 * name. */
static bool matters_in(kv_attention *trace, const kv_method *method, const char *preset,
                       const kv_param *row, const context *where, bool *refused)
{
    char values[MOST_VALUES][160];
    int count = values_of(method, row, values), replayed = 0;
    uint64_t first = 0, print;
    for (int v = 0; v < count; v++) {
        settings s = others(method, preset, row, where->text);
        kv_diag diag = {0};
        add_value(&s, method, row->name, values[v]);
        if (run(trace, method, &s, where, &print, &diag) == REFUSED) {
            *refused = *refused || strstr(diag.text, row->name) != NULL;
            continue;
        }
        if (replayed++ > 0 && print != first)
            return true;
        first = replayed == 1 ? print : first;
    }
    return false;
}

static bool matters(kv_attention *trace, const kv_method *method, const char *preset,
                    const kv_param *row)
{
    const context *where = method->family == KV_FAMILY_RETENTION   ? keeping
                           : method->family == KV_FAMILY_TRANSFORM ? storing
                                                                   : reading;
    size_t contexts = method->family == KV_FAMILY_RETENTION   ? sizeof keeping / sizeof *keeping
                      : method->family == KV_FAMILY_TRANSFORM ? sizeof storing / sizeof *storing
                                                              : sizeof reading / sizeof *reading;
    bool refused = false;
    for (size_t c = 0; c < contexts; c++)
        if (matters_in(trace, method, preset, row, &where[c], &refused))
            return true;
    return refused;
}

/* How many settings of a method do nothing under one preset (NULL: none). */
static int check(kv_attention *trace, const kv_method *method, const char *preset, int *met)
{
    int wrong = 0;
    for (const kv_param *row = method->params; row->name != NULL; row++) {
        if (strcmp(row->name, "preset") == 0 || (*met)++ % kv_stride(37) != 0 ||
            matters(trace, method, preset, row))
            continue;
        print_error("%s: %s%s%s does nothing\n", method->name, row->name,
                    preset ? " beside preset " : "", preset ? preset : "");
        wrong++;
    }
    return wrong;
}

static void every_setting_matters(void **state)
{
    kv_attention *trace = record();
    int wrong = 0, met = 0;
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++)
        write_table(tables[i].name, tables[i].columns, (unsigned)i);
    for (int m = 0; m < kv_methods(); m++) {
        kv_method method = kv_method_get(m);
        wrong += check(trace, &method, NULL, &met);
        for (const kv_preset *p = method.presets; p != NULL && p->name != NULL; p++)
            wrong += check(trace, &method, p->name, &met);
    }
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++)
        remove(kv_gen_path(tables[i].name));
    kv_attention_close(trace);
    assert_int_equal(wrong, 0);
}

/* The label of a policy with one value of a setting, alone or beside an eviction; NULL where that
 * is refused. The caller frees it. */
static char *label_of(const kv_method *method, const char *preset, const kv_param *row,
                      const char *value)
{
    kv_point_list list = {0};
    kv_diag diag = {0};
    settings s = others(method, preset, row, "");
    char *label = NULL;
    add_value(&s, method, row->name, value);
    const char *beside = method->family == KV_FAMILY_TRANSFORM ? "{h2o: {keep: 0.3}}" : NULL;
    if (parse(method, &s, beside, &list, &diag) == KV_OK)
        assert_non_null(label = kv_spec_label(&list.point[0]));
    kv_point_list_fini(&list);
    return label;
}

/* Points that differ in more than how much is kept have different labels. */
static void labels_tell_settings_apart(void **state)
{
    int compared = 0;
    for (int m = 0; m < kv_methods(); m++) {
        kv_method method = kv_method_get(m);
        for (const kv_param *row = method.params; row->name != NULL; row++) {
            char values[MOST_VALUES][160], *label[MOST_VALUES];
            int count = row->flags & KV_PARAM_BUDGET ? 0 : values_of(&method, row, values);
            bool is_preset = strcmp(row->name, "preset") == 0;
            for (int v = 0; v < count; v++) {
                label[v] = label_of(&method, NULL, row, values[v]);
                for (int w = 0; w < v && label[v] != NULL; w++, compared++)
                    if (label[w] != NULL && strcmp(label[v], label[w]) == 0)
                        fail_msg("%s: %s %s and %s are both '%s'", method.name, row->name,
                                 values[v], values[w], label[v]);
            }
            for (int v = 1; v < count && is_preset; v++)
                assert_true(label[v] == NULL || strstr(label[v], values[v]) != NULL);
            for (int v = 0; v < count; v++)
                free(label[v]);
        }
    }
    assert_true(compared > 1000);
}

static void append(void *closure, const char *text)
{
    char *all = closure;
    size_t used = strlen(all);
    snprintf(all + used, TEXT - used, "%s\n", text);
}

#define BESIDE_FULL                                                                                \
    " does nothing beside full, as nothing leaves; list it with a retention policy, as in "        \
    "[{snapkv: {keep: 0.3}}, "

/* What the points of a list are warned of. */
static void expect_warning(const char *policies, const char *want)
{
    char got[TEXT] = "";
    kv_diag diag = {0};
    kv_mark mark = {"settings", 1, 1};
    kv_point_list list = {0};
    kv_idle_point point[8];
    int count = 0;
    if (kv_policy_parse_text(policies, &mark, "", &list, &diag) != KV_OK)
        fail_msg("%s", diag.text);
    for (int p = 0; p < list.count; p++)
        for (int i = 0; i < kv_spec_named(&list.point[p]); i++) {
            kv_part part = kv_spec_get(&list.point[p], i);
            assert_true(count + KV_SCORERS_MOST < 8);
            point[count++] = (kv_idle_point){
                .method = part.method, .config = part.config, .beside = list.point[p].policy};
            count += kv_idle_scorers(&point[count - 1], &point[count]);
        }
    kv_idle_settings(point, count, append, got);
    assert_string_equal(got, want);
    kv_point_list_fini(&list);
}

/* A misspelt condition would never hold and say nothing. */
static void conditions_name_settings_and_values(void **state)
{
    kv_diag diag = {0};
    for (int i = 0; i < kv_methods(); i++) {
        kv_method m = kv_method_get(i);
        void *config = calloc(1, m.config_bytes);
        assert_int_equal(kv_params_default(m.params, config, &diag), KV_OK);
        for (const kv_condition *c = m.conditions; c != NULL && c->setting != NULL; c++) {
            const kv_param *other = kv_param_find(m.params, c->other);
            if (other == NULL || kv_param_find(m.params, c->setting) == NULL)
                fail_msg("%s: no setting %s or %s", m.name, c->setting, c->other);
            if (kv_param_set(other, config, c->value, NULL, &diag) != KV_OK)
                fail_msg("%s: %s", m.name, diag.text);
            char *text = kv_param_text(other, config);
            assert_string_equal(text, c->value); /* as it is compared */
            free(text);
        }
        kv_params_fini(m.params, config);
        free(config);
    }
}

static void idle_settings_are_told_of(void **state)
{
    expect_warning("{snapkv: {keep: [0.1, 0.2], interval: 3}}",
                   "snapkv: interval does nothing, as it is for evict: interval\n");
    expect_warning("{snapkv: {keep: 0.1, interval: 3, evict: [online, interval]}}", "");
    expect_warning("{scissorhands: {keep: 0.1, seed: 1, temperature: 2}}",
                   "scissorhands: temperature does nothing, as it is for selection: sample\n"
                   "scissorhands: seed does nothing, as it is for selection: sample\n");
    expect_warning("{scissorhands: {keep: 0.1, selection: sample, temperature: 2}}", "");
    expect_warning("{adakv: {keep: 0.1, interval: 3, scorer: {scissorhands: {temperature: 2}}}}",
                   "adakv: interval does nothing, as it is for evict: interval\n"
                   "scissorhands: temperature does nothing, as it is for selection: sample\n");
    expect_warning("[snapkv: {keep: 0.1}, minference: {block: 32, last: 9}]",
                   "minference: block does nothing, as it is for all but pattern: "
                   "vertical_slash\n");
    expect_warning("{minference: {pattern: search, block: 32}}", "");
    expect_warning("{nacl: {keep: 0.1, random: 0, temperature: 2}}",
                   "nacl: temperature does nothing, as it is for all but random: 0\n");
    expect_warning("{nacl: {keep: 0.1, random: 0, random_tokens: 5, seed: 2}}", "");
    expect_warning("{nacl: {keep: 0.1, random: 0, random_tokens: 0, seed: 2}}",
                   "nacl: seed does nothing, as it is for all but random: 0\n");
    expect_warning("{cam: {}}", "cam" BESIDE_FULL "cam]\n");
    expect_warning("[full: {}, cam: {}, rerotate: {}]",
                   "cam" BESIDE_FULL "cam]\nrerotate" BESIDE_FULL "rerotate]\n");
    expect_warning("[{tova: {keep: 0.1}}, cam: {}]", "");
    expect_warning("{kivi: {}}", "");
    expect_warning("{expected_attention: {keep: 0.1, epsilon: 1, vnorm: false}}",
                   "expected_attention: epsilon does nothing, as it is for vnorm: true\n");
    expect_warning("{expected_attention: {keep: 0.1, epsilon: 1}}", "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_setting_matters),
                                       cmocka_unit_test(labels_tell_settings_apart),
                                       cmocka_unit_test(conditions_name_settings_and_values),
                                       cmocka_unit_test(idle_settings_are_told_of)};
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
