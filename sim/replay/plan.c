/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Grouping the points of a sweep into lanes, and what a lane needs of a recording. */
#include "config.h"

#include "sim/replay/lane.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool kv__scores_chunk_only(const kv_retention_config *config)
{
    return (config->evict == KV_CHUNKED || config->evict == KV_PATCHED) &&
           config->score_over == KV_OVER_CHUNK;
}

/* Whether a whole budget curve may share one ranking: kept sets are nested, and the scores do not
 * depend on what an earlier event dropped. */
static bool shares_ranking(const kv_replay_point *point)
{
    const kv_retention *policy = point->policy;
    const kv_retention_config *config = point->config;
    if (point->parts > 0 || !kv_retention_nested(policy, config))
        return false;
    if (config->evict == KV_POSTFILL)
        return true;
    if (config->evict != KV_CHUNKED && config->evict != KV_PATCHED)
        return false;
    if (point->chunk_tokens == 0)
        return true;
    unsigned rows = KV_NEEDS_OBSERVERS | KV_NEEDS_EVERY_ROW;
    bool reads_rows = kv_retention_needs(policy, config) & rows;
    return !reads_rows || kv__scores_chunk_only(config);
}

/* The amounts by which the points of one lane ascend. */
static double budget_of(const kv_replay_point *point)
{
    const kv_retention_config *config = point->config;
    if (config->budget_tokens > 0)
        return (double)config->budget_tokens;
    return config->keep >= 0 ? config->keep : (double)config->window_tokens;
}

/* What names a lane: policy, chunk, kind of budget and every setting but the budget. */
static char *lane_key(const kv_replay_point *point)
{
    const kv_retention_config *config = point->config;
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    if (out == NULL)
        return NULL;
    fprintf(out, "%s %lld %d %d ", point->policy->name, point->chunk_tokens,
            config->budget_tokens > 0, config->keep >= 0);
    kv_params_json(point->policy->params, config, KV_PARAM_BUDGET, out);
    if (fclose(out) != 0) {
        free(text);
        return NULL;
    }
    return text;
}

/* Adds a point to a group, budgets ascending. */
static kv_err group_insert(kv__group *group, const kv_replay_point *points, int index,
                           kv_diag *diag)
{
    int n = group->budgets;
    const void **config = realloc(group->config, (size_t)(n + 1) * sizeof *config);
    if (config == NULL)
        return kv_fail_memory(diag);
    group->config = config;
    int *point = realloc(group->point, (size_t)(n + 1) * sizeof *point);
    if (point == NULL)
        return kv_fail_memory(diag);
    group->point = point;
    int at = n;
    for (; at > 0 && budget_of(&points[point[at - 1]]) > budget_of(&points[index]); at--) {
        point[at] = point[at - 1];
        config[at] = config[at - 1];
    }
    point[at] = index;
    config[at] = points[index].config;
    group->budgets++;
    return KV_OK;
}

static kv_err add_point(kv_replay *replay, char **keys, const kv_replay_point *points, int index,
                        kv_diag *diag)
{
    const kv_replay_point *point = &points[index];
    char *key = shares_ranking(point) ? lane_key(point) : NULL;
    if (shares_ranking(point) && key == NULL)
        return kv_fail_memory(diag);
    for (int g = 0; key != NULL && g < replay->groups; g++) {
        if (keys[g] == NULL || strcmp(keys[g], key) != 0 ||
            replay->group[g].budgets >= KV__MAX_BUDGETS)
            continue;
        free(key);
        return group_insert(&replay->group[g], points, index, diag);
    }
    kv__group *group = &replay->group[replay->groups];
    keys[replay->groups++] = key;
    group->policy = point->policy;
    group->part = point->part;
    group->parts = point->parts;
    group->chunk_tokens = point->chunk_tokens;
    group->scorer = kv_retention_scorer(point->policy, point->config);
    kv_err err = group_insert(group, points, index, diag);
    if (err == KV_OK && point->policy->prepare != NULL)
        err = point->policy->prepare(point->config, point->directory, &replay->shape, &group->plan,
                                     diag);
    for (int i = 0; i < point->parts && err == KV_OK; i++) {
        const kv_transform *transform = point->part[i].method.transform;
        if (transform != NULL && transform->fits != NULL)
            err = transform->fits(point->part[i].config, &replay->shape, &point->mark, diag);
    }
    bool apart = group->scorer.policy != point->policy && group->scorer.policy->prepare != NULL;
    if (err == KV_OK && apart)
        err = group->scorer.policy->prepare(group->scorer.config, point->directory, &replay->shape,
                                            &group->scorer_plan, diag);
    return err == KV_OK || diag == NULL ? err : kv_fail_from(diag, &point->mark);
}

kv_err kv_replay_new(const kv_replay_point *points, int count, const kv_shape *shape,
                     const kv_replay_options *options, kv_replay **out, kv_diag *diag)
{
    kv_replay *replay = calloc(1, sizeof *replay);
    char **keys = calloc((size_t)count + 1, sizeof *keys);
    if (replay == NULL || keys == NULL) {
        free(replay);
        free(keys);
        return kv_fail_memory(diag);
    }
    replay->shape = *shape;
    replay->shape.model = replay->model = strdup(shape->model);
    replay->options = *options;
    replay->points = count;
    replay->group = calloc((size_t)count + 1, sizeof *replay->group);
    kv_err err = replay->group && replay->model ? KV_OK : kv_fail_memory(diag);
    for (int i = 0; i < count && err == KV_OK; i++)
        err = add_point(replay, keys, points, i, diag);
    for (int g = 0; g < replay->groups; g++)
        free(keys[g]);
    free(keys);
    if (err != KV_OK) {
        kv_replay_free(replay);
        return err;
    }
    *out = replay;
    return KV_OK;
}

void kv_replay_free(kv_replay *replay)
{
    if (replay == NULL)
        return;
    for (int g = 0; g < replay->groups; g++) {
        kv__group *group = &replay->group[g];
        if (group->policy->release != NULL)
            group->policy->release(group->plan);
        if (group->scorer_plan != NULL && group->scorer.policy->release != NULL)
            group->scorer.policy->release(group->scorer_plan);
        free(group->config);
        free(group->point);
    }
    free(replay->group);
    free(replay->model);
    free(replay);
}

int kv_replay_lanes(const kv_replay *replay)
{
    return replay->groups;
}

/* --- What a recording must hold ---------------------------------------------------- */

unsigned kv__group_needs(const kv__group *group)
{
    return kv_retention_needs(group->policy, group->config[0]) | kv__parts_needs(group);
}

/* part: which needs it; NULL: the retention policy. group NULL: the measures. */
static kv_err refuse(const kv__group *group, const kv_part *part, const kv_attention *trace,
                     const kv_example *example, const char *what, const char *how, kv_diag *diag)
{
    kv_mark mark = {.path = kv_attention_path(trace)};
    const char *who = "measuring", *relation = "", *other = "";
    if (part != NULL) {
        who = part->method.name;
    } else if (group != NULL) {
        who = group->policy->name;
        if (group->scorer.policy != group->policy) {
            relation = " over ";
            other = group->scorer.policy->name;
        } else if (group->parts > 0) { /* which may have brought the retention policy along */
            relation = " beside ";
            other = group->part[group->parts - 1].method.name;
        }
    }
    return kv_fail(diag, KV_ERR_UNSUPPORTED, &mark, "/examples/%s lacks %s, which %s%s%s needs: %s",
                   example->name, what, who, relation, other, how);
}

typedef struct row_range {
    int first, end; /* positions */
} row_range;

/* Positions whose rows are needed: the last ones of a prompt and what follows them, and the last
 * ones of every chunk before. */
typedef struct row_windows {
    row_range last;
    int rows, chunk; /* of each chunk that ends within the prompt; 0: of none */
    int prompt;
} row_windows;

/* Marks recorded rows of a range of positions; answers the first position that is not recorded. */
static int mark_range(const kv_example *example, row_range range, uint8_t *wanted)
{
    for (int p = range.first < 0 ? 0 : range.first; p < range.end; p++) {
        int row = kv_example_row(example, p);
        if (row < 0)
            return p;
        wanted[row] = 1;
    }
    return -1;
}

/* The last rows of every step of a lane after which entries may leave. */
static row_windows windows_of(const kv__group *group, const kv_example *example, int rows)
{
    int evict = ((const kv_retention_config *)group->config[0])->evict;
    int prompt = example->prompt_tokens, end = example->total_tokens - 1;
    bool decodes = evict == KV_STEP || evict == KV_INTERVAL || evict == KV_ONLINE;
    bool by_chunk = evict != KV_POSTFILL && evict != KV_PATCHED && evict != KV_STEP &&
                    evict != KV_INTERVAL && group->chunk_tokens < prompt;
    row_windows all = {.last = {prompt - rows > 0 ? prompt - rows : 0, prompt},
                       .rows = rows,
                       .prompt = prompt,
                       .chunk = by_chunk && rows > 0 ? (int)group->chunk_tokens : 0};
    if (all.chunk > 0 && all.chunk <= rows) { /* then windows touch */
        all.last.first = all.chunk = 0;
    }
    if (decodes && end > prompt)
        all.last.end = end;
    return all;
}

/* As mark_range. */
static int mark_windows(const kv_example *example, const row_windows *all, uint8_t *wanted)
{
    int missing = -1;
    for (int end = all->chunk; all->chunk > 0 && end < all->prompt && missing < 0;
         end += all->chunk)
        missing = mark_range(example, (row_range){end - all->rows, end}, wanted);
    return missing >= 0 ? missing : mark_range(example, all->last, wanted);
}

/* Refuses an example that lacks a dataset which the group needs. */
static kv_err check_datasets(const kv__group *group, const kv_attention *trace, const kv_example *e,
                             unsigned needs, kv_diag *diag)
{
    const struct {
        unsigned bit;
        bool has;
        const char *what, *how;
    } need[] = {
        {KV_NEEDS_KEYS, e->has_k, "keys", "record the dataset k"},
        {KV_NEEDS_VALUES, e->has_v, "values", "record the dataset v"},
        {KV_NEEDS_QUERIES, e->has_q, "queries", "record the dataset q"},
        {KV_NEEDS_EXTRA << KV_EXTRA_TOKEN_SCORES, e->has_extra[KV_EXTRA_TOKEN_SCORES],
         "learned scores of its tokens",
         "record the dataset token_scores [layers, KV heads, tokens]"},
        {KV_NEEDS_EXTRA << KV_EXTRA_RECONSTRUCTION, e->has_extra[KV_EXTRA_RECONSTRUCTION],
         "a pass that repeats the context",
         "record the dataset reconstruction [layers, heads, rows, tokens]"},
        {KV_NEEDS_EXTRA << KV_EXTRA_VALUE_OUT, e->has_extra[KV_EXTRA_VALUE_OUT],
         "the size of values behind the output projection",
         "record the dataset value_out [layers, heads, tokens], or set norm: value"},
        {KV_NEEDS_PROMPT_SCORES, e->prompt_scores != NULL, "scores of the prompt's tokens",
         "record the dataset prompt_scores [prompt_len]"},
        {KV_NEEDS_ROPE, kv_attention_rope(trace)->pairs > 0, "the rotary embedding",
         "give the file the attribute rope_theta (or the dataset rope_frequencies), or the policy "
         "its rope_theta"}};
    unsigned own = kv_retention_needs(group->policy, group->config[0]);
    for (size_t i = 0; i < sizeof need / sizeof *need; i++)
        if ((needs & need[i].bit) && !need[i].has)
            return refuse(group, own & need[i].bit ? NULL : kv__parts_needing(group, need[i].bit),
                          trace, e, need[i].what, need[i].how, diag);
    return KV_OK;
}

/* Names all that is needed, so that one new recording is enough. */
static kv_err refuse_rows(const kv__group *group, const kv_part *part, const kv_attention *trace,
                          const kv_example *example, int missing, const row_windows *all,
                          kv_diag *diag)
{
    char what[80], each[32] = "that", chunks[96] = "", last[80], how[256];
    int first = all->last.first, final = all->last.end - 1;
    snprintf(what, sizeof what, "attention rows, that of position %d the first", missing);
    if (all->rows > 1)
        snprintf(each, sizeof each, "the %d", all->rows);
    if (all->chunk > 0)
        snprintf(chunks, sizeof chunks, "%s before each multiple of %d in the prompt and ", each,
                 all->chunk);
    snprintf(last, sizeof last, "position %d", final);
    if (first < final)
        snprintf(last, sizeof last, "every position from %d to %d", first, final);
    snprintf(how, sizeof how, "record probs (or q and k) with %s%s in query_pos", chunks, last);
    return refuse(group, part, trace, example, what, how, diag);
}

/* Refuses an example with too few rows of its prompt, wherever they are. */
static kv_err check_sample(const kv__group *group, const kv_attention *trace,
                           const kv_example *example, kv_diag *diag)
{
    char what[80], how[128];
    int least = group->scorer.policy->least_prompt_rows, rows = 0;
    least = least < example->prompt_tokens ? least : example->prompt_tokens;
    while (rows < example->rows && example->query_pos[rows] < example->prompt_tokens)
        rows++;
    if (rows >= least)
        return KV_OK;
    snprintf(what, sizeof what, "enough queries of its prompt (%d are recorded)", rows);
    snprintf(how, sizeof how, "record at least %d positions below %d in query_pos, better all",
             least, example->prompt_tokens);
    return refuse(group, NULL, trace, example, what, how, diag);
}

/* The end of the rows that are needed, all from the first on; 0: not all are. */
static int all_rows_to(const kv__group *group, const kv_example *example, int observe_end)
{
    if (kv__parts_needs(group) & KV_NEEDS_EVERY_ROW)
        return example->total_tokens - 1;
    return kv__group_needs(group) & KV_NEEDS_EVERY_ROW ? observe_end : 0;
}

/* Marks rows, or refuses an example that lacks one of them. */
static kv_err want_rows(const kv__group *group, const kv_part *part, const kv_attention *trace,
                        const kv_example *example, const row_windows *all, uint8_t *wanted,
                        kv_diag *diag)
{
    int missing = mark_windows(example, all, wanted);
    return missing < 0 ? KV_OK : refuse_rows(group, part, trace, example, missing, all, diag);
}

/* The rows that parts look at, then those of the retention policy. */
static kv_err want_windows(const kv__group *group, const kv_attention *trace,
                           const kv_example *example, uint8_t *wanted, kv_diag *diag)
{
    const kv_part *part = kv__parts_needing(group, KV_NEEDS_EVENT_ROWS);
    kv_err err = KV_OK;
    if (part != NULL) {
        row_windows events = windows_of(group, example, 1);
        err = want_rows(group, part, trace, example, &events, wanted, diag);
    }
    int prompt = example->prompt_tokens;
    long long observers = kv__parts_observers(group, &part);
    row_windows last = {.last = {observers < prompt ? prompt - (int)observers : 0, prompt}};
    if (err == KV_OK)
        err = want_rows(group, part, trace, example, &last, wanted, diag);
    if (err != KV_OK || !(kv_retention_needs(group->policy, group->config[0]) & KV_NEEDS_OBSERVERS))
        return err;
    long long rows = kv_retention_observers(group->policy, group->config[0], example);
    row_windows own = windows_of(group, example, rows < prompt ? (int)rows : prompt);
    return want_rows(group, NULL, trace, example, &own, wanted, diag);
}

static kv_err check_group(const kv__group *group, const kv_attention *trace,
                          const kv_example *example, int observe_end, uint8_t *wanted,
                          kv_diag *diag)
{
    unsigned needs = kv__group_needs(group);
    int all_to = all_rows_to(group, example, observe_end);
    kv_err err = check_datasets(group, trace, example, needs, diag);
    if (err == KV_OK)
        err = check_sample(group, trace, example, diag);
    if (err != KV_OK)
        return err;
    const row_windows every = {.last = {0, all_to}};
    err = want_rows(group, kv__parts_needing(group, KV_NEEDS_EVERY_ROW), trace, example, &every,
                    wanted, diag);
    if (err == KV_OK && (kv__parts_needs(group) & KV_NEEDS_MODALITY) && example->modality == NULL)
        err = refuse(group, kv__parts_needing(group, KV_NEEDS_MODALITY), trace, example,
                     "which tokens are text and which image", "record the dataset modality", diag);
    return err == KV_OK ? want_windows(group, trace, example, wanted, diag) : err;
}

kv_err kv__replay_wanted(const kv_replay *replay, const kv_attention *trace,
                         const kv_example *example, uint8_t *wanted, kv_diag *diag)
{
    for (int t = 0; t < example->turns; t++) {
        const kv_turn *turn = &example->turn[t];
        row_range rows = {turn->answer_start - 1, turn->answer_end - 1};
        if (mark_range(example, rows, wanted) >= 0)
            return refuse(NULL, NULL, trace, example, "rows that predict answer tokens",
                          "record positions answer_start-1 .. answer_end-2 of each turn", diag);
    }
    for (int g = 0; g < replay->groups; g++) {
        const kv__group *group = &replay->group[g];
        kv_err err =
            check_group(group, trace, example, kv__observe_end(group, example), wanted, diag);
        if (err != KV_OK)
            return err;
    }
    return KV_OK;
}

static kv_err check_one(const kv_replay *replay, const kv_attention *trace,
                        const kv_example *example, kv_diag *diag)
{
    uint8_t *wanted = calloc((size_t)example->rows + 1, 1);
    if (wanted == NULL)
        return kv_fail_memory(diag);
    kv_err err = kv__replay_wanted(replay, trace, example, wanted, diag);
    free(wanted);
    return err;
}

kv_err kv_replay_check(const kv_replay *replay, const kv_attention *trace, int example,
                       kv_diag *diag)
{
    kv_example seen;
    int leader;
    kv_err err = kv__shared_example(replay, trace, example, &seen, &leader, diag);
    if (err == KV_OK)
        err = check_one(replay, trace, &seen, diag);
    if (err == KV_OK && leader != example)
        err = check_one(replay, trace, kv_attention_example(trace, leader), diag);
    return err;
}
