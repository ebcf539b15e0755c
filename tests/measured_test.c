/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Checks the reader of measured accuracies: what it reads, and that whatever is wrong is told with
 * its place. */
#include "tests/kv_test.h"

#include "sim/measured.h"

static const char path[] = "measured_test.csv";

static kv_err read_bytes(const char *text, size_t bytes, kv_measured **out, char message[1200])
{
    kv_diag diag = {0};
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, bytes, file), bytes);
    fclose(file);
    kv_err err = kv_measured_read(path, out, &diag);
    kv_diag_format(&diag, message, 1200);
    remove(path);
    return err;
}

static void rows_are_read(void **state)
{
    static const char text[] =
        "\xef\xbb\xbf"
        "n,accuracy,chunk_size,note,policy,task,turn\r\n"
        "160,0.975,whole,\"full, of course\",full,kv_recall,\r\n"
        ",1,64,,\"{snapkv: {keep: 0.3, evict: chunked, window: 16}}\",icl,\r\n"
        "8,0,64,x,\"{snapkv: {window: 16, evict: chunked, keep: 0.30}}\",icl,5\r\n"
        ",0.5,128,,\"{snapkv: {keep: 0.3, evict: chunked, window: 16}}\",icl,\n";
    kv_measured *m;
    char message[1200];
    if (read_bytes(text, sizeof text - 1, &m, message) != KV_OK)
        fail_msg("%s", message);
    assert_int_equal(m->rows, 4);
    assert_int_equal(m->points.count, 3); /* rows 2 and 3 are of one point */
    assert_int_equal(m->row[1].point, m->row[2].point);
    assert_string_equal(m->points.point[m->row[0].point].policy->name, "full");
    assert_int_equal(m->points.point[m->row[0].point].chunk_tokens, 0);
    assert_int_equal(m->points.point[m->row[3].point].chunk_tokens, 128);
    assert_string_equal(m->row[2].task, "icl");
    assert_int_equal(m->row[2].turn, 5);
    assert_int_equal(m->row[0].turn, 0);
    assert_true(m->row[0].accuracy == 0.975 && m->row[0].n == 160 && m->row[1].n == 0);
    assert_int_equal(m->row[3].line, 5);
    kv_measured_free(m);
}

static void optional_columns_may_be_missing(void **state)
{
    static const char text[] = "task,policy,chunk_size,accuracy\na,full,whole,0.5\n";
    kv_measured *m;
    char message[1200];
    assert_int_equal(read_bytes(text, sizeof text - 1, &m, message), KV_OK);
    assert_int_equal(m->rows, 1);
    kv_measured_free(m);
}

#define HEAD "task,turn,policy,chunk_size,accuracy,n\n"

static void wrong_rows_are_located(void **state)
{
    static const struct {
        const char *text, *message;
    } wrong[] = {
        {"", "measured_test.csv: is empty"},
        {HEAD, "measured_test.csv: no rows"},
        {"task,policy,chunk,accuracy\n", "measured_test.csv:1: there is no column 'chunk_size'"},
        {"task,policy,chunk_size,acc\n", "measured_test.csv:1: there is no column 'accuracy'"},
        {HEAD "a,,full,whole,1.01,9\n", "measured_test.csv:2:15: accuracy is '1.01', expected a "
                                        "number from 0 to 1"},
        {HEAD "a,,full,whole,-0.1,9\n", "measured_test.csv:2:15: accuracy is '-0.1'"},
        {HEAD "a,,full,whole,nan,9\n", "measured_test.csv:2:15: accuracy is 'nan'"},
        {HEAD "a,,full,whole,,9\n", "measured_test.csv:2:15: accuracy is ''"},
        {HEAD "a,,full,whole,97%,9\n", "measured_test.csv:2:15: accuracy is '97%'"},
        {HEAD "a,,full,half,0.5,9\n", "measured_test.csv:2:9: chunk_size is 'half', expected a "
                                      "number of tokens from 1 or `whole`"},
        {HEAD "a,,full,0,0.5,9\n", "measured_test.csv:2:9: chunk_size is '0'"},
        {HEAD "a,,full,,0.5,9\n", "measured_test.csv:2:9: chunk_size is ''"},
        {HEAD "a,0,full,whole,0.5,9\n", "measured_test.csv:2:3: turn is '0', expected a whole "
                                        "number from 1"},
        {HEAD "a,x,full,whole,0.5,9\n", "measured_test.csv:2:3: turn is 'x'"},
        {HEAD "a,,full,whole,0.5,0\n", "measured_test.csv:2:19: n is '0'"},
        {HEAD "a,,full,whole,0.5,1.5\n", "measured_test.csv:2:19: n is '1.5'"},
        {HEAD ",,full,whole,0.5,9\n", "measured_test.csv:2:1: expected the name of a task"},
        {HEAD "a,,snapkw,whole,0.5,9\n", "measured_test.csv:2:4: "},
        {HEAD "a,,\"{snapkv: {kep: 0.5}}\",whole,0.5,9\n",
         "measured_test.csv:2:15: unknown key 'kep', did you mean 'keep'"},
        {HEAD "a,,\"{snapkv: {keep: [0.5, 0.1]}}\",whole,0.5,9\n",
         "measured_test.csv:2:5: 2 policies; expected one"},
        {HEAD "a,,\"{snapkv: {keep: 0.5, chunk_size: 64}}\",64,0.5,9\n",
         "measured_test.csv:2:5: chunk_size within the policy"},
        {HEAD "a,,\"{snapkv: {keep: 0.5}\",whole,0.5,9\n", "measured_test.csv:2"},
        {HEAD "a,,{snapkv: {keep: 0.5, window: 8}},whole,0.5,9\n",
         "measured_test.csv:2: 7 fields, expected 6"},
        {HEAD "a,,full,whole,0.5,9\nb,,full,whole,0.5,9\na,,full,whole,0.6,9\n",
         "measured_test.csv:4: task, turn, policy and chunk_size are those of line 2"},
        {HEAD "a,,full,whole,0.5\n", "measured_test.csv:2: 5 fields, expected 6"},
        {HEAD "a,,\"full,whole,0.5,9\n", "measured_test.csv:2:4: this quote is not closed"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        kv_measured *m;
        char message[1200];
        kv_err err = read_bytes(wrong[i].text, strlen(wrong[i].text), &m, message);
        if (strncmp(message, wrong[i].message, strlen(wrong[i].message)) != 0)
            fail_msg("'%s' instead of '%s'", message, wrong[i].message);
        assert_int_equal(err, KV_ERR_INPUT);
    }
}

/* A table cut off anywhere is a shorter table or an error, never a crash. */
static void any_piece_is_survived(void **state)
{
    static const char text[] =
        HEAD "a,,full,whole,0.5,9\nb,2,\"{snapkv: {keep: 0.3, window: 16}}\",64,0.25,\n";
    int read = 0;
    for (size_t bytes = 0; bytes < sizeof text; bytes++) {
        kv_measured *m;
        char message[1200];
        kv_err err = read_bytes(text, bytes, &m, message);
        if (err == KV_OK) {
            read++;
            kv_measured_free(m);
        } else {
            assert_int_equal(err, KV_ERR_INPUT);
            assert_memory_equal(message, path, sizeof path - 1);
        }
    }
    assert_true(read > 2);
}

static void a_missing_file_is_named(void **state)
{
    kv_measured *m;
    kv_diag diag = {0};
    assert_int_equal(kv_measured_read("no-such.csv", &m, &diag), KV_ERR_INPUT);
    assert_string_equal(diag.path, "no-such.csv");
}

/* --- Plans --------------------------------------------------------------------------------------
 */

/* A plan of examples only, as kv_measured_plan sees it. */
typedef struct fixture {
    kv_sweep_plan plan;
    kv_measured *measured;
    char *spec, *skipped, message[1200];
} fixture;

static void begin(fixture *f, const char *text, bool calibrates, bool only)
{
    *f = (fixture){0};
    f->plan.example = calloc(2, sizeof *f->plan.example);
    f->plan.examples = 2;
    for (int e = 0; e < 2; e++)
        f->plan.example[e].info = (kv_example_info){.task = e ? "icl" : "lm",
                                                    .turns = e ? 5 : 1,
                                                    .calibrates = calibrates,
                                                    .calibration_only = only};
    if (read_bytes(text, strlen(text), &f->measured, f->message) != KV_OK)
        fail_msg("%s", f->message);
}

static kv_err plan(fixture *f, const kv_texts *tasks)
{
    const kv_texts all = {0};
    kv_diag diag = {0};
    kv_err err =
        kv_measured_plan(f->measured, tasks ? tasks : &all, &f->plan, &f->spec, &f->skipped, &diag);
    kv_diag_format(&diag, f->message, sizeof f->message);
    return err;
}

static void end(fixture *f)
{
    kv_sweep_plan_fini(&f->plan);
    kv_measured_free(f->measured);
    free(f->spec);
    free(f->skipped);
}

static const char two_tasks[] =
    HEAD "lm,,full,whole,0.5,9\nicl,,full,whole,0.75,\n"
         "icl,3,full,whole,1,\nicl,,\"{snapkv: {keep: 0.3}}\",64,0.5,2\n";

static void points_are_per_task(void **state)
{
    fixture f;
    begin(&f, two_tasks, true, false);
    assert_int_equal(plan(&f, NULL), KV_OK);
    assert_int_equal(f.plan.points, 3);
    assert_string_equal(f.plan.point[0].info.task, "lm");
    assert_string_equal(f.plan.point[1].info.task, "icl");
    assert_true(f.plan.point[2].info.calibration_only);
    assert_int_equal(f.plan.point[2].info.chunk_tokens, 64);
    assert_string_equal(f.spec, "0,0,0.5,9,lm\n1,0,0.75,0,icl\n1,3,1,0,icl\n2,0,0.5,2,icl\n");
    assert_null(f.skipped);
    end(&f);
}

/* A policy without a seed is replayed with four draws, and is one measured point. */
static void random_policies_are_drawn_again(void **state)
{
    fixture f;
    begin(&f,
          HEAD "lm,,{random: {keep: 0.5}},64,0.5,9\nlm,1,{random: {keep: 0.5}},64,0.5,9\n"
               "lm,,\"{random: {keep: 0.5, seed: 7}}\",64,0.4,9\n",
          true, false);
    assert_int_equal(f.measured->distinct, 2);
    assert_int_equal(plan(&f, NULL), KV_OK);
    assert_int_equal(f.plan.points, 5);
    assert_string_equal(f.spec, "0+1+2+3,0,0.5,9,lm\n0+1+2+3,1,0.5,9,lm\n4,0,0.4,9,lm\n");
    for (int p = 1; p < 4; p++)
        assert_string_not_equal(f.plan.point[p].info.params_json,
                                f.plan.point[p - 1].info.params_json);
    end(&f);
}

/* The experiment's own point serves where it is replayed on the very examples that were measured.
 */
static void the_experiments_points_serve(void **state)
{
    for (int only = 0; only < 2; only++) {
        fixture f;
        int point;
        begin(&f, two_tasks, true, only);
        kv_point_spec own = f.measured->points.point[0]; /* full, whole */
        assert_int_equal(kv_sweep_plan_point(&f.plan, &own, NULL, false, &point, NULL), KV_OK);
        assert_int_equal(plan(&f, NULL), KV_OK);
        assert_int_equal(f.plan.points, only ? 4 : 2);
        assert_string_equal(f.spec,
                            only ? "1,0,0.5,9,lm\n2,0,0.75,0,icl\n2,3,1,0,icl\n3,0,0.5,2,icl\n"
                                 : "0,0,0.5,9,lm\n0,0,0.75,0,icl\n0,3,1,0,icl\n1,0,0.5,2,icl\n");
        end(&f);
    }
}

static void unknown_tasks_are_told(void **state)
{
    fixture f;
    begin(&f,
          HEAD "lm,,full,whole,0.5,9\nqa,,full,whole,0.5,9\nqa,1,full,whole,0.5,9\n"
               "a,,full,whole,0.5,9\n",
          true, false);
    assert_int_equal(plan(&f, NULL), KV_OK);
    assert_string_equal(f.skipped, "measured_test.csv: rows of tasks that no recorded example has "
                                   "are left out: qa, a");
    end(&f);
    /* What the experiment filters out is nobody's mistake. */
    char *wanted[] = {(char *)"lm"};
    begin(&f, HEAD "lm,,full,whole,0.5,9\nqa,,full,whole,0.5,9\n", true, false);
    assert_int_equal(plan(&f, &(kv_texts){.text = wanted, .count = 1}), KV_OK);
    assert_null(f.skipped);
    end(&f);
}

static void nothing_to_calibrate_is_an_error(void **state)
{
    fixture f;
    begin(&f, HEAD "qa,,full,whole,0.5,9\n", true, false);
    assert_int_equal(plan(&f, NULL), KV_ERR_INPUT);
    assert_non_null(strstr(f.message, "no recorded example has a task of this file (qa)"));
    end(&f);
    begin(&f, two_tasks, false, false);
    assert_int_equal(plan(&f, NULL), KV_ERR_INPUT);
    end(&f);
}

static void turns_beyond_the_recorded_are_located(void **state)
{
    fixture f;
    begin(&f, HEAD "icl,5,full,whole,0.5,9\nicl,6,full,whole,0.5,9\n", true, false);
    assert_int_equal(plan(&f, NULL), KV_ERR_INPUT);
    assert_string_equal(f.message, "measured_test.csv:3: turn is 6, but the recorded examples of "
                                   "task icl have at most 5");
    end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_read),
        cmocka_unit_test(optional_columns_may_be_missing),
        cmocka_unit_test(wrong_rows_are_located),
        cmocka_unit_test(any_piece_is_survived),
        cmocka_unit_test(a_missing_file_is_named),
        cmocka_unit_test(points_are_per_task),
        cmocka_unit_test(random_policies_are_drawn_again),
        cmocka_unit_test(the_experiments_points_serve),
        cmocka_unit_test(unknown_tasks_are_told),
        cmocka_unit_test(nothing_to_calibrate_is_an_error),
        cmocka_unit_test(turns_beyond_the_recorded_are_located),
    };
    return cmocka_run_group_tests_name("measured", tests, NULL, NULL);
}
