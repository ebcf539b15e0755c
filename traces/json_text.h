/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* JSON values of a text file, parsed by jansson, with the messages of kvsim. */
#ifndef KVSIM_TRACES_JSON_TEXT_H
#define KVSIM_TRACES_JSON_TEXT_H

#include "traces/text.h"

#include <jansson.h>
#include <stdint.h>

/* Where a value stands, for messages. */
typedef struct kv__json_place {
    kv_mark mark;
    char within[48]; /* "requests[12]: ", or "" */
} kv__json_place;

/* How sure a probe is that a file holds a JSON object per line: 100 if the first line of its head,
 * which ends in a NUL, is one with that key (in quotes), else 0. */
int kv__json_lines_probe(const char *head, const char *quoted_key);
/* The next line that is not empty, as kv__text_line gives it; mark: where it stands. */
kv_err kv__json_line(kv__text *text, char **line, size_t *bytes, kv_mark *mark,
                     kv_diag *diag) KV_MUST_USE;

/* Parses one value. The caller calls json_decref. */
kv_err kv__json_parse(const char *text, size_t bytes, const kv_mark *mark, json_t **out,
                      kv_diag *diag) KV_MUST_USE;

/* The value of a key as a number of tokens, 0 .. INT32_MAX. Absent: an error. */
kv_err kv__json_tokens(const json_t *object, const char *key, const kv__json_place *place,
                       int32_t *out, kv_diag *diag) KV_MUST_USE;
/* The value of a key as a time in a unit of traces/field.h. KV_END: absent or null, *ns as it was.
 */
kv_err kv__json_time(const json_t *object, const char *key, int unit, const kv__json_place *place,
                     int64_t *ns, kv_diag *diag) KV_MUST_USE;
/* A value as a whole number that is not negative; what: its name in messages. */
kv_err kv__json_whole(const json_t *value, const char *what, const kv__json_place *place,
                      int64_t *out, kv_diag *diag) KV_MUST_USE;
/* The array of a key; KV_END: absent or null. */
kv_err kv__json_array(const json_t *object, const char *key, const kv__json_place *place,
                      json_t **out, kv_diag *diag) KV_MUST_USE;

/* The values of an array that is the whole file, one after another, however large the array is. */
typedef struct kv__json_items {
    char *buffer; /* the current value; the owner frees it */
    size_t capacity;
    int begun; /* 0: before the array, 1: within, 2: behind */
} kv__json_items;

/* Collects the next value into items->buffer, without parsing it; KV_END after the last. Text that
 * is no array of values breaks the file. mark: where the value begins. */
kv_err kv__json_item(kv__json_items *items, kv__text *text, size_t *bytes, kv_mark *mark,
                     kv_diag *diag) KV_MUST_USE;

#endif
