/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Errors: what a fallible function of the library returns, and the words that go with it.
 *
 * The library prints nothing and ends nothing. A function that can fail returns a kv_err and
 * writes its results, through its last pointers, only on success. What to tell the user goes into
 * the kv_diag that the caller passed; the first error stays, later ones are ignored. */
#ifndef KVSIM_BASE_DIAG_H
#define KVSIM_BASE_DIAG_H

#if defined(__GNUC__)
#define KV_MUST_USE __attribute__((warn_unused_result))
#define KV_PRINTF(f, a) __attribute__((format(printf, f, a)))
#else
#define KV_MUST_USE
#define KV_PRINTF(f, a)
#endif

typedef enum kv_err {
    KV_END = -1,        /* the end of what was being read; not an error */
    KV_OK = 0,          /* done */
    KV_ERR_MEMORY,      /* memory is exhausted */
    KV_ERR_INPUT,       /* an input is wrong: a file, an option, an experiment (exit status 2) */
    KV_ERR_UNSUPPORTED, /* an input is right but lacks what was asked of it (exit status 2) */
    KV_ERR_IO,          /* the system refused to read or write (exit status 1) */
    KV_ERR_BUG          /* an invariant of kvsim itself does not hold (exit status 1) */
} kv_err;

/* Where something stands in a file. Lines and columns count from 1; 0 means not known. */
typedef struct kv_mark {
    const char *path; /* borrowed; NULL if the input is not a file */
    int line;
    int column;
} kv_mark;

/* The caller's place for the words of one error. Zeroed means: no error yet. */
typedef struct kv_diag {
    kv_err code;     /* KV_OK until the first error */
    char path[512];  /* the file that is at fault, "" if none */
    int line;        /* from 1, 0 if not known */
    int column;      /* from 1, 0 if not known */
    char text[1024]; /* what is wrong, what was expected, what to do; no newline at the end */
} kv_diag;

/* Records an error, unless one is recorded already, and returns code, so that a function can
 * `return kv_fail(diag, KV_ERR_INPUT, &mark, "expected ...")`. diag and mark may be NULL. */
kv_err kv_fail(kv_diag *diag, kv_err code, const kv_mark *mark, const char *format, ...)
    KV_PRINTF(4, 5);

/* Shorthand for exhausted memory. */
kv_err kv_fail_memory(kv_diag *diag);

/* Static analysis looks at one file at a time: tell it that both answer an error. */
#if defined(__clang_analyzer__)
#define kv_fail(diag, code, ...) ((void)(kv_fail)(diag, code, __VA_ARGS__), (code))
#define kv_fail_memory(diag) ((void)(kv_fail_memory)(diag), KV_ERR_MEMORY)
#endif

/* Adds to a recorded error, unless mark's path is NULL, where what was wrong had been asked for:
 * "... (asked for at path:line:column)". Returns the recorded code. */
kv_err kv_fail_from(kv_diag *diag, const kv_mark *mark);

/* Gives a recorded error that names no file this place. Returns the recorded code. */
kv_err kv_fail_at(kv_diag *diag, const kv_mark *mark);

/* Writes "path:line:column: text" (as much of it as is known) into out, always terminated. */
void kv_diag_format(const kv_diag *diag, char *out, unsigned long out_bytes);

/* The first name among names[0..count) that begins with word as its first part, else the one that
 * is nearest by edit distance (of equals one that has all letters of word), or NULL when none is
 * near enough to be worth offering. The answer points into names. */
const char *kv_nearest(const char *word, const char *const *names, int count);

#endif
