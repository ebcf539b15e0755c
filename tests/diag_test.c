/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Checks messages: the first error stays, places are written as known, near names are offered. */
#include "tests/kv_test.h"

#include "sim/base/diag.h"

static void first_error_stays(void **state)
{
    kv_diag diag = {0};
    kv_mark mark = {"exp.yaml", 12, 7};
    assert_int_equal(kv_fail(&diag, KV_ERR_INPUT, &mark, "expected %d", 3), KV_ERR_INPUT);
    assert_int_equal(kv_fail(&diag, KV_ERR_IO, NULL, "later"), KV_ERR_IO);
    char words[256];
    kv_diag_format(&diag, words, sizeof words);
    assert_string_equal(words, "exp.yaml:12:7: expected 3");
    assert_int_equal(diag.code, KV_ERR_INPUT);
}

static void place_may_be_partly_known(void **state)
{
    kv_diag no_column = {0}, no_file = {0};
    kv_mark mark = {"a.csv", 3, 0};
    char words[256];
    assert_int_equal(kv_fail(&no_column, KV_ERR_INPUT, &mark, "x"), KV_ERR_INPUT);
    kv_diag_format(&no_column, words, sizeof words);
    assert_string_equal(words, "a.csv:3: x");
    assert_int_equal(kv_fail(&no_file, KV_ERR_INPUT, NULL, "y"), KV_ERR_INPUT);
    kv_diag_format(&no_file, words, sizeof words);
    assert_string_equal(words, "y");
}

static void nearest_name_is_offered(void **state)
{
    const char *names[] = {"snapkv", "pyramidkv", "streaming"};
    assert_string_equal(kv_nearest("snapvk", names, 3), "snapkv");
    assert_string_equal(kv_nearest("streamin", names, 3), "streaming");
    assert_null(kv_nearest("zebra", names, 3));
    const char *const devices[] = {"h200", "h100-sxm"}; /* a first part beats two letters */
    assert_string_equal(kv_nearest("h100", devices, 2), "h100-sxm");
    assert_string_equal(kv_nearest("h20", devices, 2), "h200");
    static const char *const models[] = {"llama-2-7b", "llama-3.1-8b"}; /* both are 3 edits away */
    assert_string_equal(kv_nearest("llama3-8b", models, 2), "llama-3.1-8b");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(first_error_stays),
        cmocka_unit_test(place_may_be_partly_known),
        cmocka_unit_test(nearest_name_is_offered),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
