/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "traces/json_text.h"

#include "traces/field.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

int kv__json_lines_probe(const char *head, const char *quoted_key)
{
    const char *found = strstr(head, quoted_key);
    return head[0] == '{' && found != NULL && found < head + strcspn(head, "\n") ? 100 : 0;
}

kv_err kv__json_line(kv__text *text, char **line, size_t *bytes, kv_mark *mark, kv_diag *diag)
{
    kv_err err;
    do
        err = kv__text_line(text, line, bytes, diag);
    while (err == KV_OK && *bytes == 0);
    *mark = kv__text_mark(text);
    return err;
}

kv_err kv__json_parse(const char *text, size_t bytes, const kv_mark *mark, json_t **out,
                      kv_diag *diag)
{
    json_error_t error;
    json_t *root = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &error);
    if (root == NULL) {
        kv_mark place = {mark->path, mark->line + (error.line > 0 ? error.line - 1 : 0),
                         error.column > 0 ? error.column : 0};
        return kv_fail(diag, KV_ERR_INPUT, &place, "not JSON: %s", error.text);
    }
    *out = root;
    return KV_OK;
}

static kv_err wrong(const kv__json_place *place, const char *what, const char *words, kv_diag *diag)
{
    return kv_fail(diag, KV_ERR_INPUT, &place->mark, "%s'%s' %s", place->within, what, words);
}

/* A real that is a whole number is taken as one: some writers have no others. */
static bool whole_of_real(const json_t *value, int64_t *out)
{
    double real = json_real_value(value);
    if (!json_is_real(value) || real < -9e18 || real > 9e18 || real != (double)(int64_t)real)
        return false;
    *out = (int64_t)real;
    return true;
}

kv_err kv__json_whole(const json_t *value, const char *what, const kv__json_place *place,
                      int64_t *out, kv_diag *diag)
{
    int64_t number = json_integer_value(value);
    if (value == NULL)
        return wrong(place, what, "is missing", diag);
    if (!json_is_integer(value) && !whole_of_real(value, &number))
        return wrong(place, what, "is not a whole number", diag);
    if (number < 0)
        return wrong(place, what, "is negative", diag);
    *out = number;
    return KV_OK;
}

kv_err kv__json_tokens(const json_t *object, const char *key, const kv__json_place *place,
                       int32_t *out, kv_diag *diag)
{
    int64_t number;
    kv_err err = kv__json_whole(json_object_get(object, key), key, place, &number, diag);
    if (err != KV_OK)
        return err;
    if (number > INT32_MAX)
        return wrong(place, key, "is above 2147483647 tokens", diag);
    *out = (int32_t)number;
    return KV_OK;
}

kv_err kv__json_time(const json_t *object, const char *key, int unit, const kv__json_place *place,
                     int64_t *ns, kv_diag *diag)
{
    const json_t *value = json_object_get(object, key);
    const char *words = "is not a number";
    int64_t scale = 1;
    if (value == NULL || json_is_null(value))
        return KV_END;
    for (int i = 0; i < unit; i++)
        scale *= 10;
    if (json_is_real(value))
        words = kv__time_of_real(json_real_value(value), unit, ns);
    else if (json_is_integer(value))
        words = __builtin_mul_overflow((int64_t)json_integer_value(value), scale, ns)
                    ? "is too large"
                    : NULL;
    return words == NULL ? KV_OK : wrong(place, key, words, diag);
}

kv_err kv__json_array(const json_t *object, const char *key, const kv__json_place *place,
                      json_t **out, kv_diag *diag)
{
    json_t *value = json_object_get(object, key);
    if (value == NULL || json_is_null(value))
        return KV_END;
    if (!json_is_array(value))
        return wrong(place, key, "is not an array", diag);
    *out = value;
    return KV_OK;
}

/* --- Values of an array that is too large to hold
 * ------------------------------------------------- */

/* Takes the first byte that is not white space. */
static kv_err next_byte(kv__text *text, int *byte, kv_diag *diag)
{
    kv_err err;
    while ((err = kv__text_byte(text, byte, diag)) == KV_OK && isspace(*byte))
        ;
    return err;
}

static kv_err append(kv__json_items *items, size_t at, int byte, kv_diag *diag)
{
    if (at == items->capacity) {
        size_t capacity = items->capacity == 0 ? 4096 : 2 * items->capacity;
        char *larger = realloc(items->buffer, capacity);
        if (larger == NULL)
            return kv_fail_memory(diag);
        items->buffer = larger;
        items->capacity = capacity;
    }
    items->buffer[at] = (char)byte;
    return KV_OK;
}

static kv_err expected(kv__text *text, const char *what, kv_diag *diag)
{
    kv_mark mark = kv__text_mark(text);
    kv__text_break(text);
    return kv_fail(diag, KV_ERR_INPUT, &mark, "not JSON: expected %s", what);
}

/* Behind the closing bracket there is nothing. */
static kv_err end_of_array(kv__json_items *items, kv__text *text, kv_diag *diag)
{
    int byte;
    items->begun = 2;
    kv_err err = next_byte(text, &byte, diag);
    return err == KV_OK ? expected(text, "nothing behind the array", diag) : err;
}

/* Goes to the first byte of the next value. */
static kv_err go_to_item(kv__json_items *items, kv__text *text, kv_diag *diag)
{
    int byte = 0;
    bool first = items->begun == 0;
    if (items->begun == 2)
        return KV_END;
    kv_err err = next_byte(text, &byte, diag);
    if (err > KV_OK)
        return err;
    if (err == KV_OK && !first && byte == ']')
        return end_of_array(items, text, diag);
    if (err == KV_END || byte != (first ? '[' : ','))
        return expected(text, first ? "an array: '['" : "',' or ']'", diag);
    items->begun = 1;
    err = next_byte(text, &byte, diag);
    if (err == KV_OK && first && byte == ']')
        return end_of_array(items, text, diag);
    if (err == KV_OK)
        kv__text_unbyte(text, byte);
    return err == KV_END ? expected(text, "a value", diag) : err;
}

/* Where a scan of JSON stands. */
typedef struct scan {
    int depth;
    bool quoted, escaped;
} scan;

/* Whether the value ends before this byte. */
static bool ends_before(const scan *s, int byte)
{
    return s->depth == 0 && !s->quoted && (byte == ',' || byte == ']' || isspace(byte));
}

static void step(scan *s, int byte)
{
    if (s->quoted) {
        s->quoted = s->escaped || byte != '"';
        s->escaped = !s->escaped && byte == '\\';
        return;
    }
    s->quoted = byte == '"';
    s->depth += (byte == '{' || byte == '[') - (byte == '}' || byte == ']');
}

kv_err kv__json_item(kv__json_items *items, kv__text *text, size_t *bytes, kv_mark *mark,
                     kv_diag *diag)
{
    kv_err err = go_to_item(items, text, diag);
    scan s = {0};
    *mark = kv__text_mark(text);
    for (*bytes = 0; err == KV_OK; ++*bytes) {
        int byte;
        err = kv__text_byte(text, &byte, diag);
        if (err == KV_END || s.depth < 0)
            return expected(text, "the rest of a value", diag);
        if (err != KV_OK)
            break;
        if (ends_before(&s, byte)) {
            kv__text_unbyte(text, byte);
            break;
        }
        if (*bytes >= KV_TEXT_MOST_LINE_BYTES)
            return expected(text, "a value of less than 64 MiB", diag);
        err = append(items, *bytes, byte, diag);
        step(&s, byte);
    }
    return err;
}
