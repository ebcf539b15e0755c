/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Checks experiment files: what a good one says, --set, globs, what is refused and in which words,
 * writing and reading back, and that thousands of damaged files give a message with a line and
 * never a crash. Expected values are read off the texts by hand. */
#include "tests/kv_test.h"

#include "sim/experiment.h"

#include <sys/stat.h>
#include <unistd.h>

/* A folder with empty files, for names and globs: an experiment is not the place that opens them.
 * Its own name holds what is special to globs. */
static char folder[] = "/tmp/kvsim[*]XXXXXX";
static char experiment_path[64];
static const char *const files[] = {"recall.h5", "b1.h5", "b2.h5", "a[1].h5", "accuracy.csv"};
enum { FILES = sizeof files / sizeof *files };

static int make_files(void **state)
{
    if (mkdtemp(folder) == NULL)
        return -1;
    snprintf(experiment_path, sizeof experiment_path, "%s/e.yaml", folder);
    for (int i = 0; i < FILES; i++) {
        char path[128];
        snprintf(path, sizeof path, "%s/%s", folder, files[i]);
        FILE *file = fopen(path, "w");
        if (file == NULL || fclose(file) != 0)
            return -1;
    }
    return 0;
}

static int remove_files(void **state)
{
    for (int i = 0; i < FILES; i++) {
        char path[128];
        snprintf(path, sizeof path, "%s/%s", folder, files[i]);
        unlink(path);
    }
    return rmdir(folder);
}

static kv_err parse(const char *text, const char *set, kv_experiment **out, kv_diag *diag)
{
    *out = NULL;
    return kv_experiment_parse(experiment_path, text, strlen(text), &set, set != NULL, out, diag);
}

static kv_experiment *parse_good(const char *text, const char *set)
{
    kv_experiment *e;
    kv_diag diag = {0};
    if (parse(text, set, &e, &diag) != KV_OK)
        fail_msg("%d:%d: %s", diag.line, diag.column, diag.text);
    return e;
}

/* The example of the manual, without its serving part. */
static const char example[] =
    "name: chunk-size\n"
    "model: llama-3.1-8b             # catalogue name\n"
    "seed: 1\n"
    "attention:\n"
    "  traces: [recall.h5]           # relative to this file; globs work\n"
    "  tasks: [kv_recall]            # optional filter\n"
    "  policies:\n"
    "    - full\n"
    "    - streaming: {sinks: 4, window: [32, 64, 128]}\n"
    "    - snapkv: {keep: [0.05, 0.1, 0.2, 0.5], evict: [postfill, chunked, patched], window: "
    "16}\n"
    "  chunk_size: [32, 64, 128, whole]\n"
    "  critical: {threshold: 0.9, confidence: 0.95, resamples: 1000}\n"
    "  calibration: {file: accuracy.csv, traces: [recall.h5]}\n";

static void the_manual_s_example_parses(void **state)
{
    kv_experiment *e = parse_good(example, NULL);
    assert_string_equal(e->name, "chunk-size");
    assert_string_equal(kv_node_text(e->model, NULL), "llama-3.1-8b");
    assert_int_equal(e->seed, 1);
    const kv_attention_config *a = &e->attention;
    /* The oracle keeps what each streaming window and each kept share does: the latter by two
     * schedules, as chunked and patched keep alike. */
    assert_int_equal(a->points.count, (1 + 3 + 4 * 3) * 4 + (3 + 4 * 2) * 4);
    assert_int_equal(a->traces.count, 1);
    assert_string_equal(a->traces.name[0], "recall.h5");
    assert_int_equal(a->tasks.count, 1);
    assert_string_equal(a->tasks.text[0], "kv_recall");
    assert_string_equal(a->calibration.traces.name[0], "recall.h5");
    /* Policies in the order written, then chunk sizes, the last fastest. */
    assert_string_equal(a->points.point[0].policy->name, "full");
    assert_int_equal(a->points.point[0].chunk_tokens, 32);
    assert_int_equal(a->points.point[3].chunk_tokens, 0);
    assert_string_equal(a->points.point[4].policy->name, "streaming");
    const kv_retention_config *last = a->points.point[63].config;
    assert_true(last->keep == 0.5 && last->evict == KV_PATCHED && last->window_tokens == 16);
    kv_experiment_free(e);
}

#define BASE "attention: {traces: recall.h5, policies: full"

static void what_is_left_out_has_defaults(void **state)
{
    kv_experiment *e = parse_good(BASE "}", NULL);
    const kv_attention_config *a = &e->attention;
    assert_string_equal(e->name, "e");
    assert_int_equal(e->seed, 1);
    assert_null(e->model);
    assert_int_equal(a->points.count, 1);
    assert_int_equal(a->points.point[0].chunk_tokens, 0);
    assert_int_equal(a->footprint_model, KV_FOOTPRINT_SIMULATED);
    assert_false(a->keep_sets);
    assert_true(a->oracle);
    assert_int_equal(a->page_tokens, 16);
    assert_true(a->critical.threshold == 0.9 && a->critical.confidence == 0.95);
    assert_int_equal(a->critical.resamples, 1000);
    assert_null(a->calibration.file);
    assert_int_equal(a->step_time.decode_ns, 0);
    assert_int_equal(a->tasks.count, 0);
    kv_experiment_free(e);
}

static void every_setting_arrives(void **state)
{
    kv_experiment *e = parse_good(
        "seed: 7\nmodel: {layers: 2}\n" BASE
        ", footprint_model: analytic, keep_sets: true, page_size: 32, chunk_size: 64, tasks: a, "
        "critical: {threshold: 0.8, confidence: 0.9, resamples: 10}, step_time: {prefill_token: "
        "0.1ms, decode: 20ms}, calibration: {file: accuracy.csv, traces: 'b?.h5'}}",
        NULL);
    const kv_attention_config *a = &e->attention;
    assert_int_equal(e->seed, 7);
    assert_int_equal(kv_node_get_kind(e->model), KV_NODE_MAP);
    assert_int_equal(a->footprint_model, KV_FOOTPRINT_ANALYTIC);
    assert_true(a->keep_sets);
    assert_int_equal(a->page_tokens, 32);
    assert_int_equal(a->points.point[0].chunk_tokens, 64);
    assert_true(a->critical.threshold == 0.8 && a->critical.confidence == 0.9);
    assert_int_equal(a->critical.resamples, 10);
    assert_int_equal(a->step_time.prefill_token_ns, 100000);
    assert_int_equal(a->step_time.decode_ns, 20000000);
    char path[128];
    snprintf(path, sizeof path, "%s/accuracy.csv", folder);
    assert_string_equal(a->calibration.file, path);
    assert_int_equal(a->calibration.traces.count, 2);
    kv_experiment_free(e);
}

static void a_policy_s_chunk_size_wins(void **state)
{
    kv_experiment *e = parse_good("attention: {traces: recall.h5, chunk_size: [16, 32], policies: "
                                  "[{full: {chunk_size: [32, whole]}}, full]}",
                                  NULL);
    static const long long want[] = {32, 0, 16}; /* 32 of the second is a duplicate */
    assert_int_equal(e->attention.points.count, 3);
    for (int i = 0; i < 3; i++)
        assert_int_equal(e->attention.points.point[i].chunk_tokens, want[i]);
    kv_experiment_free(e);
}

static void files_are_found_by_name_and_by_glob(void **state)
{
    kv_experiment *e = parse_good(
        "attention: {traces: [recall.h5, '*[0-9].h5', 'a[1].h5', 'b1.h5'], policies: full}", NULL);
    /* The glob does not match "a[1].h5", whose last letter before the dot is a bracket. */
    static const char *const want[] = {"recall.h5", "b1.h5", "b2.h5", "a[1].h5"};
    const kv_files *traces = &e->attention.traces;
    assert_int_equal(traces->count, 4);
    for (int i = 0; i < 4; i++) {
        char path[128];
        snprintf(path, sizeof path, "%s/%s", folder, want[i]);
        assert_string_equal(traces->name[i], want[i]);
        assert_string_equal(traces->path[i], path);
    }
    kv_experiment_free(e);
    char absolute[256];
    snprintf(absolute, sizeof absolute, "attention: {traces: '%s/b1.h5', policies: full}", folder);
    e = parse_good(absolute, NULL);
    assert_int_equal(e->attention.traces.name[0][0], '/');
    kv_experiment_free(e);
}

/* What stands after the path of the experiment in the message. */
static const struct {
    const char *text, *message;
} wrong[] = {
    {"", ":1:1: there is nothing here; expected YAML"},
    {"[]", ":1:1: expected a mapping of settings, found a list"},
    {"name: x", ":1:1: there is nothing to run; expected `attention` or `serving`"},
    {"atention: {}",
     ":1:1: unknown key 'atention', did you mean 'attention'; known here: name, seed, model, "
     "serving, attention, plan"},
    {"attention: {}", ":1:12: 'traces' is missing: files of recorded attention; globs work"},
    {"attention:", ":1:11: expected a mapping of settings, found nothing"},
    {"attention: {traces: recall.h5}",
     ":1:12: 'policies' is missing: retention policies; lists of values make a grid"},
    {"attention: {traces: [], policies: full}",
     ":1:21: traces: the list is empty; expected at least one item"},
    {"attention: {traces: {a: 1}, policies: full}",
     ":1:21: traces: expected the name of a file, found a mapping"},
    {"attention: {traces: '', policies: full}",
     ":1:21: traces: expected the name of a file, found an empty text"},
    {BASE ", policy: full}", ":1:48: unknown key 'policy', did you mean 'policies'; known here: "
                             "compress_with, footprint_model, keep_sets, oracle, page_size, "
                             "skip_refused, traces, tasks, policies, "
                             "chunk_size, critical, calibration, step_time, rank"},
    {BASE ", chunk_size: [64, 0]}",
     ":1:65: chunk_size: expected `whole` or a whole number of tokens, found '0'"},
    {BASE ", chunk_size: [64, {a: 1}]}",
     ":1:65: chunk_size: expected `whole` or a whole number of tokens, found a mapping"},
    {BASE ", page_size: [16, 32]}",
     ":1:59: page_size: expected a whole number of tokens from 1 to 1048576, found a list"},
    {BASE ", critical: {threshold: 0}}",
     ":1:70: threshold: expected a fraction above 0 and at most 1, found '0'"},
    {BASE ", critical: {resample: 5}}",
     ":1:59: unknown key 'resample', did you mean 'resamples'; known here: threshold, confidence, "
     "resamples"},
    {BASE ", step_time: {decode: 20}}",
     ":1:68: decode: '20' needs a unit: h, min, s, ms, us, \xc2\xb5s, \xce\xbcs or ns"},
    {BASE ", step_time: {decode: 20ms}}",
     ":1:59: 'prefill_token' is missing: time that one prompt token takes"},
    {BASE ", calibration: {}}", ":1:61: 'file' is missing: CSV with the columns task, policy, "
                                "chunk_size, accuracy; turn and n are optional"},
    {"attention: {traces: recall.h5, policies: [full, ful]}",
     ":1:49: unknown policy 'ful', did you mean 'full'; `kvsim list policies` lists them"},
    {BASE "}\nplan: {}",
     ":2:7: 'limits' is missing: what must be kept, such as `ttft_p99 <= 2s` or "
     "`accuracy >= 0.9 of full`"},
    {"name: [a]", ":1:7: name: expected text, found a list"},
    {"seed: -1", ":1:7: seed: expected a whole number of at least 0, found '-1'"},
    {"model: [a]\n" BASE "}", ":1:8: model: attention is replayed under one model; expected a list "
                              "of them in `serving` alone"},
    {"model:\n" BASE "}", ":1:7: model: expected a name or a mapping, found nothing"},
};

static void wrong_experiments_are_refused_at_their_place(void **state)
{
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        kv_experiment *e;
        kv_diag diag = {0};
        kv_err err = parse(wrong[i].text, NULL, &e, &diag);
        if (err != KV_ERR_INPUT && err != KV_ERR_UNSUPPORTED)
            fail_msg("accepted: %s", wrong[i].text);
        assert_null(e);
        char words[1600];
        kv_diag_format(&diag, words, sizeof words);
        assert_int_equal(strncmp(words, experiment_path, strlen(experiment_path)), 0);
        assert_string_equal(words + strlen(experiment_path), wrong[i].message);
    }
}

static void a_file_that_is_not_there_is_named(void **state)
{
    kv_experiment *e;
    kv_diag diag = {0};
    assert_int_equal(
        parse("attention: {traces: [recall.h5, c*.h5], policies: full}", NULL, &e, &diag),
        KV_ERR_INPUT);
    assert_int_equal(diag.line, 1);
    assert_int_equal(diag.column, 33);
    char words[256];
    snprintf(words, sizeof words, "traces: no file matches 'c*.h5'; looked for '%s/c*.h5'", folder);
    assert_string_equal(diag.text, words);
}

static void set_wins_over_the_file(void **state)
{
    kv_experiment *e = parse_good(BASE "}", "attention.chunk_size=[8, whole]");
    assert_int_equal(e->attention.points.count, 2);
    kv_experiment_free(e);
    e = parse_good(BASE "}", "attention.critical.threshold=0.5");
    assert_true(e->attention.critical.threshold == 0.5);
    kv_experiment_free(e);
    e = parse_good(BASE "}", "attention.policies=[{full: {chunk_size: [1, 2, 3]}}]");
    assert_int_equal(e->attention.points.count, 3);
    kv_experiment_free(e);
    e = parse_good(BASE "}", "attention.traces=b*.h5"); /* relative to the experiment still */
    assert_int_equal(e->attention.traces.count, 2);
    kv_experiment_free(e);
    e = parse_good("name: only", "attention={traces: recall.h5, policies: full}");
    assert_int_equal(e->attention.points.count, 1);
    kv_experiment_free(e);
    e = parse_good(BASE "}", "name=a=b");
    assert_string_equal(e->name, "a=b");
    kv_experiment_free(e);
}

static void wrong_sets_are_refused(void **state)
{
    static const struct {
        const char *set, *message;
    } cases[] = {
        {"attention.chunk_size=0", "--set attention.chunk_size=0: chunk_size: expected `whole` or "
                                   "a whole number of tokens, found '0'"},
        {"attention.chunk_siz=0",
         "--set attention.chunk_siz=0: unknown key 'chunk_siz', did you mean 'chunk_size'; known "
         "here: compress_with, footprint_model, keep_sets, oracle, page_size, skip_refused, "
         "traces, tasks, "
         "policies, "
         "chunk_size, "
         "critical, calibration, step_time, rank"},
        {"attention.chunk_size",
         "--set attention.chunk_size: expected KEY=VALUE, such as attention.chunk_size=64"},
        {"=1", "--set =1: key '' has an empty part; expected one like attention.chunk_size"},
        {"attention.chunk_size=", "--set attention.chunk_size=: there is nothing here; expected "
                                  "YAML"},
        {"attention.traces.x=1", "--set attention.traces.x=1: attention.traces is a value, not a "
                                 "mapping; set it as a whole"},
        {"attention.tasks=[a", NULL},
        {"seed=null", "--set seed=null: seed: expected a whole number of at least 0, found "
                      "nothing"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        kv_experiment *e;
        kv_diag diag = {0};
        char words[1600];
        assert_int_equal(parse(BASE "}", cases[i].set, &e, &diag), KV_ERR_INPUT);
        kv_diag_format(&diag, words, sizeof words);
        if (cases[i].message != NULL)
            assert_string_equal(words, cases[i].message);
    }
}

static char *written(const kv_experiment *e)
{
    char *text = NULL;
    size_t bytes;
    FILE *out = open_memstream(&text, &bytes);
    assert_int_equal(kv_experiment_write(e, out), KV_OK);
    fclose(out);
    return text;
}

/* Equal in all that is written or expanded. */
static void assert_same(const kv_experiment *a, const kv_experiment *b)
{
    assert_string_equal(a->name, b->name);
    assert_int_equal(a->attention.points.count, b->attention.points.count);
    for (int i = 0; i < a->attention.points.count; i++) {
        const kv_point_spec *p = &a->attention.points.point[i], *q = &b->attention.points.point[i];
        char *s = kv_spec_params_json(p), *t = kv_spec_params_json(q);
        assert_ptr_equal(p->policy, q->policy);
        assert_int_equal(p->chunk_tokens, q->chunk_tokens);
        assert_string_equal(s, t);
        free(s);
        free(t);
    }
    char *s = written(a), *t = written(b);
    assert_string_equal(s, t);
    free(s);
    free(t);
}

static void what_is_written_reads_back(void **state)
{
    kv_experiment *e = parse_good("name: 'no'\nmodel: {a: &m {x: 1}, b: *m}\n" BASE
                                  ", tasks: [\"a: b\", '5', c], chunk_size: [1, whole]}",
                                  "attention.critical.confidence=0.5");
    char *text = written(e);
    kv_experiment *again = parse_good(text, NULL);
    assert_same(e, again);
    assert_true(again->attention.critical.confidence == 0.5);
    assert_string_equal(again->attention.tasks.text[0], "a: b");
    kv_experiment_free(e);
    kv_experiment_free(again);
    free(text);
}

/* --- Damaged files --------------------------------------------------------------------------- */

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13; /* xorshift64, Marsaglia 2003 */
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static void replace(char *text, size_t at, size_t length, const char *by)
{
    size_t rest = strlen(text + at + length) + 1, size = strlen(by);
    memmove(text + at + size, text + at + length, rest);
    memcpy(text + at, by, size);
}

static const char *const damages[] = {"[",
                                      "]",
                                      "{",
                                      "}",
                                      ":",
                                      ": ",
                                      "- ",
                                      "\n",
                                      "\n  ",
                                      "\t",
                                      "'",
                                      "\"",
                                      "&a ",
                                      "*a",
                                      "<<: ",
                                      "|\n",
                                      ">",
                                      "#",
                                      "? ",
                                      "!!int ",
                                      "%",
                                      "---\n",
                                      "...\n",
                                      "~",
                                      "null",
                                      "-1",
                                      "1e999",
                                      "nan",
                                      "0x10",
                                      "\xff",
                                      "\xc3",
                                      "whole",
                                      "full",
                                      "keep: 2",
                                      "full: ",
                                      "chunk_size: ",
                                      "99999999999999999999",
                                      "../",
                                      "*",
                                      "\x01",
                                      "attention",
                                      ",",
                                      "seed: 1\n"};

/* The points that `oracle` adds to a list of policies, in words: "topk {...} 32" a line each. */
static void oracles(const char *policies, char *out, size_t bytes)
{
    char text[1024];
    size_t used = 0;
    snprintf(text, sizeof text, "attention: {traces: recall.h5, oracle: true, policies: %s}",
             policies);
    kv_experiment *e = parse_good(text, NULL);
    out[0] = '\0';
    for (int i = 0; i < e->attention.points.count; i++) {
        const kv_point_spec *point = &e->attention.points.point[i];
        char *label = kv_spec_label(point), *json = kv_spec_params_json(point);
        if (strstr(label, "oracle") != NULL)
            used += (size_t)snprintf(out + used, bytes - used, "%s; %s; %lld\n", label, json,
                                     point->chunk_tokens);
        free(label);
        free(json);
    }
    kv_experiment_free(e);
}

/* What is kept is copied share for share and count for count (streaming: 4 + 60), once for each
 * schedule; what is read with the ends that are always read (8 + 16 + 100). */
static void oracles_take_the_amounts_of_the_others(void **state)
{
#define REST                                                                                       \
    "\"ratio_arithmetic\":false,\"rounding\":\"half_up\",\"sinks\":0,\"window\":0,"                \
    "\"window_in_budget\":true}"
    char got[4096];
    oracles("[full, snapkv: {keep: 0.25, window: 8, evict: [chunked, patched], chunk_size: 32}, "
            "streaming: {sinks: 4, window: 60}, corm: {window: 3}]",
            got, sizeof got);
    assert_non_null(strstr(got, "topk oracle, chunked; {\"evict\":\"chunked\",\"interval\":512,"
                                "\"keep\":0.25," REST "; 32\n"));
    assert_non_null(strstr(got, "topk oracle, online; {\"budget\":64,\"evict\":\"online\","
                                "\"interval\":512," REST "; 0\n"));
    assert_int_equal(strchr(strchr(got, '\n') + 1, '\n')[1], '\0'); /* two lines */
    oracles("[retrieval_attention: {sinks: 8, local: 16, read: 100}, [full, topk: {read: 7}]]", got,
            sizeof got);
    assert_string_equal(got, "full + topk oracle, read 7; {\"full\":{},\"topk\":{\"read\":7}}; 0\n"
                             "topk oracle, read 124; {\"read\":124}; 0\n");
    oracles("[full, topk: {keep: 0.5}]", got, sizeof got);
    assert_non_null(strstr(got, "topk oracle; {"));
    oracles("full", got, sizeof got);
    assert_string_equal(got, "");
}

static void an_oracle_without_an_amount_is_refused(void **state)
{
    kv_experiment *e;
    kv_diag diag = {0};
    assert_int_equal(parse("attention:\n  traces: recall.h5\n  oracle: true\n  policies:\n"
                           "    - full\n    - corm: {window: 3}\n",
                           NULL, &e, &diag),
                     KV_ERR_INPUT);
    assert_non_null(strstr(diag.text, "oracle: no policy here keeps or reads an amount"));
    kv_experiment_free(e);
}

/* One edit: a byte, a cut, or a word that means something in YAML or to kvsim. */
static void damage(char *text, uint64_t *random)
{
    size_t length = strlen(text), at = next_random(random) % (length + 1);
    size_t cut = next_random(random) % 8;
    char byte[2] = {(char)(1 + next_random(random) % 255), '\0'};
    if (at + cut > length)
        cut = length - at;
    switch (next_random(random) % 4) {
    case 0:
        replace(text, at, cut, "");
        break;
    case 1:
        replace(text, at, cut > 0, byte);
        break;
    default:
        replace(text, at, cut > 4 ? cut : 0,
                damages[next_random(random) % (sizeof damages / sizeof *damages)]);
    }
}

static void damaged_files_never_crash(void **state)
{
    static const char base[] = "name: fuzz\nseed: 3\nmodel: {a: &a [1, 2], b: *a}\n"
                               "attention:\n  traces: [recall.h5, 'b*.h5']\n  tasks: [x, \"y\"]\n"
                               "  policies:\n    - full\n    - full: {chunk_size: [8, 16, whole]}\n"
                               "    - [snapkv: {keep: [0.1, 0.2]}, topk: {read: [4, 8]}]\n"
                               "    - rocketkv: {compression: [2, 4.5]}\n"
                               "  chunk_size: [32, whole]\n  critical: {threshold: 0.9}\n"
                               "  step_time: {prefill_token: 0.1ms, decode: 20ms}\n"
                               "  keep_sets: true\n  page_size: 16\n";
    uint64_t random = 20240607;
    int good = 0;
    for (int round = 0; round < 20000; round++) {
        char text[2048];
        strcpy(text, base);
        for (int edits = 1 + (int)(next_random(&random) % 4); edits > 0; edits--)
            damage(text, &random);
        kv_experiment *e;
        kv_diag diag = {0};
        kv_err err = parse(text, NULL, &e, &diag);
        if (err == KV_OK) {
            char *again = written(e);
            kv_experiment *second = parse_good(again, NULL);
            assert_same(e, second);
            kv_experiment_free(second);
            free(again);
            good++;
        } else if ((err != KV_ERR_INPUT && err != KV_ERR_UNSUPPORTED) || diag.line < 1 ||
                   diag.text[0] == '\0') {
            fail_msg("round %d: error %d, line %d: %s\n%s", round, err, diag.line, diag.text, text);
        }
        kv_experiment_free(e);
    }
    assert_true(good > 200); /* both sides were exercised */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_manual_s_example_parses),
        cmocka_unit_test(what_is_left_out_has_defaults),
        cmocka_unit_test(every_setting_arrives),
        cmocka_unit_test(a_policy_s_chunk_size_wins),
        cmocka_unit_test(files_are_found_by_name_and_by_glob),
        cmocka_unit_test(wrong_experiments_are_refused_at_their_place),
        cmocka_unit_test(a_file_that_is_not_there_is_named),
        cmocka_unit_test(set_wins_over_the_file),
        cmocka_unit_test(wrong_sets_are_refused),
        cmocka_unit_test(what_is_written_reads_back),
        cmocka_unit_test(oracles_take_the_amounts_of_the_others),
        cmocka_unit_test(an_oracle_without_an_amount_is_refused),
        cmocka_unit_test(damaged_files_never_crash),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, make_files, remove_files);
}
