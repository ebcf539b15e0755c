/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Parameter tables: one description of a setting serves the experiment parser, --set, the JSON
 * Schema, `kvsim list`, completion and the canonical JSON in the results.
 *
 * A table is an array of kv_param that ends with a row whose name is NULL. Each row says where in
 * the configuration struct the value goes. Defaults are text, parsed like what a user writes. */
#ifndef KVSIM_BASE_PARAM_H
#define KVSIM_BASE_PARAM_H

#include "sim/base/diag.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

typedef enum kv_type {
    KV_BOOL,     /* bool: true | false */
    KV_INT,      /* long long */
    KV_REAL,     /* double */
    KV_CHOICE,   /* int: index into choices */
    KV_TEXT,     /* char *, owned by the configuration (kv_params_fini frees it); NULL if absent */
    KV_PATH,     /* char *, as KV_TEXT; relative paths are resolved by kv_params_parse;
                    in a policy's settings they stay as written */
    KV_BYTES,    /* long long bytes; unit needed: B, KB, KiB, MB, MiB, GB, GiB, TB, TiB; >= 0 */
    KV_RATE,     /* double bytes per second; unit needed: B/s ... TiB/s; >= 0 */
    KV_DURATION, /* long long nanoseconds; unit needed: ns, us, ms, s, min, h; >= 0 */
    KV_CHUNK,    /* long long tokens, or `whole`, stored as 0 */
    KV_ITEM      /* kv_item, owned by the configuration: a name, or {name: settings}. Who knows the
                    names parses it (kv__scorer_parse); kv_param_set refuses it */
} kv_type;

enum {
    KV_PARAM_SWEEP = 1,    /* a list of values is a dimension of the grid */
    KV_PARAM_REQUIRED = 2, /* no default: must be given */
    KV_PARAM_BUDGET = 4,   /* how much is kept: what a footprint curve runs over */
    KV_PARAM_OPEN_MIN = 8, /* the lower bound itself is not allowed */
    KV_PARAM_ODD = 16,     /* odd numbers only: for the schema; whoever has the setting checks it */
    /* Where the table has a KV_ITEM: what that takes the place of when it is given. */
    KV_PARAM_REPLACED = 32,
    /* Within a KV_ITEM: nothing to set there, as it is for what the item is part of to say. */
    KV_PARAM_OUTERMOST = 64,
    KV_PARAM_PRESET = 128 /* names one of the presets */
};

/* One setting. */
typedef struct kv_param {
    const char *name;           /* as users write it; NULL ends the table */
    kv_type type;               /* also fixes the C type of the field, see kv_type */
    size_t offset;              /* of the field in the configuration struct */
    const char *fallback;       /* the default as a user would write it; NULL: absent (see below) */
    double min, max;            /* bounds of numbers, both allowed; min == max == 0: none */
    const char *const *choices; /* KV_CHOICE: names, ended by NULL */
    unsigned flags;             /* KV_PARAM_* */
    const char *unit;           /* what a number counts: "tokens", "fraction"; "" if nothing */
    const char *help;           /* one sentence without its full stop */
} kv_param;

/* Absent: text is NULL. A number is absent if it has no fallback and lies outside its bounds; it is
 * then stored as 0, or as -1 where 0 lies within the bounds. So `keep`, 0 to 1, is -1 if absent. */

/* A named set of other defaults, for example what a published implementation uses. */
typedef struct kv_preset {
    const char *name;   /* NULL ends the list */
    const char *values; /* "name=value name=value" in the policy's own parameters */
    const char *help;   /* where the values come from */
} kv_preset;

/* A setting that does something only under some values of another one, never where that is absent.
 * Of several lines of one setting, which stand together, one that holds is enough. */
typedef struct kv_condition {
    const char *setting;       /* NULL ends the list */
    const char *other, *value; /* as users write them */
    bool except;               /* under every value of `other` but this one */
} kv_condition;

/* The value of a KV_ITEM: something by its name, with settings of its own. */
typedef struct kv_item {
    const char *name;         /* NULL: absent; borrowed, as the next three */
    const void *of;           /* what has that name */
    const kv_param *params;   /* its settings */
    const kv_preset *presets; /* NULL: none */
    size_t config_bytes;
    void *config; /* owned; of config_bytes */
} kv_item;

/* Frees the settings. */
void kv_item_fini(kv_item *item);

/* The row of that name, or NULL. */
const kv_param *kv_param_find(const kv_param *table, const char *name);

/* Whether an optional setting was not given. */
bool kv_param_absent(const kv_param *param, const void *config);

/* Whether the value of a setting says nothing, as a KV_ITEM of the same table takes its place. */
bool kv_param_replaced(const kv_param *table, const kv_param *param, const void *config);

/* Copies the value of a setting that owns nothing: no text, no path, no item. */
void kv_param_assign(const kv_param *param, const void *from, void *to);

/* Whether two configurations have the same value of one parameter. Items are the same if their
 * names and settings are, those aside that are not theirs to set. */
bool kv_param_equal(const kv_param *param, const void *a, const void *b);

/* What a value must be, for messages and lists: "a fraction from 0 to 1", "one of avg or max". */
void kv_param_expects(const kv_param *param, char *out, size_t out_bytes);

/* The value as a user would write it, "" if absent; the caller frees it. NULL: no memory. */
char *kv_param_text(const kv_param *param, const void *config);

/* Parses text into the field of one parameter: type, unit, bounds and choices are checked.
 * A KV_TEXT or KV_PATH field that held a string is freed first. */
kv_err kv_param_set(const kv_param *param, void *config, const char *text, const kv_mark *mark,
                    kv_diag *diag) KV_MUST_USE;

/* Sets every field of a zeroed configuration to its default. */
kv_err kv_params_default(const kv_param *table, void *config, kv_diag *diag) KV_MUST_USE;

/* Makes an optional number absent; does nothing to other types. */
void kv_param_clear(const kv_param *param, void *config);

/* Applies the values of one preset. */
kv_err kv_params_preset(const kv_param *table, const kv_preset *preset, void *config,
                        kv_diag *diag) KV_MUST_USE;

/* Copies a configuration of `bytes` bytes with the strings and items it owns. */
kv_err kv_params_copy(const kv_param *table, const void *config, size_t bytes, void *copy,
                      kv_diag *diag) KV_MUST_USE;

/* Frees the strings and items that the configuration owns; they are absent then. */
void kv_params_fini(const kv_param *table, void *config);

/* Writes the value of one parameter as JSON: 0.3, true, "avg", "256GiB", null if absent. Numbers
 * that are doubles use the fewest digits that read back equal; quantities the largest unit that
 * divides them. */
void kv_param_json(const kv_param *param, const void *config, FILE *out);

/* Writes the default as JSON, null if there is none. */
void kv_param_fallback_json(const kv_param *param, FILE *out);

/* Writes a configuration as canonical JSON: {"a":1,"b":"c"}, names in byte order, absent values
 * and those that an item replaces left out, every number in the fewest digits that read back equal.
 * Parameters that have any of skip_flags are left out (KV_PARAM_BUDGET: what names a curve). An
 * item is {"name":{settings}}, without those that are not its to set. */
void kv_params_json(const kv_param *table, const void *config, unsigned skip_flags, FILE *out);

#endif
