/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Indented JSON, as sim/schema.c, which alone includes this, writes it. */
#ifndef KVSIM_SIM_SCHEMA_WRITER_H
#define KVSIM_SIM_SCHEMA_WRITER_H

#include "sim/base/json.h"

#include <stdbool.h>
#include <stdio.h>

typedef struct writer {
    FILE *out;  /* borrowed */
    int depth;  /* objects and lists that are open */
    bool first; /* nothing was written yet in the object or list that is open */
} writer;

/* Begins the next item of what is open: the comma before it and a new line. */
static inline void next(writer *w)
{
    fprintf(w->out, "%s\n%*s", w->first ? "" : ",", 2 * w->depth, "");
    w->first = false;
}

/* Begins a member of the open object; its value is to follow. */
static inline void key(writer *w, const char *name)
{
    next(w);
    kv_json_string(name, w->out);
    fputs(": ", w->out);
}

/* Opens an object or a list, by its bracket, where a value is due. */
static inline void open_with(writer *w, char bracket)
{
    putc(bracket, w->out);
    w->depth++;
    w->first = true;
}

/* Closes it again; the bracket is the other one. */
static inline void close_with(writer *w, char bracket)
{
    w->depth--;
    if (!w->first)
        fprintf(w->out, "\n%*s", 2 * w->depth, "");
    putc(bracket, w->out);
    w->first = false;
}

/* A member that is text. */
static inline void text(writer *w, const char *name, const char *value)
{
    key(w, name);
    kv_json_string(value, w->out);
}

/* A member that is JSON already. */
static inline void literal(writer *w, const char *name, const char *json)
{
    key(w, name);
    fputs(json, w->out);
}

#endif
