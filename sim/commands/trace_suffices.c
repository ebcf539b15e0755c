/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "sim/commands/trace_suffices.h"
#include "sim/policy_spec.h"
#include "sim/replay/replay.h"

#include <stdio.h>
#include <string.h>

/* The policy with its defaults as a user would write it; where they do not say how much, with 0.5
 * or 8 of the first setting that does. */
static kv_err write_policy(const kv_method *method, kv_point_list *out, kv_diag *diag)
{
    static const kv_mark nowhere;
    char text[128];
    kv_diag ignored = {0};
    snprintf(text, sizeof text, "{%s: {}}", method->name);
    bool plain = method->family != KV_FAMILY_READ;
    if (plain && kv_policy_parse_text(text, &nowhere, "", out, &ignored) == KV_OK)
        return KV_OK;
    for (const kv_param *p = method->params; p->name != NULL; p++) {
        if (p->fallback != NULL || (p->type != KV_REAL && p->type != KV_INT))
            continue;
        for (int k = p->type == KV_INT; k < 2; k++) {
            snprintf(text, sizeof text, "{%s: {%s: %s}}", method->name, p->name, k ? "8" : "0.5");
            if (kv_policy_parse_text(text, &nowhere, "", out, &ignored) == KV_OK)
                return KV_OK;
        }
    }
    snprintf(text, sizeof text, "{%s: {}}", method->name);
    return kv_policy_parse_text(text, &nowhere, "", out, diag);
}

/* What an example lacks, without the file's name and "/examples/NAME lacks". */
static const char *lack_of(const kv_diag *why)
{
    const char *lacks = strstr(why->text, " lacks ");
    return lacks != NULL ? lacks + strlen(" lacks ") : why->text;
}

static kv_err check_policy(const kv_attention *trace, const kv_point_spec *point, kv_diag *why,
                           kv_diag *diag)
{
    kv_replay_point one = {.policy = point->policy,
                           .config = point->config,
                           .part = point->part,
                           .parts = point->parts,
                           .directory = ""};
    kv_replay_options options = {.page_tokens = 1};
    kv_replay *replay = NULL;
    kv_err err = kv_replay_new(&one, 1, kv_attention_shape(trace), &options, &replay, diag);
    if (err != KV_OK)
        return err;
    for (int e = 0; e < kv_attention_examples(trace) && err == KV_OK; e++)
        err = kv_replay_check(replay, trace, e, why);
    kv_replay_free(replay);
    return err;
}

kv_err kv__trace_suffices(const kv_attention *trace, kv_suffices_take take, void *closure,
                          kv_diag *diag)
{
    for (int i = 0; i < kv_methods(); i++) {
        kv_method method = kv_method_get(i);
        kv_point_list list = {0};
        kv_diag why = {0};
        kv_err err = write_policy(&method, &list, diag);
        if (err == KV_OK)
            err = check_policy(trace, &list.point[0], &why, diag);
        kv_point_list_fini(&list);
        if (err != KV_OK && why.text[0] == '\0')
            return err;
        take(closure, &method, err == KV_OK ? NULL : lack_of(&why));
    }
    return KV_OK;
}
