/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* One lane's steps through one layer: rows attend, steps are charged. */
#include "config.h"

#include "sim/replay/lane.h"
#include "sim/base/kernels.h"
#include "policies/counts.h"

#include <stdlib.h>
#include <string.h>

int64_t kv__lane_past(const kv__lane_head *head, int budget, int step_start)
{
    int64_t past = step_start > head->tail_first ? step_start - head->tail_first : 0;
    for (int level = 0; level <= budget; level++)
        past += head->level[level].count;
    return past;
}

int64_t kv__lane_found(const kv__lane *lane, int kv_head, int budget)
{
    const kv__lane_head *head = &lane->head[kv_head];
    int64_t past = kv__lane_past(head, budget, lane->step_start);
    /* Of a compressed prompt what enters is listed when the step starts. */
    bool listed = lane->group->policy->admits != NULL && head->tail_first >= lane->step_end;
    return listed ? past - lane->entered : past;
}

/* The end of the step that starts at a token: a chunk of the prompt, or one token. */
static int step_end(const kv__group *group, const kv_example *example, int start)
{
    kv_counts_rule rule = {.policy = group->policy,
                           .config = group->config[0],
                           .prompt_tokens = example->prompt_tokens};
    return start < example->prompt_tokens
               ? (int)kv_counts_chunk_end(&rule, group->chunk_tokens, start)
               : start + 1;
}

/* Steps of a prompt in chunks, then one per later token. */
static int count_steps(const kv__group *group, const kv_example *example)
{
    int steps = 0;
    for (int start = 0; start < example->total_tokens; steps++)
        start = step_end(group, example, start);
    return steps;
}

static kv_err occupancy_init(kv__occupancy *occupancy, int steps, bool has_bytes, kv_diag *diag)
{
    memset(occupancy, 0, sizeof *occupancy);
    occupancy->steps = steps;
    for (int kind = 0; kind < KV__KINDS; kind++) {
        occupancy->at_step[kind] = calloc((size_t)steps, sizeof(int64_t));
        if (occupancy->at_step[kind] == NULL)
            return kv_fail_memory(diag);
    }
    if (has_bytes)
        occupancy->stored_at_step = calloc((size_t)steps, sizeof(double));
    return !has_bytes || occupancy->stored_at_step ? KV_OK : kv_fail_memory(diag);
}

static kv_err head_init(kv__lane_head *head, const kv__group *group, int tokens, kv_diag *diag)
{
    size_t doubles = group->scorer.policy->state_doubles * (size_t)tokens;
    head->level = calloc((size_t)group->budgets, sizeof *head->level);
    head->level_of = malloc((size_t)tokens);
    head->state = doubles ? malloc(doubles * sizeof(double)) : NULL;
    if (head->level == NULL || head->level_of == NULL || (doubles && head->state == NULL))
        return kv_fail_memory(diag);
    return KV_OK;
}

int kv__observe_end(const kv__group *group, const kv_example *example)
{
    const kv_retention_config *config = group->config[0];
    bool decodes =
        config->evict == KV_STEP || config->evict == KV_INTERVAL || config->evict == KV_ONLINE;
    if (group->scorer.policy->observe == NULL)
        return 0;
    return decodes ? example->total_tokens - 1 : example->prompt_tokens;
}

/* The first row that the policy is shown. */
static int observe_first(const kv__group *group, const kv_example *example)
{
    const kv_scorer *scorer = &group->scorer;
    if (scorer->policy->observe == NULL || scorer->policy->observed_rows == NULL)
        return 0;
    long long rows = scorer->policy->observed_rows(scorer->config);
    if (rows == 0)
        return example->total_tokens;
    return rows < example->prompt_tokens ? example->prompt_tokens - (int)rows : 0;
}

kv_err kv__lane_init(kv__lane *lane, const kv__group *group, const kv__stage *stage, kv_diag *diag)
{
    const kv_example *example = stage->example;
    int heads = stage->replay->shape.kv_heads, budgets = group->budgets;
    memset(lane, 0, sizeof *lane);
    lane->group = group;
    if (group->policy->enter != NULL) {
        kv_view view = stage->view;
        kv_err err = group->policy->enter(group->config, group->budgets, &view, &lane->memo, diag);
        if (err != KV_OK)
            return err;
    }
    lane->observe_first = observe_first(group, example);
    lane->observe_end = kv__observe_end(group, example);
    lane->head = calloc((size_t)heads, sizeof *lane->head);
    lane->occupancy = calloc((size_t)budgets, sizeof *lane->occupancy);
    lane->tally = calloc((size_t)budgets, sizeof *lane->tally);
    if (lane->head == NULL || lane->occupancy == NULL || lane->tally == NULL)
        return kv_fail_memory(diag);
    kv_err err = kv__pages_init(&lane->pages, example->total_tokens,
                                (int)stage->replay->options.page_tokens, diag);
    for (int h = 0; h < heads && err == KV_OK; h++)
        err = head_init(&lane->head[h], group, example->total_tokens, diag);
    for (int b = 0; b < budgets && err == KV_OK; b++) {
        err = occupancy_init(&lane->occupancy[b], count_steps(group, example),
                             kv__bytes_differ(group, &stage->replay->options.cache), diag);
        if (err == KV_OK)
            err = kv__tally_init(&lane->tally[b], stage, diag);
    }
    if (err == KV_OK && group->parts > 0)
        err = kv__parts_new(group, stage, &lane->parts, diag);
    return err;
}

static void head_fini(kv__lane_head *head, int budgets)
{
    for (int b = 0; head->level != NULL && b < budgets; b++)
        free(head->level[b].at);
    free(head->level);
    free(head->level_of);
    free(head->state);
}

void kv__lane_fini(kv__lane *lane, const kv_shape *shape)
{
    int budgets = lane->group ? lane->group->budgets : 0;
    if (lane->memo != NULL && lane->group->policy->leave != NULL)
        lane->group->policy->leave(lane->memo);
    for (int h = 0; lane->head != NULL && h < shape->kv_heads; h++)
        head_fini(&lane->head[h], budgets);
    for (int b = 0; b < budgets; b++) {
        for (int kind = 0; lane->occupancy != NULL && kind < KV__KINDS; kind++)
            free(lane->occupancy[b].at_step[kind]);
        if (lane->occupancy != NULL)
            free(lane->occupancy[b].stored_at_step);
        if (lane->tally != NULL)
            kv__tally_fini(&lane->tally[b]);
    }
    kv__parts_free(lane->parts, lane->group, shape->kv_heads);
    free(lane->head);
    free(lane->occupancy);
    free(lane->tally);
    kv__pages_fini(&lane->pages);
}

/* Of a compressed prompt only what enters is ever there. */
static kv_err admit(kv__lane *lane, const kv__stage *stage, kv_diag *diag)
{
    kv_err err = KV_OK;
    lane->entered = 0;
    for (int p = lane->step_start; p < lane->step_end && err == KV_OK; p++) {
        bool enters = lane->group->policy->admits(lane->memo, p);
        lane->entered += enters;
        for (int h = 0; h < stage->replay->shape.kv_heads && err == KV_OK; h++) {
            lane->head[h].level_of[p] = enters ? 0 : KV__DEAD;
            lane->head[h].tail_first = lane->step_end;
            if (enters)
                err = kv__list_push(&lane->head[h].level[0], p, diag);
        }
    }
    return err;
}

static kv_err set_step(kv__lane *lane, const kv__stage *stage, int start, kv_diag *diag)
{
    lane->step_start = start;
    lane->step_end = step_end(lane->group, stage->example, start);
    lane->entered = lane->step_end - start;
    bool compressed = lane->group->policy->admits != NULL && start < stage->example->prompt_tokens;
    return compressed ? admit(lane, stage, diag) : KV_OK;
}

kv_err kv__lane_start_layer(kv__lane *lane, kv__stage *stage, kv_diag *diag)
{
    int tokens = stage->example->total_tokens;
    for (int h = 0; h < stage->replay->shape.kv_heads; h++) {
        kv__lane_head *head = &lane->head[h];
        for (int b = 0; b < lane->group->budgets; b++)
            head->level[b].count = 0;
        memset(head->level_of, 0, (size_t)tokens);
        head->tail_first = 0;
        if (head->state != NULL)
            memset(head->state, 0,
                   lane->group->scorer.policy->state_doubles * (size_t)tokens * sizeof(double));
    }
    kv__pages_clear(&lane->pages);
    lane->step = 0;
    kv_err err = set_step(lane, stage, 0, diag);
    if (err != KV_OK)
        return err;
    return lane->parts != NULL ? kv__parts_start_layer(lane, stage, diag) : KV_OK;
}

/* One over the mass that a row is renormalised by: what the query sees, or the current chunk's
 * share of it. A row before the only event (postfill) has lost nothing and is taken as recorded. */
static double row_scale(const kv__lane *lane, const kv__lane_head *head, const float *row,
                        int position)
{
    const kv_retention_config *config = lane->group->config[0];
    const kv__list *kept = &head->level[0];
    int first = head->tail_first;
    if (config->evict == KV_POSTFILL)
        return 1;
    bool chunk_only = kv__scores_chunk_only(config);
    if (chunk_only)
        first = lane->step_start;
    double mass = kv__kernels()->sum(row + first, (size_t)(position + 1 - first));
    if (!chunk_only)
        mass += kv__kernels()->sum_at(row, kept->at, (size_t)kept->count);
    return mass > 0 ? 1 / mass : 0;
}

/* Shows one KV head's rows to the policy. In lanes with several budgets level 0 is all that earlier
 * events kept as far as scores go: they look at the current chunk only, or there was no event yet.
 */
static void observe(kv__lane *lane, kv__stage *stage, int kv_head, int position)
{
    const kv_shape *shape = &stage->replay->shape;
    const kv__lane_head *head = &lane->head[kv_head];
    const kv__list *kept = &head->level[0];
    int group_heads = shape->heads / shape->kv_heads;
    const float *const *row = stage->row + kv_head * group_heads;
    double *scale = stage->view.work;
    for (int g = 0; g < group_heads; g++)
        scale[g] = row_scale(lane, head, row[g], position);
    kv_row_event event = {.view = &stage->view,
                          .config = lane->group->scorer.config,
                          .kv_head = kv_head,
                          .position = position,
                          .kept = kept->at,
                          .kepts = kept->count,
                          .tail_first = head->tail_first,
                          .group_heads = group_heads,
                          .row = row,
                          .scale = scale};
    lane->group->scorer.policy->observe(&event, lane->head[kv_head].state);
}

void kv__lane_row(kv__lane *lane, kv__stage *stage, int position, int answer)
{
    if (position >= lane->observe_first && position < lane->observe_end)
        for (int h = 0; h < stage->replay->shape.kv_heads; h++)
            observe(lane, stage, h, position);
    if (answer >= 0)
        kv__measure_row(lane, stage, answer);
}

/* Probe tokens that the current chunk is run with, if they are charged. */
static int64_t charged_probes(const kv__lane *lane, const kv_example *example)
{
    const kv_retention_config *config = lane->group->config[0];
    int prompt = example->prompt_tokens;
    if (config->evict != KV_PATCHED || !config->charge_probes || lane->step_end >= prompt)
        return 0;
    int64_t window = kv_retention_observers(lane->group->policy, config, example);
    int64_t beyond = prompt - lane->step_end;
    return window < beyond ? window : beyond;
}

kv_err kv__lane_step_end(kv__lane *lane, kv__stage *stage, kv_diag *diag)
{
    bool prefill = lane->step_start < stage->example->prompt_tokens;
    int64_t probes = prefill ? charged_probes(lane, stage->example) : 0;
    for (int b = 0; b < lane->group->budgets; b++)
        kv__occupancy_add(&lane->occupancy[b], lane, stage->replay->shape.kv_heads, b, prefill,
                          probes);
    if (kv__bytes_differ(lane->group, &stage->replay->options.cache))
        for (int b = 0; b < lane->group->budgets; b++)
            kv__bytes_charge(lane, stage, b, prefill, probes);
    if (lane->parts != NULL)
        kv__parts_before_evict(lane, stage);
    kv_err err = kv__lane_evict(lane, stage, diag);
    if (err == KV_OK && kv__lane_forks(lane, stage) &&
        lane->step_end == stage->example->prompt_tokens)
        err = kv__lane_restore(lane, stage, diag);
    if (lane->parts != NULL && err == KV_OK)
        kv__parts_after_evict(lane, stage);
    lane->step++;
    return err == KV_OK ? set_step(lane, stage, lane->step_end, diag) : err;
}
