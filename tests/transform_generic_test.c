/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* What must hold for every registered transform, beside policies that evict and beside none: counts
 * and all that is measured from recorded attention stay those of the plain policy, bytes do not
 * grow, what merges changes nothing where nothing leaves, and a point's results depend neither on
 * the run nor on what else is replayed. What each makes of the numbers: transform_test.c and
 * transform_reference.py. */
#include "kv_test.h"

#include "policies/method.h"
#include "sim/replay/replay.h"

enum { MOST_POINTS = 128, MOST_RETENTIONS = 5 };

static const struct {
    const char *policy, *name[3], *value[3];
    long long chunk;
} retentions[MOST_RETENTIONS] = {
    {"full", {NULL}, {NULL}, 0},
    {"snapkv", {"keep", "window", "kernel"}, {"0.4", "4", "3"}, 0},
    {"snapkv", {"keep", "window", "evict"}, {"0.3", "4", "chunked"}, 9},
    {"h2o", {"keep"}, {"0.3"}, 32},
    {"streaming", {"window", "sinks"}, {"11", "2"}, 9},
};

typedef struct bench {
    kv_attention *trace;
    kv_replay_point point[MOST_POINTS];
    kv_part part[MOST_POINTS];
    int points;
} bench;

/* Settings that do something in 80 tokens. */
static const struct {
    const char *transform, *name, *value;
} small[] = {{"kivi", "residual", "8"},        {"kivi", "group", "8"}, {"think", "recent", "8"},
             {"think", "observers", "8"},      {"cam", "merge", "4"},  {"gear", "buffer", "4"},
             {"minicache", "start_layer", "0"}};

static void *defaults(const kv_param *params, size_t bytes)
{
    kv_diag diag = {0};
    void *config = calloc(1, bytes);
    assert_int_equal(kv_params_default(params, config, &diag), KV_OK);
    return config;
}

static void set(const kv_param *params, void *config, const char *name, const char *value)
{
    kv_diag diag = {0};
    assert_int_equal(kv_param_set(kv_param_find(params, name), config, value, NULL, &diag), KV_OK);
}

/* One point; transform NULL: the plain policy. */
static void add(bench *b, int retention, const kv_transform *transform)
{
    const kv_retention *policy = kv_retention_find(retentions[retention].policy);
    assert_true(b->points < MOST_POINTS);
    kv_replay_point *point = &b->point[b->points];
    void *config = defaults(policy->params, policy->config_bytes);
    for (int i = 0; i < 3 && retentions[retention].name[i] != NULL; i++)
        set(policy->params, config, retentions[retention].name[i], retentions[retention].value[i]);
    *point = (kv_replay_point){.policy = policy,
                               .config = config,
                               .directory = "",
                               .chunk_tokens = retentions[retention].chunk};
    if (transform != NULL) {
        kv_part *part = &b->part[b->points];
        part->method = kv_method_of_transform(transform);
        part->config = defaults(transform->params, transform->config_bytes);
        for (size_t i = 0; i < sizeof small / sizeof *small; i++)
            if (strcmp(small[i].transform, transform->name) == 0)
                set(transform->params, part->config, small[i].name, small[i].value);
        point->part = part;
        point->parts = 1;
    }
    b->points++;
}

static bench *start(void)
{
    char path[512];
    kv_diag diag = {0};
    bench *b = calloc(1, sizeof *b);
    snprintf(path, sizeof path, "%s/tests/data/tiny.h5", getenv("srcdir"));
    assert_int_equal(kv_attention_open(path, &b->trace, &diag), KV_OK);
    return b;
}

static void stop(bench *b)
{
    for (int p = 0; p < b->points; p++) {
        kv_params_fini(b->point[p].policy->params, (void *)b->point[p].config);
        free((void *)b->point[p].config);
        if (b->point[p].parts > 0) {
            kv_params_fini(b->part[p].method.params, b->part[p].config);
            free(b->part[p].config);
        }
    }
    kv_attention_close(b->trace);
    free(b);
}

static kv_replay_result run(const bench *b, const kv_replay_point *points, int count)
{
    kv_diag diag = {0};
    kv_replay *replay = NULL;
    kv_replay_result result = {0};
    kv_replay_options options = {.seed = 5, .page_tokens = 16, .prefill_token_s = 1};
    options.decode_step_s = 1;
    kv_err err =
        kv_replay_new(points, count, kv_attention_shape(b->trace), &options, &replay, &diag);
    if (err == KV_OK)
        err = kv_replay_example(replay, b->trace, 0, &result, &diag);
    if (err != KV_OK)
        print_error("%s\n", diag.text);
    assert_int_equal(err, KV_OK);
    kv_replay_free(replay);
    return result;
}

/* Transforms that this trace, which has no images, is enough for. */
static bool suits(const kv_transform *transform, int retention)
{
    if (transform->needs & KV_NEEDS_MODALITY)
        return false;
    return retention == 0 || !(transform->needs & KV_NEEDS_FULL);
}

static bool same(double a, double b)
{
    return a == b || (isnan(a) && isnan(b));
}

/* Measures that say what is stored or what comes out; no transform touches the others. */
static bool is_own(int measure)
{
    static const kv_measure own[] = {KV_M_FOOTPRINT_DEVICE, KV_M_BYTES_SECONDS,  KV_M_PEAK_BYTES,
                                     KV_M_FOOTPRINT_BYTES,  KV_M_READS_BYTES,    KV_M_OUTPUT_ERROR,
                                     KV_M_OUTPUT_WORST,     KV_M_EVIDENCE_OUTPUT};
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        if ((int)own[i] == measure)
            return true;
    return false;
}

static void expect(bool holds, const kv_transform *t, int retention, const char *what)
{
    if (!holds)
        fail_msg("%s beside %s: %s", t->name, retentions[retention].policy, what);
}

static void check_point(const kv_transform *t, int retention, const kv_record *plain,
                        const kv_record *got)
{
    for (int m = 0; m < KV_MEASURES; m++)
        if (!is_own(m) && !same(plain->value[m], got->value[m])) {
            print_error("%s beside %s: %s is %g, plain %g\n", t->name, retentions[retention].policy,
                        kv_measure_get(m)->name, got->value[m], plain->value[m]);
            fail();
        }
    double bytes = got->value[KV_M_FOOTPRINT_BYTES], all = plain->value[KV_M_FOOTPRINT_BYTES];
    double error = got->value[KV_M_OUTPUT_ERROR], before = plain->value[KV_M_OUTPUT_ERROR];
    bool stores_less = t->bytes != NULL;
    expect(bytes <= all + 1e-12, t, retention, "more bytes than plain entries");
    expect(got->value[KV_M_PEAK_BYTES] <= plain->value[KV_M_PEAK_BYTES] * (1 + 1e-12), t, retention,
           "a higher peak of bytes than plain entries");
    expect(error >= 0, t, retention, "no output error was measured");
    expect(stores_less == (bytes < all - 1e-12), t, retention,
           "saves bytes without `bytes`, or none with it");
    if (retention == 0 && !stores_less) /* recorded rows are rounded */
        expect(error < 2e-3, t, retention,
               "changes the output though nothing leaves and no bytes are saved");
    if (retention > 0 || stores_less)
        expect(fabs(error - before) > 1e-5, t, retention, "does nothing to the output");
}

static void counts_stay_and_bytes_do_not_grow(void **unused)
{
    bench *b = start();
    int of[MOST_POINTS], index[MOST_POINTS];
    const kv_transform *const *all = kv_transform_all();
    for (int r = 0; r < MOST_RETENTIONS; r++) {
        add(b, r, NULL);
        for (int t = 0; all[t] != NULL; t++)
            if (suits(all[t], r)) {
                of[b->points] = r;
                index[b->points] = t;
                add(b, r, all[t]);
            }
    }
    kv_replay_result result = run(b, b->point, b->points);
    kv_replay_result again = run(b, b->point, b->points);
    int plain = 0, slots = 1 + result.turns;
    for (int p = 0; p < b->points; p++) {
        if (b->point[p].parts == 0)
            plain = p;
        else
            check_point(all[index[p]], of[p], &result.record[plain * slots],
                        &result.record[p * slots]);
        kv_replay_result alone = run(b, &b->point[p], 1);
        for (int m = 0; m < KV_MEASURES * slots; m++) {
            double x = result.record[p * slots + m / KV_MEASURES].value[m % KV_MEASURES];
            double y = again.record[p * slots + m / KV_MEASURES].value[m % KV_MEASURES];
            double z = alone.record[m / KV_MEASURES].value[m % KV_MEASURES];
            assert_true(same(x, y) && same(x, z));
        }
        kv_replay_result_fini(&alone);
    }
    assert_true(b->points > MOST_RETENTIONS * 7);
    kv_replay_result_fini(&result);
    kv_replay_result_fini(&again);
    stop(b);
}

/* Shares of bytes: above 0, at most 1, for any number of entries, of any layer and width. */
static void shares_are_sound(void **unused)
{
    static const int width[] = {16, 64, 128, 256};
    for (const kv_transform *const *t = kv_transform_all(); *t != NULL; t++) {
        void *config = defaults((*t)->params, (*t)->config_bytes);
        for (int w = 0; w < 4 && (*t)->bytes != NULL; w++)
            for (int n = 1; n < 2000; n++) {
                kv_shape shape = {.layers = 8, .heads = 4, .kv_heads = 2, .head_dim = width[w]};
                kv_transform_size size = {&shape, n % 8, n, n % 2};
                double share = (*t)->bytes(config, &size);
                assert_true(share > 0 && share <= 1 + 1e-12);
            }
        kv_params_fini((*t)->params, config);
        free(config);
    }
}

static void missing_images_are_refused(void **unused)
{
    bench *b = start();
    kv_diag diag = {0};
    kv_replay *replay = NULL;
    kv_method look_m;
    assert_true(kv_method_find("look_m", &look_m));
    add(b, 1, look_m.transform);
    kv_replay_options options = {.page_tokens = 16};
    assert_int_equal(
        kv_replay_new(b->point, 1, kv_attention_shape(b->trace), &options, &replay, &diag), KV_OK);
    assert_int_equal(kv_replay_check(replay, b->trace, 0, &diag), KV_ERR_UNSUPPORTED);
    assert_non_null(strstr(diag.text, "look_m"));
    assert_non_null(strstr(diag.text, "record the dataset modality"));
    kv_replay_free(replay);
    stop(b);
}

/* The trace has four layers; their width is the rank that a block can have at most. */
static void shapes_that_do_not_fit_are_refused(void **unused)
{
    char width[16], above[16];
    const char *const cases[][4] = {
        {"minicache", "start_layer", "2", NULL},
        {"minicache", "start_layer", "3",
         "no pair of layers begins at start_layer 3, as the "
         "recording has 4 layers"},
        {"minicache", "start_layer", "40", "no pair of layers begins at start_layer 40, as the"},
        {"gear", "rank", width, NULL},
        {"gear", "rank", above, "rank is above that of any block"},
        {"gear", "decode_rank", above, "decode_rank is above that of any block"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bench *b = start();
        kv_diag diag = {0};
        kv_replay *replay = NULL;
        kv_replay_options options = {.page_tokens = 16};
        const kv_shape *shape = kv_attention_shape(b->trace);
        kv_method method;
        snprintf(width, sizeof width, "%d", shape->head_dim);
        snprintf(above, sizeof above, "%d", shape->head_dim + 1);
        assert_true(kv_method_find(cases[i][0], &method));
        add(b, 0, method.transform);
        set(method.params, b->part[0].config, cases[i][1], cases[i][2]);
        kv_err err = kv_replay_new(b->point, 1, shape, &options, &replay, &diag);
        assert_int_equal(err, cases[i][3] == NULL ? KV_OK : KV_ERR_UNSUPPORTED);
        if (cases[i][3] != NULL && strstr(diag.text, cases[i][3]) == NULL)
            fail_msg("%s", diag.text);
        kv_replay_free(replay);
        stop(b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_stay_and_bytes_do_not_grow),
        cmocka_unit_test(shares_are_sound),
        cmocka_unit_test(missing_images_are_refused),
        cmocka_unit_test(shapes_that_do_not_fit_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
