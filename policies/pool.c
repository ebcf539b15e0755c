/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/pool.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double ROUNDING = 1e-9; /* of sums of means */

/* Quotas of all heads for each budget. */
typedef struct pool_memo {
    const void *const *config;    /* [budgets], borrowed */
    int budgets, kv_heads, heads; /* heads: of all layers */
    long long *quota;             /* [budgets][heads] */
} pool_memo;

/* All scores of an example, and what they are ranked by. */
typedef struct pooling {
    const kv_pool_scores *what;
    int tokens;      /* ranked ones of each head: those from first on */
    int first, last; /* pinned ones before and after them */
    int heads;       /* of all layers */
    float *score;    /* [heads][tokens] */
    float *sorted;   /* [heads * tokens] scratch */
    int32_t *position;
    double *one; /* [prompt + layers] of one head, or scratch */
} pooling;

void kv_pool_memo_free(void *opaque)
{
    pool_memo *memo = opaque;
    if (memo != NULL)
        free(memo->quota);
    free(memo);
}

long long kv_pool_memo_quota(const void *config, const kv_quota_query *query)
{
    const pool_memo *memo = query->memo;
    for (int b = 0; memo != NULL && b < memo->budgets; b++)
        if (memo->config[b] == config)
            return memo
                ->quota[(size_t)b * (size_t)memo->heads +
                        (size_t)query->layer * (size_t)memo->kv_heads + (size_t)query->kv_head];
    return kv_quota_uniform(config, query);
}

/* --- Scores ------------------------------------------------------------------------ */

/* The event after the prompt, with nothing left yet. */
static void score_head(pooling *p, int layer, int kv_head)
{
    const kv_example *example = p->what->view.example;
    int prompt = example->prompt_tokens;
    kv_view view = p->what->view;
    view.layer = layer;
    kv_event event = {.view = &view,
                      .config = p->what->config,
                      .kv_head = kv_head,
                      .candidate = p->position,
                      .candidates = prompt,
                      .scored = prompt - p->last,
                      .present = p->position,
                      .presents = prompt,
                      .observer_first = prompt - p->what->window > 0 ? prompt - p->what->window : 0,
                      .observer_end = prompt,
                      .chunk_end = prompt};
    p->what->score(&event, p->one);
    float *out = p->score + (size_t)(layer * view.shape->kv_heads + kv_head) * (size_t)p->tokens;
    for (int k = 0; k < p->tokens; k++)
        out[k] = (float)p->one[p->first + k];
}

/* Rows of the window alone are read. */
static kv_err score_layers(pooling *p, kv_diag *diag)
{
    const kv_view *view = &p->what->view;
    const kv_example *example = view->example;
    uint8_t *wanted = calloc((size_t)example->rows + 1, 1);
    if (wanted == NULL)
        return kv_fail_memory(diag);
    for (int r = 0; r < example->rows; r++)
        wanted[r] = example->query_pos[r] < example->prompt_tokens &&
                    example->query_pos[r] >= example->prompt_tokens - p->what->window;
    kv_err err = KV_OK;
    for (int l = 0; l < view->shape->layers && err == KV_OK; l++) {
        err = kv_layer_load(view->source, l, p->what->want, wanted, diag);
        for (int h = 0; h < view->shape->kv_heads && err == KV_OK; h++)
            score_head(p, l, h);
    }
    free(wanted);
    return err;
}

/* --- Ranking ----------------------------------------------------------------------- */

static int compare_descending(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x < y) - (x > y);
}

/* Counts, for the heads first..end-1, how many of the best `room` of all their scores each has. */
static void count_best(pooling *p, int first, int end, long long room, long long *count)
{
    size_t n = (size_t)(end - first) * (size_t)p->tokens;
    const float *score = p->score + (size_t)first * (size_t)p->tokens;
    memset(count + first, 0, (size_t)(end - first) * sizeof *count);
    if (room <= 0 || n == 0)
        return;
    room = room < (long long)n ? room : (long long)n;
    memcpy(p->sorted, score, n * sizeof *score);
    qsort(p->sorted, n, sizeof *score, compare_descending);
    float least = p->sorted[room - 1];
    long long ties = room;
    for (size_t i = 0; i < n; i++)
        ties -= score[i] > least;
    for (size_t i = 0; i < n; i++)
        if (score[i] > least || (score[i] == least && ties-- > 0))
            count[first + (int)(i / (size_t)p->tokens)]++;
}

/* What every head of a layer gets: the layer's mean, at most `most` times the mean of all. */
static double mean_count(const pooling *p, int first, double mean, const long long *count)
{
    int kv_heads = p->what->view.shape->kv_heads;
    double sum = 0;
    for (int h = first; h < first + kv_heads; h++)
        sum += (double)count[h];
    bool capped = p->what->most > 0 && sum > p->what->most * mean * kv_heads;
    return capped ? p->what->most * mean : sum / kv_heads;
}

/* Heads of a layer get equal counts. Layers' means become whole numbers by largest remainder (ties:
 * lower layer), so that their sum is what it was, rounded down. */
static void even_out(pooling *p, double mean, long long *count)
{
    int kv_heads = p->what->view.shape->kv_heads, layers = p->heads / kv_heads;
    double sum = 0, *rest = p->one;
    long long whole = 0;
    for (int l = 0; l < layers; l++) {
        double each = mean_count(p, l * kv_heads, mean, count);
        sum += each;
        rest[l] = each - floor(each);
        whole += count[l * kv_heads] = (long long)floor(each);
    }
    for (long long left = (long long)floor(sum + ROUNDING) - whole; left > 0; left--) {
        int most = 0;
        for (int l = 1; l < layers; l++)
            most = rest[l] > rest[most] + ROUNDING ? l : most;
        rest[most] = -1;
        count[most * kv_heads]++;
    }
    for (int h = 0; h < p->heads; h++)
        count[h] = count[h / kv_heads * kv_heads];
}

/* All that `heads` heads keep together, which all prompts' entries of theirs are rounded at once
 * for, and with equal heads one head's times their number. */
static long long shared_total(const pooling *p, const kv_retention_config *config, int heads)
{
    int prompt = p->what->view.example->prompt_tokens;
    double entries = (double)prompt * heads;
    if (p->what->even_heads) {
        kv_quota_query query = {.candidates = prompt, .prompt_tokens = prompt};
        return kv_quota_uniform(config, &query) * heads;
    }
    long long total = kv_quota_share(config, entries, (double)config->budget_tokens * heads);
    return total < (long long)entries ? total : (long long)entries;
}

/* Pins first, as far as they go: the first heads get one more where they cannot be divided evenly;
 * the rest by score. */
static void fill_quotas(pooling *p, const kv_retention_config *config, long long *quota)
{
    int step = p->what->per_layer ? p->what->view.shape->kv_heads : p->heads;
    long long total = shared_total(p, config, step), pins = p->first + p->last;
    for (int h = 0; h < p->heads; h += step)
        count_best(p, h, h + step, total - pins * step, quota);
    if (p->what->even_heads)
        even_out(p, fmax(0, (double)total / step - (double)pins), quota);
    for (int h = 0; h < p->heads; h++) {
        long long even = total / step + (h % step < total % step);
        quota[h] += pins < even ? pins : even;
    }
}

/* --- Making one -------------------------------------------------------------------- */

static kv_err pooling_init(pooling *p, const kv_pool_scores *what, kv_diag *diag)
{
    const kv_shape *shape = what->view.shape;
    int prompt = what->view.example->prompt_tokens;
    int pinned = what->question > what->window ? what->question : what->window;
    *p = (pooling){.what = what, .heads = shape->layers * shape->kv_heads};
    p->first = what->sinks < prompt ? what->sinks : prompt;
    p->last = pinned < prompt - p->first ? pinned : prompt - p->first;
    p->tokens = prompt - p->first - p->last;
    size_t n = (size_t)p->heads * (size_t)p->tokens + 1;
    p->score = malloc(n * sizeof *p->score);
    p->sorted = malloc(n * sizeof *p->sorted);
    p->position = malloc((size_t)prompt * sizeof *p->position);
    p->one = malloc((size_t)(prompt + shape->layers) * sizeof *p->one);
    if (!p->score || !p->sorted || !p->position || !p->one)
        return kv_fail_memory(diag);
    for (int i = 0; i < prompt; i++)
        p->position[i] = i;
    return KV_OK;
}

static void pooling_fini(pooling *p)
{
    free(p->score);
    free(p->sorted);
    free(p->position);
    free(p->one);
}

kv_err kv_pool_memo_new(const kv_pool_scores *scores, const void *const *config, int budgets,
                        void **out, kv_diag *diag)
{
    pooling p;
    pool_memo *memo = calloc(1, sizeof *memo);
    kv_err err = pooling_init(&p, scores, diag);
    if (memo == NULL || err != KV_OK) {
        err = kv_fail_memory(diag);
    } else {
        *memo = (pool_memo){.config = config,
                            .budgets = budgets,
                            .kv_heads = scores->view.shape->kv_heads,
                            .heads = p.heads};
        memo->quota = calloc((size_t)budgets * (size_t)p.heads, sizeof *memo->quota);
        err = memo->quota != NULL ? score_layers(&p, diag) : kv_fail_memory(diag);
    }
    for (int b = 0; b < budgets && err == KV_OK; b++)
        fill_quotas(&p, config[b], memo->quota + (size_t)b * (size_t)p.heads);
    pooling_fini(&p);
    if (err != KV_OK) {
        kv_pool_memo_free(memo);
        return err;
    }
    *out = memo;
    return KV_OK;
}
