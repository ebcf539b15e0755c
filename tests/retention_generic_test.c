/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* What must hold for every registered retention policy, whatever it scores by, and for every one
 * that takes another's scores over every one that can give them: nothing comes back, budgets and
 * pins are kept, larger budgets keep supersets where the policy claims so, runs repeat, and no
 * policy recalls more than keeping the best entries of each row would. It does not check that a
 * policy scores as published: see tests/replay_reference.py. */
#include "tests/kv_test.h"

#include "policies/retention.h"
#include "policies/scorer.h"
#include "sim/policy_spec.h"
#include "sim/replay/replay.h"

enum { TOKENS = 96, MAX_POINTS = 512, LAYERS = 4, KV_HEADS = 4 };

static const char *const keeps[] = {"0.1", "0.25", "0.4", "0.7", "1"};
static const char *const schedules[] = {"postfill", "chunked",  "patched", "pool",
                                        "step",     "interval", "online"};
static const long long chunks[] = {0, 9, 32};
enum { KEEPS = 5, SCHEDULES = 7, CHUNKS = 3 };

typedef struct point_state {
    kv_replay_point replay;
    int schedule, keep; /* indices; -1 where the policy has none */
    bool present[LAYERS][KV_HEADS][TOKENS];
} point_state;

typedef struct bench {
    kv_attention *trace;
    const kv_example *example;
    point_state point[MAX_POINTS];
    int points;
    const char *policy;
    double oracle[MAX_POINTS]; /* sum over answer rows, heads of the best recall possible */
    int oracle_rows[MAX_POINTS];
    kv_layer *layer;
    int loaded;
} bench;

/* scorer: whose scores the policy takes, then under one chunk size; NULL: its own. */
static void *make_config(const kv_retention *policy, const kv_retention *scorer,
                         const char *schedule, const char *keep)
{
    kv_diag diag = {0};
    void *config = calloc(1, policy->config_bytes);
    assert_int_equal(kv_params_default(policy->params, config, &diag), KV_OK);
    const struct {
        const char *name, *value;
    } set[] = {{"evict", schedule}, {"keep", keep},  {"interval", "3"},
               {"window", "4"},     {"kernel", "3"}, {"sinks", "2"}};
    for (size_t i = 0; i < sizeof set / sizeof *set; i++) {
        const kv_param *param = kv_param_find(policy->params, set[i].name);
        bool is_budget =
            param && strcmp(set[i].name, "keep") != 0 && (param->flags & KV_PARAM_BUDGET);
        if (param != NULL && set[i].value != NULL && !is_budget)
            assert_int_equal(kv_param_set(param, config, set[i].value, NULL, &diag), KV_OK);
    }
    if (scorer != NULL) {
        kv_item *item = &((kv_retention_config *)config)->scorer;
        *item = kv_scorer_item(scorer);
        item->config = make_config(scorer, NULL, schedule, keep);
        kv_scorer_settle(policy->params, config);
    }
    return config;
}

static void add_points(bench *b, const kv_retention *policy, const kv_retention *scorer)
{
    bool schedule = kv_param_find(policy->params, "evict") != NULL;
    bool keep = kv_param_find(policy->params, "keep") != NULL;
    int first = kv_is_under_valgrind() ? CHUNKS - 1 : 0;
    for (int c = scorer != NULL ? 1 : first; c < (scorer != NULL ? 2 : CHUNKS); c++)
        for (int s = 0; s < (schedule ? SCHEDULES : 1); s += scorer != NULL ? kv_stride(3) : 1)
            for (int k = 0; k < (keep ? KEEPS : 1); k++) {
                assert_true(b->points < MAX_POINTS);
                point_state *p = &b->point[b->points++];
                p->schedule = schedule ? s : -1;
                p->keep = keep ? k : -1;
                p->replay =
                    (kv_replay_point){.policy = policy,
                                      .config = make_config(policy, scorer, schedules[s], keeps[k]),
                                      .directory = "",
                                      .chunk_tokens = chunks[c]};
            }
}

/* Query of the event that ends a step, to ask the policy's own quota and pins. */
static kv_quota_query query_of(const point_state *p, const kv_replay_watch *w, int prompt,
                               int candidates)
{
    bool own = p->schedule == KV_CHUNKED || p->schedule == KV_PATCHED;
    return (kv_quota_query){.layer = w->layer,
                            .layers = LAYERS,
                            .kv_head = w->kv_head,
                            .kv_heads = KV_HEADS,
                            .candidates = candidates,
                            .prompt_tokens = prompt,
                            .own_chunk = own,
                            .pin_window = p->schedule != KV_PATCHED || w->step_end >= prompt};
}

static bool total_budget_holds(const point_state *p, const kv_replay_watch *w, int prompt,
                               int total)
{
    bool filled = w->step_end == prompt;
    bool decode = w->step_start >= prompt && w->step_end < total;
    switch (p->schedule) {
    case KV_POSTFILL:
        return filled;
    case KV_POOL:
        return w->step_start < prompt;
    case KV_STEP:
        return filled || decode;
    case KV_ONLINE:
        return w->step_end < total;
    }
    return false;
}

/* The quota of a head mask is the head's own, which only its plan knows. */
static bool asks_plan(const kv_retention *policy)
{
    return policy->prepare != NULL;
}

static void check_budget(const bench *b, const point_state *p, const kv_replay_watch *w, int before)
{
    const kv_retention *policy = p->replay.policy;
    int prompt = b->example->prompt_tokens, own = w->step_end - w->step_start;
    if (p->schedule < 0 || asks_plan(policy) || policy->allocate != NULL || policy->resize != NULL)
        return;
    if (total_budget_holds(p, w, prompt, b->example->total_tokens)) {
        kv_quota_query query = query_of(p, w, prompt, before + own);
        long long quota = kv_retention_quota(policy, p->replay.config, &query);
        if (w->presents > quota)
            print_error("%s, %s, keep %s, tokens %d..%d of %d: %d entries, budget %lld\n",
                        policy->name, schedules[p->schedule], keeps[p->keep], w->step_start,
                        w->step_end, prompt, w->presents, quota);
        assert_true(w->presents <= quota);
    }
    if ((p->schedule == KV_CHUNKED || p->schedule == KV_PATCHED) && w->step_end <= prompt) {
        kv_quota_query query = query_of(p, w, prompt, own);
        assert_int_equal(w->presents - before,
                         kv_retention_quota(policy, p->replay.config, &query));
    }
}

static void check_pins(const bench *b, const point_state *p, const kv_replay_watch *w)
{
    const kv_retention_config *config = p->replay.config;
    const bool *present = p->present[w->layer][w->kv_head];
    kv_quota_query query = query_of(p, w, b->example->prompt_tokens, w->step_end);
    long long quota = kv_retention_quota(p->replay.policy, config, &query);
    if (config->sinks_tokens + config->window_tokens > quota || query.own_chunk)
        return;
    for (int j = 0; j < config->sinks_tokens && j < w->step_end; j++)
        assert_true(present[j]);
    for (int j = w->step_end - (int)config->window_tokens; j < w->step_end; j++)
        if (j >= w->step_start)
            assert_true(present[j]);
}

static void watch(void *closure, const kv_replay_watch *w)
{
    bench *b = closure;
    point_state *p = &b->point[w->point];
    bool *present = p->present[w->layer][w->kv_head];
    int before = 0;
    for (int j = 0; j < TOKENS; j++)
        before += present[j];
    for (int j = w->step_start; j < w->step_end; j++)
        present[j] = true;
    bool after[TOKENS] = {false};
    for (int i = 0; i < w->presents; i++) {
        assert_true(i == 0 || w->present[i] > w->present[i - 1]);
        assert_true(present[w->present[i]]); /* nothing comes back */
        after[w->present[i]] = true;
    }
    memcpy(present, after, sizeof after);
    check_budget(b, p, w, before);
    check_pins(b, p, w);
}

/* Points of one chunk size and schedule follow one another by budget: sets of the same moment must
 * be nested. The final states of all points are compared, moment by moment being the same code. */
static void check_nested(const bench *b)
{
    for (int i = 1; i < b->points; i++) {
        const point_state *small = &b->point[i - 1], *large = &b->point[i];
        const kv_retention *policy = large->replay.policy;
        bool score_sees_past = large->schedule != KV_POSTFILL;
        if (large->keep <= 0 || score_sees_past ||
            !kv_retention_nested(policy, large->replay.config))
            continue;
        for (int l = 0; l < LAYERS; l++)
            for (int h = 0; h < KV_HEADS; h++)
                for (int j = 0; j < TOKENS; j++)
                    assert_true(!small->present[l][h][j] || large->present[l][h][j]);
    }
}

static int compare_descending(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x < y) - (x > y);
}

/* Mean over answer rows, layers and heads of the sum of the k largest probabilities of each row. */
static double best_recall(const bench *b, int entries)
{
    const kv_example *e = b->example;
    kv_diag diag = {0};
    kv_layer *layer;
    float scratch[TOKENS], row[TOKENS];
    double sum = 0;
    int n = 0;
    assert_int_equal(kv_layer_new(b->trace, 0, &layer, &diag), KV_OK);
    for (int l = 0; l < LAYERS; l++) {
        assert_int_equal(kv_layer_load(layer, l, KV_WANT_ROWS, NULL, &diag), KV_OK);
        for (int h = 0; h < kv_attention_shape(b->trace)->heads; h++)
            for (int p = e->turn[0].answer_start - 1; p < e->turn[0].answer_end - 1; p++, n++) {
                const float *got = kv_layer_row(layer, h, kv_example_row(e, p), scratch);
                memcpy(row, got, (size_t)(p + 1) * sizeof *row);
                qsort(row, (size_t)p + 1, sizeof *row, compare_descending);
                for (int k = 0; k < entries && k <= p; k++)
                    sum += row[k];
            }
    }
    kv_layer_free(layer);
    return sum / n;
}

static void run(bench *b, kv_replay_result *result)
{
    kv_diag diag = {0};
    static kv_replay_point points[MAX_POINTS];
    kv_replay *replay;
    kv_replay_options options = {.seed = 7,
                                 .page_tokens = 16,
                                 .prefill_token_s = 1,
                                 .decode_step_s = 1,
                                 .watch = watch,
                                 .watch_closure = b};
    for (int i = 0; i < b->points; i++) {
        points[i] = b->point[i].replay;
        memset(b->point[i].present, 0, sizeof b->point[i].present);
    }
    assert_int_equal(
        kv_replay_new(points, b->points, kv_attention_shape(b->trace), &options, &replay, &diag),
        KV_OK);
    kv_err err = kv_replay_example(replay, b->trace, 0, result, &diag);
    if (err != KV_OK)
        print_error("%s: %s\n", b->policy, diag.text);
    assert_int_equal(err, KV_OK);
    kv_replay_free(replay);
}

static void check_recall(const bench *b, const kv_replay_result *result)
{
    for (int i = 0; i < b->points; i++) {
        const kv_record *record = &result->record[(size_t)i * (1 + (size_t)result->turns)];
        /* No row sees more than everything, and the peak bounds what any row saw. */
        double peak = record->value[KV_M_PEAK];
        double heads_most = peak * LAYERS * KV_HEADS; /* all of it in one head at the very most */
        int entries = (int)ceil(fmin(heads_most, 1.0) * b->example->total_tokens);
        double recall = record->value[KV_M_RECALL];
        if (isnan(recall))
            continue;
        assert_true(recall <= best_recall(b, entries) + 1e-6);
        assert_true(record->value[KV_M_RECALL_WORST_HEAD] <= recall + 1e-9);
        assert_true(record->value[KV_M_FOOTPRINT] > 0 &&
                    record->value[KV_M_FOOTPRINT] <= 1 + 1e-12);
        assert_true(record->value[KV_M_FOOTPRINT] <= record->value[KV_M_FOOTPRINT_PAGE] + 1e-12);
        assert_true(record->value[KV_M_PEAK] <= record->value[KV_M_PEAK_HEAD] + 1e-12);
    }
}

/* Sums of attention are made budget by budget, so that a list may round them otherwise. */
static bool same_record(const kv_record *a, const kv_record *b)
{
    for (int m = 0; m < KV_MEASURES; m++)
        if (isnan(a->value[m]) != isnan(b->value[m]) || fabs(a->value[m] - b->value[m]) > 1e-9)
            return false;
    return true;
}

/* A point's measures and sets are its own, whatever other budgets stand beside it in a list: also
 * such as are too small for the pins. */
static void check_alone(const bench *all, const kv_replay_result *together)
{
    static bench alone;
    for (int i = 0; i < all->points; i++) {
        const point_state *p = &all->point[i];
        if (p->replay.chunk_tokens != chunks[1] || (p->keep != 2 && p->keep != 3))
            continue;
        kv_replay_result result;
        memset(&alone, 0, sizeof alone);
        alone.trace = all->trace;
        alone.example = all->example;
        alone.policy = all->policy;
        alone.point[0].replay = p->replay;
        alone.point[0].schedule = p->schedule;
        alone.point[0].keep = p->keep;
        alone.points = 1;
        run(&alone, &result);
        bool same = memcmp(alone.point[0].present, p->present, sizeof p->present) == 0;
        for (int r = 0; r <= result.turns; r++)
            same = same &&
                   same_record(&result.record[r], &together->record[i * (1 + result.turns) + r]);
        if (!same)
            print_error("%s, %s, keep %s differs alone\n", all->policy,
                        p->schedule < 0 ? "" : schedules[p->schedule], keeps[p->keep]);
        assert_true(same);
        kv_replay_result_fini(&result);
    }
}

static void open_trace(bench *b)
{
    kv_diag diag = {0};
    char path[1024];
    snprintf(path, sizeof path, "%s/tests/data/tiny.h5", getenv("srcdir"));
    assert_int_equal(kv_attention_open(path, &b->trace, &diag), KV_OK);
    b->example = kv_attention_example(b->trace, 0);
    assert_true(b->example->total_tokens <= TOKENS);
}

/* The same once more is the same to the last bit. */
static void check_again(bench *b, const kv_replay_result *first)
{
    kv_replay_result second;
    run(b, &second);
    size_t records = (size_t)first->points * (1 + (size_t)first->turns);
    assert_memory_equal(first->record, second.record, records * sizeof(kv_record));
    kv_replay_result_fini(&second);
}

static void check_policy(bench *b, const kv_retention *policy, const kv_retention *scorer)
{
    kv_replay_result first;
    b->points = 0;
    static char name[64];
    snprintf(name, sizeof name, "%s%s%s", policy->name, scorer != NULL ? " over " : "",
             scorer != NULL ? scorer->name : "");
    b->policy = name;
    add_points(b, policy, scorer);
    run(b, &first);
    check_nested(b);
    check_recall(b, &first);
    if (!kv_is_under_valgrind()) { /* minutes there */
        check_again(b, &first);
        check_alone(b, &first);
    }
    kv_replay_result_fini(&first);
    for (int i = 0; i < b->points; i++) {
        void *config = (void *)b->point[i].replay.config;
        kv_params_fini(policy->params, config);
        free(config);
    }
}

static void every_policy(void **state)
{
    static bench b;
    open_trace(&b);
    for (const kv_retention *const *p = kv_retention_all(); *p != NULL; p++)
        check_policy(&b, *p, NULL);
    kv_attention_close(b.trace);
}

/* Under valgrind each scorer once, by some schedules. */
static void every_scorer(void **state)
{
    static bench b;
    int pairs = 0;
    open_trace(&b);
    for (const kv_retention *const *p = kv_retention_all(); *p != NULL; p++)
        for (const kv_retention *const *s = kv_retention_all(); *s != NULL; s++) {
            if (kv_param_find((*p)->params, "scorer") == NULL || !kv_scorer_can(*s))
                continue;
            if (!kv_is_under_valgrind() || pairs % 5 == 0)
                check_policy(&b, *p, *s);
            pairs++;
        }
    assert_true(pairs > 0);
    kv_attention_close(b.trace);
}

/* Appends the points of `text`, in chunks of 9. */
static void add_text(bench *b, const char *text, kv_point_list *list)
{
    kv_diag diag = {0};
    kv_mark mark = {"test", 1, 1};
    int first = list->count;
    if (kv_policy_parse_text(text, &mark, "", list, &diag) != KV_OK) {
        print_error("%s: %s\n", text, diag.text);
        fail();
    }
    for (int i = first; i < list->count; i++) {
        assert_true(b->points < MAX_POINTS);
        b->point[b->points++] = (point_state){.schedule = -1,
                                              .keep = -1,
                                              .replay = {.policy = list->point[i].policy,
                                                         .config = list->point[i].config,
                                                         .directory = "",
                                                         .chunk_tokens = chunks[1]}};
    }
}

/* Whether the policy has a setting of that name that is no budget itself. */
static bool has(const kv_retention *policy, const char *name)
{
    const kv_param *param = kv_param_find(policy->params, name);
    return param != NULL && !(param->flags & KV_PARAM_BUDGET);
}

/* One preset's budgets, some above the prompt's 78 tokens, in one list and each alone. */
static void check_preset(bench *b, const kv_retention *policy, const char *preset)
{
    static const char *const budgets[] = {"20", "37", "77", "78", "79", "100"};
    static bench alone;
    kv_point_list list = {0};
    kv_replay_result together;
    char text[256];
    b->points = 0;
    for (size_t i = 0; i < sizeof budgets / sizeof *budgets; i++) {
        snprintf(text, sizeof text, "{%s: {preset: %s, budget: %s%s%s%s%s}}", policy->name, preset,
                 budgets[i], has(policy, "window") ? ", window: 7" : "",
                 has(policy, "sinks") ? ", sinks: 2" : "",
                 has(policy, "recent") ? ", recent: 7" : "",
                 has(policy, "normalize") ? ", normalize: false" : "");
        add_text(b, text, &list);
    }
    run(b, &together);
    for (int i = 0; i < b->points; i++) {
        kv_replay_result result;
        alone = (bench){.trace = b->trace, .example = b->example, .policy = b->policy, .points = 1};
        alone.point[0] = b->point[i];
        run(&alone, &result);
        if (memcmp(alone.point[0].present, b->point[i].present, sizeof b->point[i].present) != 0) {
            print_error("%s, preset %s, budget %s differs alone\n", policy->name, preset,
                        budgets[i]);
            fail();
        }
        kv_replay_result_fini(&result);
    }
    kv_replay_result_fini(&together);
    kv_point_list_fini(&list);
}

/* What a budget keeps is no matter of the budgets beside it, under published rules as well. */
static void every_preset(void **state)
{
    static bench b;
    if (kv_is_under_valgrind())
        return; /* minutes there */
    open_trace(&b);
    for (const kv_retention *const *p = kv_retention_all(); *p != NULL; p++) {
        b.policy = (*p)->name;
        if (kv_param_find((*p)->params, "budget") == NULL)
            continue;
        for (const kv_preset *preset = (*p)->presets; preset && preset->name; preset++)
            check_preset(&b, *p, preset->name);
    }
    kv_attention_close(b.trace);
}
int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_policy),
                                       cmocka_unit_test(every_scorer),
                                       cmocka_unit_test(every_preset)};
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
