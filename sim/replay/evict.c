/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* One eviction event: candidates are scored, ranked, and all beyond the quota leave for good. */
#include "config.h"

#include "sim/replay/lane.h"

#include <stdlib.h>
#include <string.h>

/* One KV head's part of the event. */
typedef struct head_event {
    int32_t *candidate; /* [candidates] positions, ascending */
    int candidates;
    int first;      /* candidates[0..first) are sinks, which no budget needs ranked */
    int32_t *order; /* [ranked] candidate indices from best to worst, pins left out */
    int ranked;
    double *score;    /* [ranked] in that order */
    uint8_t *level;   /* [candidates] least budget that keeps it */
    long long *quota; /* [budgets] */
    kv_pins *pins;    /* [budgets] */
} head_event;

typedef struct scratch {
    kv__ranker *ranker;
    int32_t *present;
    double *score;
    head_event *head; /* [kv_heads] */
    const double **ranked_score;
    const double **state; /* [kv_heads] of the lane that is asked */
    int *ranked;
    long long *counts;
    int kv_heads;
} scratch;

static kv_err head_event_init(head_event *head, int tokens, kv_diag *diag)
{
    size_t n = (size_t)tokens + 1;
    head->candidate = malloc(n * sizeof *head->candidate);
    head->order = malloc(n * sizeof *head->order);
    head->score = malloc(n * sizeof *head->score);
    head->level = malloc(n);
    head->quota = malloc((KV__MAX_BUDGETS + 1) * sizeof *head->quota);
    head->pins = malloc((KV__MAX_BUDGETS + 1) * sizeof *head->pins);
    if (!head->candidate || !head->order || !head->score || !head->level || !head->quota ||
        !head->pins)
        return kv_fail_memory(diag);
    return KV_OK;
}

kv_err kv__scratch_new(int kv_heads, int tokens, void **out, kv_diag *diag)
{
    scratch *s = calloc(1, sizeof *s);
    if (s == NULL)
        return kv_fail_memory(diag);
    s->kv_heads = kv_heads;
    s->head = calloc((size_t)kv_heads, sizeof *s->head);
    s->present = malloc((size_t)(tokens + 1) * sizeof *s->present);
    s->score = malloc((size_t)(tokens + kv_heads) * sizeof *s->score);
    s->ranked_score = malloc((size_t)kv_heads * sizeof *s->ranked_score);
    s->state = malloc((size_t)kv_heads * sizeof *s->state);
    s->ranked = malloc((size_t)kv_heads * sizeof *s->ranked);
    s->counts = malloc((size_t)kv_heads * sizeof *s->counts);
    kv_err err = KV_OK;
    if (!s->head || !s->present || !s->score || !s->ranked_score || !s->state || !s->ranked ||
        !s->counts)
        err = kv_fail_memory(diag);
    for (int h = 0; h < kv_heads && err == KV_OK; h++)
        err = head_event_init(&s->head[h], tokens, diag);
    if (err == KV_OK)
        err = kv__ranker_new(tokens, &s->ranker, diag);
    if (err != KV_OK) {
        kv__scratch_free(s);
        return err;
    }
    *out = s;
    return KV_OK;
}

void kv__scratch_free(void *opaque)
{
    scratch *s = opaque;
    if (s == NULL)
        return;
    for (int h = 0; s->head != NULL && h < s->kv_heads; h++) {
        free(s->head[h].candidate);
        free(s->head[h].order);
        free(s->head[h].score);
        free(s->head[h].level);
        free(s->head[h].quota);
        free(s->head[h].pins);
    }
    kv__ranker_free(s->ranker);
    free(s->head);
    free(s->present);
    free(s->score);
    free(s->ranked_score);
    free(s->state);
    free(s->ranked);
    free(s->counts);
    free(s);
}

kv_err kv__list_push(kv__list *list, int32_t position, kv_diag *diag)
{
    if (list->count == list->capacity) {
        int capacity = list->capacity ? 2 * list->capacity : 64;
        int32_t *at = realloc(list->at, (size_t)capacity * sizeof *at);
        if (at == NULL)
            return kv_fail_memory(diag);
        list->at = at;
        list->capacity = capacity;
    }
    list->at[list->count++] = position;
    return KV_OK;
}

/* --- What competes ----------------------------------------------------------------- */

typedef enum scope { NOBODY, OWN_CHUNK, ALL } scope;

static scope event_scope(const kv__lane *lane, const kv_example *example)
{
    const kv_retention_config *config = lane->group->config[0];
    int prompt = example->prompt_tokens, end = lane->step_end;
    bool prefill = lane->step_start < prompt, filled = end == prompt;
    if (!prefill && end == example->total_tokens)
        return NOBODY; /* no row follows that could tell */
    switch ((kv_schedule)config->evict) {
    case KV_POSTFILL:
        return filled && prefill ? ALL : NOBODY;
    case KV_CHUNKED:
    case KV_PATCHED:
        return prefill ? OWN_CHUNK : NOBODY;
    case KV_POOL:
        return prefill ? ALL : NOBODY;
    case KV_STEP:
        return filled || !prefill ? ALL : NOBODY;
    case KV_INTERVAL:
        if (prefill)
            return filled ? ALL : NOBODY;
        return (end - prompt) % config->interval_steps == 0 ? ALL : NOBODY;
    case KV_ONLINE:
        return ALL;
    }
    return NOBODY;
}

static kv_quota_query make_query(const kv__lane *lane, const kv__stage *stage, int kv_head,
                                 scope who, int candidates)
{
    const kv_retention_config *config = lane->group->config[0];
    const kv_shape *shape = &stage->replay->shape;
    bool last = lane->step_end >= stage->example->prompt_tokens;
    return (kv_quota_query){.layer = stage->view.layer,
                            .layers = shape->layers,
                            .kv_head = kv_head,
                            .kv_heads = shape->kv_heads,
                            .candidates = candidates,
                            .prompt_tokens = stage->example->prompt_tokens,
                            .question_tokens = kv_example_question_tokens(stage->example),
                            .own_chunk = who == OWN_CHUNK,
                            .pin_window = config->evict != KV_PATCHED || last,
                            .plan = lane->group->plan,
                            .memo = lane->memo};
}

static int count_candidates(const kv__lane *lane, const kv__lane_head *head, scope who)
{
    if (who == OWN_CHUNK)
        return lane->step_end - lane->step_start;
    return head->level[0].count + lane->step_end - head->tail_first;
}

/* Fills the quotas and pins of one head; answers whether any budget drops anything. */
static bool ask_quota(const kv__lane *lane, const kv__stage *stage, int kv_head, scope who,
                      head_event *event)
{
    const kv__group *group = lane->group;
    event->candidates = count_candidates(lane, &lane->head[kv_head], who);
    kv_quota_query query = make_query(lane, stage, kv_head, who, event->candidates);
    bool drops = false;
    for (int b = 0; b < group->budgets; b++) {
        long long quota = kv_retention_quota(group->policy, group->config[b], &query);
        quota = quota < 0 ? 0 : quota > event->candidates ? event->candidates : quota;
        event->quota[b] = quota;
        event->pins[b] = kv_retention_pins(group->policy, group->config[b], &query, quota);
        drops = drops || quota < event->candidates;
    }
    return drops;
}

/* --- Policies without a score: the newest stay, and the tail just moves on ----------------------
 */

static kv_err evict_oldest(kv__lane *lane, int kv_head, const head_event *event, kv_diag *diag)
{
    kv__lane_head *head = &lane->head[kv_head];
    long long quota = event->quota[0];
    if (quota >= event->candidates)
        return KV_OK;
    int sinks = event->pins[0].first, end = lane->step_end;
    int newest = (int)quota - (sinks < end ? sinks : end);
    int tail = end - (newest > 0 ? newest : 0);
    for (int p = head->tail_first; p < tail; p++) {
        int level = p < sinks ? 0 : KV__DEAD;
        head->level_of[p] = (uint8_t)level;
        kv__pages_settle(&lane->pages, p, level);
        if (level == 0) {
            kv_err err = kv__list_push(&head->level[0], p, diag);
            if (err != KV_OK)
                return err;
        }
    }
    if (tail > head->tail_first)
        head->tail_first = tail;
    return KV_OK;
}

/* --- Policies with a score ---------------------------------------------------------------------
 */

static void collect_candidates(const kv__lane *lane, const kv__lane_head *head, scope who,
                               head_event *event)
{
    int n = 0, first = who == OWN_CHUNK ? lane->step_start : head->tail_first;
    if (who == ALL)
        for (; n < head->level[0].count; n++)
            event->candidate[n] = head->level[0].at[n];
    for (int p = first; p < lane->step_end; p++)
        event->candidate[n++] = p;
    event->candidates = n;
}

static int count_sinks(const head_event *head, int budget)
{
    int n = 0;
    while (n < head->candidates && head->candidate[n] < head->pins[budget].first)
        n++;
    return n;
}

/* Candidates that one budget pins as sinks, and as its newest. A budget without room for all pins
 * has room for nothing else: sinks go first, then the newest, unless the policy has it the other
 * way round. */
static int pinned_first(const head_event *head, int budget)
{
    int n = count_sinks(head, budget), room = (int)head->quota[budget];
    if (head->pins[budget].newest_first)
        room -= head->pins[budget].last < room ? head->pins[budget].last : room;
    return n < room ? n : room;
}

/* Where the pinned sinks begin: the newest of them stay if not all do and newer ones go first. */
static int pinned_from(const head_event *head, int budget)
{
    if (!head->pins[budget].newest_first)
        return 0;
    int before = head->candidates - head->pins[budget].last;
    int n = count_sinks(head, budget), pinned = pinned_first(head, budget);
    n = n < before ? n : before;
    return n > pinned ? n - pinned : 0;
}

static int pinned_last(const head_event *head, int budget)
{
    int first = pinned_first(head, budget), last = head->pins[budget].last;
    int room = (int)head->quota[budget] - first;
    int others = head->candidates - first;
    last = last < room ? last : room;
    return last < others ? last : others;
}

/* The candidates that compete for what pins leave: those which some budget with room for more than
 * pins does not pin. Budgets without room look at no score. */
static void find_rivals(const head_event *head, int budgets, int *first, int *end)
{
    *first = head->candidates;
    *end = 0;
    for (int b = 0; b < budgets; b++) {
        int sinks = pinned_first(head, b), newest = pinned_last(head, b);
        if (sinks + newest >= head->quota[b])
            continue;
        *first = sinks < *first ? sinks : *first;
        *end = head->candidates - newest > *end ? head->candidates - newest : *end;
    }
    *first = *first < *end ? *first : *end;
}

static int collect_present(const kv__lane *lane, const kv__lane_head *head, int32_t *present)
{
    int n = 0;
    for (; n < head->level[0].count; n++)
        present[n] = head->level[0].at[n];
    for (int p = head->tail_first; p < lane->step_end; p++)
        present[n++] = p;
    return n;
}

static void observation_window(const kv__lane *lane, const kv__stage *stage, kv_event *event)
{
    const kv_retention_config *config = lane->group->config[0];
    int rows = (int)kv_retention_observers(lane->group->policy, config, stage->example);
    int prompt = stage->example->prompt_tokens;
    event->observer_end = lane->step_end;
    if (config->evict == KV_PATCHED && lane->step_end < prompt)
        event->observer_end = prompt;
    event->observer_first = event->observer_end - rows > 0 ? event->observer_end - rows : 0;
    event->observers_probe = event->observer_end > lane->step_end;
    bool chunked = config->evict == KV_CHUNKED || config->evict == KV_PATCHED;
    if (chunked && !event->observers_probe && event->observer_first < lane->step_start)
        event->observer_first = lane->step_start;
    event->restrict_to_chunk = kv__scores_chunk_only(config);
}

/* What a head's policy sees of it, candidates 0 .. scored - 1 being those that are to be scored. */
static kv_event make_event(kv__lane *lane, kv__stage *stage, int kv_head, int scored,
                           const kv_quota_query *query, scratch *s)
{
    const kv__group *group = lane->group;
    const head_event *head = &s->head[kv_head];
    kv_event event = {.view = &stage->view,
                      .config = group->config[0],
                      .plan = group->plan,
                      .memo = lane->memo,
                      .kv_head = kv_head,
                      .candidate = head->candidate,
                      .candidates = head->candidates,
                      .scored = scored,
                      .present = s->present,
                      .presents = collect_present(lane, &lane->head[kv_head], s->present),
                      .chunk_start = lane->step_start,
                      .chunk_end = lane->step_end,
                      .state = lane->head[kv_head].state,
                      .states = s->state,
                      .scorer_plan = group->scorer_plan,
                      .query = query,
                      .quota = head->quota[0]};
    event.room = head->quota[0] - pinned_first(head, 0) - pinned_last(head, 0);
    observation_window(lane, stage, &event);
    return event;
}

static void score_head(kv__lane *lane, kv__stage *stage, int kv_head, scope who, scratch *s)
{
    const kv__group *group = lane->group;
    head_event *head = &s->head[kv_head];
    int end;
    find_rivals(head, group->budgets, &head->first, &end);
    kv_quota_query query = make_query(lane, stage, kv_head, who, head->candidates);
    kv_event event = make_event(lane, stage, kv_head, end, &query, s);
    if (group->policy->score != NULL)
        group->policy->score(&event, s->score);
    for (int k = 0; k < event.scored && group->policy->score == NULL; k++)
        s->score[k] = event.candidate[k];
    kv__parts_prior(group, &event, s->score);
    head->ranked = event.scored > head->first ? event.scored - head->first : 0;
    kv__rank(s->ranker, s->score + head->first, head->ranked, head->order);
    for (int r = 0; r < head->ranked; r++) {
        head->order[r] += head->first;
        head->score[r] = s->score[head->order[r]];
    }
    for (int b = 0; b < group->budgets && group->policy->resize != NULL; b++) {
        long long quota = group->policy->resize(group->config[b], &event, s->score, head->order,
                                                head->ranked, head->quota[b]);
        head->quota[b] = quota < head->candidates ? quota : head->candidates;
    }
}

/* Lets the policy divide the layer's budget among its heads. */
static void allocate(const kv__lane *lane, const kv__stage *stage, scope who, int budget,
                     scratch *s)
{
    const kv_retention *policy = lane->group->policy;
    int heads = s->kv_heads;
    bool drops = false;
    for (int h = 0; h < heads; h++)
        drops |= s->head[h].quota[budget] < s->head[h].candidates;
    if (policy->allocate == NULL || !drops) /* whatever other budgets of the lane drop */
        return;
    for (int h = 0; h < heads; h++) {
        const head_event *head = &s->head[h];
        s->ranked_score[h] = head->score;
        s->ranked[h] = head->ranked;
        s->counts[h] = head->quota[budget] - pinned_first(head, budget) - pinned_last(head, budget);
    }
    kv_quota_query query = make_query(lane, stage, 0, who, s->head[0].candidates);
    policy->allocate(lane->group->config[budget], &query, heads, s->ranked_score, s->ranked,
                     s->score, s->counts);
    for (int h = 0; h < heads; h++) {
        head_event *head = &s->head[h];
        int pinned = pinned_first(head, budget) + pinned_last(head, budget);
        head->quota[budget] = s->counts[h] + pinned;
    }
}

static void lower(uint8_t *level, int budget)
{
    if (*level > budget)
        *level = (uint8_t)budget;
}

/* Marks what one budget keeps: pins, then the best of the rest. */
static void mark_kept(head_event *head, int budget)
{
    int first = pinned_first(head, budget), last = head->candidates - pinned_last(head, budget);
    int from = pinned_from(head, budget);
    long long room = head->quota[budget] - first - pinned_last(head, budget);
    for (int k = from; k < from + first; k++)
        lower(&head->level[k], budget);
    for (int k = last; k < head->candidates; k++)
        lower(&head->level[k], budget);
    for (int r = 0; r < head->ranked && room > 0; r++) {
        if (head->order[r] < first || head->order[r] >= last)
            continue;
        lower(&head->level[head->order[r]], budget);
        room--;
    }
}

/* Entries of the tail before the candidates stay at every budget. */
static kv_err settle_tail(kv__lane *lane, kv__lane_head *head, int before, kv_diag *diag)
{
    for (int p = head->tail_first; p < before; p++) {
        kv__pages_settle(&lane->pages, p, 0);
        kv_err err = kv__list_push(&head->level[0], p, diag);
        if (err != KV_OK)
            return err;
    }
    return KV_OK;
}

/* Moves the survivors into the kept lists. */
static kv_err apply(kv__lane *lane, int kv_head, scope who, const head_event *event, kv_diag *diag)
{
    kv__lane_head *head = &lane->head[kv_head];
    int tail = head->tail_first;
    if (who == OWN_CHUNK) {
        kv_err err = settle_tail(lane, head, lane->step_start, diag);
        if (err != KV_OK)
            return err;
        tail = lane->step_start;
    } else {
        head->level[0].count = 0;
    }
    for (int k = 0; k < event->candidates; k++) {
        int position = event->candidate[k], level = event->level[k];
        head->level_of[position] = (uint8_t)level;
        if (position >= tail)
            kv__pages_settle(&lane->pages, position, level);
        else if (level == KV__DEAD)
            kv__pages_drop(&lane->pages, position);
        if (level == KV__DEAD)
            continue;
        kv_err err = kv__list_push(&head->level[level], position, diag);
        if (err != KV_OK)
            return err;
    }
    head->tail_first = lane->step_end;
    return KV_OK;
}

static kv_err evict_ranked(kv__lane *lane, kv__stage *stage, scope who, scratch *s, kv_diag *diag)
{
    for (int h = 0; h < s->kv_heads; h++) {
        collect_candidates(lane, &lane->head[h], who, &s->head[h]);
        memset(s->head[h].level, KV__DEAD, (size_t)s->head[h].candidates);
        s->state[h] = lane->head[h].state;
    }
    for (int h = 0; h < s->kv_heads; h++)
        score_head(lane, stage, h, who, s);
    kv_err err = KV_OK;
    for (int b = 0; b < lane->group->budgets; b++) {
        allocate(lane, stage, who, b, s);
        for (int h = 0; h < s->kv_heads; h++)
            mark_kept(&s->head[h], b);
    }
    for (int h = 0; h < s->kv_heads && err == KV_OK; h++)
        err = apply(lane, h, who, &s->head[h], diag);
    return err;
}

kv_err kv__lane_evict(kv__lane *lane, kv__stage *stage, kv_diag *diag)
{
    scope who = event_scope(lane, stage->example);
    scratch *s = stage->scratch;
    if (who == NOBODY)
        return KV_OK;
    bool drops = lane->group->policy->resize != NULL;
    for (int h = 0; h < s->kv_heads; h++)
        drops |= ask_quota(lane, stage, h, who, &s->head[h]);
    if (!drops)
        return KV_OK;
    if (lane->group->policy->score != NULL || who != ALL || lane->group->budgets > 1 ||
        kv__parts_has_prior(lane->group))
        return evict_ranked(lane, stage, who, s, diag);
    kv_err err = KV_OK;
    for (int h = 0; h < s->kv_heads && err == KV_OK; h++)
        err = evict_oldest(lane, h, &s->head[h], diag);
    return err;
}
