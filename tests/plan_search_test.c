/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* The search of a plan against a made-up oracle whose answers are known by arithmetic: the time to
 * the first token is LOAD * speed / (replicas * blocks) seconds, so that under a limit of one
 * second ceil(LOAD / blocks) replicas are the least, and n of them take n / LOAD times the trace's
 * rate. Answers, fronts and nearest limits are compared with these and with plain loops over
 * everything. */
#include "kv_test.h"

#include "sim/plan/rank.h"

enum { MOST = 64, RATE = 10 /* requests per second of the trace */ };

/* What the oracle is told. */
typedef struct world {
    double load;     /* seconds of the one above */
    double capacity; /* requests per second within the limits of one replica; 0: all are */
    int too_large;   /* requests that fit no cache */
    int most_asked;  /* questions */
} world;

static kv_err answer(void *closure, const kv_candidate *c, kv_plan_sample *s, kv_diag *diag)
{
    world *w = closure;
    kv_serving_row *row = &s->measures.row;
    (void)c;
    (void)diag;
    w->most_asked++;
    row->requests = 1000;
    row->rejected_too_large = w->too_large;
    row->completed = 1000 - w->too_large;
    row->output_tokens = 100 * row->completed;
    row->ttft.p99 = w->load * s->speed / (s->replicas * s->blocks);
    row->tpot.p99 = NAN;
    s->rate = RATE * s->speed;
    row->goodput = w->capacity > 0 ? fmin(s->rate, w->capacity * s->replicas) : s->rate;
    return KV_OK;
}

typedef struct scene {
    world world;
    kv_limit limit[4];
    kv_plan_problem problem;
    kv_candidate candidate;
} scene;

/* Limits are texts, ended by NULL. */
static void set_up(scene *s, double load, const char *const *limits)
{
    kv_diag diag = {0};
    *s = (scene){.world = {.load = load}};
    s->problem = (kv_plan_problem){.oracle = answer,
                                   .closure = &s->world,
                                   .limit = s->limit,
                                   .most_replicas = MOST,
                                   .tolerance = 0.02,
                                   .capacity = 0.1};
    for (; limits[s->problem.limits] != NULL; s->problem.limits++)
        assert_int_equal(
            kv_limit_parse(limits[s->problem.limits], NULL, &s->limit[s->problem.limits], &diag),
            KV_OK);
    s->candidate = (kv_candidate){.devices = 1,
                                  .price = NAN,
                                  .accuracy = {.known = true,
                                               .value = 1,
                                               .lo = NAN,
                                               .hi = NAN,
                                               .of_full = 1,
                                               .lo_of_full = NAN,
                                               .hi_of_full = NAN}};
}

static const kv_candidate *search(scene *s)
{
    kv_diag diag = {0};
    assert_int_equal(kv__candidate_search(&s->candidate, &s->problem, &diag), KV_OK);
    return &s->candidate;
}

static void tear_down(scene *s)
{
    free(s->candidate.sample);
}

static int least(double load)
{
    return (int)ceil(load - 1e-9);
}

/* --- replicas and rates ----------------------------------------------------------------------- */

/* How often a number of replicas was asked for as things stand. */
static int asked(const kv_candidate *c, int replicas)
{
    int times = 0;
    for (int i = 0; i < c->samples; i++)
        times += kv__plan_is_nominal(&c->sample[i]) && c->sample[i].replicas == replicas;
    return times;
}

static void test_replicas_and_rate(void **state)
{
    static const char *const limits[] = {"ttft_p99 <= 1s", NULL};
    (void)state;
    for (int tenths = 3; tenths < 550; tenths += 7) {
        double load = tenths / 10.0;
        scene s;
        set_up(&s, load, limits);
        const kv_candidate *c = search(&s);
        double most = RATE * c->replicas / load;
        assert_true(c->feasible);
        assert_int_equal(c->replicas, least(load));
        assert_int_equal(c->binding, c->replicas > 1 ? 0 : KV_BINDING_NONE);
        assert_true(c->rate <= most * (1 + 1e-9) && c->rate * 1.02 >= most * (1 - 1e-9));
        assert_false(c->rate_open);
        assert_int_equal(c->fewer_blocks, least(load / 0.9));
        assert_int_equal(c->more_blocks, least(load / 1.1));
        int widest = least(load) + (least(load) < 8 ? least(load) : 8);
        assert_int_equal(c->widest, widest);
        for (int n = least(load); n <= widest; n++)
            assert_int_equal(asked(c, n), 1);
        assert_true(s.world.most_asked < 48 && s.world.most_asked == c->samples);
        tear_down(&s);
    }
}

/* At a guess that is far off, from every number of replicas to every other. */
static void test_capacity_from_afar(void **state)
{
    static const char *const limits[] = {"ttft_p99 <= 1s", NULL};
    (void)state;
    for (int percent = 5; percent <= 90; percent += 5) {
        scene s;
        set_up(&s, 9.5, limits);
        s.problem.capacity = percent / 100.0;
        const kv_candidate *c = search(&s);
        int fewer = least(9.5 / (1 - s.problem.capacity));
        assert_int_equal(c->fewer_blocks, fewer <= MOST ? fewer : 0);
        assert_int_equal(c->more_blocks, least(9.5 / (1 + s.problem.capacity)));
        tear_down(&s);
    }
}

static void test_nothing_keeps(void **state)
{
    static const char *const limits[] = {"ttft_p99 <= 1s", NULL};
    scene s;
    (void)state;
    set_up(&s, 70, limits);
    const kv_candidate *c = search(&s);
    assert_false(c->feasible);
    assert_int_equal(c->replicas, MOST);
    assert_int_equal(c->binding, 0);
    assert_true(c->rate <= RATE * 64 / 70. && c->rate * 1.02 >= RATE * 64 / 70.);
    assert_int_equal(c->fewer_blocks, 0);
    assert_int_equal(c->more_blocks, 64); /* 70 / 1.1 = 63.6 */
    assert_int_equal(c->low_accuracy, 0);
    assert_int_equal(c->high_accuracy, 0);
    tear_down(&s);
}

static void test_open_rate(void **state)
{
    static const char *const limits[] = {"ttft_p99 <= 1s", NULL};
    scene s;
    (void)state;
    set_up(&s, 1e-9, limits);
    const kv_candidate *c = search(&s);
    assert_true(c->rate_open);
    assert_true(c->rate == 1024.0 * RATE);
    tear_down(&s);
}

static void test_fixed_replicas(void **state)
{
    static const char *const limits[] = {"ttft_p99 <= 1s", NULL};
    (void)state;
    for (int replicas = 4; replicas <= 6; replicas++) {
        scene s;
        set_up(&s, 4.5, limits);
        s.problem.fixed_replicas = true;
        s.candidate.point.config.replicas = replicas;
        const kv_candidate *c = search(&s);
        assert_int_equal(c->replicas, replicas);
        assert_true(c->feasible == (replicas >= 5));
        assert_int_equal(c->binding, replicas >= 5 ? KV_BINDING_NONE : 0);
        assert_true(fabs(c->rate / (RATE * replicas / 4.5) - 1) < 0.02);
        tear_down(&s);
    }
}

static void test_no_cache_fits(void **state)
{
    static const char *const limits[] = {"ttft_p99 <= 1s", NULL};
    scene s;
    (void)state;
    set_up(&s, 3, limits);
    s.world.too_large = 1;
    const kv_candidate *c = search(&s);
    assert_false(c->feasible);
    assert_int_equal(c->binding, KV_BINDING_MEMORY);
    assert_int_equal(c->replicas, 1);
    assert_true(isnan(c->rate));
    assert_true(s.world.most_asked <= 3); /* one for each number of blocks */
    tear_down(&s);
}

/* --- limits that replicas do not change ------------------------------------------------------- */

/* Three replicas at 3 each are needed; `price` allows so many. */
static void check_ends(const char *price, double value, int as_given, int low, int high)
{
    const char *const limits[] = {"ttft_p99 <= 1s", "accuracy >= 0.9", price, NULL};
    scene s;
    set_up(&s, 2.5, limits);
    s.candidate.price = 3;
    s.candidate.accuracy.value = value;
    s.candidate.accuracy.lo = value - 0.1;
    s.candidate.accuracy.hi = value + 0.1;
    const kv_candidate *c = search(&s);
    assert_int_equal(c->feasible ? c->replicas : 0, as_given);
    assert_int_equal(c->low_accuracy, low);
    assert_int_equal(c->high_accuracy, high);
    tear_down(&s);
}

static void test_accuracy_and_price(void **state)
{
    (void)state;
    check_ends("price <= 9", 1, 3, 3, 3);
    check_ends("price <= 9", 0.95, 3, 0, 3);
    check_ends("price <= 9", 0.85, 0, 0, 3);
    check_ends("price <= 9", 0.75, 0, 0, 0);
    check_ends("price <= 8.9", 1, 0, 0, 0);
    check_ends("price <= 8.9", 0.85, 0, 0, 0); /* accurate enough at best, and still too dear */
    check_ends("price <= 2", 0.85, 0, 0, 0);   /* not even one */
    check_ends("price <= 2", 1, 0, 0, 0);
}

/* Who misses accuracy or price is still told what it takes and how much it serves. */
static void test_what_it_would_take(void **state)
{
    static const char *const limits[] = {"ttft_p99 <= 1s", "accuracy >= 0.9", "price <= 2", NULL};
    scene s;
    (void)state;
    for (int dear = 0; dear < 2; dear++) {
        set_up(&s, 2.5, limits);
        s.candidate.price = dear ? 3 : 0.1;
        s.candidate.accuracy.value = dear ? 1 : 0.5;
        const kv_candidate *c = search(&s);
        assert_false(c->feasible);
        assert_int_equal(c->replicas, 3);
        assert_int_equal(c->binding, dear ? 2 : 1);
        assert_true(fabs(c->rate / (RATE * 3 / 2.5) - 1) < 0.02);
        tear_down(&s);
    }
}

/* Goodput asks for more than arrives: a larger rate keeps it, up to that which is too large. */
static void test_goodput(void **state)
{
    static const char *const limits[] = {"ttft_p99 <= 1s", "goodput >= 15", NULL};
    static const char *const most[] = {"ttft_p99 <= 1s", "goodput >= 70", NULL};
    scene s;
    (void)state;
    set_up(&s, 0.3, limits); /* 10 arrive; one replica takes 33 */
    s.problem.fixed_replicas = true;
    s.candidate.point.config.replicas = 1;
    const kv_candidate *c = search(&s);
    assert_false(c->feasible);
    assert_int_equal(c->binding, 1);
    assert_true(c->rate <= RATE / 0.3 && c->rate * 1.02 >= RATE / 0.3);
    tear_down(&s);
    set_up(&s, 0.3, most); /* more than ever is within the other limit */
    c = search(&s);
    assert_true(isnan(c->rate) || c->rate >= 70);
    tear_down(&s);
    set_up(&s, 1e-6, most); /* one replica serves 30 of any number; two 60, three 90 */
    s.world.capacity = 30;
    s.problem.fixed_replicas = true;
    s.candidate.point.config.replicas = 2;
    c = search(&s);
    assert_true(isnan(c->rate) && !c->feasible);
    tear_down(&s);
}

/* What cannot be run is not asked about, and has no part in what others come to. */
static void test_excluded(void **state)
{
    static const char *const limits[] = {"ttft_p99 <= 1s", NULL};
    static const kv_plan_case given = {"as given", offsetof(kv_candidate, replicas)};
    kv_diag diag = {0};
    scene s;
    (void)state;
    set_up(&s, 2.5, limits);
    s.candidate.excluded = true;
    kv_plan_field field = {&s.problem, &s.candidate, 1, false};
    const kv_candidate *c = search(&s);
    assert_int_equal(kv__candidate_relax(&s.candidate, &s.problem, &diag), KV_OK);
    assert_true(s.world.most_asked == 0 && c->samples == 0 && !c->feasible);
    assert_int_equal(kv__plan_best(&field, &given), -1);
    assert_int_equal(kv__plan_rank(&field, 0), 0);
    tear_down(&s);
}

/* --- the answer and the front ----------------------------------------------------------------- */

enum { CANDIDATES = 6, SAMPLES = 4 };

static double draw(unsigned *seed, int values)
{
    *seed = *seed * 1103515245u + 12345u;
    return (double)(*seed >> 16) / 65536 * values;
}

static kv_plan_sample draw_sample(unsigned *seed, int replicas)
{
    kv_plan_sample s = {.replicas = replicas, .speed = 1, .blocks = 1, .binding = KV_BINDING_NONE};
    s.measures.row.completed = 1;
    s.measures.row.ttft.p99 = 1 + floor(draw(seed, 4));
    s.excess = s.measures.row.ttft.p99 / 3 - 1;
    return s;
}

/* Prices, accuracies and latencies of few values, so that many are equal. */
static void draw_field(kv_candidate *c, kv_plan_sample (*sample)[SAMPLES], unsigned *seed)
{
    for (int n = 0; n < CANDIDATES; n++) {
        c[n] = (kv_candidate){.number = n,
                              .devices = 1,
                              .price = (1 + floor(draw(seed, 3))) * 1.1,
                              .rate = floor(draw(seed, 3)),
                              .sample = sample[n],
                              .samples = SAMPLES,
                              .widest = SAMPLES};
        c[n].accuracy.of_full = floor(draw(seed, 3)) / 2;
        for (int i = SAMPLES - 1; i >= 0; i--) {
            sample[n][i] = draw_sample(seed, i + 1);
            if (sample[n][i].excess <= 0) {
                c[n].feasible = true;
                c[n].replicas = i + 1;
            }
        }
        if (c[n].feasible) /* the search never asked for less than the least */
            for (int i = 0; i < c[n].replicas - 1; i++)
                sample[n][i].excess = 1;
    }
}

/* True if a is at least as good as b in all and better in one; costs are in tenths. */
static bool better(const kv_candidate *a, const kv_plan_sample *x, const kv_candidate *b,
                   const kv_plan_sample *y)
{
    long cost_a = lround(10 * a->price * x->replicas), cost_b = lround(10 * b->price * y->replicas);
    double late_a = x->measures.row.ttft.p99, late_b = y->measures.row.ttft.p99;
    return cost_a <= cost_b && a->accuracy.of_full >= b->accuracy.of_full && late_a <= late_b &&
           (cost_a < cost_b || a->accuracy.of_full > b->accuracy.of_full || late_a < late_b);
}

static bool beaten(const kv_candidate *c, int n, int i)
{
    for (int m = 0; m < CANDIDATES; m++)
        for (int k = 0; k < SAMPLES; k++)
            if (c[m].sample[k].excess <= 0 &&
                better(&c[m], &c[m].sample[k], &c[n], &c[n].sample[i]))
                return true;
    return false;
}

static void test_front(void **state)
{
    static const kv_plan_case given = {"as given", offsetof(kv_candidate, replicas)};
    kv_candidate c[CANDIDATES];
    kv_plan_sample sample[CANDIDATES][SAMPLES];
    kv_plan_problem problem = {.limits = 0};
    kv_plan_field field = {&problem, c, CANDIDATES, true};
    unsigned seed = 1;
    int answers = 0, larger = 0;
    (void)state;
    for (int round = 0; round < 2000; round++) {
        int front = 0;
        draw_field(c, sample, &seed);
        for (int n = 0; n < CANDIDATES; n++)
            for (int i = 0; i < SAMPLES; i++) {
                bool wanted = c[n].sample[i].excess <= 0 && !beaten(c, n, i);
                assert_true(kv__plan_on_front(&field, &c[n], &c[n].sample[i]) == wanted);
                front += wanted;
            }
        int best = kv__plan_best(&field, &given);
        assert_true((best >= 0) == kv__plan_any_feasible(&field));
        assert_true((best >= 0) == (front > 0));
        if (best < 0)
            continue;
        assert_true(kv__plan_on_front(&field, &c[best], &c[best].sample[c[best].replicas - 1]));
        assert_int_equal(kv__plan_rank(&field, best), 1);
        for (int n = 0; n < CANDIDATES; n++)
            assert_true(!c[n].feasible || lround(10 * c[n].price * c[n].replicas) >=
                                              lround(10 * c[best].price * c[best].replicas));
        answers++;
        larger += front > 1;
    }
    assert_true(answers > 1000 && larger > 500); /* the draw is not trivial */
}

/* --- nearest limits --------------------------------------------------------------------------- */

/* What is said of the scene's limits when it is all there is. */
static void ask_nearest(scene *s, kv_plan_nearest *out, bool *alone)
{
    kv_diag diag = {0};
    kv_plan_field field = {&s->problem, &s->candidate, 1, !isnan(s->candidate.price)};
    search(s);
    assert_false(s->candidate.feasible);
    assert_int_equal(kv__candidate_relax(&s->candidate, &s->problem, &diag), KV_OK);
    kv__plan_nearest(&field, out, alone);
    tear_down(s);
}

static void test_nearest(void **state)
{
    static const char *const slow[] = {"ttft_p99 <= 1s", "accuracy >= 0.9", NULL};
    static const char *const dear[] = {"ttft_p99 <= 1s", "price <= 7", NULL};
    scene s;
    kv_plan_nearest near[4];
    bool alone;
    (void)state;
    set_up(&s, 70, slow); /* 70 / 64 = 1.09375 s with the most replicas */
    ask_nearest(&s, near, &alone);
    assert_true(alone && near[0].choice == 0 && fabs(near[0].value - 1.094) < 1e-9);
    assert_true(near[1].kept && near[1].choice < 0);
    set_up(&s, 70, slow); /* both must give */
    s.candidate.accuracy.value = 0.71239;
    ask_nearest(&s, near, &alone);
    assert_true(!alone && fabs(near[0].value - 1.094) < 1e-9);
    assert_true(near[1].choice == 0 && fabs(near[1].value - 0.7123) < 1e-9);
    set_up(&s, 2.5, dear); /* three replicas are 9; two take 1.25 s */
    s.candidate.price = 3;
    ask_nearest(&s, near, &alone);
    assert_true(alone && near[0].value == 1.25 && near[1].value == 9);
    assert_true(near[0].replicas == 2 && near[1].replicas == 3);
}

static void test_no_nearest(void **state)
{
    static const char *const limits[] = {"ttft_p99 <= 1s", "accuracy >= 0.9", "price <= 7", NULL};
    scene s;
    kv_plan_nearest near[4];
    bool alone;
    (void)state;
    set_up(&s, 2.5, limits); /* neither accuracy nor price is known */
    s.candidate.accuracy.value = NAN;
    ask_nearest(&s, near, &alone);
    assert_true(near[0].kept && !alone);
    assert_non_null(strstr(near[1].why, "accuracy of no configuration is known"));
    assert_non_null(strstr(near[2].why, "price of no device is known"));
    set_up(&s, 70, limits); /* the same, and the latency is not kept either */
    s.candidate.accuracy.value = NAN;
    ask_nearest(&s, near, &alone);
    assert_true(!near[0].kept && fabs(near[0].value - 1.094) < 1e-9 && !alone);
    set_up(&s, 2.5, limits);
    s.world.too_large = 7;
    ask_nearest(&s, near, &alone);
    for (int i = 0; i < 3; i++)
        assert_non_null(strstr(near[i].why, "7 of 1000"));
    set_up(&s, 2.5, limits);
    s.candidate.accuracy.value = 0;
    s.candidate.price = 1;
    ask_nearest(&s, near, &alone);
    assert_true(near[0].kept && near[2].kept);
    assert_string_equal(near[1].why, "accuracy is 0 in every configuration");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_replicas_and_rate),
        cmocka_unit_test(test_capacity_from_afar),
        cmocka_unit_test(test_nothing_keeps),
        cmocka_unit_test(test_open_rate),
        cmocka_unit_test(test_fixed_replicas),
        cmocka_unit_test(test_no_cache_fits),
        cmocka_unit_test(test_accuracy_and_price),
        cmocka_unit_test(test_what_it_would_take),
        cmocka_unit_test(test_goodput),
        cmocka_unit_test(test_excluded),
        cmocka_unit_test(test_front),
        cmocka_unit_test(test_nearest),
        cmocka_unit_test(test_no_nearest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
