/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Checks the count-only replay against a simulation that steps through every chunk and every decode
 * step of every layer and head with plain loops. Quotas here are policies of this test's own, one
 * per way in which quotas may differ: by layer, by head, by plan, by a real share of the heads.
 * Whether the real policies have the right quotas is not checked here: see footprint_test. */
#include "tests/kv_test.h"

#include "tests/draw.h"

#include "policies/counts.h"

enum { LAYERS = 5, KV_HEADS = 3 };

/* splitmix64: a fixed row of numbers, the same on every machine. */
/* Quotas that fall over the layers, as a pyramid's do, and rise over the heads of a plan. */
static long long test_quota(const void *config, const kv_quota_query *query)
{
    const kv_retention_config *c = config;
    double base = query->own_chunk ? c->keep * query->candidates : (double)c->budget_tokens;
    long long quota = (long long)nearbyint(base * (1 + 0.3 * (query->layers - 1 - query->layer)));
    if (query->plan != NULL)
        quota += 7 * query->kv_head;
    return quota + c->window_tokens;
}

/* As head masks are: one sort of head streams, the other keeps everything. */
static long long split_quota(const void *config, const kv_quota_query *query)
{
    return query->kv_heads == 2 && query->kv_head == 1 ? query->candidates
                                                       : test_quota(config, query);
}

static double test_share(const void *config)
{
    return ((const kv_retention_config *)config)->sparsity;
}

static long long test_tail(const void *config)
{
    return ((const kv_retention_config *)config)->sinks_tokens;
}

static const kv_retention by_layer = {.name = "by_layer", .quota = test_quota};
static const kv_retention by_share = {
    .name = "by_share", .quota = split_quota, .head_share = test_share};
static const kv_retention with_tail = {
    .name = "with_tail", .quota = test_quota, .local_tail = test_tail};

/* --- The simulation by plain loops ---------------------------------------------------------------
 */

typedef struct plain {
    const kv_counts_rule *rule;
    const kv_counts_layer *layer;
    long long chunk, generated;
    int groups;
    double heads[KV_HEADS];
    long long retained[LAYERS][KV_HEADS];
    double entry_steps, peak;
} plain;

static long long plain_quota(const plain *p, int layer, int group, long long candidates, bool own)
{
    kv_quota_query query = {
        .layer = layer,
        .layers = LAYERS,
        .kv_head = group,
        .kv_heads = p->groups == 2 ? 2 : KV_HEADS,
        .candidates = (int)candidates,
        .prompt_tokens = (int)p->rule->prompt_tokens,
        .own_chunk = own,
        .pin_window = true,
        .plan = p->rule->plan,
    };
    long long quota = p->rule->policy->quota(p->rule->config, &query);
    return quota > candidates ? candidates : quota;
}

/* What one head keeps of `present` entries, `tokens` of them new, after chunk or decode step. */
static long long plain_evict(const plain *p, int layer, int group, long long present,
                             long long tokens, bool in_prompt, bool last, long long step)
{
    const kv_retention_config *c = p->rule->config;
    bool all = c->evict == KV_ONLINE || (c->evict == KV_POOL && in_prompt) ||
               (c->evict == KV_POSTFILL && in_prompt && last) ||
               (c->evict == KV_STEP && (!in_prompt || last)) ||
               (c->evict == KV_INTERVAL && (in_prompt ? last : step % c->interval_steps == 0));
    if (all)
        present = plain_quota(p, layer, group, present, false);
    if ((c->evict == KV_CHUNKED || c->evict == KV_PATCHED) && in_prompt)
        present = present - tokens + plain_quota(p, layer, group, tokens, true);
    if (p->layer[layer].window_tokens > 0 && present > p->layer[layer].window_tokens - 1)
        present = p->layer[layer].window_tokens - 1;
    return present;
}

/* One chunk of n tokens, charged token by token, or one decode step (n = 1). */
static void plain_step(plain *p, long long n, bool in_prompt, bool last, long long step)
{
    double sum = 0;
    for (int l = 0; l < LAYERS; l++) {
        for (int g = 0; p->layer[l].caches && g < p->groups; g++) {
            long long past = p->retained[l][g];
            for (long long i = 1; i <= n; i++)
                p->entry_steps += p->heads[g] * (double)(past + i);
            sum += p->heads[g] * (double)(past + n);
            p->retained[l][g] = plain_evict(p, l, g, past + n, n, in_prompt, last, step);
        }
    }
    p->peak = sum > p->peak ? sum : p->peak;
}

static void plain_replay(plain *p)
{
    long long prompt = p->rule->prompt_tokens, start = 0;
    long long tail = p->rule->policy->local_tail ? p->rule->policy->local_tail(p->rule->config) : 0;
    while (start < prompt) {
        long long end = p->chunk > 0 ? start + p->chunk : prompt;
        if (start >= prompt - tail)
            end = prompt;
        else if (end > prompt - tail)
            end = prompt - tail;
        plain_step(p, end - start, true, end == prompt, 0);
        start = end;
    }
    for (long long t = 1; t <= p->generated; t++)
        plain_step(p, 1, false, false, t);
}

/* --- Comparison
 * ------------------------------------------------------------------------------------ */

static void compare_once(uint64_t *random)
{
    static const kv_retention *const policies[] = {&by_layer, &by_share, &with_tail};
    int sort = (int)between(random, 0, 3), any_plan = 0;
    kv_retention_config config = {
        .keep = (double)between(random, 0, 1000) / 1000,
        .budget_tokens = between(random, 1, 60),
        .window_tokens = between(random, 0, 8),
        .sinks_tokens = between(random, 0, 20),
        .interval_steps = between(random, 1, 9),
        .sparsity = (double)between(random, 0, 100) / 100,
        .evict = (int)between(random, KV_POSTFILL, KV_ONLINE),
    };
    kv_counts_rule rule = {.policy = policies[sort == 3 ? 0 : sort],
                           .config = &config,
                           .plan = sort == 3 ? &any_plan : NULL,
                           .layers = LAYERS,
                           .kv_heads = KV_HEADS,
                           .prompt_tokens = between(random, 1, 150)};
    kv_counts_layer layer[LAYERS];
    for (int l = 0; l < LAYERS; l++) {
        layer[l].caches = between(random, 0, 5) > 0;
        layer[l].window_tokens = between(random, 0, 2) > 0 ? 0 : between(random, 1, 40);
    }
    plain p = {.rule = &rule,
               .layer = layer,
               .chunk = between(random, 0, 40),
               .generated = between(random, 0, 70),
               .groups = sort == 3   ? KV_HEADS
                         : sort == 1 ? 2
                                     : 1};
    for (int g = 0; g < p.groups; g++)
        p.heads[g] = p.groups == KV_HEADS ? 1
                     : p.groups == 1      ? KV_HEADS
                                          : KV_HEADS * (g ? 1 - config.sparsity : config.sparsity);
    plain_replay(&p);
    kv_counts_sum sum;
    kv_diag diag = {0};
    assert_int_equal(kv_counts_replay(&rule, layer, p.chunk, p.generated, &sum, &diag), KV_OK);
    assert_close(sum.entry_steps, p.entry_steps, 1e-12);
    assert_close(sum.peak_entries, p.peak, 1e-12);
}

static void equals_stepping_through(void **state)
{
    uint64_t random = 7;
    for (int i = 0; i < 20000; i++)
        compare_once(&random);
}

static void decoding_jumps_as_it_steps(void **state)
{
    uint64_t random = 11;
    for (int i = 0; i < 5000; i++) {
        kv_retention_config config = {.budget_tokens = between(&random, 1, 60),
                                      .interval_steps = between(&random, 1, 9),
                                      .evict = (int)between(&random, KV_POSTFILL, KV_ONLINE)};
        kv_counts_rule rule = {&by_layer, &config, NULL, LAYERS, KV_HEADS, 50, false, NULL};
        long long generated = between(&random, 0, 40), steps = between(&random, 0, 90);
        long long before = between(&random, 0, 30), now = before;
        long long every = kv_counts_decode_interval(&rule);
        for (long long t = generated + 1; t <= generated + steps; t++) {
            now++;
            if (every > 0 && t % every == 0)
                now = kv_counts_after(&rule, 2, 0, KV_BLOCK_DECODE, now - 1, 1);
        }
        assert_int_equal(kv_counts_decoded(&rule, 2, 0, before, generated, steps), now);
    }
}

/* A million chunks of one token, then a million steps: T(R+1) + (N-R-1)(R+1) entry-steps for a
 * window that holds R entries between steps, worked by hand for R = 499: 125250 + 1999500*500. */
static void long_sequences_are_exact(void **state)
{
    kv_retention_config config = {.budget_tokens = 499, .evict = KV_ONLINE};
    kv_counts_rule rule = {&by_layer, &config, NULL, 1, 1, 1000000, false, NULL};
    kv_counts_sum sum;
    kv_diag diag = {0};
    assert_int_equal(kv_counts_replay(&rule, NULL, 1, 1000000, &sum, &diag), KV_OK);
    assert_true(sum.entry_steps == 125250.0 + 1999500.0 * 500.0);
    assert_true(sum.peak_entries == 500);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_stepping_through),
        cmocka_unit_test(decoding_jumps_as_it_steps),
        cmocka_unit_test(long_sequences_are_exact),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
