/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/scorer.h"
#include "policies/scoring.h"

#include <math.h>
#include <string.h>

bool kv_scorer_can(const kv_retention *policy)
{
    return policy->score != NULL && policy->score != kv_scorer_score && policy->resize == NULL &&
           policy->admits == NULL && !policy->oracle;
}

kv_item kv_scorer_item(const kv_retention *policy)
{
    return (kv_item){.name = policy->name,
                     .of = policy,
                     .params = policy->params,
                     .presets = policy->presets,
                     .config_bytes = policy->config_bytes};
}

/* --- Who scores -------------------------------------------------------------------- */

/* The scorer that the settings name; policy NULL: none. */
static kv_scorer next_scorer(const void *config)
{
    const kv_item *item = &((const kv_retention_config *)config)->scorer;
    return (kv_scorer){item->name == NULL ? NULL : item->of, item->config};
}

kv_scorer kv_retention_scorer(const kv_retention *policy, const void *config)
{
    kv_scorer last = {policy, config};
    for (kv_scorer next = last; next.policy != NULL; next = next_scorer(next.config))
        last = next;
    return last;
}

unsigned kv_retention_needs(const kv_retention *policy, const void *config)
{
    kv_scorer scorer = next_scorer(config);
    unsigned needs =
        scorer.policy == NULL ? policy->needs : kv_retention_needs(scorer.policy, scorer.config);
    if (policy->needs_of != NULL)
        needs |= policy->needs_of(config);
    bool every_row = policy->observe != NULL && policy->observed_rows == NULL;
    return every_row ? needs | KV_NEEDS_EVERY_ROW : needs;
}

bool kv_retention_nested(const kv_retention *policy, const void *config)
{
    kv_scorer scorer = next_scorer(config);
    if (!(policy->claims & KV_NESTED) || (policy->nested != NULL && !policy->nested(config)))
        return false;
    return scorer.policy == NULL || kv_retention_nested(scorer.policy, scorer.config);
}

bool kv_retention_counts_only(const kv_retention *policy, const void *config)
{
    kv_scorer scorer = next_scorer(config);
    if (policy->counts_only != NULL && policy->counts_only(config))
        return true;
    return scorer.policy != NULL && kv_retention_counts_only(scorer.policy, scorer.config);
}

/* --- Settings ---------------------------------------------------------------------- */

/* Copies the shared settings among the rows of one of the flags. */
static void copy_shared(const kv_param *table, unsigned flag, const void *from, void *to)
{
    for (const kv_param *p = table; p->name != NULL; p++)
        if ((p->flags & flag) && p->offset < sizeof(kv_retention_config))
            kv_param_assign(p, from, to);
}

void kv_scorer_settle(const kv_param *outer, void *config)
{
    kv_item *item = &((kv_retention_config *)config)->scorer;
    if (item->name == NULL)
        return;
    copy_shared(item->params, KV_PARAM_OUTERMOST, config, item->config);
    kv_scorer_settle(item->params, item->config);
    copy_shared(outer, KV_PARAM_REPLACED, item->config, config);
}

/* --- Scores ------------------------------------------------------------------------ */

/* The event as the scorer sees it. */
static kv_event as_scorer(const kv_event *event, kv_scorer scorer)
{
    kv_event seen = *event;
    seen.config = scorer.config;
    seen.plan = event->scorer_plan;
    return seen;
}

void kv_scorer_score(const kv_event *event, double *score)
{
    kv_scorer scorer = next_scorer(event->config);
    kv_event seen = as_scorer(event, scorer);
    if (scorer.policy == NULL)
        kv_score_window(event, score);
    else
        scorer.policy->score(&seen, score);
}

/* Of the candidates those from first to end - 1 compete. */
static void find_rivals(const kv_event *event, int *first, int *end)
{
    kv_scorer scorer = next_scorer(event->config);
    *first = 0;
    *end = kv_score_before_window(event);
    if (scorer.policy == NULL)
        return;
    /* What it pins, whether the budget has room for it or not. */
    kv_pins pins = scorer.policy->pins != NULL
                       ? scorer.policy->pins(scorer.config, event->query, event->quota)
                       : kv_pins_outer(scorer.config, event->query, false);
    *end = event->candidates > pins.last ? event->candidates - pins.last : 0;
    while (*first < *end && event->candidate[*first] < pins.first)
        ++*first;
}

/* What adds up the scores of a layer's heads. */
typedef struct layer_scores {
    double best; /* at least 0 */
    double *sum; /* [end] NULL: not wanted */
} layer_scores;

/* Looks at the scores of each KV head, in scratch that the scorer is not given. */
static void score_layer(const kv_event *event, int first, int end, layer_scores *out)
{
    double *one = event->view->work;
    kv_view view = *event->view;
    kv_event head = *event;
    view.work += event->view->example->total_tokens;
    head.view = &view;
    head.scored = end;
    for (head.kv_head = 0; head.kv_head < view.shape->kv_heads; head.kv_head++) {
        head.state = event->states != NULL ? event->states[head.kv_head] : NULL;
        kv_scorer_score(&head, one);
        for (int k = first; k < end; k++) {
            out->best = fmax(out->best, one[k]);
            if (out->sum != NULL)
                out->sum[k] += one[k];
        }
    }
}

/* Gives all candidates but first .. end - 1 one score. */
static void pad(const kv_event *event, int first, int end, double padding, double *score)
{
    for (int k = 0; k < event->candidates; k++)
        if (k < first || k >= end)
            score[k] = padding;
}

void kv_scorer_score_padded(const kv_event *event, double *score)
{
    int first, end;
    layer_scores layer = {0};
    kv_event rivals = *event;
    find_rivals(event, &first, &end);
    if (first > 0 || end < event->candidates)
        score_layer(event, first, end, &layer);
    rivals.scored = end;
    kv_scorer_score(&rivals, score);
    pad(event, first, end, layer.best + 1, score);
}

void kv_scorer_sum_padded(const kv_event *event, double *score)
{
    int first, end;
    layer_scores layer = {.sum = score};
    find_rivals(event, &first, &end);
    memset(score, 0, (size_t)event->candidates * sizeof *score);
    score_layer(event, first, end, &layer);
    pad(event, first, end, event->view->shape->kv_heads * (layer.best + 1), score);
}

bool kv_scorer_ignores_budget(const void *config)
{
    kv_scorer scorer = next_scorer(config);
    return scorer.policy == NULL || scorer.policy->pins == NULL ||
           scorer.policy->pins == kv_pins_none;
}
