/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Rows of the settings that retention policies share. A policy's table is a list of them:
 *
 *     static const kv_param params[] = {KV_ROW_KEEP, KV_ROW_BUDGET, KV_ROW_WINDOW("32"),
 *                                       KV_ROW_EVICT("postfill"), KV_ROW_END};
 *
 * Sets of rows that kin share are in scoring.h (KV_ROWS_PLAIN_SCORE and others), rows of read
 * policies in read_params.h.
 *
 * The argument is the policy's own default as a user would write it; NULL: absent, which is stored
 * as kv_retention_config says. Rows with KV_PARAM_BUDGET say how much is kept; exactly one of those
 * in a table must have a value (kv_retention_check). */
#ifndef KVSIM_POLICIES_RETENTION_PARAMS_H
#define KVSIM_POLICIES_RETENTION_PARAMS_H

#include "policies/retention.h"

#include <math.h>

/* Names of the choices, in the order of their enums in retention.h. */
extern const char *const kv__names_schedule[];
extern const char *const kv__names_rounding[];
extern const char *const kv__names_pooling[];
extern const char *const kv__names_group[];
extern const char *const kv__names_group_when[];
extern const char *const kv__names_score_over[];
extern const char *const kv__names_scope[];
extern const char *const kv__names_anchor[];

/* A setting of a policy's own struct `own`, which embeds kv_retention_config as its first member.
 */
#define KV_ROW_OF(own, row_name, row_type, field, row_fallback, low, high, names, row_flags, of,   \
                  words)                                                                           \
    {                                                                                              \
        .name = row_name, .type = row_type, .offset = offsetof(own, field),                        \
        .fallback = row_fallback, .min = low, .max = high, .choices = names,                       \
        .flags = KV_PARAM_SWEEP | (row_flags), .unit = of, .help = words                           \
    }
#define KV_ROW(row_name, row_type, field, row_fallback, low, high, names, row_flags, of, words)    \
    KV_ROW_OF(kv_retention_config, row_name, row_type, field, row_fallback, low, high, names,      \
              row_flags, of, words)
/* Own counts, real numbers and switches without an upper bound of their own. */
#define KV_ROW_OF_COUNT(own, row_name, field, fallback, low, of, words)                            \
    KV_ROW_OF(own, row_name, KV_INT, field, fallback, low, INFINITY, NULL, 0, of, words)
#define KV_ROW_OF_REAL(own, row_name, field, fallback, low, high, of, words)                       \
    KV_ROW_OF(own, row_name, KV_REAL, field, fallback, low, high, NULL, 0, of, words)
#define KV_ROW_OF_SWITCH(own, row_name, field, fallback, words)                                    \
    KV_ROW_OF(own, row_name, KV_BOOL, field, fallback, 0, 0, NULL, 0, "", words)
#define KV_ROW_OF_CHOICE(own, row_name, field, fallback, names, words)                             \
    KV_ROW_OF(own, row_name, KV_CHOICE, field, fallback, 0, 0, names, 0, "", words)
#define KV_ROW_COUNT(row_name, field, fallback, low, flags, of, words)                             \
    KV_ROW(row_name, KV_INT, field, fallback, low, INFINITY, NULL, flags, of, words)
#define KV_ROW_CHOICE(row_name, field, fallback, names, words)                                     \
    KV_ROW(row_name, KV_CHOICE, field, fallback, 0, 0, names, 0, "", words)
#define KV_ROW_SWITCH(row_name, field, fallback, words)                                            \
    KV_ROW(row_name, KV_BOOL, field, fallback, 0, 0, NULL, 0, "", words)
/* What a policy that scores for another has no say in, and what such a policy replaces. */
#define KV_ROW_OUTER(row_type, row_name, field, fallback, names, words)                            \
    KV_ROW(row_name, row_type, field, fallback, 0, 0, names, KV_PARAM_OUTERMOST, "", words)
#define KV_ROW_HOW(row_name, field, fallback, names, words)                                        \
    KV_ROW(row_name, KV_CHOICE, field, fallback, 0, 0, names, KV_PARAM_REPLACED, "", words)

#define KV_ROW_END                                                                                 \
    {                                                                                              \
        .name = NULL                                                                               \
    }

/* --- How much is kept -------------------------------------------------------------- */
#define KV_ROW_KEEP                                                                                \
    KV_ROW("keep", KV_REAL, keep, NULL, 0, 1, NULL, KV_PARAM_BUDGET | KV_PARAM_OUTERMOST,          \
           "fraction", "share of the prompt's entries that is kept; or give budget")
#define KV_ROW_BUDGET                                                                              \
    KV_ROW_COUNT("budget", budget_tokens, NULL, 1, KV_PARAM_BUDGET | KV_PARAM_OUTERMOST, "tokens", \
                 "entries kept per KV head; or give keep")
/* A window that is itself the budget (streaming). */
#define KV_ROW_WINDOW_BUDGET                                                                       \
    KV_ROW_COUNT("window", window_tokens, NULL, 1, KV_PARAM_BUDGET, "tokens",                      \
                 "last entries, which stay while they are the last; the rest leaves")
/* The share of streaming heads is what a head-mask policy's curve runs over. */
#define KV_ROW_SPARSITY(fallback)                                                                  \
    KV_ROW("sparsity", KV_REAL, sparsity, fallback, 0, 1, NULL, KV_PARAM_BUDGET, "fraction",       \
           "share of the KV heads that stream")

/* --- What stays in any case ---------------------------------------------------------------------
 */
#define KV_ROW_WINDOW(fallback)                                                                    \
    KV_ROW_COUNT("window", window_tokens, fallback, 0, KV_PARAM_REPLACED, "tokens",                \
                 "last entries, always kept; where rows score, also the last rows that do")
#define KV_ROW_SINKS(fallback)                                                                     \
    KV_ROW_COUNT("sinks", sinks_tokens, fallback, 0, KV_PARAM_REPLACED, "tokens",                  \
                 "first tokens of the sequence, always kept")
#define KV_ROW_RECENT(fallback)                                                                    \
    KV_ROW("recent", KV_REAL, recent, fallback, 0, INFINITY, NULL, 0, "",                          \
           "last entries, always kept: a count, or below 1 a fraction of the budget; half of the " \
           "budget if not given")
#define KV_ROW_WINDOW_IN_BUDGET(fallback)                                                          \
    KV_ROW_OUTER(KV_BOOL, "window_in_budget", window_in_budget, fallback, NULL,                    \
                 "whether the window counts against the budget")

/* --- Scores ------------------------------------------------------------------------ */
/* Any other policy's scores, in place of those that the settings below make (policies/scorer.h). */
#define KV_ROW_SCORER                                                                              \
    KV_ROW(                                                                                        \
        "scorer", KV_ITEM, scorer, NULL, 0, 0, NULL, 0, "policy",                                  \
        "whose scores rank the entries, by name or {name: settings}; if not given, snapkv's by "   \
        "the settings here")
#define KV_ROW_KERNEL(fallback)                                                                    \
    KV_ROW_COUNT("kernel", kernel_tokens, fallback, 1, KV_PARAM_ODD | KV_PARAM_REPLACED, "tokens", \
                 "width of the pooling of scores over positions, odd; 1 is none")
#define KV_ROW_POOLING(fallback)                                                                   \
    KV_ROW_HOW("pooling", pooling, fallback, kv__names_pooling,                                    \
               "how scores are pooled over positions")
#define KV_ROW_GROUP(fallback)                                                                     \
    KV_ROW_HOW("group", group, fallback, kv__names_group,                                          \
               "how the query heads of a group become one score")
#define KV_ROW_GROUP_WHEN(fallback)                                                                \
    KV_ROW_HOW("group_when", group_when, fallback, kv__names_group_when,                           \
               "whether a group becomes one score before or after pooling")
#define KV_ROW_SCORE_OVER(fallback)                                                                \
    KV_ROW_HOW("score_over", score_over, fallback, kv__names_score_over,                           \
               "what a row is renormalised over: the current chunk's keys or all present")
#define KV_ROW_SCOPE(fallback)                                                                     \
    KV_ROW_CHOICE("scope", scope, fallback, kv__names_scope,                                       \
                  "whether a layer keeps one set or one per KV head")
#define KV_ROW_ANCHOR(fallback)                                                                    \
    KV_ROW_CHOICE("anchor", anchor, fallback, kv__names_anchor,                                    \
                  "the direction keys are compared with: mean of unit keys or of raw keys")
#define KV_ROW_SEED(fallback)                                                                      \
    KV_ROW_COUNT("seed", seed, fallback, 0, 0, "", "of the random numbers")
#define KV_ROW_HEADS                                                                               \
    KV_ROW("heads", KV_PATH, heads, NULL, 0, 0, NULL, 0, "",                                       \
           "file with the importance or mask of each head: TSV, or a matrix in HDF5")

/* --- Budgets ----------------------------------------------------------------------- */
#define KV_ROW_BETA(fallback)                                                                      \
    KV_ROW("beta", KV_REAL, beta, fallback, 1, INFINITY, NULL, KV_PARAM_OUTERMOST, "",             \
           "ratio that sets the slope of the budget over layers")
#define KV_ROW_ROUNDING(fallback)                                                                  \
    KV_ROW_OUTER(KV_CHOICE, "rounding", rounding, fallback, kv__names_rounding,                    \
                 "of keep times a length")
#define KV_ROW_RATIO_ARITHMETIC(fallback)                                                          \
    KV_ROW_OUTER(KV_BOOL, "ratio_arithmetic", ratio_arithmetic, fallback, NULL,                    \
                 "whether keep * n is computed as n * (1 - (1 - keep)), bit for bit")
/* names: "none", then the names of the policy's presets in their order, then NULL. */
#define KV_ROW_PRESET(names)                                                                       \
    KV_ROW("preset", KV_CHOICE, preset, "none", 0, 0, names, KV_PARAM_PRESET, "",                  \
           "other defaults, as a published implementation has them")

/* --- Schedules --------------------------------------------------------------------- */
#define KV_ROW_EVICT(fallback)                                                                     \
    KV_ROW_OUTER(KV_CHOICE, "evict", evict, fallback, kv__names_schedule, "when entries leave")
#define KV_ROW_INTERVAL(fallback)                                                                  \
    KV_ROW_COUNT("interval", interval_steps, fallback, 1, KV_PARAM_OUTERMOST, "steps",             \
                 "decode steps between two evictions under evict: interval")
#define KV_ROW_CHARGE_PROBES(fallback)                                                             \
    KV_ROW_OUTER(KV_BOOL, "charge_probes", charge_probes, fallback, NULL,                          \
                 "under evict: patched, whether the probing rows are charged as present")

#endif
