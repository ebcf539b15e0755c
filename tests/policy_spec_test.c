/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Checks policies as users write them: grids, presets, chunk sizes, paths, what is refused, and the
 * canonical texts. The policies here are tables of this test; expected grids were written by hand.
 */
#include "tests/kv_test.h"

#include "policies/retention_params.h"
#include "sim/base/csv.h"
#include "sim/policy_spec.h"

#include <unistd.h>

static const char *const preset_names[] = {"none", "paper", "code", NULL};
static const kv_preset presets[] = {{"paper", "window=32 kernel=7 pooling=max", "the paper"},
                                    {"code", "window=8 window_in_budget=false", "the code"},
                                    {.name = NULL}};
static const kv_param snap_rows[] = {KV_ROW_KEEP,
                                     KV_ROW_BUDGET,
                                     KV_ROW_WINDOW("16"),
                                     KV_ROW_KERNEL("5"),
                                     KV_ROW_POOLING("avg"),
                                     KV_ROW_EVICT("postfill"),
                                     KV_ROW_INTERVAL("64"),
                                     KV_ROW_WINDOW_IN_BUDGET("true"),
                                     KV_ROW_PRESET(preset_names),
                                     KV_ROW_SEED(NULL),
                                     KV_ROW_END};
static const kv_param stream_rows[] = {KV_ROW_SINKS("4"), KV_ROW_WINDOW_BUDGET, KV_ROW_END};
static const kv_param heads_rows[] = {KV_ROW_HEADS, KV_ROW_SPARSITY(NULL), KV_ROW_SINKS("128"),
                                      KV_ROW_WINDOW("256"), KV_ROW_END};
static const kv_param heavy_rows[] = {KV_ROW_KEEP, KV_ROW_BUDGET, KV_ROW_RECENT(NULL), KV_ROW_END};
static const kv_param observe_rows[] = {KV_ROW_KEEP, KV_ROW_WINDOW("0"), KV_ROW_END};
static const kv_param no_rows[] = {KV_ROW_END};

#define POLICY(n, rows, sets)                                                                      \
    {                                                                                              \
        .name = n, .config_bytes = sizeof(kv_retention_config), .params = rows, .presets = sets    \
    }
static const kv_retention all = POLICY("all", no_rows, NULL);
static const kv_retention snap = POLICY("snap", snap_rows, presets);
static const kv_retention stream = POLICY("stream", stream_rows, NULL);
static const kv_retention heads = POLICY("heads", heads_rows, NULL);
static const kv_retention heavy = POLICY("heavy", heavy_rows, NULL);
static const kv_retention observe = {.name = "observe",
                                     .config_bytes = sizeof(kv_retention_config),
                                     .params = observe_rows,
                                     .needs = KV_NEEDS_OBSERVERS};
static const kv_retention *const policies[] = {&all,   &snap,    &stream, &heads,
                                               &heavy, &observe, NULL};

typedef struct parsed {
    kv_document *document;
    kv_point_list list;
    kv_err err;
    char message[1600];
} parsed;

static parsed parse(const char *text)
{
    parsed p = {0};
    kv_diag diag = {0};
    p.err = kv_document_parse("dir/e.yaml", text, strlen(text), &p.document, &diag);
    if (p.err == KV_OK)
        p.err = kv__policy_parse_among(policies, kv_document_root(p.document), &p.list, &diag);
    kv_diag_format(&diag, p.message, sizeof p.message);
    return p;
}

static parsed parse_good(const char *text)
{
    parsed p = parse(text);
    if (p.err != KV_OK)
        fail_msg("%s", p.message);
    return p;
}

static void release(parsed *p)
{
    kv_point_list_fini(&p->list);
    kv_document_free(p->document);
}

static const kv_retention_config *config_of(const parsed *p, int i)
{
    return p->list.point[i].config;
}

static void a_name_alone_has_its_defaults(void **state)
{
    static const char *const texts[] = {"all", "{all: {}}", "all:", "{all: ~}"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        parsed p = parse_good(texts[i]);
        assert_int_equal(p.list.count, 1);
        assert_ptr_equal(p.list.point[0].policy, &all);
        assert_int_equal(p.list.point[0].chunk_tokens, KV_CHUNK_NOT_GIVEN);
        release(&p);
    }
}

static void lists_make_a_grid_last_key_fastest(void **state)
{
    parsed p = parse_good("{snap: {evict: [postfill, patched], keep: [0.1, 0.5], window: 8, "
                          "chunk_size: [64, whole]}}");
    static const struct {
        int evict;
        double keep;
        long long chunk;
    } want[] = {{KV_POSTFILL, 0.1, 64}, {KV_POSTFILL, 0.1, 0}, {KV_POSTFILL, 0.5, 64},
                {KV_POSTFILL, 0.5, 0},  {KV_PATCHED, 0.1, 64}, {KV_PATCHED, 0.1, 0},
                {KV_PATCHED, 0.5, 64},  {KV_PATCHED, 0.5, 0}};
    assert_int_equal(p.list.count, 8);
    for (int i = 0; i < 8; i++) {
        const kv_retention_config *c = config_of(&p, i);
        assert_int_equal(c->evict, want[i].evict);
        assert_true(c->keep == want[i].keep);
        assert_int_equal(c->window_tokens, 8);
        assert_int_equal(c->budget_tokens, 0);
        assert_int_equal(c->seed, -1);
        assert_int_equal(p.list.point[i].chunk_tokens, want[i].chunk);
    }
    release(&p);
}

static void presets_come_before_what_is_explicit(void **state)
{
    parsed p = parse_good("{snap: {kernel: 3, preset: [none, paper, code], budget: 100}}");
    static const struct {
        long long window, kernel;
        int pooling;
        bool inside;
    } want[] = {{16, 3, KV_POOL_AVG, true}, {32, 3, KV_POOL_MAX, true}, {8, 3, KV_POOL_AVG, false}};
    assert_int_equal(p.list.count, 3);
    for (int i = 0; i < 3; i++) {
        const kv_retention_config *c = config_of(&p, i);
        assert_int_equal(c->window_tokens, want[i].window);
        assert_int_equal(c->kernel_tokens, want[i].kernel);
        assert_int_equal(c->pooling, want[i].pooling);
        assert_int_equal(c->window_in_budget, want[i].inside);
        assert_int_equal(c->preset, i);
        assert_true(c->keep == -1);
        assert_int_equal(c->budget_tokens, 100);
    }
    release(&p);
}

static void keep_0_is_not_absent(void **state)
{
    parsed p = parse_good("{snap: {keep: 0}}");
    assert_true(config_of(&p, 0)->keep == 0);
    release(&p);
}

static void recent_is_a_count_or_a_fraction(void **state)
{
    parsed p = parse_good("{heavy: {keep: 0.5, recent: [0, 0.25, 1, 7]}}");
    assert_int_equal(p.list.count, 4);
    assert_true(config_of(&p, 1)->recent == 0.25);
    assert_true(config_of(&p, 3)->recent == 7);
    release(&p);
    p = parse_good("{heavy: {keep: 0.5}}");
    assert_true(config_of(&p, 0)->recent == -1);
    release(&p);
}

static const struct {
    const char *text, *message;
} wrong_policies[] = {
    {"snep", "dir/e.yaml:1:1: unknown policy 'snep', did you mean 'snap'; `kvsim list "
             "policies` lists them"},
    {"{quite: {keep: 1}}",
     "dir/e.yaml:1:2: unknown policy 'quite'; `kvsim list policies` lists them"},
    {"snap", "dir/e.yaml:1:1: snap: say how much is kept: give keep or budget"},
    {"{snap: {keep: 0.1, budget: 5}}",
     "dir/e.yaml:1:2: snap: say how much is kept once: give only one of keep or budget"},
    {"{stream: {sinks: 4}}", "dir/e.yaml:1:2: stream: say how much is kept: give window"},
    {"{heads: {heads: x.tsv}}", "dir/e.yaml:1:2: heads: say how much is kept: give sparsity"},
    {"{snap: {keep: 0.1, kernel: 4}}", "dir/e.yaml:1:2: snap: kernel is 4; expected an odd number"},
    {"{observe: {keep: 0.1}}",
     "dir/e.yaml:1:2: observe: window is 0, so that no row scores; expected at least 1"},
    {"{snap: {budget: 10}}",
     "dir/e.yaml:1:2: snap: 16 sinks and window entries stay in any case, which is above the "
     "budget of 10; expected a larger budget"},
    {"{heavy: {keep: 0.1, recent: 2.5}}", "dir/e.yaml:1:2: heavy: recent is 2.5; expected a "
                                          "whole number, or a fraction below 1"},
    {"{heavy: {budget: 8, recent: 9}}", "dir/e.yaml:1:2: heavy: recent is 9, above the budget "
                                        "of 8; expected at most the budget"},
    {"{snap: {kep: 0.1}}",
     "dir/e.yaml:1:9: unknown key 'kep', did you mean 'keep'; known here: keep, budget, "
     "window, kernel, pooling, evict, interval, window_in_budget, preset, seed, chunk_size"},
    {"{snap: {keep: [0.1, 1.2]}}",
     "dir/e.yaml:1:21: keep: expected a fraction from 0 to 1, found '1.2'"},
    {"{snap: {keep: []}}", "dir/e.yaml:1:15: keep: the list is empty; expected at least one value"},
    {"{snap: {keep: [[0.1]]}}",
     "dir/e.yaml:1:16: keep: expected a fraction from 0 to 1, found a list"},
    {"{snap: {keep: 0.1, evict: chunkd}}",
     "dir/e.yaml:1:27: evict: expected one of postfill, chunked, patched, pool, step, interval "
     "or online, found 'chunkd'; did you mean 'chunked'?"},
    {"{snap: {keep: 0.1, preset: papers}}",
     "dir/e.yaml:1:28: preset: expected one of none, paper or code, found 'papers'; did you "
     "mean 'paper'?"},
    {"{snap: {keep: 0.1, chunk_size: 0}}", "dir/e.yaml:1:32: chunk_size: expected `whole` or a "
                                           "whole number of tokens, found '0'"},
    {"{snap: 0.3}", "dir/e.yaml:1:8: snap: expected a mapping of settings, such as {keep: "
                    "0.3}, found a value"},
    {"{snap: [0.3]}", "dir/e.yaml:1:8: snap: expected a mapping of settings, such as {keep: "
                      "0.3}, found a list"},
    {"{snap: {keep: 0.1}, all: }",
     "dir/e.yaml:1:1: several policies in one mapping; expected one, such as {snapkv: {keep: "
     "0.3}}, or a sequence for a combination, such as [{snapkv: {keep: 0.3}}, {topk: {read: "
     "64}}]"},
    {"[all, all]", "dir/e.yaml:1:7: all stands twice in one combination"},
    {"[all, {stream: {window: 8}}]", "dir/e.yaml:1:8: all and stream are both retention policies; "
                                     "a combination has at most one"},
    {"[]", "dir/e.yaml:1:1: the combination is empty; expected at least one policy"},
    {"[[all]]", "dir/e.yaml:1:2: expected a policy, such as {snapkv: {keep: 0.3}}, found a list"},
    {"[{all: {chunk_size: 8}}, {topk: {read: 4, chunk_size: 8}}]",
     "dir/e.yaml:1:27: chunk_size is given twice in one combination; expected it once"},
    {"[all, {topk: {}}]", "dir/e.yaml:1:8: topk: say once how much is read, share or read, or how "
                          "much is kept, keep or budget"},
    {"{}", "dir/e.yaml:1:1: expected a policy, such as {snapkv: {keep: 0.3}}, found a mapping"},
    {"~", "dir/e.yaml:1:1: expected a policy, such as {snapkv: {keep: 0.3}}, found nothing"},
    {"{all: {keep: 1}}", "dir/e.yaml:1:8: unknown key 'keep'; known here: chunk_size"},
};

static void wrong_policies_are_refused_at_their_place(void **state)
{
    for (size_t i = 0; i < sizeof wrong_policies / sizeof *wrong_policies; i++) {
        parsed p = parse(wrong_policies[i].text);
        if (p.err != KV_ERR_INPUT)
            fail_msg("accepted: %s", wrong_policies[i].text);
        if (wrong_policies[i].message != NULL)
            assert_string_equal(p.message, wrong_policies[i].message);
        assert_int_equal(p.list.count, 0);
        release(&p);
    }
}

/* The product of the parts' grids, the last part fastest; parts in the order of their families,
 * whatever order they are written in; one name, one JSON, one label for all. */
static void combinations_are_a_product(void **state)
{
    static const char *const texts[] = {
        "[{topk: {read: [4, 8]}}, {snap: {keep: [0.1, 0.5], window: 8, chunk_size: 32}}]",
        "[{snap: {chunk_size: 32, keep: [0.1, 0.5], window: 8}}, {topk: {read: [4, 8]}}]"};
    static const double keeps[2][4] = {{0.1, 0.5, 0.1, 0.5}, {0.1, 0.1, 0.5, 0.5}};
    static const char *const reads[2][4] = {{"4", "4", "8", "8"}, {"4", "8", "4", "8"}};
    for (int t = 0; t < 2; t++) {
        parsed p = parse_good(texts[t]);
        assert_int_equal(p.list.count, 4);
        for (int i = 0; i < 4; i++) {
            const kv_point_spec *point = &p.list.point[i];
            assert_int_equal(kv_spec_named(point), 2);
            assert_true(config_of(&p, i)->keep == keeps[t][i]);
            assert_int_equal(point->chunk_tokens, 32);
            kv_part read = kv_spec_get(point, 1);
            char *value = kv_param_text(kv_param_find(read.method.params, "read"), read.config);
            assert_string_equal(value, reads[t][i]);
            free(value);
        }
        char *name = kv_spec_name(&p.list.point[0]), *json = kv_spec_curve_json(&p.list.point[0]);
        char *label = kv_spec_label(&p.list.point[0]);
        assert_string_equal(name, "snap+topk");
        assert_string_equal(json, "{\"snap\":{\"evict\":\"postfill\",\"interval\":64,\"kernel\":5,"
                                  "\"pooling\":\"avg\",\"preset\":\"none\",\"window\":8,"
                                  "\"window_in_budget\":true},\"topk\":{\"read\":4}}");
        assert_string_equal(label, "snap window 8 + topk oracle, read 4");
        free(name);
        free(json);
        free(label);
        release(&p);
    }
}

/* A policy of another family alone stands on the full cache, which is not named. */
static void a_read_policy_alone_keeps_all(void **state)
{
    parsed p = parse_good("{topk: {share: 0.25}}");
    const kv_point_spec *point = &p.list.point[0];
    char *name = kv_spec_name(point), *json = kv_spec_params_json(point);
    assert_int_equal(p.list.count, 1);
    assert_string_equal(point->policy->name, "full");
    assert_string_equal(name, "topk");
    assert_string_equal(json, "{\"share\":0.25}");
    free(name);
    free(json);
    release(&p);
}

static void equal_combinations_stay_once(void **state)
{
    kv_diag diag = {0};
    parsed p = parse_good("[{topk: {read: [4, 4, 8]}}, {snap: {keep: 0.1}}]");
    assert_int_equal(p.list.count, 3);
    assert_int_equal(kv_point_list_unique(&p.list, &diag), KV_OK);
    assert_int_equal(p.list.count, 2);
    assert_true(kv_spec_same(&p.list.point[0], &p.list.point[0]));
    assert_false(kv_spec_same(&p.list.point[0], &p.list.point[1]));
    release(&p);
}

static void huge_grids_are_refused(void **state)
{
    char text[8192] = "{snap: {";
    static const char *const keys[] = {"keep", "window", "kernel", "interval", "seed"};
    for (int k = 0; k < 5; k++) {
        sprintf(text + strlen(text), "%s: [", keys[k]);
        for (int i = 0; i < 20; i++)
            sprintf(text + strlen(text), "%d,", 2 * i + 1);
        strcat(text, "], ");
    }
    strcat(text, "}}");
    parsed p = parse(text);
    assert_int_equal(p.err, KV_ERR_INPUT); /* 20^5 = 3.2 million */
    assert_non_null(strstr(p.message, "interval: the lists make more than 100000 combinations"));
    release(&p);
}

static void check_texts(const char *text, const char *params, const char *curve, const char *label)
{
    parsed p = parse_good(text);
    char *got_params = kv_spec_params_json(&p.list.point[0]);
    char *got_curve = kv_spec_curve_json(&p.list.point[0]);
    char *got_label = kv_spec_label(&p.list.point[0]);
    assert_string_equal(got_params, params);
    assert_string_equal(got_curve, curve);
    assert_string_equal(got_label, label);
    free(got_params);
    free(got_curve);
    free(got_label);
    release(&p);
}

static void texts_are_canonical(void **state)
{
    check_texts("{snap: {window: 16, evict: chunked, keep: 0.30}}",
                "{\"evict\":\"chunked\",\"interval\":64,\"keep\":0.3,\"kernel\":5,\"pooling\":"
                "\"avg\",\"preset\":\"none\",\"window\":16,\"window_in_budget\":true}",
                "{\"evict\":\"chunked\",\"interval\":64,\"kernel\":5,\"pooling\":\"avg\","
                "\"preset\":\"none\",\"window\":16,\"window_in_budget\":true}",
                "snap chunked");
    check_texts("{snap: {preset: paper, budget: 64, kernel: 3}}",
                "{\"budget\":64,\"evict\":\"postfill\",\"interval\":64,\"kernel\":3,\"pooling\":"
                "\"max\",\"preset\":\"paper\",\"window\":32,\"window_in_budget\":true}",
                "{\"evict\":\"postfill\",\"interval\":64,\"kernel\":3,\"pooling\":\"max\","
                "\"preset\":\"paper\",\"window\":32,\"window_in_budget\":true}",
                "snap kernel 3, preset paper");
    /* A window that is the budget is left out of the curve, as is the share of heads. */
    check_texts("{stream: {window: 32}}", "{\"sinks\":4,\"window\":32}", "{\"sinks\":4}", "stream");
    check_texts("{heads: {heads: m.tsv, sparsity: 0.5}}",
                "{\"heads\":\"m.tsv\",\"sinks\":128,\"sparsity\":0.5,\"window\":256}",
                "{\"heads\":\"m.tsv\",\"sinks\":128,\"window\":256}", "heads heads m.tsv");
    check_texts("all", "{}", "{}", "all");
}

static void paths_stay_as_written(void **state)
{
    parsed p = parse_good("{heads: {heads: [m.tsv, ../up.tsv, /abs.tsv], sparsity: 0.5}}");
    assert_string_equal(config_of(&p, 0)->heads, "m.tsv");
    assert_string_equal(config_of(&p, 1)->heads, "../up.tsv");
    assert_string_equal(config_of(&p, 2)->heads, "/abs.tsv");
    assert_string_equal(p.list.point[1].directory, "dir");
    release(&p);
}

/* `full` is in every build, so the public function can be asked for it. */
static void text_in_a_cell_stands_where_the_cell_is(void **state)
{
    kv_mark mark = {"a.csv", 12, 0};
    kv_point_list list = {0};
    kv_diag good = {0}, bad = {0}, broken = {0};
    assert_int_equal(kv_policy_parse_text("full", &mark, "d", &list, &good), KV_OK);
    assert_int_equal(kv_policy_parse_text("{full: {chunk_size: 64}}", &mark, "d", &list, &good),
                     KV_OK);
    assert_int_equal(list.count, 2);
    assert_string_equal(list.point[0].policy->name, "full");
    assert_string_equal(list.point[1].mark.path, "a.csv");
    assert_int_equal(list.point[1].mark.line, 12);
    assert_int_equal(list.point[1].chunk_tokens, 64);
    assert_int_equal(kv_policy_parse_text("{ful: {}}", &mark, "d", &list, &bad), KV_ERR_INPUT);
    assert_int_equal(bad.line, 12);
    assert_int_equal(bad.column, 0);
    assert_string_equal(bad.path, "a.csv");
    assert_int_equal(kv_policy_parse_text("{full: ", &mark, "d", &list, &broken), KV_ERR_INPUT);
    assert_int_equal(broken.line, 12);
    assert_int_equal(list.count, 2);
    kv_point_list_fini(&list);
}

/* Text before images is an order; what keeps entries by none cannot have one. */
static void a_prior_needs_a_ranking(void **state)
{
    static const char *const refused[] = {"[{streaming: {window: 8}}, {look_m: {}}]",
                                          "[{corm: {window: 8}}, {look_m: {}}]",
                                          "[{chunkkv: {keep: 0.5}}, {look_m: {}}]"};
    static const char *const taken[] = {"[{streaming: {window: 8}}, {look_m: {text_prior: false}}]",
                                        "[{knorm: {keep: 0.5}}, {look_m: {}}]", "[{look_m: {}}]"};
    kv_mark mark = {"a.csv", 12, 0};
    kv_point_list list = {0};
    for (int i = 0; i < 3; i++) {
        kv_diag diag = {0};
        assert_int_equal(kv_policy_parse_text(refused[i], &mark, "", &list, &diag), KV_ERR_INPUT);
        assert_non_null(strstr(diag.text, "look_m changes how entries rank"));
        assert_int_equal(kv_policy_parse_text(taken[i], &mark, "", &list, &diag), KV_OK);
    }
    assert_int_equal(list.count, 3);
    kv_point_list_fini(&list);
}

/* --- Scorers: the policies of every build ------------------------------------------ */

static kv_point_list parse_real(const char *text, kv_err wanted, kv_diag *diag)
{
    static const kv_mark mark = {"a.csv", 12, 0};
    kv_point_list list = {0};
    kv_err err = kv_policy_parse_text(text, &mark, "", &list, diag);
    if (err != wanted)
        fail_msg("%s: %s", text, diag->text);
    return list;
}

static void check_label(const char *text, const char *label)
{
    kv_diag diag = {0};
    kv_point_list list = parse_real(text, KV_OK, &diag);
    char *got = kv_spec_label(&list.point[0]), *params = kv_spec_params_json(&list.point[0]);
    assert_string_equal(got, label);
    assert_non_null(params);
    free(got);
    free(params);
    kv_point_list_fini(&list);
}

static void a_scorer_brings_its_settings(void **state)
{
    kv_diag diag = {0};
    kv_point_list list = parse_real("{adakv: {scorer: {knorm: {sinks: 3, window: 5}}, keep: 0.25, "
                                    "evict: pool, rounding: ceil}}",
                                    KV_OK, &diag);
    char *params = kv_spec_params_json(&list.point[0]), *curve = kv_spec_curve_json(&list.point[0]);
    assert_string_equal(
        params, "{\"alpha\":0.2,\"charge_probes\":false,\"evict\":\"pool\",\"interval\":512,"
                "\"keep\":0.25,\"normalize\":false,\"preset\":\"none\","
                "\"ratio_arithmetic\":false,\"rounding\":\"ceil\","
                "\"scorer\":{\"knorm\":{\"preset\":\"none\",\"sinks\":3,\"window\":5}},"
                "\"window_in_budget\":true}");
    assert_null(strstr(curve, "keep"));
    const kv_retention_config *outer = list.point[0].config, *inner = outer->scorer.config;
    assert_true(inner->keep == 0.25 && inner->evict == KV_POOL && inner->rounding == KV_CEIL);
    assert_true(outer->sinks_tokens == 3 && outer->window_tokens == 5);
    free(params);
    free(curve);
    kv_point_list_fini(&list);
    check_label("{adakv: {scorer: knorm, keep: 0.3}}", "adakv over knorm");
    check_label("{chunkkv: {scorer: {expected_attention: {epsilon: 0.01, future: 64}}, keep: 0.3, "
                "chunk: 4}}",
                "chunkkv over (expected_attention future 64; epsilon 0.01), chunk 4");
    check_label("{adakv: {preset: kvpress, scorer: expected_attention, keep: 0.3}}",
                "adakv over expected_attention, preset kvpress");
    check_label("{adakv: {scorer: {criticalkv: {scorer: knorm}}, keep: 0.3}}",
                "adakv over (criticalkv over knorm)");
}

static void scorers_make_a_grid_and_copies(void **state)
{
    kv_diag diag = {0};
    kv_point_list list = parse_real("{adakv: {keep: [0.1, 0.2], scorer: [knorm, {keydiff: {anchor: "
                                    "raw}}, {knorm: {}}]}}",
                                    KV_OK, &diag);
    assert_int_equal(list.count, 6);
    assert_true(kv_spec_same(&list.point[0], &list.point[2]));
    assert_false(kv_spec_same(&list.point[0], &list.point[1]));
    assert_int_equal(kv_point_list_add(&list, &list.point[1], 64, &diag), KV_OK);
    assert_true(kv_spec_same(&list.point[1], &list.point[6]));
    assert_int_equal(kv_point_list_unique(&list, &diag), KV_OK);
    assert_int_equal(list.count, 5);
    kv_point_list_fini(&list);
}

static void a_preset_is_the_scorers_too(void **state)
{
    static const struct {
        const char *text;
        int scope, preset;
    } cases[] = {
        {"{adakv: {scorer: {tova: {scope: kv_head}}, preset: kvpress, keep: 0.3}}",
         KV_SCOPE_KV_HEAD, 1},
        {"{adakv: {preset: kvpress, scorer: tova, keep: 0.3}}", KV_SCOPE_LAYER, 1},
        {"{adakv: {preset: kvpress, scorer: {tova: {preset: none}}, keep: 0.3}}", KV_SCOPE_LAYER,
         0},
        {"{adakv: {preset: kvcache-factory, scorer: tova, keep: 0.3}}", KV_SCOPE_LAYER, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        kv_diag diag = {0};
        kv_point_list list = parse_real(cases[i].text, KV_OK, &diag);
        const kv_retention_config *outer = list.point[0].config, *inner = outer->scorer.config;
        assert_int_equal(inner->scope, cases[i].scope);
        assert_int_equal(inner->preset, cases[i].preset);
        assert_int_equal(inner->window_tokens, cases[i].preset); /* TOVAPress: 1 */
        assert_int_equal(inner->rounding, outer->rounding);
        kv_point_list_fini(&list);
    }
}

static void wrong_scorers_are_refused(void **state)
{
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"{adakv: {scorer: streaming, keep: 0.3}}", "streaming does not rank entries by scores"},
        {"{adakv: {scorer: corm, keep: 0.3}}", "or kvzip"},
        {"{adakv: {scorer: topk, keep: 0.3}}", "topk is an oracle, which"},
        {"{adakv: {scorer: pyramidkv, keep: 0.3}}", "scores of its own"},
        {"{adakv: {scorer: quest, keep: 0.3}}", "expected one of random, snapkv"},
        {"{adakv: {scorer: knrm, keep: 0.3}}", "did you mean 'knorm'"},
        {"{adakv: {scorer: {knorm: {keep: 0.3}}, keep: 0.3}}", "keep is not for a scorer to say"},
        {"{adakv: {scorer: {l2: {skip_layers: 1}}, keep: 0.3}}", "settings of adakv"},
        {"{adakv: {scorer: {knorm: {chunk_size: 8}}, keep: 0.3}}", "chunk_size is not for"},
        {"{adakv: {scorer: {knorm: {sinks: [1, 2]}}, keep: 0.3}}", "list the scorers"},
        {"{adakv: {scorer: {knorm: {sink: 1}}, keep: 0.3}}", "did you mean 'sinks'"},
        {"{adakv: {scorer: {knorm: 3}, keep: 0.3}}", "expected a mapping of settings"},
        {"{adakv: {scorer: ~, keep: 0.3}}", "expected a policy"},
        {"{adakv: {scorer: knorm, kernel: 5, keep: 0.3}}", "kernel is a setting of the scores"},
        {"{criticalkv: {scorer: knorm, window: 5, keep: 0.3}}",
         "window is a setting of the scores"},
        {"{criticalkv: {scorer: {criticalkv: {scorer: criticalkv}}, keep: 0.3}}", NULL},
        {"{criticalkv: {scorer: {criticalkv: {scorer: {criticalkv: {scorer: knorm}}}}, keep: 0.3}}",
         "more than 2 scorers"},
        {"{adakv: {scorer: {snapkv: {kernel: 4}}, keep: 0.3}}", "expected an odd number"},
        {"{adakv: {scorer: {knorm: {sinks: 9}}, budget: 8}}", "above the budget of 8"},
        {"{knorm: {scorer: knorm, keep: 0.3}}", "unknown key 'scorer'"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        kv_diag diag = {0};
        bool good = cases[i].says == NULL;
        kv_point_list list = parse_real(cases[i].text, good ? KV_OK : KV_ERR_INPUT, &diag);
        if (!good && strstr(diag.text, cases[i].says) == NULL)
            fail_msg("%s: %s", cases[i].text, diag.text);
        assert_int_equal(list.count, good);
        kv_point_list_fini(&list);
    }
}

static void a_share_and_a_count_of_draws_exclude_each_other(void **state)
{
    static const char *const cases[] = {
        "{nacl: {keep: 0.5, preset: kvcache-factory, random: 0.2, random_tokens: 5}}",
        "{nacl: {keep: 0.5, random: 0.2}}", "{nacl: {keep: 0.5, random_tokens: 5}}"};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        kv_diag diag = {0};
        kv_point_list list = parse_real(cases[i], i == 0 ? KV_ERR_INPUT : KV_OK, &diag);
        assert_true(i > 0 || strstr(diag.text, "nacl: random and random_tokens both say") != NULL);
        kv_point_list_fini(&list);
    }
}

static void namesakes_are_not_mixed(void **state)
{
    static const char *const cases[] = {"{topk: {read: 20, keep: 0.3}}",
                                        "{topk: {keep: 0.3, share: 0.1}}"};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        kv_diag diag = {0};
        kv_point_list list = parse_real(cases[i], KV_ERR_INPUT, &diag);
        assert_string_equal(diag.text,
                            "topk: keep or budget make it the retention oracle, share or "
                            "read the read oracle; expected settings of one of them");
        kv_point_list_fini(&list);
    }
}

static void the_same_point_stays_once(void **state)
{
    parsed p = parse_good("{snap: {keep: [0.1, 0.2, 0.1, 0.10], chunk_size: [64, whole]}}");
    kv_diag diag = {0};
    assert_int_equal(p.list.count, 8);
    assert_int_equal(kv_point_list_unique(&p.list, &diag), KV_OK);
    assert_int_equal(p.list.count, 4);
    static const double keep[] = {0.1, 0.1, 0.2, 0.2};
    static const long long chunk[] = {64, 0, 64, 0};
    for (int i = 0; i < 4; i++) {
        assert_true(config_of(&p, i)->keep == keep[i]);
        assert_int_equal(p.list.point[i].chunk_tokens, chunk[i]);
    }
    release(&p);
}

/* Every registered policy: defaults and presets parse, and the preset setting names the presets. */
static void tables_of_all_policies_are_sound(void **state)
{
    for (int i = 0; i < kv_methods(); i++) {
        kv_diag diag = {0};
        kv_method m = kv_method_get(i), found;
        assert_true(kv_method_find(m.name, &found)); /* one of a name and family */
        assert_true(found.params == m.params || found.family != m.family);
        assert_true(m.brief != NULL && m.stage != NULL);
        void *config = calloc(1, m.config_bytes);
        if (kv_params_default(m.params, config, &diag) != KV_OK)
            fail_msg("%s: %s", m.name, diag.text);
        const kv_param *row = kv_param_find(m.params, "preset");
        assert_int_equal(row != NULL, m.presets != NULL);
        int count = 0;
        for (const kv_preset *s = m.presets; s != NULL && s->name != NULL; s++) {
            assert_string_equal(row->choices[++count], s->name);
            if (kv_params_preset(m.params, s, config, &diag) != KV_OK)
                fail_msg("%s: %s: %s", m.name, s->name, diag.text);
        }
        if (row != NULL) {
            assert_string_equal(row->choices[0], "none");
            assert_null(row->choices[count + 1]);
        }
        for (const kv_param *q = m.params; q->name != NULL; q++) {
            assert_ptr_equal(kv_param_find(m.params, q->name), q); /* no name twice */
            assert_true(q->help != NULL && q->unit != NULL);
            assert_true(q->offset < m.config_bytes);
        }
        kv_params_fini(m.params, config);
        free(config);
    }
}

/* Policies as the measured accuracy writes them, in cells of a CSV. */
static void measured_policies_parse(void **state)
{
    const char *folder = getenv("KV_SHARED");
    char path[512];
    snprintf(path, sizeof path, "%s/attention/accuracy.csv", folder ? folder : "");
    if (access(path, R_OK) != 0)
        kv_skip("the shared data is not there");
    kv_csv *csv;
    kv_diag diag = {0};
    kv_point_list list = {0};
    int column, rows = 0;
    assert_int_equal(kv_csv_open(path, &csv, &diag), KV_OK);
    assert_int_equal(kv_csv_need(csv, "policy", &column, &diag), KV_OK);
    for (; kv_csv_next(csv, &diag) == KV_OK; rows++) {
        kv_mark mark = kv_csv_mark(csv, column);
        if (kv_policy_parse_text(kv_csv_field(csv, column), &mark, folder, &list, &diag) != KV_OK)
            fail_msg("%d:%d: %s", diag.line, diag.column, diag.text);
    }
    assert_int_equal(diag.code, KV_OK);
    assert_int_equal(list.count, rows); /* none of them is a grid */
    assert_true(rows > 1000);
    kv_point_list_fini(&list);
    kv_csv_close(csv);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_name_alone_has_its_defaults),
        cmocka_unit_test(lists_make_a_grid_last_key_fastest),
        cmocka_unit_test(presets_come_before_what_is_explicit),
        cmocka_unit_test(keep_0_is_not_absent),
        cmocka_unit_test(recent_is_a_count_or_a_fraction),
        cmocka_unit_test(wrong_policies_are_refused_at_their_place),
        cmocka_unit_test(combinations_are_a_product),
        cmocka_unit_test(a_read_policy_alone_keeps_all),
        cmocka_unit_test(equal_combinations_stay_once),
        cmocka_unit_test(huge_grids_are_refused),
        cmocka_unit_test(texts_are_canonical),
        cmocka_unit_test(paths_stay_as_written),
        cmocka_unit_test(text_in_a_cell_stands_where_the_cell_is),
        cmocka_unit_test(a_prior_needs_a_ranking),
        cmocka_unit_test(a_scorer_brings_its_settings),
        cmocka_unit_test(scorers_make_a_grid_and_copies),
        cmocka_unit_test(a_preset_is_the_scorers_too),
        cmocka_unit_test(wrong_scorers_are_refused),
        cmocka_unit_test(a_share_and_a_count_of_draws_exclude_each_other),
        cmocka_unit_test(namesakes_are_not_mixed),
        cmocka_unit_test(the_same_point_stays_once),
        cmocka_unit_test(tables_of_all_policies_are_sound),
        cmocka_unit_test(measured_policies_parse),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
