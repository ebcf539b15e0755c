/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Contexts that several questions share: which part of an example is compressed, and requests that
 * fork a context which the first of them compressed. */
#include "config.h"

#include "sim/replay/lane.h"

#include <string.h>

/* The first request in the trace with the same shared context; the example itself if it is that, or
 * shares none. */
static int leader_of(const kv_attention *trace, int index)
{
    const kv_example *example = kv_attention_example(trace, index);
    if (example->mode != KV_MULTI_REQUEST || example->context_id == NULL)
        return index;
    for (int i = 0; i < index; i++) {
        const kv_example *other = kv_attention_example(trace, i);
        if (other->mode == KV_MULTI_REQUEST && other->context_id != NULL &&
            strcmp(other->context_id, example->context_id) == 0)
            return i;
    }
    return index;
}

kv_err kv__shared_example(const kv_replay *replay, const kv_attention *trace, int index,
                          kv_example *out, int *leader, kv_diag *diag)
{
    const kv_mark mark = {.path = kv_attention_path(trace)};
    bool context_only = replay->options.compress_with == KV_COMPRESS_WITH_CONTEXT;
    *out = *kv_attention_example(trace, index);
    *leader = context_only ? index : leader_of(trace, index);
    if (!context_only && *leader == index)
        return KV_OK;
    const kv_example *first = kv_attention_example(trace, *leader);
    if (out->context_tokens < 1)
        return kv_fail(diag, KV_ERR_UNSUPPORTED, &mark,
                       "/examples/%s: context_len is 0, so that nothing is there to be compressed "
                       "before its question; record it, or leave such examples out by `tasks`",
                       out->name);
    if (first->context_tokens != out->context_tokens)
        return kv_fail(diag, KV_ERR_INPUT, &mark,
                       "/examples/%s has context_id %s and context_len %d, but %s with the same "
                       "context_id has %d; expected the same context",
                       out->name, out->context_id, out->context_tokens, first->name,
                       first->context_tokens);
    out->prompt_tokens = out->context_tokens;
    return KV_OK;
}

/* The least budget at which the first request kept each token of the context. */
static void find_levels(const kv__lane *lane, const kv__stage *stage, int kv_head, int context)
{
    const kv_replay_result *given = stage->given;
    uint8_t *level_of = lane->head[kv_head].level_of;
    memset(level_of, KV__DEAD, (size_t)context);
    for (int b = lane->group->budgets - 1; b >= 0; b--) {
        size_t point = (size_t)lane->group->point[b] * (size_t)given->layers;
        const kv_retained *kept =
            &given->retained[(point + (size_t)stage->view.layer) * (size_t)given->kv_heads +
                             (size_t)kv_head];
        for (int i = 0; i < kept->count && kept->position[i] < context; i++)
            level_of[kept->position[i]] = (uint8_t)b;
    }
}

bool kv__lane_forks(const kv__lane *lane, const kv__stage *stage)
{
    return stage->given != NULL && !lane->group->policy->oracle &&
           !lane->group->scorer.policy->oracle;
}

kv_err kv__lane_restore(kv__lane *lane, kv__stage *stage, kv_diag *diag)
{
    int context = stage->example->prompt_tokens;
    kv_err err = KV_OK;
    kv__pages_clear(&lane->pages);
    for (int h = 0; h < stage->replay->shape.kv_heads && err == KV_OK; h++) {
        kv__lane_head *head = &lane->head[h];
        find_levels(lane, stage, h, context);
        for (int b = 0; b < lane->group->budgets; b++)
            head->level[b].count = 0;
        head->tail_first = context;
        while (head->tail_first > 0 && head->level_of[head->tail_first - 1] == 0)
            head->tail_first--;
        for (int p = 0; p < head->tail_first && err == KV_OK; p++) {
            kv__pages_settle(&lane->pages, p, head->level_of[p]);
            if (head->level_of[p] != KV__DEAD)
                err = kv__list_push(&head->level[head->level_of[p]], p, diag);
        }
    }
    return err;
}
