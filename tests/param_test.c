/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Checks parameter tables: text to value and back, units, bounds, messages, presets, copies. Values
 * were worked out by hand (1 GiB = 2^30 bytes, 1 GB = 10^9). */
#include "tests/kv_test.h"

#include "sim/base/json.h"
#include "sim/base/param.h"

typedef struct config {
    bool on;
    long long count, bytes, time_ns, chunk, optional;
    double real, rate, fraction;
    int choice;
    char *text, *path;
} config;

static const char *const choices[] = {"avg", "max", NULL};
#define AT(field) offsetof(config, field)
static const kv_param table[] = {
    {"on", KV_BOOL, AT(on), "true", 0, 0, NULL, 0, "", "switch"},
    {"count", KV_INT, AT(count), "7", 1, 9, NULL, 0, "tokens", "count"},
    {"real", KV_REAL, AT(real), "0.1", 0, 0, NULL, 0, "", "real"},
    {"fraction", KV_REAL, AT(fraction), NULL, 0, 1, NULL, KV_PARAM_BUDGET, "fraction", "share"},
    {"choice", KV_CHOICE, AT(choice), "max", 0, 0, choices, 0, "", "choice"},
    {"text", KV_TEXT, AT(text), NULL, 0, 0, NULL, 0, "", "text"},
    {"path", KV_PATH, AT(path), "a/b", 0, 0, NULL, 0, "", "path"},
    {"bytes", KV_BYTES, AT(bytes), "1GiB", 0, 0, NULL, 0, "bytes", "size"},
    {"rate", KV_RATE, AT(rate), "64GB/s", 0, INFINITY, NULL, KV_PARAM_OPEN_MIN, "", "rate"},
    {"time", KV_DURATION, AT(time_ns), "5us", 0, 0, NULL, 0, "", "time"},
    {"chunk", KV_CHUNK, AT(chunk), "whole", 0, 0, NULL, 0, "tokens", "chunk"},
    {"optional", KV_INT, AT(optional), NULL, 1, INFINITY, NULL, 0, "tokens", "optional"},
    {.name = NULL}};

static char *json_of(const config *c, unsigned skip)
{
    char *text = NULL;
    size_t bytes;
    FILE *out = open_memstream(&text, &bytes);
    kv_params_json(table, c, skip, out);
    fclose(out);
    return text;
}

static config defaults(void)
{
    config c = {0};
    kv_diag diag = {0};
    assert_int_equal(kv_params_default(table, &c, &diag), KV_OK);
    return c;
}

static kv_err set(config *c, const char *name, const char *text, char message[1024])
{
    kv_diag diag = {0};
    kv_mark mark = {"e.yaml", 3, 4};
    kv_err err = kv_param_set(kv_param_find(table, name), c, text, &mark, &diag);
    kv_diag_format(&diag, message, 1024);
    return err;
}

static void defaults_are_parsed(void **state)
{
    config c = defaults();
    assert_true(c.on);
    assert_int_equal(c.bytes, 1073741824);
    assert_true(c.rate == 64e9);
    assert_int_equal(c.time_ns, 5000);
    assert_int_equal(c.chunk, 0);
    assert_true(c.fraction == -1);
    assert_int_equal(c.optional, 0);
    char *json = json_of(&c, 0);
    assert_string_equal(json, "{\"bytes\":\"1GiB\",\"choice\":\"max\",\"chunk\":\"whole\","
                              "\"count\":7,\"on\":true,\"path\":\"a/b\",\"rate\":\"64GB/s\","
                              "\"real\":0.1,\"time\":\"5us\"}");
    free(json);
    kv_params_fini(table, &c);
    assert_null(c.path);
}

static void budget_is_left_out_of_a_curve(void **state)
{
    config c = defaults();
    char message[1024];
    assert_int_equal(set(&c, "fraction", "0.30", message), KV_OK);
    assert_int_equal(set(&c, "optional", "12", message), KV_OK);
    char *whole = json_of(&c, 0), *curve = json_of(&c, KV_PARAM_BUDGET);
    assert_non_null(strstr(whole, "\"fraction\":0.3,\"on\""));
    assert_non_null(strstr(whole, "\"optional\":12"));
    assert_null(strstr(curve, "fraction"));
    free(whole);
    free(curve);
    kv_params_fini(table, &c);
}

static void units_are_decimal_and_binary(void **state)
{
    static const struct {
        const char *name, *text;
        long long value;
    } good[] = {
        {"bytes", "256GiB", 274877906944},
        {"bytes", "256 GiB", 274877906944},
        {"bytes", "2TB", 2000000000000},
        {"bytes", "1.5KiB", 1536},
        {"bytes", "1kB", 1000},
        {"bytes", "4000TiB", 4398046511104000},
        {"time", "1min", 60000000000},
        {"time", "2h", 7200000000000},
        {"time", "0.1ms", 100000},
        {"time", "3\xc2\xb5s", 3000},
        {"time", "3\xce\xbcs", 3000},
        {"time", "0s", 0},
        {"chunk", "128", 128},
    };
    config c = defaults();
    char message[1024];
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        const kv_param *p = kv_param_find(table, good[i].name);
        assert_int_equal(set(&c, good[i].name, good[i].text, message), KV_OK);
        long long got = *(long long *)((char *)&c + p->offset);
        assert_true(got == good[i].value);
        char *text = kv_param_text(p, &c);
        assert_int_equal(set(&c, good[i].name, text, message), KV_OK);
        assert_true(*(long long *)((char *)&c + p->offset) == got);
        free(text);
    }
    kv_params_fini(table, &c);
}

static const struct {
    const char *name, *text, *message;
} wrong_texts[] = {
    {"on", "yes", "e.yaml:3:4: on: expected true or false, found 'yes'"},
    {"count", "10",
     "e.yaml:3:4: count: expected a whole number of tokens from 1 to 9, "
     "found '10'"},
    {"count", "3.0",
     "e.yaml:3:4: count: expected a whole number of tokens from 1 to 9, "
     "found '3.0'"},
    {"count", "", "e.yaml:3:4: count: expected a whole number of tokens from 1 to 9, found ''"},
    {"count", "99999999999999999999", NULL},
    {"optional", "0",
     "e.yaml:3:4: optional: expected a whole number of tokens of at least 1, found '0'"},
    {"real", "0x10", "e.yaml:3:4: real: expected a number, found '0x10'"},
    {"real", "inf", NULL},
    {"real", "nan", NULL},
    {"real", "1e999", NULL},
    {"real", " 1", NULL},
    {"real", "1.2.3", NULL},
    {"fraction", "1.5", "e.yaml:3:4: fraction: expected a fraction from 0 to 1, found '1.5'"},
    {"choice", "mx",
     "e.yaml:3:4: choice: expected one of avg or max, found 'mx'; did you mean "
     "'max'?"},
    {"text", "", "e.yaml:3:4: text: expected text, found ''"},
    {"bytes", "256",
     "e.yaml:3:4: bytes: '256' needs a unit: TiB, TB, GiB, GB, MiB, MB, KiB, KB, kB or B"},
    {"bytes", "256GIB",
     "e.yaml:3:4: bytes: '256GIB' has an unknown unit, did you mean 'GiB'; there are "
     "TiB, TB, GiB, GB, MiB, MB, KiB, KB, kB or B"},
    {"bytes", "-1GB", "e.yaml:3:4: bytes: expected a size with a unit, like 256GiB, found '-1GB'"},
    {"bytes", "1e40GB", NULL},
    {"bytes", "GB", NULL},
    {"rate", "0GB/s",
     "e.yaml:3:4: rate: expected a rate with a unit, like 64GB/s, above 0B/s, found '0GB/s'"},
    {"rate", "64GB", NULL},
    {"time", "5",
     "e.yaml:3:4: time: '5' needs a unit: h, min, s, ms, us, \xc2\xb5s, \xce\xbcs "
     "or ns"},
    {"time", "0.1ns", "e.yaml:3:4: time: expected a time with a unit, like 5us, found '0.1ns'"},
    {"chunk", "0", "e.yaml:3:4: chunk: expected `whole` or a whole number of tokens, found '0'"},
    {"chunk", "half", NULL},
};

static void wrong_text_says_what_was_expected(void **state)
{
    config c = defaults();
    for (size_t i = 0; i < sizeof wrong_texts / sizeof *wrong_texts; i++) {
        char message[1024], *before = json_of(&c, 0);
        if (set(&c, wrong_texts[i].name, wrong_texts[i].text, message) != KV_ERR_INPUT)
            fail_msg("%s takes '%s'", wrong_texts[i].name, wrong_texts[i].text);
        if (wrong_texts[i].message != NULL)
            assert_string_equal(message, wrong_texts[i].message);
        assert_non_null(strstr(message, wrong_texts[i].text));
        char *after = json_of(&c, 0);
        assert_string_equal(before, after);
        free(before);
        free(after);
    }
    kv_params_fini(table, &c);
}

static void reals_use_the_fewest_digits(void **state)
{
    static const struct {
        double value;
        const char *text;
    } cases[] = {{0.1, "0.1"},
                 {0.3, "0.3"},
                 {1000, "1000"},
                 {1e-5, "1e-05"},
                 {0.1 + 0.2, "0.30000000000000004"},
                 {-0.0, "0"},
                 {1e300, "1e+300"},
                 {5e-324, "5e-324"},
                 {NAN, "null"},
                 {2.5, "2.5"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[KV_REAL_TEXT];
        kv_real_text(cases[i].value, text);
        assert_string_equal(text, cases[i].text);
    }
}

static void json_strings_are_escaped(void **state)
{
    char *text = NULL;
    size_t bytes;
    FILE *out = open_memstream(&text, &bytes);
    kv_json_string("a\"b\\c\nd\x01\xc3\xa9", out);
    fclose(out);
    assert_string_equal(text, "\"a\\\"b\\\\c\\nd\\u0001\xc3\xa9\"");
    free(text);
}

static void presets_set_many_values(void **state)
{
    static const kv_preset good = {"paper", "count=3 choice=avg  on=false", "a paper"};
    static const kv_preset wrong = {"wrong", "cuont=3", "a slip"};
    config c = defaults();
    kv_diag diag = {0};
    assert_int_equal(kv_params_preset(table, &good, &c, &diag), KV_OK);
    assert_int_equal(c.count, 3);
    assert_int_equal(c.choice, 0);
    assert_false(c.on);
    assert_int_equal(kv_params_preset(table, &wrong, &c, &diag), KV_ERR_BUG);
    kv_params_fini(table, &c);
}

static void copies_own_their_strings(void **state)
{
    config c = defaults(), copy;
    kv_diag diag = {0};
    char message[1024];
    assert_int_equal(set(&c, "text", "hello", message), KV_OK);
    assert_int_equal(kv_params_copy(table, &c, sizeof c, &copy, &diag), KV_OK);
    assert_ptr_not_equal(c.text, copy.text);
    for (const kv_param *p = table; p->name != NULL; p++)
        assert_true(kv_param_equal(p, &c, &copy));
    assert_int_equal(set(&copy, "text", "other", message), KV_OK);
    assert_false(kv_param_equal(kv_param_find(table, "text"), &c, &copy));
    assert_string_equal(c.text, "hello");
    kv_params_fini(table, &c);
    kv_params_fini(table, &copy);
}

/* A table with an item, and what the item has. */
typedef struct outer_config {
    long long replaced, own;
    kv_item item;
} outer_config;

static const kv_param outer_rows[] = {
    {"item", KV_ITEM, offsetof(outer_config, item), NULL, 0, 0, NULL, 0, "", "item"},
    {"own", KV_INT, offsetof(outer_config, own), "1", 0, 0, NULL, 0, "", "own"},
    {"replaced", KV_INT, offsetof(outer_config, replaced), "2", 0, 0, NULL, KV_PARAM_REPLACED, "",
     "replaced"},
    {.name = NULL}};
static const kv_param inner_rows[] = {
    {"number", KV_INT, offsetof(outer_config, replaced), "3", 0, 0, NULL, 0, "", "number"},
    {"said", KV_INT, offsetof(outer_config, own), "4", 0, 0, NULL, KV_PARAM_OUTERMOST, "", "said"},
    {.name = NULL}};

static outer_config with_item(kv_diag *diag)
{
    outer_config c = {0};
    assert_int_equal(kv_params_default(outer_rows, &c, diag), KV_OK);
    assert_true(kv_param_absent(&outer_rows[0], &c));
    assert_false(kv_param_replaced(outer_rows, &outer_rows[2], &c));
    c.item = (kv_item){.name = "thing", .params = inner_rows, .config_bytes = sizeof c};
    c.item.config = calloc(1, sizeof c);
    assert_int_equal(kv_params_default(inner_rows, c.item.config, diag), KV_OK);
    return c;
}

static void items_have_settings_of_their_own(void **state)
{
    kv_diag diag = {0};
    outer_config c = with_item(&diag), copy;
    char *text = kv_param_text(&outer_rows[0], &c), *json = NULL;
    size_t bytes;
    assert_string_equal(text, "{\"thing\":{\"number\":3}}");
    free(text);
    FILE *out = open_memstream(&json, &bytes);
    kv_params_json(outer_rows, &c, 0, out);
    fclose(out);
    assert_string_equal(json, "{\"item\":{\"thing\":{\"number\":3}},\"own\":1}");
    free(json);
    assert_int_equal(kv_params_copy(outer_rows, &c, sizeof c, &copy, &diag), KV_OK);
    assert_ptr_not_equal(c.item.config, copy.item.config);
    assert_true(kv_param_equal(&outer_rows[0], &c, &copy));
    outer_config *inner = copy.item.config;
    inner->own = 9; /* not the item's to set */
    assert_true(kv_param_equal(&outer_rows[0], &c, &copy));
    inner->replaced = 9;
    assert_false(kv_param_equal(&outer_rows[0], &c, &copy));
    kv_params_fini(outer_rows, &copy);
    assert_true(kv_param_absent(&outer_rows[0], &copy));
    assert_false(kv_param_equal(&outer_rows[0], &c, &copy));
    assert_int_equal(kv_param_set(&outer_rows[0], &c, "thing", NULL, &diag), KV_ERR_BUG);
    kv_params_fini(outer_rows, &c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_are_parsed),
        cmocka_unit_test(budget_is_left_out_of_a_curve),
        cmocka_unit_test(units_are_decimal_and_binary),
        cmocka_unit_test(wrong_text_says_what_was_expected),
        cmocka_unit_test(reals_use_the_fewest_digits),
        cmocka_unit_test(json_strings_are_escaped),
        cmocka_unit_test(presets_set_many_values),
        cmocka_unit_test(copies_own_their_strings),
        cmocka_unit_test(items_have_settings_of_their_own),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
