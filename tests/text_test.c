/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Checks which bytes count as a character. The sequences are those of RFC 3629 (section 7 and its
 * table of well-formed sequences) and of the usual collections of malformed ones. */
#include "tests/kv_test.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(characters_are_told_from_bytes)};
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
