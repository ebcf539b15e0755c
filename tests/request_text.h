/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Request traces that tests write as text and read back. Include kv_test.h first. */
#ifndef KVSIM_TESTS_REQUEST_TEXT_H
#define KVSIM_TESTS_REQUEST_TEXT_H

#include "tests/kv_test.h"

#include "traces/request.h"

#include <sys/stat.h>
#include <unistd.h>

/* What a reader gave, with the blocks. */
typedef struct request_list {
    kv_request *request; /* [count], blocks owned */
    int count;
    kv_request_counts counts;
    char message[2048]; /* what stopped it, "" if it came to the end */
    kv_err err;
} request_list;

/* Tests run at the same time in one folder: each writes into one of its own, gone when it passes.
 */
static inline int run_in_folder(const char *name, int (*run)(void))
{
    mkdir(name, 0777);
    if (chdir(name) != 0)
        return 1;
    int failed = run();
    if (chdir("..") == 0 && failed == 0)
        rmdir(name);
    return failed;
}

static inline void write_bytes(const char *path, const void *bytes, size_t count)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, count, file), count);
    assert_int_equal(fclose(file), 0);
}

static inline void keep_request(request_list *list, const kv_request *request)
{
    /* Room for a power of two: to grow by one is quadratic where realloc always copies. */
    if ((list->count & (list->count - 1)) == 0) {
        size_t room = list->count == 0 ? 1 : 2 * (size_t)list->count;
        list->request = realloc(list->request, room * sizeof *list->request);
        assert_non_null(list->request);
    }
    kv_request *copy = &list->request[list->count++];
    *copy = *request;
    size_t bytes = (size_t)request->block_count * sizeof *request->blocks;
    copy->blocks = memcpy(malloc(bytes + 1), bytes > 0 ? (const void *)request->blocks : "", bytes);
    if (request->contents != NULL)
        copy->contents = memcpy(malloc(bytes + 1), request->contents, bytes);
}

/* Reads a file whole. settings: "name=value name=value", NULL: none. */
static inline request_list read_requests(const char *path, const char *format, const char *settings)
{
    request_list list = {0};
    kv_diag diag = {0};
    kv_request_spec spec = {0};
    kv_request_reader *reader = NULL;
    kv_request request;
    char words[512];
    list.err = kv_request_spec_init(&spec, path, format, &diag);
    snprintf(words, sizeof words, "%s", settings == NULL ? "" : settings);
    for (char *rest, *word = strtok_r(words, " ", &rest); word != NULL && list.err == KV_OK;
         word = strtok_r(NULL, " ", &rest)) {
        char *equals = strchr(word, '=');
        *equals = '\0';
        list.err = kv_request_spec_set(&spec, word, equals + 1, NULL, &diag);
    }
    if (list.err == KV_OK)
        list.err = kv_request_open(&spec, &reader, &diag);
    while (list.err == KV_OK && (list.err = kv_request_next(reader, &request, &diag)) == KV_OK)
        keep_request(&list, &request);
    if (reader != NULL)
        list.counts = *kv_request_get_counts(reader);
    if (list.err != KV_END)
        kv_diag_format(&diag, list.message, sizeof list.message);
    kv_request_close(reader);
    kv_request_spec_fini(&spec);
    return list;
}

static inline request_list read_text(const char *path, const char *text, const char *format,
                                     const char *settings)
{
    write_bytes(path, text, strlen(text));
    request_list list = read_requests(path, format, settings);
    unlink(path);
    return list;
}

static inline void free_requests(request_list *list)
{
    for (int i = 0; i < list->count; i++) {
        free((void *)list->request[i].blocks);
        free((void *)list->request[i].contents);
    }
    free(list->request);
}

static inline void assert_contains(const char *text, const char *part)
{
    if (strstr(text, part) == NULL)
        fail_msg("\"%s\" does not contain \"%s\"", text, part);
}

#endif
