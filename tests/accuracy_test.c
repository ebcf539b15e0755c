/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Checks the proxy on records worked by hand. */
#include "tests/kv_test.h"

#include "analysis/accuracy.h"

typedef struct proxy_case {
    const char *what;
    double output, intact, error, recall, full_score, want;
} proxy_case;

/* The values within were computed in Python from the formula of docs/calibration.md. */
static const proxy_case cases[] = {
    {"nothing lost", 1, 1, 0, 1, 0.8, 0.8},
    {"nothing left of the evidence", 0, 1, 1, 0.5, 1, 0},
    {"half way on the link of the output", 0.383, 1, 0.5, 0.9, 1, 0.491187358893342},
    {"output and query both disturbed", 0.6, 0.5, 0.5, 0.9, 0.5, 0.412071939969877},
    {"no evidence: 1 / (1 + 1)", NAN, NAN, 1, 0.9, 0.6, 0.3},
    {"no evidence and no values", NAN, NAN, NAN, 0.9, 0.5, 0.45},
    {"rounding above 1 is cut", 1.0000001, 1, 0, 1, 1, 1},
};

static void the_proxy_follows_its_rule(void **state)
{
    const kv_accuracy_type *proxy = kv_accuracy_find(NULL);
    assert_string_equal(proxy->source, "proxy");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const proxy_case *c = &cases[i];
        kv_record records[3];
        double accuracy[2];
        for (int m = 0; m < KV_MEASURES; m++)
            records[0].value[m] = records[1].value[m] = records[2].value[m] = NAN;
        records[2].value[KV_M_EVIDENCE_OUTPUT] = c->output;
        records[2].value[KV_M_QUERY_INTACT] = c->intact;
        records[2].value[KV_M_OUTPUT_ERROR] = c->error;
        records[2].value[KV_M_RECALL] = c->recall;
        kv_example_info example = {.task = "t", .turns = 2, .full_score = c->full_score};
        print_message("# %s\n", c->what);
        proxy->predict(NULL, 0, 0, &example, records, accuracy);
        assert_true(isnan(accuracy[0])); /* a turn of which nothing is known */
        assert_close(accuracy[1], c->want, 1e-12);
    }
}

static void models_are_found_by_name(void **state)
{
    assert_ptr_equal(kv_accuracy_find("proxy"), kv_accuracy_find(NULL));
    assert_string_equal(kv_accuracy_find("measured")->source, "measured");
    assert_null(kv_accuracy_find("guess"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_proxy_follows_its_rule),
        cmocka_unit_test(models_are_found_by_name),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
