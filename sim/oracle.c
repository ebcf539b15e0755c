/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "sim/oracle.h"

#include "policies/retention_params.h"

#include <stdio.h>
#include <string.h>

/* Whether a table has a setting, as what says how much is kept (KV_PARAM_BUDGET) or not. */
static bool has_row(const kv_param *params, const char *name, unsigned flags)
{
    const kv_param *row = kv_param_find(params, name);
    return row != NULL && (row->flags & flags) == flags;
}

/* The retention oracle that keeps as much as a point, as text; false: the point keeps no amount
 * that can be copied (a threshold, a share of heads, tokens that never enter). */
static bool retention_text(const kv_point_spec *point, char *out, size_t bytes)
{
    const kv_retention *policy = point->policy;
    const kv_retention_config *c = point->config;
    char amount[64];
    if (point->implied || policy->oracle || policy->resize != NULL || policy->admits != NULL)
        return false;
    if (has_row(policy->params, "keep", KV_PARAM_BUDGET) && c->budget_tokens == 0 && c->keep >= 0)
        snprintf(amount, sizeof amount, "keep: %.17g", c->keep);
    else if (has_row(policy->params, "budget", KV_PARAM_BUDGET) && c->budget_tokens > 0)
        snprintf(amount, sizeof amount, "budget: %lld", c->budget_tokens);
    else if (has_row(policy->params, "window", KV_PARAM_BUDGET) && c->window_tokens > 0)
        snprintf(amount, sizeof amount, "budget: %lld", c->window_tokens + c->sinks_tokens);
    else
        return false;
    bool has_interval = has_row(policy->params, "interval", 0);
    int evict = has_row(policy->params, "evict", 0) ? c->evict : KV_POSTFILL;
    snprintf(out, bytes, "{topk: {%s, evict: %s, interval: %lld}}", amount,
             kv__names_schedule[evict == KV_PATCHED ? KV_CHUNKED : evict],
             has_interval && evict == KV_INTERVAL ? c->interval_steps : 512);
    return true;
}

/* A count among a read policy's settings; 0 if it has none of that name or it is not given. */
static long long count_of(const kv_part *part, const char *name)
{
    const kv_param *row = kv_param_find(part->method.params, name);
    return row == NULL || row->type != KV_INT
               ? 0
               : *(const long long *)((const char *)part->config + row->offset);
}

/* The read oracle that reads as much as a point's read policy, as text; false: there is none, or
 * what it reads is no amount that can be copied. */
static bool read_text(const kv_point_spec *point, char *out, size_t bytes)
{
    const kv_part *part = point->parts > 0 ? &point->part[point->parts - 1] : NULL;
    if (part == NULL || part->method.family != KV_FAMILY_READ || part->method.oracle)
        return false;
    long long read = count_of(part, "read");
    if (read == 0)
        return false;
    snprintf(out, bytes, "{topk: {read: %lld}}",
             read + count_of(part, "sinks") + count_of(part, "local"));
    return true;
}

static kv_err add_retention(kv_point_list *points, int at, const char *text, kv_diag *diag)
{
    kv_mark mark = points->point[at].mark;
    long long chunk_tokens = points->point[at].chunk_tokens;
    kv_err err = kv_policy_parse_text(text, &mark, "", points, diag);
    if (err == KV_OK)
        points->point[points->count - 1].chunk_tokens = chunk_tokens;
    return err;
}

/* A copy of the point whose read policy is the oracle's. */
static kv_err add_read(kv_point_list *points, int at, const char *text, kv_diag *diag)
{
    kv_mark mark = points->point[at].mark;
    kv_point_list oracle = {0};
    kv_err err = kv_policy_parse_text(text, &mark, "", &oracle, diag);
    if (err == KV_OK)
        err = kv_point_list_add(points, &points->point[at], points->point[at].chunk_tokens, diag);
    if (err == KV_OK) {
        kv_point_spec *copy = &points->point[points->count - 1];
        kv_part *theirs = &copy->part[copy->parts - 1], *ours = &oracle.point[0].part[0];
        kv_part kept = *theirs;
        *theirs = *ours;
        *ours = kept; /* freed with the list */
    }
    kv_point_list_fini(&oracle);
    return err;
}

kv_err kv_oracle_add(kv_point_list *points, bool asked_for, kv_diag *diag)
{
    char text[256];
    int given = points->count, amounts = 0, others = 0;
    kv_err err = KV_OK;
    for (int i = 0; i < given && err == KV_OK; i++) {
        bool reads = false;
        const kv_point_spec *point = &points->point[i];
        others += strcmp(point->policy->name, "full") != 0 || point->parts > 0;
        amounts += point->policy->oracle; /* the user's own will do */
        if (retention_text(&points->point[i], text, sizeof text)) {
            amounts++;
            err = add_retention(points, i, text, diag);
        }
        if (err == KV_OK && (reads = read_text(&points->point[i], text, sizeof text)))
            err = add_read(points, i, text, diag);
        amounts += reads;
    }
    if (err == KV_OK && asked_for && amounts == 0 && others > 0)
        return kv_fail(diag, KV_ERR_INPUT, &points->point[0].mark,
                       "oracle: no policy here keeps or reads an amount that exact top-k could "
                       "take over; expected one with keep, budget or read, or list topk yourself");
    return err;
}
