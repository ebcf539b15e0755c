/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Checks the summary table and the reading of curves: every line fits its width, cells say what the
 * curve says (texts written by hand), and filters name what they do not find. */
#include "tests/kv_test.h"
#include "tests/synthetic.h"

#include "analysis/summary.h"

#include <unistd.h>

static const char path[] = "summary_test.db";

static int write_results(void **state)
{
    kv_synthetic *s = kv_synthetic_new(KV_SYNTHETIC_LARGE);
    kv_diag diag = {0};
    s->plan.critical.resamples = 50;
    unlink(path);
    kv_err err = kv_synthetic_run(s, path, false, false, false, &diag);
    kv_synthetic_free(s);
    return err;
}

static kv_curves *load(const kv_curve_filter *filter)
{
    kv_diag diag = {0};
    kv_results *results = NULL;
    kv_curves *curves = NULL;
    assert_int_equal(kv_results_open(path, KV_RESULTS_READ, &results, &diag), KV_OK);
    assert_int_equal(kv_curves_load(results, filter, &curves, &diag), KV_OK);
    kv_results_close(results);
    return curves;
}

static void expect_error(const kv_curve_filter *filter, const char *words)
{
    kv_diag diag = {0};
    kv_results *results = NULL;
    kv_curves *curves = NULL;
    assert_int_equal(kv_results_open(path, KV_RESULTS_READ, &results, &diag), KV_OK);
    assert_int_equal(kv_curves_load(results, filter, &curves, &diag), KV_ERR_INPUT);
    if (strstr(diag.text, words) == NULL)
        fail_msg("'%s' does not say '%s'", diag.text, words);
    kv_results_close(results);
}

static char *summary(const kv_curves *curves, int width)
{
    kv_diag diag = {0};
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    assert_int_equal(kv_summary_write(curves, width, out, &diag), KV_OK);
    fclose(out);
    return text;
}

/* --- cells ------------------------------------------------------------------------- */

typedef struct cell_case {
    kv_critical_status status;
    double value, lo, hi;
    const char *text;
} cell_case;

static void cells_say_what_is_known(void **state)
{
    static const cell_case cases[] = {
        {KV_CRITICAL_OK, 0.1244, 0.11, 0.1388, "12.4 (11.0-13.9)"},
        {KV_CRITICAL_OK, 0.1244, NAN, 0.1388, "12.4 (<5.1-13.9)"},
        {KV_CRITICAL_OK, 0.1244, 0.11, NAN, "12.4 (11.0-70.3+)"},
        {KV_CRITICAL_ALWAYS, NAN, NAN, 0.051, "<= 5.1"},
        {KV_CRITICAL_NEVER, NAN, 0.703, NAN, "> 70.3"},
    };
    kv_curve_point point[] = {{.kv_footprint = 0.051}, {.kv_footprint = 0.703}};
    char text[64];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        kv_curve curve = {.point = point,
                          .points = 2,
                          .has_critical = true,
                          .status = cases[i].status,
                          .kv_footprint = cases[i].value,
                          .lo = cases[i].lo,
                          .hi = cases[i].hi};
        kv_critical_text(&curve, text);
        assert_string_equal(text, cases[i].text);
    }
    kv_curve unknown = {.point = point, .points = 2};
    kv_critical_text(&unknown, text);
    assert_string_equal(text, "-");
}

static void chunk_sizes_read_as_they_are_written(void **state)
{
    char text[24];
    long long chunk;
    kv_chunk_text(0, text);
    assert_string_equal(text, "whole");
    kv_chunk_text(64, text);
    assert_string_equal(text, "64");
    assert_true(kv_chunk_parse("whole", &chunk) && chunk == 0);
    assert_true(kv_chunk_parse("128", &chunk) && chunk == 128);
    assert_false(kv_chunk_parse("0", &chunk) || kv_chunk_parse("-1", &chunk) ||
                 kv_chunk_parse("12x", &chunk) || kv_chunk_parse("", &chunk));
}

/* --- the table --------------------------------------------------------------------- */

static void turns_are_pointed_at(void **state)
{
    kv_curves *curves = load(&(kv_curve_filter){0});
    for (int turns = 0; turns <= 3; turns++) {
        curves->turns = turns;
        char *text = summary(curves, 80);
        char *told = strstr(text, "up to 3 turns: `kvsim plot RESULTS turns`");
        assert_true((told != NULL) == (turns == 3));
        assert_true((strstr(text, " turns: ") != NULL) == (turns > 1));
        free(text);
    }
    kv_curves_free(curves);
}

static void every_line_fits(void **state)
{
    kv_curves *curves = load(&(kv_curve_filter){0});
    for (int width = 40; width <= 200; width += 5) {
        char *text = summary(curves, width), *line = text;
        for (char *end; (end = strchr(line, '\n')) != NULL; line = end + 1)
            if (end - line > width)
                fail_msg("%.*s is wider than %d", (int)(end - line), line, width);
        free(text);
    }
    kv_curves_free(curves);
}

/* Each critical footprint stands in the table once, whatever the width. */
static void nothing_is_left_out(void **state)
{
    kv_curves *curves = load(&(kv_curve_filter){0});
    for (int width = 40; width <= 200; width += 40) {
        char *text = summary(curves, width);
        for (int c = 0; c < curves->curves; c++) {
            char cell[64];
            kv_critical_text(&curves->curve[c], cell);
            if (strcmp(curves->curve[c].policy, "full") != 0 && strstr(text, cell) == NULL)
                fail_msg("%s is not in the table of width %d", cell, width);
        }
        assert_non_null(strstr(text, "proxy"));
        assert_non_null(strstr(text, "kv_recall: 16 examples"));
        free(text);
    }
    kv_curves_free(curves);
}

static void control_characters_do_not_reach_a_terminal(void **state)
{
    kv_curve_point point[] = {{.kv_footprint = 0.5}};
    kv_curve curve = {.task = "a\x1b[31mred\n",
                      .policy = "snapkv",
                      .label = "snap\x07kv",
                      .title = "snap\x07kv",
                      .source = "proxy",
                      .point = point,
                      .points = 1};
    kv_curves curves = {.curve = &curve, .curves = 1, .confidence = 0.95};
    char *text = summary(&curves, 80);
    assert_non_null(strstr(text, "a?[31mred?"));
    assert_non_null(strstr(text, "snap?kv"));
    free(text);
}

/* --- titles ----------------------------------------------------------------------------------- */

static const char *title_of(const kv_curves *curves, const char *label)
{
    for (int c = 0; c < curves->curves; c++)
        if (strcmp(curves->curve[c].label, label) == 0)
            return curves->curve[c].title;
    return "";
}

/* Where labels of a policy are long, its curves go by what tells them apart. */
static void titles_leave_out_what_is_shared(void **state)
{
    static const char chunked[] = "snapkv window 16, no window_in_budget, pooling max, chunked";
    static const char patched[] = "snapkv window 16, no window_in_budget, pooling max, patched";
    static const char narrow[] = "snapkv window 8, no window_in_budget, pooling max, chunked";
    static const char alone[] = "tova keep something that takes a lot of words, scope kv_head";
    kv_synthetic *s = kv_synthetic_new(KV_SYNTHETIC_LARGE);
    kv_diag diag = {0};
    s->plan.critical.resamples = 2;
    for (int p = 0; p < s->plan.points; p++) {
        const char *label = s->point[p].label;
        s->point[p].label = strcmp(label, "snapkv chunked") == 0    ? chunked
                            : strcmp(label, "snapkv patched") == 0  ? patched
                            : strcmp(label, "snapkv postfill") == 0 ? narrow
                            : strcmp(label, "tova") == 0            ? alone
                                                                    : label;
    }
    unlink("summary_titles.db");
    assert_int_equal(kv_synthetic_run(s, "summary_titles.db", false, false, false, &diag), KV_OK);
    kv_synthetic_free(s);
    kv_results *results = NULL;
    kv_curves *curves = NULL;
    assert_int_equal(kv_results_open("summary_titles.db", KV_RESULTS_READ, &results, &diag), KV_OK);
    assert_int_equal(kv_curves_load(results, &(kv_curve_filter){0}, &curves, &diag), KV_OK);
    assert_string_equal(title_of(curves, chunked), "snapkv window 16, chunked");
    assert_string_equal(title_of(curves, patched), "snapkv window 16, patched");
    assert_string_equal(title_of(curves, narrow), "snapkv window 8, chunked");
    assert_string_equal(title_of(curves, alone), alone);
    assert_string_equal(title_of(curves, "h2o"), "h2o");
    kv_curves_free(curves);
    kv_results_close(results);
}

/* --- filters ----------------------------------------------------------------------- */

static void filters_select(void **state)
{
    const char *tasks[] = {"lm"}, *policies[] = {"snapkv", "tova"};
    long long chunks[] = {64, 0};
    kv_curves *curves = load(&(kv_curve_filter){.tasks = tasks,
                                                .task_count = 1,
                                                .policies = policies,
                                                .policy_count = 2,
                                                .chunks = chunks,
                                                .chunk_count = 2});
    /* full, snapkv postfill whole, chunked 64, patched 64, and tova 64. */
    assert_int_equal(curves->curves, 5);
    assert_string_equal(curves->curve[0].policy, "full");
    for (int c = 1; c < curves->curves; c++) {
        assert_string_equal(curves->curve[c].task, "lm");
        assert_int_equal(curves->curve[c].points, 7);
        for (int p = 1; p < 7; p++)
            assert_true(curves->curve[c].point[p - 1].kv_footprint <
                        curves->curve[c].point[p].kv_footprint);
    }
    kv_curves_free(curves);
    curves = load(&(kv_curve_filter){.turn = 5});
    assert_int_equal(curves->curves, 2 * 12); /* the two tasks of five turns */
    kv_curves_free(curves);
}

static void filters_name_what_they_do_not_find(void **state)
{
    const char *task[] = {"kv_recal"}, *policy[] = {"snapvk"};
    long long chunk = 7;
    expect_error(&(kv_curve_filter){.tasks = task, .task_count = 1},
                 "no task 'kv_recal' in run 1, did you mean 'kv_recall'?");
    expect_error(&(kv_curve_filter){.policies = policy, .policy_count = 1},
                 "no policy 'snapvk' in run 1, did you mean 'snapkv'?");
    expect_error(&(kv_curve_filter){.chunks = &chunk, .chunk_count = 1}, "no curve of the given");
    expect_error(&(kv_curve_filter){.run_id = 3}, "no run 3");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cells_say_what_is_known),
        cmocka_unit_test(chunk_sizes_read_as_they_are_written),
        cmocka_unit_test(turns_are_pointed_at),
        cmocka_unit_test(every_line_fits),
        cmocka_unit_test(nothing_is_left_out),
        cmocka_unit_test(control_characters_do_not_reach_a_terminal),
        cmocka_unit_test(titles_leave_out_what_is_shared),
        cmocka_unit_test(filters_select),
        cmocka_unit_test(filters_name_what_they_do_not_find),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, write_results, NULL);
}
