/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "sim/serving/keep.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --- Classes ----------------------------------------------------------------------- */

static bool evicts_in_prompt(const kv_counts_rule *rule)
{
    switch ((kv_schedule)((const kv_retention_config *)rule->config)->evict) {
    case KV_POSTFILL:
    case KV_STEP:
    case KV_INTERVAL:
        return false;
    default:
        return true;
    }
}

bool kv_keep_needed(const kv_model *model, const kv_keep_spec *spec)
{
    if (spec->read_share != 1 || spec->prefill_share != 1 || spec->extra_entries > 0 ||
        spec->away.read != NULL)
        return true;
    for (int l = 0; l < model->layers; l++)
        if (model->layer[l].mixer != KV_MIXER_ATTENTION || model->layer[l].window_tokens > 0)
            return true;
    return strcmp(spec->rule.policy->name, "full") != 0;
}

/* Layers whose attention reads the cache of a layer. */
static int readers(const kv_model *model, int layer)
{
    int count = 0;
    for (int l = 0; l < model->layers; l++)
        count += model->layer[l].cache_of == layer;
    return count;
}

/* A number that heads of equal counts share; -1: it has to be worked out for each. */
static int alike(const kv_counts_rule *rule, int layer, int group)
{
    const kv_retention *policy = rule->policy;
    if (rule->profile != NULL)
        return -1;
    if (policy->quota == NULL)
        return 0;
    if (rule->plan != NULL)
        return policy->count_class != NULL ? policy->count_class(rule->plan, layer, group) : -1;
    return (policy->claims & KV_LAYERS_ALIKE) != 0 ? group : -1;
}

static void add_class(kv_keep *keep, const kv_keep_class *class)
{
    for (int c = 0; c < keep->classes && class->alike >= 0; c++) {
        kv_keep_class *same = &keep->class[c];
        if (same->alike == class->alike && same->window_tokens == class->window_tokens) {
            same->heads += class->heads;
            same->reads += class->reads;
            return;
        }
    }
    keep->class[keep->classes++] = *class;
}

static void make_classes(kv_keep *keep, const kv_model *model, double read_share)
{
    for (int l = 0; l < model->layers; l++) {
        if (model->layer[l].cache_of != l)
            continue;
        for (int g = 0; g < kv_counts_groups(&keep->rule); g++) {
            int64_t heads = (int64_t)kv_counts_group_heads(&keep->rule, g);
            kv_keep_class class = {.layer = l,
                                   .group = g,
                                   .alike = alike(&keep->rule, l, g),
                                   .heads = heads,
                                   .reads = heads * readers(model, l),
                                   .window_tokens = model->layer[l].window_tokens};
            add_class(keep, &class);
        }
    }
    for (int c = 0; c < keep->classes; c++)
        if (read_share != 1)
            keep->class[c].reads = (int64_t)ceil((double)keep->class[c].reads * read_share - 1e-9);
}

/* Entries go away chunk by chunk, not only when the prompt ends. */
static bool leaves_in_prompt(const kv_keep *keep)
{
    return keep->away.read != NULL && keep->chunk_tokens > 0;
}

/* Pages of blocks and states. A model without any cache counts its states as one page. */
static void count_pages(kv_keep *keep, const kv_model *model, kv_cache_format format)
{
    for (int c = 0; c < keep->classes; c++) {
        keep->block_pages += keep->class[c].heads;
        keep->named_pages += keep->class[c].window_tokens > 0 ? 0 : keep->class[c].heads;
    }
    double page = (double)keep->page_tokens * kv_model_entry_bytes(model, format);
    keep->state_pages = (int64_t)ceil(kv_model_state_bytes(model) / page);
    if (keep->block_pages == 0)
        keep->block_pages = keep->state_pages = 1;
    keep->reuse = keep->named_pages > 0 && keep->state_pages == 0 &&
                  !evicts_in_prompt(&keep->rule) && !leaves_in_prompt(keep);
}

/* A profile of the recorded shape is the caller's: its own copy. */
static kv_err copy_profile(kv_keep *keep, const double *profile, kv_diag *diag)
{
    size_t heads = (size_t)keep->rule.layers * (size_t)keep->rule.kv_heads;
    keep->profile = malloc(heads * sizeof *keep->profile);
    if (keep->profile == NULL)
        return kv_fail_memory(diag);
    memcpy(keep->profile, profile, heads * sizeof *keep->profile);
    keep->rule.profile = keep->profile;
    return KV_OK;
}

kv_err kv_keep_new(const kv_model *model, const kv_keep_spec *spec, kv_keep **out, kv_diag *diag)
{
    kv_keep *keep = calloc(1, sizeof *keep);
    if (keep == NULL)
        return kv_fail_memory(diag);
    keep->rule = spec->rule;
    keep->rule.layers = (int)model->layers;
    keep->rule.kv_heads = kv_model_kv_heads(model);
    keep->chunk_tokens = spec->chunk_tokens;
    keep->page_tokens = spec->page_tokens;
    keep->step_tokens = spec->step_tokens;
    keep->extra_entries = spec->extra_entries;
    keep->prefill_share = spec->prefill_share;
    keep->away = spec->away;
    keep->shape = (kv_shape){.layers = keep->rule.layers,
                             .heads = (int)model->attention.heads,
                             .kv_heads = keep->rule.kv_heads,
                             .head_dim = (int)model->attention.head_dim};
    keep->layer_heads = keep->rule.kv_heads;
    size_t most = (size_t)model->layers * (size_t)kv_counts_groups(&keep->rule);
    keep->class = calloc(most, sizeof *keep->class);
    kv_err err = keep->class != NULL ? KV_OK : kv_fail_memory(diag);
    if (err == KV_OK && spec->rule.profile != NULL)
        err = copy_profile(keep, spec->rule.profile, diag);
    if (err != KV_OK) {
        kv_keep_free(keep);
        return err;
    }
    make_classes(keep, model, spec->read_share);
    count_pages(keep, model, spec->format);
    *out = keep;
    return KV_OK;
}

void kv_keep_free(kv_keep *keep)
{
    if (keep == NULL)
        return;
    free(keep->profile);
    free(keep->class);
    free(keep);
}

/* --- What a head retains ----------------------------------------------------------- */

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Entries of a class that stay between steps at most. */
static int64_t cap_of(const kv_keep_class *class)
{
    return class->window_tokens > 0 ? class->window_tokens - 1 : INT64_MAX;
}

static kv_counts_rule rule_of(const kv_keep *keep, const kv__live *live)
{
    kv_counts_rule rule = keep->rule;
    rule.prompt_tokens = live->prompt_tokens;
    return rule;
}

/* Entries of a head before a step. */
static int64_t past_of(const kv_keep *keep, const kv__live *live, int c)
{
    const kv__kept *kept = &live->kept[c];
    int64_t past = kept->entries + (int64_t)kept->growth * (live->computed_tokens - live->kept_at);
    return least(past, cap_of(&keep->class[c]));
}

int64_t kv__keep_retained(const kv_keep *keep, const kv__live *live, int class_)
{
    return past_of(keep, live, class_);
}

/* Entries of a head that stay on the device between steps at most. */
static int64_t home_of(const kv_keep *keep, int c)
{
    bool stays = keep->away.read == NULL || keep->class[c].window_tokens > 0;
    return stays ? INT64_MAX : keep->away.home_entries;
}

static int64_t over_home(const kv_keep *keep, int c, int64_t entries)
{
    int64_t home = home_of(keep, c);
    return entries > home ? entries - home : 0;
}

/* Entries of a head that are away before a step. */
static int64_t away_of(const kv_keep *keep, const kv__live *live, int c)
{
    if (live->kept_at >= live->prompt_tokens)
        return over_home(keep, c, past_of(keep, live, c));
    return leaves_in_prompt(keep) ? over_home(keep, c, live->kept[c].entries) : 0;
}

/* A step computes one token of the answer: the read policy chooses. Else all is read. */
static bool is_answer(const kv__live *live, int32_t tokens)
{
    return tokens == 1 && live->computed_tokens >= live->prompt_tokens;
}

/* Of these, entries that a step with so many tokens fetches. */
static int64_t fetched_of(const kv_keep *keep, const kv__live *live, int c, int32_t tokens)
{
    int64_t away = away_of(keep, live, c);
    return is_answer(live, tokens) ? least(away, keep->away.fetch_entries) : away;
}

/* Entries of a head during a step, on the device and away. */
static int64_t all_of(const kv_keep *keep, const kv__live *live, int c, int32_t tokens)
{
    return past_of(keep, live, c) + tokens;
}

/* Entries of a head on the device during a step. */
static int64_t present_of(const kv_keep *keep, const kv__live *live, int c, int32_t tokens)
{
    return all_of(keep, live, c, tokens) - away_of(keep, live, c);
}

/* What finds entries that are away is on the device, and grows with them in strides. */
enum { METADATA_STRIDE = 256 };

static int64_t stride_end(int64_t entries)
{
    return (entries + METADATA_STRIDE - 1) / METADATA_STRIDE * METADATA_STRIDE;
}

/* Entries' worth of room beside those that a head has on the device, when it has so many in all. */
static int64_t extra_of(const kv_keep *keep, const kv__live *live, int c, int64_t entries)
{
    const kv_read *read = keep->away.read;
    if (read == NULL || read->metadata == NULL || keep->class[c].window_tokens > 0)
        return keep->extra_entries;
    kv_read_size size = {.shape = &keep->shape,
                         .layer = keep->class[c].layer,
                         .entries = (double)stride_end(entries),
                         .prefill = live->kept_at < live->prompt_tokens};
    return keep->extra_entries + (int64_t)ceil(read->metadata(keep->away.config, &size));
}

/* The most that it may be when the request has so many tokens, wherever its steps begin. */
static int64_t most_present(const kv_keep *keep, const kv__live *live, int c, int32_t tokens)
{
    int64_t cap = cap_of(&keep->class[c]), step = keep->step_tokens;
    if (cap == INT64_MAX)
        return present_of(keep, live, c, tokens);
    step = keep->chunk_tokens > 0 ? least(step, keep->chunk_tokens) : step;
    return least(live->computed_tokens + tokens, cap + step);
}

kv_err kv__keep_attach(const kv_keep *keep, kv__live *live, kv_diag *diag)
{
    if (live->kept == NULL)
        live->kept = calloc((size_t)keep->classes + 1, sizeof *live->kept);
    return live->kept != NULL ? KV_OK : kv_fail_memory(diag);
}

static int64_t chunk_end(const kv_keep *keep, const kv__live *live, int32_t start)
{
    kv_counts_rule rule = rule_of(keep, live);
    return kv_counts_chunk_end(&rule, keep->chunk_tokens, start);
}

void kv__keep_start(const kv_keep *keep, kv__live *live, int32_t computed)
{
    for (int c = 0; c < keep->classes; c++)
        live->kept[c] = (kv__kept){(int32_t)least(computed, cap_of(&keep->class[c])), 1};
    live->computed_tokens = computed;
    live->kept_at = computed;
    live->kept_until = (int32_t)chunk_end(keep, live, computed);
}

int32_t kv__keep_limit(const kv_keep *keep, const kv__live *live, int32_t computed)
{
    if (computed < live->prompt_tokens) {
        bool under_way = computed > live->kept_at && computed < live->kept_until;
        int64_t end = under_way ? live->kept_until : chunk_end(keep, live, computed);
        return (int32_t)(end - computed);
    }
    /* An answer that is computed again in one step is in memory all at once: one that is evicted
     * as it grows must not need more than it did. */
    long long interval = kv_counts_decode_interval(&keep->rule);
    if (interval == 0)
        return INT32_MAX;
    if (interval == 1)
        return keep->page_tokens;
    return (int32_t)(interval - (computed - live->prompt_tokens) % interval);
}

/* A line of a class that grows ends where its head fills its home, where it begins to fetch (which
 * costs a latency), where it fetches as much as it ever does, and where its metadata grow. */
static int64_t to_kink(const kv_keep *keep, int c, int64_t entries)
{
    int64_t home = home_of(keep, c), full = home + keep->away.fetch_entries, kink = INT64_MAX;
    if (home == INT64_MAX)
        return INT64_MAX;
    if (entries < home)
        kink = home - entries;
    else if (entries == home)
        kink = 1;
    else if (entries < full)
        kink = full - entries;
    if (keep->away.read->metadata != NULL)
        kink = least(kink, stride_end(entries + 1) - entries);
    return kink;
}

/* By how much each step of a line adds to what a request has. */
static void add_growth(const kv_keep *keep, kv__live *live, int c)
{
    const kv_keep_class *class = &keep->class[c];
    int64_t home = home_of(keep, c), entries = live->kept[c].entries;
    bool away = entries >= home, fetches = away && entries - home < keep->away.fetch_entries;
    if (live->kept[c].growth == 0)
        return;
    live->stored_growth += away ? 0 : class->heads;
    live->away_growth += away ? class->heads : 0;
    live->fetch_growth += fetches ? class->reads : 0;
    live->read_growth += !away || fetches ? class->reads : 0;
}

/* Decoding goes on with what is kept now: how far on one line, and how steep it is. */
static void start_line(const kv_keep *keep, kv__live *live)
{
    kv_counts_rule rule = rule_of(keep, live);
    int64_t done = live->computed_tokens - live->prompt_tokens, line = INT32_MAX - live->kept_at;
    live->stored_growth = live->read_growth = live->away_growth = live->fetch_growth = 0;
    for (int c = 0; c < keep->classes; c++) {
        const kv_keep_class *class = &keep->class[c];
        long long growth;
        int64_t steps =
            kv_counts_decode_line(&rule, class->layer, class->group, class->window_tokens,
                                  live->kept[c].entries, done, line, &growth);
        live->kept[c].growth = (int32_t)growth;
        add_growth(keep, live, c);
        line = least(line, steps);
        if (growth > 0)
            line = least(line, to_kink(keep, c, live->kept[c].entries));
    }
    live->kept_until = (int32_t)(live->kept_at + line);
}

/* What a head of a class retains when a chunk ends with `computed` tokens. */
static int64_t after_chunk(const kv_keep *keep, const kv__live *live, int c, int32_t computed)
{
    kv_counts_rule rule = rule_of(keep, live);
    const kv_keep_class *class = &keep->class[c];
    kv_block_kind kind = computed == live->prompt_tokens ? KV_BLOCK_PROMPT_END : KV_BLOCK_PROMPT;
    return least(kv_counts_after(&rule, class->layer, class->group, kind, live->kept[c].entries,
                                 computed - live->kept_at),
                 cap_of(class));
}

/* True if the request leaves its named blocks when its prompt ends. */
static bool will_move(const kv_keep *keep, const kv__live *live)
{
    if (kv_counts_decode_interval(&keep->rule) > 0 || keep->away.read != NULL)
        return true;
    for (int c = 0; c < keep->classes; c++)
        if (keep->class[c].window_tokens == KV_COUNTS_UNBOUNDED &&
            after_chunk(keep, live, c, live->prompt_tokens) < live->prompt_tokens)
            return true;
    return false;
}

/* Events that the computed tokens have reached. */
static void settle(const kv_keep *keep, kv__live *live)
{
    kv_counts_rule rule = rule_of(keep, live);
    bool in_prompt = live->kept_at < live->prompt_tokens;
    if (live->computed_tokens < live->kept_until)
        return;
    for (int c = 0; c < keep->classes; c++) {
        const kv_keep_class *class = &keep->class[c];
        int64_t kept =
            in_prompt ? after_chunk(keep, live, c, live->computed_tokens)
                      : kv_counts_decoded(&rule, class->layer, class->group, live->kept[c].entries,
                                          live->kept_at - live->prompt_tokens,
                                          live->computed_tokens - live->kept_at);
        live->kept[c].entries = (int32_t)least(kept, cap_of(class));
    }
    live->kept_at = live->computed_tokens;
    if (live->computed_tokens < live->prompt_tokens)
        live->kept_until = (int32_t)chunk_end(keep, live, live->computed_tokens);
    else
        start_line(keep, live);
}

/* --- Pages ------------------------------------------------------------------------- */

static int64_t up(int64_t tokens, int64_t size)
{
    return tokens > 0 ? (tokens + size - 1) / size : 0;
}

/* Named blocks that a request has when so many of its tokens are computed. */
static int32_t named_at(const kv_keep *keep, const kv__live *live, int64_t tokens)
{
    return live->moved ? 0 : (int32_t)least(up(tokens, keep->page_tokens), live->named);
}

/* Entries of a head that do not stand in the named blocks. */
static int64_t beside(const kv_keep *keep, int c, int64_t entries, int32_t named)
{
    if (keep->class[c].window_tokens == KV_COUNTS_UNBOUNDED)
        entries -= (int64_t)named * keep->page_tokens;
    return entries > 0 ? entries : 0;
}

/* Pages into which one layer's fetched entries come while a step with so many tokens goes on. */
static int64_t buffer_of(const kv_keep *keep, const kv__live *live, int32_t tokens)
{
    int64_t most = 0;
    for (int c = 0; keep->away.read != NULL && c < keep->classes; c++) {
        int64_t fetched = fetched_of(keep, live, c, tokens);
        if (is_answer(live, tokens) && past_of(keep, live, c) >= home_of(keep, c))
            fetched = keep->away.fetch_entries;
        most = fetched > most ? fetched : most;
    }
    return keep->layer_heads * up(most, keep->page_tokens);
}

/* Pages beside named blocks during a step. */
static int64_t pages_of(const kv_keep *keep, const kv__live *live, int32_t tokens,
                        int64_t (*present)(const kv_keep *, const kv__live *, int, int32_t))
{
    int32_t computed = live->computed_tokens + tokens, named = named_at(keep, live, computed);
    bool moves = named > 0 && tokens > 0 && computed == live->prompt_tokens;
    moves = moves && will_move(keep, live);
    int64_t pages = keep->state_pages + buffer_of(keep, live, tokens);
    for (int c = 0; c < keep->classes; c++) {
        int64_t entries = present(keep, live, c, tokens);
        int64_t extra = extra_of(keep, live, c, all_of(keep, live, c, tokens));
        int64_t own = up(beside(keep, c, entries, named) + extra, keep->page_tokens), copy = 0;
        if (moves) {
            int64_t after = after_chunk(keep, live, c, computed);
            extra = extra_of(keep, live, c, after + 1);
            copy = up(least(after, home_of(keep, c)) + 1 + extra, keep->page_tokens);
        }
        pages += keep->class[c].heads * (own > copy ? own : copy);
    }
    return pages;
}

int64_t kv__keep_pages(const kv_keep *keep, const kv__live *live, int32_t tokens)
{
    return pages_of(keep, live, tokens, present_of);
}

int64_t kv__keep_lacks(const kv_keep *keep, const kv__live *live, int32_t tokens)
{
    int64_t blocks = named_at(keep, live, live->computed_tokens + tokens) - live->held;
    int64_t pages = kv__keep_pages(keep, live, tokens) - live->pages;
    return (blocks > 0 ? blocks * keep->named_pages : 0) + (pages > 0 ? pages : 0);
}

kv_err kv__keep_grow(const kv_keep *keep, kv__memory *memory, kv__live *live, int32_t tokens)
{
    int32_t named = named_at(keep, live, live->computed_tokens + tokens);
    int64_t pages = kv__keep_pages(keep, live, tokens);
    kv_err err = KV_OK;
    while (err == KV_OK && live->held < named)
        err = kv__memory_hold(memory, live, live->held);
    if (err == KV_OK)
        err = kv__memory_name(memory, live);
    if (err == KV_OK && pages > live->pages) {
        kv__memory_take(memory, pages - live->pages);
        live->pages = pages;
    }
    return err;
}

/* What it holds between steps: what is retained, and room for one token. */
static int64_t pages_between(const kv_keep *keep, const kv__live *live)
{
    int64_t pages = keep->state_pages + buffer_of(keep, live, 1);
    for (int c = 0; c < keep->classes; c++) {
        int64_t entries = beside(keep, c, present_of(keep, live, c, 1), live->held);
        int64_t extra = extra_of(keep, live, c, all_of(keep, live, c, 1));
        pages += keep->class[c].heads * up(entries + extra, keep->page_tokens);
    }
    return pages;
}

kv_err kv__keep_evict(const kv_keep *keep, kv__memory *memory, kv__live *live)
{
    bool prompt_ends =
        live->kept_at < live->prompt_tokens && live->computed_tokens == live->prompt_tokens;
    kv_err err = KV_OK;
    if (prompt_ends && live->held > 0 && will_move(keep, live)) {
        err = kv__memory_unhold(memory, live);
        live->moved = true;
    }
    settle(keep, live);
    int64_t pages = pages_between(keep, live);
    if (pages < live->pages) {
        kv__memory_give(memory, live->pages - pages);
        live->pages = pages;
    }
    return err;
}

int64_t kv__keep_room(const kv_keep *keep, const kv__live *live, int class_, int64_t *growth)
{
    int64_t past = past_of(keep, live, class_), home = home_of(keep, class_);
    *growth = past < home ? live->kept[class_].growth : 0;
    return least(past, home) + extra_of(keep, live, class_, past + 1);
}

int64_t kv__keep_growth(const kv_keep *keep, const kv__live *live, int64_t steps)
{
    int64_t pages = 0;
    for (int c = 0; c < keep->classes; c++) {
        int64_t growth, past = kv__keep_room(keep, live, c, &growth);
        if (growth > 0)
            pages += keep->class[c].heads *
                     (up(past + steps, keep->page_tokens) - up(past + 1, keep->page_tokens));
    }
    return pages;
}

/* The greater of `most` and what a step of so many tokens takes. */
static int64_t with_step(const kv_keep *keep, const kv__live *probe, int32_t tokens, int64_t most)
{
    int64_t blocks = named_at(keep, probe, probe->computed_tokens + tokens);
    int64_t pages = blocks * keep->named_pages + pages_of(keep, probe, tokens, most_present);
    return pages > most ? pages : most;
}

static void compute(const kv_keep *keep, kv__live *probe, int32_t tokens)
{
    probe->computed_tokens += tokens;
    if (probe->kept_at < probe->prompt_tokens && probe->computed_tokens == probe->prompt_tokens)
        probe->moved = probe->named > 0 && will_move(keep, probe);
    settle(keep, probe);
}

/* The greater of `most` and what is away after a step of so many tokens. */
static int64_t with_away(const kv_keep *keep, const kv__live *probe, int32_t tokens, int64_t most)
{
    int64_t away = kv__keep_away_after(keep, probe, tokens);
    return away > most ? away : most;
}

int64_t kv__keep_most(const kv_keep *keep, const kv__live *live, int32_t end, kv__live *probe,
                      int64_t *away_entries)
{
    int64_t most = 0, away = 0;
    probe->prompt_tokens = live->prompt_tokens;
    probe->named = live->named;
    probe->moved = false;
    kv__keep_start(keep, probe, 0);
    while (probe->computed_tokens < probe->prompt_tokens) {
        int32_t tokens = probe->kept_until - probe->computed_tokens;
        most = with_step(keep, probe, tokens, most);
        away = with_away(keep, probe, tokens, away);
        compute(keep, probe, tokens);
    }
    /* Along a line the last step holds most; so does, of what is computed again in one step, the
     * last token of it. */
    while (probe->computed_tokens < end) {
        int32_t left = end - probe->computed_tokens;
        int32_t again = (int32_t)least(left, kv__keep_limit(keep, probe, probe->computed_tokens));
        int32_t line = (int32_t)least(left, probe->kept_until - probe->computed_tokens);
        most = with_step(keep, probe, again, most);
        away = with_away(keep, probe, again, away);
        compute(keep, probe, line - 1);
        most = with_step(keep, probe, 1, most);
        away = with_away(keep, probe, 1, away);
        compute(keep, probe, 1);
    }
    if (away_entries != NULL)
        *away_entries = away;
    return most;
}

/* --- Entries ----------------------------------------------------------------------- */

int64_t kv__keep_stored(const kv_keep *keep, const kv__live *live, int32_t tokens)
{
    int64_t sum = 0;
    for (int c = 0; c < keep->classes; c++) {
        int64_t own = beside(keep, c, present_of(keep, live, c, tokens), live->shared);
        int64_t extra = extra_of(keep, live, c, all_of(keep, live, c, tokens));
        sum += keep->class[c].heads * (own + extra);
    }
    return sum;
}

int64_t kv__keep_read(const kv_keep *keep, const kv__live *live, int32_t tokens)
{
    bool answers = is_answer(live, tokens);
    int64_t sum = 0;
    for (int c = 0; c < keep->classes; c++)
        sum += keep->class[c].reads *
               (present_of(keep, live, c, tokens) + fetched_of(keep, live, c, tokens) +
                (answers ? extra_of(keep, live, c, all_of(keep, live, c, tokens))
                         : keep->extra_entries));
    return sum;
}

int64_t kv__keep_fetched(const kv_keep *keep, const kv__live *live, int32_t tokens)
{
    int64_t sum = 0;
    for (int c = 0; c < keep->classes; c++)
        sum += keep->class[c].reads * fetched_of(keep, live, c, tokens);
    return sum;
}

/* Entries of a head that are away after a step, before a policy evicts. */
static int64_t away_after(const kv_keep *keep, const kv__live *live, int c, int32_t tokens)
{
    int32_t computed = live->computed_tokens + tokens;
    if (live->kept_at >= live->prompt_tokens)
        return over_home(keep, c, all_of(keep, live, c, tokens));
    bool ends =
        computed == live->prompt_tokens || (leaves_in_prompt(keep) && computed >= live->kept_until);
    return tokens > 0 && ends ? over_home(keep, c, after_chunk(keep, live, c, computed))
                              : away_of(keep, live, c);
}

int64_t kv__keep_away_after(const kv_keep *keep, const kv__live *live, int32_t tokens)
{
    int64_t sum = 0;
    for (int c = 0; keep->away.read != NULL && c < keep->classes; c++)
        sum += keep->class[c].heads * away_after(keep, live, c, tokens);
    return sum;
}

int64_t kv__keep_leaving(const kv_keep *keep, const kv__live *live, int32_t tokens)
{
    int64_t sum = 0;
    for (int c = 0; keep->away.read != NULL && c < keep->classes; c++) {
        int64_t more = away_after(keep, live, c, tokens) - away_of(keep, live, c);
        sum += more > 0 ? keep->class[c].heads * more : 0;
    }
    return sum;
}

double kv__keep_history(const kv_keep *keep, const kv__live *live, int32_t tokens)
{
    double sum = 0, heads = 0;
    for (int c = 0; c < keep->classes; c++) {
        const kv_keep_class *class = &keep->class[c];
        if (class->window_tokens > 0 && keep->named_pages > 0)
            continue;
        sum += (double)class->reads * (double)past_of(keep, live, c);
        heads += (double)class->reads;
    }
    double history = heads > 0 ? sum / heads : 0, share = keep->prefill_share;
    return fmax(0, share * history - (1 - share) * tokens / 2);
}
