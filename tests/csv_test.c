/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Checks the reader of comma-separated tables against the rules of RFC 4180, worked out by hand,
 * and that what it writes reads back equal. */
#include "tests/kv_test.h"

#include "sim/base/csv.h"

#include <limits.h>

/* A table in memory, and what is wrong with it, if anything. */
typedef struct table {
    FILE *stream;
    kv_csv *csv;
    char message[1200];
} table;

static kv_err open_bytes(table *t, const char *text, size_t bytes)
{
    kv_diag diag = {0};
    *t = (table){.stream = fmemopen((void *)text, bytes, "rb")};
    assert_non_null(t->stream);
    kv_err err = kv_csv_attach(t->stream, "t.csv", &t->csv, &diag);
    kv_diag_format(&diag, t->message, sizeof t->message);
    return err;
}

static kv_err open_text(table *t, const char *text)
{
    return open_bytes(t, text, strlen(text));
}

static kv_err next(table *t)
{
    kv_diag diag = {0};
    kv_err err = kv_csv_next(t->csv, &diag);
    kv_diag_format(&diag, t->message, sizeof t->message);
    return err;
}

static void close_table(table *t)
{
    kv_csv_close(t->csv);
    fclose(t->stream);
}

static void fields_by_name(void **state)
{
    table t;
    int b;
    kv_diag diag = {0};
    assert_int_equal(open_text(&t, "\xef\xbb\xbf a ,b,c\r\n1,two,\r\n\r\n\n3,,4"), KV_OK);
    assert_int_equal(kv_csv_columns(t.csv), 3);
    assert_string_equal(kv_csv_column(t.csv, 0), "a");
    assert_int_equal(kv_csv_find(t.csv, "c"), 2);
    assert_int_equal(kv_csv_find(t.csv, "d"), -1);
    assert_int_equal(kv_csv_need(t.csv, "b", &b, &diag), KV_OK);
    assert_int_equal(b, 1);
    assert_int_equal(next(&t), KV_OK);
    assert_string_equal(kv_csv_field(t.csv, 1), "two");
    assert_string_equal(kv_csv_field(t.csv, 2), "");
    assert_string_equal(kv_csv_field(t.csv, -1), "");
    assert_int_equal(next(&t), KV_OK);
    assert_string_equal(kv_csv_field(t.csv, 2), "4");
    assert_int_equal(kv_csv_mark(t.csv, 2).line, 5);
    assert_int_equal(kv_csv_mark(t.csv, 2).column, 4);
    assert_int_equal(next(&t), KV_END);
    assert_int_equal(next(&t), KV_END);
    close_table(&t);
}

static void quotes_hold_anything(void **state)
{
    table t;
    assert_int_equal(open_text(&t, "\"a,b\",c\n\"say \"\"no\"\"\",\"two\r\nlines\"\n\"\",x\n"),
                     KV_OK);
    assert_string_equal(kv_csv_column(t.csv, 0), "a,b");
    assert_int_equal(next(&t), KV_OK);
    assert_string_equal(kv_csv_field(t.csv, 0), "say \"no\"");
    assert_string_equal(kv_csv_field(t.csv, 1), "two\r\nlines");
    assert_int_equal(next(&t), KV_OK);
    assert_string_equal(kv_csv_field(t.csv, 0), "");
    assert_int_equal(kv_csv_mark(t.csv, 0).line, 4);
    close_table(&t);
}

/* A header that is wrong, or a first row. */
static void wrong_tables_are_located(void **state)
{
    static const struct {
        const char *text, *message;
    } wrong[] = {
        {"\n\n", "t.csv: is empty; expected a line with column names"},
        {"a,b,a\n", "t.csv:1:5: a second column 'a'"},
        {"a,b\n1\n", "t.csv:2: 1 field, expected 2"},
        {"a,b\n1,2,3\n", "t.csv:2: 3 fields, expected 2"},
        {"a,b\n1,2\"3\"\n", "t.csv:2:4: a quote within a field"},
        {"a,b\n\"1\" ,2\n", "t.csv:2:4: expected a comma after the closing quote"},
        {"a,b\n1,\"2\n3\n", "t.csv:2:3: this quote is not closed"},
        {"a,b\n1\r2,3\n", "t.csv:2:2: a control character"},
        {"\xef\xbc,b\n", "t.csv:1:1: expected text in UTF-8"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        table t;
        kv_err err = open_text(&t, wrong[i].text);
        if (err == KV_OK)
            err = next(&t);
        if (strncmp(t.message, wrong[i].message, strlen(wrong[i].message)) != 0)
            fail_msg("'%s' instead of '%s'", t.message, wrong[i].message);
        assert_int_equal(err, KV_ERR_INPUT);
        close_table(&t);
    }
}

static void bytes_that_are_no_text(void **state)
{
    static const char nul[] = "a,b\n1,\0\n";
    table t;
    assert_int_equal(open_bytes(&t, nul, sizeof nul - 1), KV_OK);
    assert_int_equal(next(&t), KV_ERR_INPUT);
    close_table(&t);
    size_t bytes = 2 * KV_CSV_MAX_ROW_BYTES;
    char *endless = malloc(bytes);
    memset(endless, 'x', bytes);
    memcpy(endless, "a\n\"", 3);
    assert_int_equal(open_bytes(&t, endless, bytes), KV_OK);
    assert_int_equal(next(&t), KV_ERR_INPUT);
    assert_non_null(strstr(t.message, "a row of more than 1048576 bytes"));
    close_table(&t);
    free(endless);
}

static void a_missing_column_is_named(void **state)
{
    table t;
    int column;
    kv_diag diag = {0};
    assert_int_equal(open_text(&t, "task,acuracy\n"), KV_OK);
    assert_int_equal(kv_csv_need(t.csv, "accuracy", &column, &diag), KV_ERR_INPUT);
    assert_string_equal(diag.text, "there is no column 'accuracy'; is 'acuracy' meant to be it?");
    close_table(&t);
}

static void numbers_are_strict(void **state)
{
    static const char *const wrong[] = {"", "nan", "inf", "0x1", "1 ", " 1", "1.5", "-0.1", "1e9x"};
    double real;
    long long whole;
    table t;
    assert_int_equal(open_text(&t, "x,y\n0.25,-12\n"), KV_OK);
    assert_int_equal(next(&t), KV_OK);
    assert_int_equal(kv_csv_real(t.csv, 0, 0, 1, &real, NULL), KV_OK);
    assert_true(real == 0.25);
    assert_int_equal(kv_csv_int(t.csv, 1, -12, LLONG_MAX, &whole, NULL), KV_OK);
    assert_int_equal(whole, -12);
    assert_int_equal(kv_csv_int(t.csv, 0, 0, 1, &whole, NULL), KV_ERR_INPUT);
    close_table(&t);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        char text[64];
        kv_diag diag = {0};
        snprintf(text, sizeof text, "x,y\n%s,%s\n", wrong[i], "99999999999999999999");
        assert_int_equal(open_text(&t, text), KV_OK);
        assert_int_equal(next(&t), KV_OK);
        assert_int_equal(kv_csv_real(t.csv, 0, 0, 1, &real, &diag), KV_ERR_INPUT);
        assert_non_null(strstr(diag.text, "expected a number from 0 to 1"));
        assert_int_equal(kv_csv_int(t.csv, 1, 0, LLONG_MAX, &whole, NULL), KV_ERR_INPUT);
        close_table(&t);
    }
}

static void what_is_written_reads_back(void **state)
{
    static const char *const fields[] = {"plain", "a,b", "say \"no\"", "two\nlines", "", " x "};
    char *text;
    size_t bytes, count = sizeof fields / sizeof fields[0];
    FILE *out = open_memstream(&text, &bytes);
    fputs("a,b,c,d,e,f\n", out);
    for (size_t i = 0; i < count; i++) {
        fputs(i ? "," : "", out);
        kv_csv_write(fields[i], out);
    }
    putc('\n', out);
    fclose(out);
    table t;
    assert_int_equal(open_text(&t, text), KV_OK);
    assert_int_equal(next(&t), KV_OK);
    for (size_t i = 0; i < count; i++)
        assert_string_equal(kv_csv_field(t.csv, (int)i), fields[i]);
    close_table(&t);
    free(text);
}

static void files_that_are_not_there(void **state)
{
    kv_csv *csv;
    kv_diag diag = {0};
    assert_int_equal(kv_csv_open("/nonexistent/x.csv", &csv, &diag), KV_ERR_INPUT);
    assert_string_equal(diag.path, "/nonexistent/x.csv");
    assert_int_equal(kv_csv_open("/", &csv, NULL), KV_ERR_INPUT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fields_by_name),
        cmocka_unit_test(quotes_hold_anything),
        cmocka_unit_test(wrong_tables_are_located),
        cmocka_unit_test(bytes_that_are_no_text),
        cmocka_unit_test(a_missing_column_is_named),
        cmocka_unit_test(numbers_are_strict),
        cmocka_unit_test(what_is_written_reads_back),
        cmocka_unit_test(files_that_are_not_there),
    };
    return cmocka_run_group_tests_name("csv", tests, NULL, NULL);
}
