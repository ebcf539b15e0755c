/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* cmocka and what the tests of kvsim share. Include it first. */
#ifndef KVSIM_TESTS_KV_TEST_H
#define KVSIM_TESTS_KV_TEST_H

#include "config.h"

#include <math.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* cmocka's own comparison of reals takes floats and an absolute tolerance; this one is relative to
 * the larger of the two (absolute below 1). */
#define assert_close(got, want, tolerance)                                                         \
    kv_assert_close((got), (want), (tolerance), #got, __FILE__, __LINE__)

static inline void kv_assert_close(double got, double want, double tolerance, const char *what,
                                   const char *file, int line)
{
    double size = fmax(1.0, fmax(fabs(got), fabs(want)));
    if (!(fabs(got - want) <= tolerance * size)) {
        print_error("%s is %.17g, expected %.17g\n", what, got, want);
        _fail(file, line);
    }
}

/* Ends a test that lacks something, with a line that says what. cmocka's own skip() prints "not
 * ok", which the TAP driver counts as a failure. */
#undef skip
#define kv_skip(why)                                                                               \
    do {                                                                                           \
        print_message("# SKIP %s: %s\n", __func__, why);                                           \
        return;                                                                                    \
    } while (0)

/* Is the test run by valgrind? Some would take minutes there, or show it other libraries' faults.
 */
static inline bool kv_is_under_valgrind(void)
{
    const char *preload = getenv("LD_PRELOAD");
    return preload != NULL && strstr(preload, "vgpreload") != NULL;
}

/* Points from one to the next that a long list is tested at: all of them, but under valgrind, which
 * looks at memory alone, every nth. */
static inline int kv_stride(int nth)
{
    return kv_is_under_valgrind() ? nth : 1;
}

#endif
