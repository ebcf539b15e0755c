/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Checks which bytes count as a character, and that texts which turn the direction are closed in
 * themselves. The sequences are those of RFC 3629 (section 7 and its
 * table of well-formed sequences) and of the usual collections of malformed ones. */
#include "tests/kv_test.h"

#include "analysis/gnuplot.h"
#include "analysis/html.h"
#include "analysis/text.h"

typedef struct text_case {
    const char *text;
    int bytes;
} text_case;

static const text_case cases[] = {
    {"A", 1},
    {" ", 1},
    {"~", 1},
    {"\xc2\xa0", 2},         /* no-break space */
    {"\xce\x91", 2},         /* Greek Alpha */
    {"\xe2\x89\xa2", 3},     /* not identical to */
    {"\xef\xbb\xbf", 3},     /* byte order mark */
    {"\xf0\xa3\x8e\xb4", 4}, /* beyond the first plane */
    {"\xf4\x8f\xbf\xbd", 4}, /* U+10FFFD, the last but two */
    {"", 0},
    {"\n", 0},
    {"\x1b[0m", 0},
    {"\x7f", 0},
    {"\xc2\x85", 0},         /* next line, a control character */
    {"\x80", 0},             /* continuation without a start */
    {"\xc0\xaf", 0},         /* overlong slash */
    {"\xe0\x80\xaf", 0},     /* likewise */
    {"\xf0\x80\x80\xaf", 0}, /* likewise */
    {"\xed\xa0\x80", 0},     /* surrogate */
    {"\xf4\x90\x80\x80", 0}, /* beyond U+10FFFF */
    {"\xf8\x88\x80\x80\x80", 0},
    {"\xff", 0},
    {"\xef\xbf\xbf", 0}, /* U+FFFF */
    {"\xe2\x89", 0},     /* cut off */
    {"\xce(", 0},
};

static void characters_are_told_from_bytes(void **state)
{
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        if (kv__character(cases[i].text) != cases[i].bytes)
            fail_msg("case %d: %d bytes, expected %d", (int)i, kv__character(cases[i].text),
                     cases[i].bytes);
}

#define FSI "\xe2\x81\xa8" /* U+2068, begins an isolate: UAX 9, as all below */
#define PDI "\xe2\x81\xa9" /* U+2069, ends it */
#define RLO "\xe2\x80\xae" /* U+202E, overrides the direction */
#define LRI "\xe2\x81\xa6" /* U+2066 */
#define PDF "\xe2\x80\xac" /* U+202C, ends an embedding */
#define SHALOM "\xd7\xa9\xd7\x9c\xd7\x95\xd7\x9d"

/* What a text is on a page, and in a script for gnuplot. */
static const struct {
    const char *text, *page, *script;
} directions[] = {{"plain", "plain", "'plain'"},
                  {"\xc3\xa9\xe4\xb8\xad", "\xc3\xa9\xe4\xb8\xad", "'\xc3\xa9\xe4\xb8\xad'"},
                  {SHALOM, FSI SHALOM PDI, "'" SHALOM "'"},
                  {"a" RLO "<b", FSI "a" FSI "&lt;b" PDI PDI, "'a<b'"},
                  {"a" RLO "b" PDF "c", FSI "a" FSI "b" PDI "c" PDI, "'abc'"},
                  {PDI PDF "x", FSI "x" PDI, "'x'"},
                  {LRI LRI "x" PDI PDI PDI "y", FSI FSI FSI "x" PDI PDI "y" PDI, "'xy'"},
                  {RLO "\x01", FSI FSI "\xef\xbf\xbd" PDI PDI, "''"}};

static void directions_end_with_their_text(void **state)
{
    for (size_t i = 0; i < sizeof directions / sizeof directions[0]; i++)
        for (int script = 0; script < 2; script++) {
            char *text = NULL;
            size_t bytes = 0;
            FILE *out = open_memstream(&text, &bytes);
            assert_non_null(out);
            (script ? kv__gnuplot_text : kv__html_text)(out, directions[i].text);
            assert_int_equal(fclose(out), 0);
            assert_string_equal(text, script ? directions[i].script : directions[i].page);
            free(text);
        }
}

/* For a terminal what would act on it is a question mark; text itself stays, whatever its script.
 */
static void terminals_get_plain_text(void **state)
{
    static const char *const plain[][2] = {
        {"plain", "plain"},
        {"\xc3\xa9\xe4\xb8\xad" SHALOM, "\xc3\xa9\xe4\xb8\xad" SHALOM},
        {"a" RLO "b" PDF "c" LRI FSI PDI, "a?b?c???"},
        {"\xe2\x80\x8e\xe2\x80\x8f\xd8\x9c.", "???."},
        {"\x1b[31m\n\xff", "?[31m??"}};
    for (size_t i = 0; i < sizeof plain / sizeof plain[0]; i++) {
        char *text = NULL;
        size_t bytes = 0;
        FILE *out = open_memstream(&text, &bytes);
        assert_non_null(out);
        kv__plain_write(plain[i][0], (int)strlen(plain[i][0]), out);
        assert_int_equal(fclose(out), 0);
        assert_string_equal(text, plain[i][1]);
        free(text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(characters_are_told_from_bytes),
                                       cmocka_unit_test(directions_end_with_their_text),
                                       cmocka_unit_test(terminals_get_plain_text)};
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
