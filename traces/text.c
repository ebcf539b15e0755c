/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "traces/text.h"

#include "traces/unpack.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

struct kv__text {
    char *path;
    kv__unpack *unpack;
    FILE *stream; /* of unpack */
    char *line;
    size_t room;
    int number; /* of the current line */
    bool broken;
};

kv_err kv__text_open(const char *path, kv__text **out, kv_diag *diag)
{
    kv__text *text = calloc(1, sizeof *text);
    if (text == NULL)
        return kv_fail_memory(diag);
    text->path = strdup(path);
    kv_err err =
        text->path == NULL ? kv_fail_memory(diag) : kv__unpack_open(path, &text->unpack, diag);
    if (err != KV_OK) {
        kv__text_close(text);
        return err;
    }
    text->stream = kv__unpack_stream(text->unpack);
    *out = text;
    return KV_OK;
}

void kv__text_close(kv__text *text)
{
    if (text == NULL)
        return;
    kv__unpack_close(text->unpack);
    free(text->line);
    free(text->path);
    free(text);
}

FILE *kv__text_stream(kv__text *text)
{
    return text->stream;
}

const char *kv__text_path(const kv__text *text)
{
    return text->path;
}

kv_mark kv__text_mark(const kv__text *text)
{
    return (kv_mark){text->path, text->number, 0};
}

void kv__text_break(kv__text *text)
{
    text->broken = true;
}

bool kv__text_broken(const kv__text *text)
{
    return text->broken || kv__text_failure(text) != NULL;
}

const kv_diag *kv__text_failure(const kv__text *text)
{
    return kv__unpack_failure(text->unpack);
}

/* The end of what can be read: of the file, or an error of the file. */
static kv_err end_of(kv__text *text, kv_diag *diag)
{
    const kv_diag *failure = kv__text_failure(text);
    if (failure == NULL)
        return KV_END;
    if (diag != NULL && diag->code == KV_OK)
        *diag = *failure;
    return failure->code;
}

static void count_line(kv__text *text)
{
    if (text->number < INT_MAX)
        text->number++;
}

kv_err kv__text_line(kv__text *text, char **line, size_t *bytes, kv_diag *diag)
{
    if (text->number == 0)
        kv__unpack_limit_lines(text->unpack, KV_TEXT_MOST_LINE_BYTES);
    ssize_t got = getline(&text->line, &text->room, text->stream);
    if (got < 0 || kv__text_failure(text) != NULL)
        return end_of(text, diag);
    size_t length = (size_t)got;
    char *begin = text->line;
    if (text->number == 0 && length >= 3 && memcmp(begin, "\xEF\xBB\xBF", 3) == 0) {
        begin += 3;
        length -= 3;
    }
    count_line(text);
    if (length > 0 && begin[length - 1] == '\n')
        length--;
    if (length > 0 && begin[length - 1] == '\r')
        length--;
    begin[length] = '\0';
    *line = begin;
    *bytes = length;
    if (memchr(begin, '\0', length) == NULL)
        return KV_OK;
    return kv_fail(diag, KV_ERR_INPUT, &(kv_mark){text->path, text->number, 0},
                   "a NUL byte, expected text");
}

kv_err kv__text_byte(kv__text *text, int *byte, kv_diag *diag)
{
    *byte = getc_unlocked(text->stream);
    if (*byte == EOF)
        return end_of(text, diag);
    if (text->number == 0 || *byte == '\n')
        count_line(text);
    return KV_OK;
}

void kv__text_unbyte(kv__text *text, int byte)
{
    ungetc(byte, text->stream);
    text->number -= byte == '\n';
}
