/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* What must hold for every registered read policy, whatever it chooses by: it frees and adds no
 * entries, it reads no more than what is present, a row recalls no more than it would by reading
 * the same number of its best entries, and the numbers are the same whatever else is replayed. That
 * a policy chooses as published is for tests/read_reference.py. */
#include "tests/kv_test.h"

#include "policies/method.h"
#include "sim/policy_spec.h"
#include "sim/replay/replay.h"

enum { MOST_POINTS = 128 };

typedef struct bench {
    kv_attention *trace;
    kv_point_list list;
    kv_replay_point point[MOST_POINTS];
} bench;

/* Settings small enough that each policy leaves something out of a prompt of some 70 tokens. */
static const char *settings_of(const char *name)
{
    static const char *const settings[][2] = {
        {"topk", "{read: 9}"},
        {"a_shape", "{sinks: 2, local: 8}"},
        {"tri_shape", "{sinks: 2, local: 8, last: 4}"},
        {"minference", "{pattern: search, vertical: 4, slash: 8, block: 4}"},
        {"quest", "{read: 16, page: 4, skip_layers: 0}"},
        {"infllm", "{sinks: 2, local: 8, block: 8, blocks: 1}"},
        {"retrieval_attention", "{sinks: 2, local: 8, read: 4}"},
        {"rocketkv", "{compression: 4, window: 4}"}};
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++)
        if (strcmp(settings[i][0], name) == 0)
            return settings[i][1];
    return "{}";
}

static void add(bench *b, const char *text)
{
    kv_diag diag = {0};
    kv_mark mark = {"test", 1, 1};
    int first = b->list.count;
    if (kv_policy_parse_text(text, &mark, "", &b->list, &diag) != KV_OK)
        fail_msg("%s: %s", text, diag.text);
    assert_int_equal(b->list.count, first + 1);
    const kv_point_spec *spec = &b->list.point[first];
    assert_true(first < MOST_POINTS);
    b->point[first] = (kv_replay_point){.policy = spec->policy,
                                        .config = spec->config,
                                        .part = spec->part,
                                        .parts = spec->parts,
                                        .directory = "",
                                        .chunk_tokens = first % 2 ? 16 : 0};
}

static int descending(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x < y) - (x > y);
}

/* What is read is there, in order, and no better than the same number of the row's best. */
static void check_row(void *closure, const kv_replay_read *e)
{
    float best[128];
    double recall = 0, most = 0;
    int *rows = closure;
    assert_true(e->count >= 1 && e->count <= e->presents && e->presents <= 128);
    for (int i = 0, j = 0; i < e->count; i++) {
        assert_true(i == 0 || e->chosen[i] > e->chosen[i - 1]);
        while (j < e->presents && e->present[j] < e->chosen[i])
            j++;
        assert_true(j < e->presents && e->present[j] == e->chosen[i]);
        recall += e->row[e->chosen[i]];
    }
    for (int j = 0; j < e->presents; j++)
        best[j] = e->row[e->present[j]];
    assert_int_equal(e->present[e->presents - 1], e->position);
    qsort(best, (size_t)e->presents, sizeof *best, descending);
    for (int i = 0; i < e->count; i++)
        most += best[i];
    assert_true(recall <= most + 1e-6);
    ++*rows;
}

static kv_replay_result run(const bench *b, int first, int count, int example)
{
    kv_diag diag = {0};
    kv_replay *replay;
    kv_replay_result result;
    int rows = 0;
    kv_replay_options options = {.seed = 7,
                                 .page_tokens = 16,
                                 .prefill_token_s = 1,
                                 .decode_step_s = 1,
                                 .watch_read = check_row,
                                 .watch_closure = &rows};
    assert_int_equal(kv_replay_new(b->point + first, count, kv_attention_shape(b->trace), &options,
                                   &replay, &diag),
                     KV_OK);
    if (kv_replay_example(replay, b->trace, example, &result, &diag) != KV_OK)
        fail_msg("%s", diag.text);
    kv_replay_free(replay);
    assert_true(rows > 0);
    return result;
}

static bench open_bench(void)
{
    kv_diag diag = {0};
    char path[1024];
    bench b = {0};
    snprintf(path, sizeof path, "%s/tests/data/tiny.h5", getenv("srcdir"));
    assert_int_equal(kv_attention_open(path, &b.trace, &diag), KV_OK);
    return b;
}

static void close_bench(bench *b)
{
    kv_point_list_fini(&b->list);
    kv_attention_close(b->trace);
}

static double value(const kv_replay_result *r, int point, kv_measure measure)
{
    return r->record[(size_t)point * (size_t)(1 + r->turns)].value[measure];
}

/* Points in pairs: a retention policy, then the same with a read policy. */
static void check_pair(const kv_replay_result *r, int p, const kv_read *read)
{
    static const kv_measure memory[] = {KV_M_FOOTPRINT, KV_M_PEAK, KV_M_FOOTPRINT_PAGE,
                                        KV_M_EVICTED_EVERYWHERE};
    for (size_t m = 0; m < sizeof memory / sizeof *memory && read->retention == NULL; m++)
        assert_true(value(r, p, memory[m]) == value(r, p + 1, memory[m]) ||
                    isnan(value(r, p, memory[m])));
    assert_true(value(r, p + 1, KV_M_FOOTPRINT_BYTES) >= value(r, p + 1, KV_M_FOOTPRINT));
    double reads = value(r, p + 1, KV_M_READS), recall = value(r, p + 1, KV_M_RECALL);
    assert_true(reads > 0 && reads <= value(r, p, KV_M_READS) + 1e-12);
    assert_true(recall > 0 && recall <= value(r, p, KV_M_RECALL) + 1e-6);
    assert_true(value(r, p + 1, KV_M_READS_BYTES) >= reads - 1e-12);
    assert_int_equal(isnan(value(r, p + 1, KV_M_PREFILL_RECALL)),
                     !(read->phases & KV_READS_PREFILL));
    if (read->phases & KV_READS_PREFILL)
        assert_true(value(r, p + 1, KV_M_READS_PREFILL) < 1);
    else
        assert_true(reads < value(r, p, KV_M_READS)); /* it leaves something out */
}

static void every_read_policy(void **state)
{
    for (const kv_read *const *p = kv_read_all(); *p != NULL; p++)
        for (int example = 0; example < 3; example++) {
            bench b = open_bench();
            char text[256];
            const char *settings = settings_of((*p)->name);
            add(&b, "full");
            snprintf(text, sizeof text, "{%s: %s}", (*p)->name, settings);
            add(&b, text);
            b.point[1].chunk_tokens = 0;
            add(&b, "{snapkv: {keep: 0.6, window: 4}}");
            snprintf(text, sizeof text, "[{snapkv: {keep: 0.6, window: 4}}, {%s: %s}]", (*p)->name,
                     settings);
            add(&b, text);
            b.point[3].chunk_tokens = 0;
            kv_replay_result all = run(&b, 0, 4, example);
            check_pair(&all, 0, *p);
            if ((*p)->retention == NULL)
                check_pair(&all, 2, *p);
            for (int i = 1; i < 4; i += 2) {
                kv_replay_result alone = run(&b, i, 1, example);
                size_t slots = (size_t)(1 + alone.turns);
                assert_memory_equal(alone.record, all.record + (size_t)i * slots,
                                    slots * sizeof(kv_record));
                kv_replay_result_fini(&alone);
            }
            kv_replay_result_fini(&all);
            close_bench(&b);
        }
}

/* Reading everything is the retention policy alone, under any schedule. */
static void reading_everything_changes_nothing(void **state)
{
    static const char *const evict[] = {"postfill", "chunked",  "patched", "pool",
                                        "step",     "interval", "online"};
    static const kv_measure measures[] = {KV_M_FOOTPRINT,     KV_M_PEAK,
                                          KV_M_RECALL,        KV_M_EVIDENCE_RECALL,
                                          KV_M_OUTPUT_ERROR,  KV_M_EVIDENCE_OUTPUT,
                                          KV_M_QUERY_INTACT,  KV_M_READS,
                                          KV_M_BYTES_SECONDS, KV_M_PEAK_BYTES};
    for (int example = 0; example < 3; example++) {
        bench b = open_bench();
        for (size_t i = 0; i < sizeof evict / sizeof *evict; i++) {
            char text[256];
            const char *format = "%s{snapkv: {keep: 0.4, window: 4, evict: %s, interval: 3}}%s";
            snprintf(text, sizeof text, format, "", evict[i], "");
            add(&b, text);
            snprintf(text, sizeof text, format, "[", evict[i], ", {topk: {share: 1}}]");
            add(&b, text);
            b.point[b.list.count - 2].chunk_tokens = b.point[b.list.count - 1].chunk_tokens = 16;
        }
        kv_replay_result r = run(&b, 0, b.list.count, example);
        for (int p = 0; p < b.list.count; p += 2)
            for (size_t m = 0; m < sizeof measures / sizeof *measures; m++) {
                double one = value(&r, p, measures[m]), two = value(&r, p + 1, measures[m]);
                if (!(isnan(one) && isnan(two)) && !(fabs(one - two) <= 1e-9 * fmax(1, fabs(one))))
                    fail_msg("%s, %s: %.17g alone, %.17g reading everything", evict[p / 2],
                             kv_measure_get(measures[m])->name, one, two);
            }
        kv_replay_result_fini(&r);
        close_bench(&b);
    }
}

/* The k of highest score, ties to the lower index, by sorting; NaN counts as the worst. */
static void the_best_are_found(void **state)
{
    uint32_t seed = 1;
    for (int round = 0; round < 2000; round++) {
        double score[64];
        int32_t index[64];
        int n = round % 64, k = round / 64 % (n + 2);
        bool kept[64] = {false};
        for (int i = 0; i < n; i++) {
            seed = seed * 1664525u + 1013904223u;
            score[i] = seed >> 28 == 0 ? NAN : seed >> 29;
            index[i] = i;
        }
        int got = kv_read_best(score, index, n, k);
        assert_int_equal(got, k < n ? k : n);
        for (int i = 0; i < got; i++)
            kept[index[i]] = true;
        for (int i = 0; i < n; i++) {
            int before = 0;
            for (int j = 0; j < n; j++) {
                double x = isnan(score[j]) ? -1 : score[j], y = isnan(score[i]) ? -1 : score[i];
                before += x > y || (x == y && j < i);
            }
            assert_int_equal(kept[i], before < got);
        }
    }
}

/* What minference may read of blocks of 8 beside an eviction: its own and the 2 best of those with
 * anything left, by the mean of the keys that are left. */
typedef struct block_check {
    kv_layer *layer;
    const kv_example *example;
    int width, group, rows;
} block_check;

static double block_score(const block_check *c, const kv_replay_read *e, int block)
{
    const float *key = kv_layer_keys(c->layer, e->query_head / c->group);
    double score = 0;
    int count = 0;
    for (int i = 0; i < e->presents; i++) {
        if (e->present[i] / 8 != block)
            continue;
        int first = e->position / 8 * 8;
        for (int p = first; p < first + 8 && p < c->example->prompt_tokens; p++) {
            const float *query =
                kv_layer_query(c->layer, e->query_head, kv_example_row(c->example, p));
            for (int d = 0; d < c->width; d++)
                score += (double)query[d] * key[e->present[i] * c->width + d];
        }
        count++;
    }
    return count > 0 ? score / count : -INFINITY;
}

static void check_blocks(void *closure, const kv_replay_read *e)
{
    block_check *c = closure;
    kv_diag diag = {0};
    int own = e->position / 8, chosen = 0;
    if (!e->prefill)
        return;
    assert_int_equal(kv_layer_load(c->layer, e->layer, KV_WANT_KEYS | KV_WANT_QUERIES, NULL, &diag),
                     KV_OK);
    for (int block = 0; block <= own; block++) {
        double score = block_score(c, e, block);
        int better = 0, held = 0, read = 0;
        for (int other = 0; other < own; other++)
            better += block_score(c, e, other) > score;
        for (int i = 0; i < e->presents; i++)
            held += e->present[i] / 8 == block;
        for (int i = 0; i < e->count; i++)
            read += e->chosen[i] / 8 == block;
        assert_int_equal(read, block == own || better < 2 ? held : 0);
        chosen += read;
    }
    assert_int_equal(chosen, e->count);
    c->rows++;
}

static void blocks_are_what_is_left_of_them(void **state)
{
    kv_diag diag = {0};
    char path[1024];
    static bench b;
    block_check check = {.group = 2};
    kv_replay *replay;
    kv_replay_result result;
    snprintf(path, sizeof path, "%s/tests/data/tiny.h5", getenv("srcdir"));
    assert_int_equal(kv_attention_open(path, &b.trace, &diag), KV_OK);
    check.example = kv_attention_example(b.trace, 0);
    check.width = kv_attention_shape(b.trace)->head_dim;
    assert_int_equal(kv_layer_new(b.trace, 0, &check.layer, &diag), KV_OK);
    add(&b, "[{streaming: {sinks: 2, window: 12}}, "
            "{minference: {pattern: block, block: 8, blocks: 3}}]");
    b.point[0].chunk_tokens = 16;
    kv_replay_options options = {.page_tokens = 16,
                                 .prefill_token_s = 1,
                                 .decode_step_s = 1,
                                 .watch_read = check_blocks,
                                 .watch_closure = &check};
    assert_int_equal(
        kv_replay_new(b.point, 1, kv_attention_shape(b.trace), &options, &replay, &diag), KV_OK);
    assert_int_equal(kv_replay_example(replay, b.trace, 0, &result, &diag), KV_OK);
    assert_true(check.rows > 4 * 8 * 8); /* of every layer and head, from the whole prompt */
    kv_replay_result_fini(&result);
    kv_replay_free(replay);
    kv_layer_free(check.layer);
    kv_point_list_fini(&b.list);
    kv_attention_close(b.trace);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_read_policy), cmocka_unit_test(blocks_are_what_is_left_of_them),
        cmocka_unit_test(reading_everything_changes_nothing), cmocka_unit_test(the_best_are_found)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
