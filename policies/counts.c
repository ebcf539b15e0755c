/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/counts.h"

#include <math.h>
#include <stdlib.h>

static kv_schedule schedule_of(const kv_counts_rule *rule)
{
    return (kv_schedule)((const kv_retention_config *)rule->config)->evict;
}

static bool is_split(const kv_counts_rule *rule)
{
    return rule->plan == NULL && rule->profile == NULL && rule->policy->head_share != NULL;
}

int kv_counts_groups(const kv_counts_rule *rule)
{
    if (rule->plan != NULL || rule->profile != NULL)
        return rule->kv_heads;
    return is_split(rule) ? 2 : 1;
}

double kv_counts_group_heads(const kv_counts_rule *rule, int group)
{
    if (rule->plan != NULL || rule->profile != NULL)
        return 1;
    if (!is_split(rule))
        return rule->kv_heads;
    double share = rule->policy->head_share(rule->config);
    return rule->kv_heads * (group == 0 ? share : 1 - share);
}

/* What a profile makes of a quota. */
static long long by_profile(const kv_counts_rule *rule, const kv_quota_query *of)
{
    kv_quota_query query = *of;
    if (!query.own_chunk)
        query.candidates = query.prompt_tokens;
    double share = rule->profile[query.layer * rule->kv_heads + query.kv_head];
    return (long long)floor(share * (double)kv_retention_quota(rule->policy, rule->config, &query) +
                            0.5);
}

/* How many of `candidates` entries stay when the policy is asked. */
static long long stay(const kv_counts_rule *rule, int layer, int group, long long candidates,
                      bool own_chunk)
{
    kv_quota_query query = {
        .layer = layer,
        .layers = rule->layers,
        .kv_head = group,
        .kv_heads = is_split(rule) ? 2 : rule->kv_heads,
        .candidates = (int)candidates,
        .prompt_tokens = (int)rule->prompt_tokens,
        .own_chunk = own_chunk,
        .pin_window = true,
        .published = rule->published,
        .plan = rule->plan,
    };
    long long quota = rule->profile != NULL
                          ? by_profile(rule, &query)
                          : kv_retention_quota(rule->policy, rule->config, &query);
    return quota < 0 ? 0 : quota < candidates ? quota : candidates;
}

long long kv_counts_after(const kv_counts_rule *rule, int layer, int group, kv_block_kind kind,
                          long long retained, long long tokens)
{
    bool evicts = true;
    switch (schedule_of(rule)) {
    case KV_CHUNKED:
    case KV_PATCHED:
        return retained +
               (kind == KV_BLOCK_DECODE ? tokens : stay(rule, layer, group, tokens, true));
    case KV_POSTFILL:
        evicts = kind == KV_BLOCK_PROMPT_END;
        break;
    case KV_POOL:
        evicts = kind != KV_BLOCK_DECODE;
        break;
    case KV_STEP:
    case KV_INTERVAL:
        evicts = kind != KV_BLOCK_PROMPT;
        break;
    case KV_ONLINE:
        break;
    }
    long long present = retained + tokens;
    return evicts ? stay(rule, layer, group, present, false) : present;
}

long long kv_counts_decode_interval(const kv_counts_rule *rule)
{
    switch (schedule_of(rule)) {
    case KV_STEP:
    case KV_ONLINE:
        return 1;
    case KV_INTERVAL:
        return ((const kv_retention_config *)rule->config)->interval_steps;
    default:
        return 0;
    }
}

/* Where the local tail starts, which is one chunk whatever the chunk size. */
static long long body_of(const kv_counts_rule *rule)
{
    return rule->prompt_tokens -
           (rule->policy->local_tail ? rule->policy->local_tail(rule->config) : 0);
}

long long kv_counts_chunk_end(const kv_counts_rule *rule, long long chunk_tokens, long long start)
{
    long long body = body_of(rule);
    if (start >= body)
        return rule->prompt_tokens;
    return chunk_tokens > 0 && chunk_tokens < body - start ? start + chunk_tokens : body;
}

/* --- Equal blocks in a row ----------------------------------------------------------------------
 */

/* Equal blocks of one head: block i of `blocks` finds past + i*growth entries. */
typedef struct run {
    long long first; /* number of the first block in the sequence */
    long long blocks, tokens, past, growth;
    bool decode;
} run;

/* The runs of heads that keep equal counts. */
typedef struct head_class {
    double heads;
    long long cap; /* entries that the layer's window lets stay between steps */
    int runs;
    run *run;
} head_class;

/* Where a head is in its sequence; collects its runs in `class` unless that is NULL. */
typedef struct walk {
    const kv_counts_rule *rule;
    int layer, group;
    long long cap, past, block;
    head_class *class;
    bool exhausted; /* memory was */
} walk;

static long long after(const walk *w, kv_block_kind kind, long long past, long long tokens)
{
    long long kept = kv_counts_after(w->rule, w->layer, w->group, kind, past, tokens);
    return kept < w->cap ? kept : w->cap;
}

static void emit(walk *w, const run *new)
{
    head_class *class = w->class;
    if (class == NULL || w->exhausted)
        return;
    if ((class->runs & (class->runs - 1)) == 0) { /* room is doubled at powers of two */
        size_t room = class->runs == 0 ? 1 : 2 * (size_t) class->runs;
        run *grown = realloc(class->run, room * sizeof *grown);
        w->exhausted = grown == NULL;
        if (w->exhausted)
            return;
        class->run = grown;
    }
    class->run[class->runs++] = *new;
}

/* How many of `blocks` blocks in a row grow by `growth`. Growth that has stopped does not come
 * back: budgets and windows are bounds, so a bisection finds where it stops. */
static long long blocks_that_grow(const walk *w, kv_block_kind kind, long long blocks,
                                  long long tokens, long long growth)
{
    if (growth == 0)
        return blocks;
    if (growth < 0 || (kind == KV_BLOCK_DECODE && growth != tokens))
        return 1;
    long long grows = 0, stops = blocks;
    for (long long i = blocks - 1; stops - grows > 1; i = grows + (stops - grows) / 2) {
        long long past = w->past + i * growth;
        if (after(w, kind, past, tokens) == past + growth)
            grows = i;
        else
            stops = i;
    }
    return grows + 1;
}

/* Appends `blocks` equal blocks. */
static void append(walk *w, kv_block_kind kind, long long blocks, long long tokens)
{
    while (blocks > 0 && tokens > 0 && !w->exhausted) {
        long long growth = after(w, kind, w->past, tokens) - w->past;
        long long count = blocks_that_grow(w, kind, blocks, tokens, growth);
        run new = {w->block, count, tokens, w->past, growth, kind == KV_BLOCK_DECODE};
        emit(w, &new);
        w->past += count * growth;
        w->block += count;
        blocks -= count;
    }
}

static void append_prompt(walk *w, long long chunk_tokens)
{
    long long start = 0, prompt = w->rule->prompt_tokens, body = body_of(w->rule);
    while (start < prompt) {
        long long tokens = kv_counts_chunk_end(w->rule, chunk_tokens, start) - start;
        long long blocks = start < body ? (body - start) / tokens : 1;
        if (blocks > 1 && start + blocks * tokens == prompt)
            blocks--; /* the last chunk is a block of its own kind */
        start += blocks * tokens;
        append(w, start < prompt ? KV_BLOCK_PROMPT : KV_BLOCK_PROMPT_END, blocks, tokens);
    }
}

static void append_decode(walk *w, long long generated)
{
    long long interval = kv_counts_decode_interval(w->rule);
    if (interval == 0 || interval > generated)
        interval = generated;
    if (generated == 0)
        return;
    append(w, KV_BLOCK_DECODE, generated / interval, interval);
    append(w, KV_BLOCK_DECODE, 1, generated % interval);
}

long long kv_counts_decoded(const kv_counts_rule *rule, int layer, int group, long long retained,
                            long long generated, long long steps)
{
    long long interval = kv_counts_decode_interval(rule);
    if (interval == 0)
        return retained + steps;
    long long left = interval - generated % interval; /* of the block that is under way */
    if (steps < left)
        return retained + steps;
    walk w = {.rule = rule, .layer = layer, .group = group, .cap = INT64_MAX};
    w.past = kv_counts_after(rule, layer, group, KV_BLOCK_DECODE, retained, left);
    append(&w, KV_BLOCK_DECODE, (steps - left) / interval, interval);
    return w.past + (steps - left) % interval;
}

long long kv_counts_decode_line(const kv_counts_rule *rule, int layer, int group,
                                long long window_tokens, long long retained, long long generated,
                                long long most, long long *growth)
{
    long long interval = kv_counts_decode_interval(rule);
    walk w = {.rule = rule, .layer = layer, .group = group, .past = retained};
    w.cap = window_tokens > 0 ? window_tokens - 1 : INT64_MAX;
    if (interval == 1) {
        long long next = after(&w, KV_BLOCK_DECODE, retained, 1);
        *growth = next > retained;
        if (next == retained)
            return most;
        return next < retained ? 1 : blocks_that_grow(&w, KV_BLOCK_DECODE, most, 1, 1);
    }
    long long steps = interval == 0 ? most : interval - generated % interval;
    *growth = retained < w.cap;
    if (retained < w.cap && w.cap - retained < steps)
        steps = w.cap - retained;
    return steps < most ? steps : most;
}

/* --- Sums over blocks and heads -----------------------------------------------------------------
 */

static long long triangle(long long n)
{
    return n * (n + 1) / 2;
}

/* Entry-steps of one block. A window bounds what decode steps find, never the chunk itself. */
static long long block_charge(const run *r, long long cap)
{
    if (!r->decode || cap - r->past >= r->tokens)
        return triangle(r->tokens) + r->tokens * r->past;
    long long grows = cap - r->past;
    return triangle(grows) + grows * r->past + (r->tokens - grows) * (cap + 1);
}

/* Entry-steps of all blocks of a run. Blocks that grow stay below the window, so they are linear.
 */
static long long run_charge(const run *r, long long cap)
{
    return r->blocks * block_charge(r, cap) +
           r->tokens * r->growth * (r->blocks * (r->blocks - 1) / 2);
}

/* Entries present at the end of one block of the run. */
static long long run_present(const run *r, long long block, long long cap)
{
    long long past = r->past + r->growth * (block - r->first);
    return r->decode && past + r->tokens > cap ? cap + 1 : past + r->tokens;
}

/* The classes of one sequence. */
typedef struct replay {
    head_class *class;
    int classes;
} replay;

static bool same_runs(const head_class *a, const head_class *b)
{
    if (a->runs != b->runs || a->cap != b->cap)
        return false;
    for (int i = 0; i < a->runs; i++) {
        const run *x = &a->run[i], *y = &b->run[i];
        if (x->blocks != y->blocks || x->past != y->past || x->growth != y->growth)
            return false;
    }
    return true;
}

/* Adds the class, or its heads to an equal one. */
static void replay_add(replay *r, head_class *class)
{
    for (int i = 0; i < r->classes; i++) {
        if (same_runs(&r->class[i], class)) {
            r->class[i].heads += class->heads;
            free(class->run);
            return;
        }
    }
    r->class[r->classes++] = *class;
}

static bool replay_layer(replay *r, const kv_counts_rule *rule, int layer, long long window_tokens,
                         long long chunk_tokens, long long generated)
{
    for (int group = 0; group < kv_counts_groups(rule); group++) {
        head_class class = {.heads = kv_counts_group_heads(rule, group),
                            .cap = window_tokens > 0 ? window_tokens - 1 : INT64_MAX};
        walk w = {.rule = rule, .layer = layer, .group = group, .cap = class.cap, .class = &class};
        append_prompt(&w, chunk_tokens);
        append_decode(&w, generated);
        if (w.exhausted) {
            free(class.run);
            return false;
        }
        replay_add(r, &class);
    }
    return true;
}

static int compare_blocks(const void *a, const void *b)
{
    long long x = *(const long long *)a, y = *(const long long *)b;
    return (x > y) - (x < y);
}

/* The first and last blocks of all runs, ascending, each once: between two of them the entries of
 * every class are linear in the block's number, so their sum is greatest at one of them. */
static long long *corner_blocks(const replay *r, int *count)
{
    size_t corners = 0, n = 0;
    for (int c = 0; c < r->classes; c++)
        corners += 2 * (size_t)r->class[c].runs;
    long long *block = malloc((corners > 0 ? corners : 1) * sizeof *block);
    if (block == NULL)
        return NULL;
    for (int c = 0; c < r->classes; c++) {
        for (int i = 0; i < r->class[c].runs; i++) {
            const run *q = &r->class[c].run[i];
            block[n++] = q->first;
            block[n++] = q->first + q->blocks - 1;
        }
    }
    qsort(block, n, sizeof *block, compare_blocks);
    *count = 0;
    for (size_t i = 0; i < n; i++)
        if (i == 0 || block[i] != block[i - 1])
            block[(*count)++] = block[i];
    return block;
}

static kv_err find_peak(const replay *r, double *peak, kv_diag *diag)
{
    int corners = 0;
    long long *block = corner_blocks(r, &corners);
    double *present = calloc((size_t)corners + 1, sizeof *present);
    if (block != NULL && present != NULL) {
        for (int c = 0; c < r->classes; c++) {
            const head_class *class = &r->class[c];
            for (int i = 0, k = 0; i < class->runs; i++)
                for (; k < corners && block[k] < class->run[i].first + class->run[i].blocks; k++)
                    present[k] +=
                        class->heads * (double)run_present(&class->run[i], block[k], class->cap);
        }
        *peak = 0;
        for (int k = 0; k < corners; k++)
            *peak = present[k] > *peak ? present[k] : *peak;
    }
    kv_err err = block != NULL && present != NULL ? KV_OK : kv_fail_memory(diag);
    free(block);
    free(present);
    return err;
}

static double entry_steps(const replay *r)
{
    double sum = 0;
    for (int c = 0; c < r->classes; c++) {
        long long charge = 0; /* at most T(INT32_MAX), which fits */
        for (int i = 0; i < r->class[c].runs; i++)
            charge += run_charge(&r->class[c].run[i], r->class[c].cap);
        sum += r->class[c].heads * (double)charge;
    }
    return sum;
}

kv_err kv_counts_replay(const kv_counts_rule *asked, const kv_counts_layer *layer,
                        long long chunk_tokens, long long generated_tokens, kv_counts_sum *out,
                        kv_diag *diag)
{
    replay r = {0};
    kv_counts_rule entering = *asked; /* the prompt as the model meets it */
    const kv_counts_rule *rule = &entering;
    if (asked->policy->admitted != NULL)
        entering.prompt_tokens = asked->policy->admitted(asked->config, asked->prompt_tokens);
    size_t most = (size_t)rule->layers * (size_t)kv_counts_groups(rule);
    r.class = calloc(most, sizeof *r.class);
    bool enough = r.class != NULL;
    for (int l = 0; enough && l < rule->layers; l++)
        if (layer == NULL || layer[l].caches)
            enough = replay_layer(&r, rule, l, layer == NULL ? 0 : layer[l].window_tokens,
                                  chunk_tokens, generated_tokens);
    kv_counts_sum sum = {.entry_steps = entry_steps(&r)};
    kv_err err = enough ? find_peak(&r, &sum.peak_entries, diag) : kv_fail_memory(diag);
    if (err == KV_OK)
        *out = sum;
    for (int c = 0; c < r.classes; c++)
        free(r.class[c].run);
    free(r.class);
    return err;
}
