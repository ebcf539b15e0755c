/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Indented JSON, as sim/schema.c writes it. */
#ifndef KVSIM_SIM_SCHEMA_WRITER_H
#define KVSIM_SIM_SCHEMA_WRITER_H

#include "sim/base/json.h"

#include <stdbool.h>
#include <stdio.h>

typedef struct writer {
    FILE *out;
    int depth;
    bool first; /* nothing was written yet in the object or list that is open */
} writer;

static inline void next(writer *w)
{
    fprintf(w->out, "%s\n%*s", w->first ? "" : ",", 2 * w->depth, "");
    w->first = false;
}

static inline void key(writer *w, const char *name)
{
    next(w);
    kv_json_string(name, w->out);
    fputs(": ", w->out);
}

static inline void open_with(writer *w, char bracket)
{
    putc(bracket, w->out);
    w->depth++;
    w->first = true;
}

static inline void close_with(writer *w, char bracket)
{
    w->depth--;
    if (!w->first)
        fprintf(w->out, "\n%*s", 2 * w->depth, "");
    putc(bracket, w->out);
    w->first = false;
}

static inline void text(writer *w, const char *name, const char *value)
{
    key(w, name);
    kv_json_string(value, w->out);
}

static inline void literal(writer *w, const char *name, const char *json)
{
    key(w, name);
    fputs(json, w->out);
}

#endif
