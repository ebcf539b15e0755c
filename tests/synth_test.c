/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Checks made-up traces against the distributions they were asked for (moments and their standard
 * errors are textbook formulas), what resembles a trace against that trace, and that what is
 * written reads back equal. */
#include "tests/kv_test.h"
#include "tests/request_text.h"

#include "traces/arrivals.h"
#include "traces/request_info.h"
#include "traces/request_writer.h"

enum { DRAWS = 20000 };

typedef struct moments {
    double mean, cv, min, max;
} moments;

static moments moments_of(const request_list *l, bool output)
{
    double sum = 0, squares = 0;
    moments m = {.min = INFINITY, .max = -INFINITY};
    for (int i = 0; i < l->count; i++) {
        double x = output ? l->request[i].output_tokens : l->request[i].prompt_tokens;
        sum += x;
        squares += x * x;
        m.min = fmin(m.min, x);
        m.max = fmax(m.max, x);
    }
    m.mean = sum / l->count;
    m.cv = sqrt(squares / l->count - m.mean * m.mean) / m.mean;
    return m;
}

/* Five standard errors of the mean, cv/sqrt(n); as much ten times over for the variation, whose
 * error depends on the fourth moment. */
static void lengths_have_their_moments(void **state)
{
    static const struct {
        const char *settings;
        double mean, cv;
    } table[] = {
        {"requests=20000 prompt=lognormal prompt_mean=3000 prompt_cv=0.8 prompt_max=1000000", 3000,
         0.8},
        {"requests=20000 prompt=gamma prompt_mean=700 prompt_cv=0.5", 700, 0.5},
        {"requests=20000 prompt=uniform prompt_min=101 prompt_max=300", 200.5, 0.28795},
        {"requests=20000 prompt=fixed prompt_mean=77", 77, 0},
    };
    for (int t = 0; t < 4; t++) {
        request_list l = read_requests(NULL, "synth", table[t].settings);
        assert_string_equal(l.message, "");
        assert_int_equal(l.count, DRAWS);
        moments m = moments_of(&l, false);
        double error = 5 * table[t].cv / sqrt(DRAWS);
        assert_close(m.mean / table[t].mean, 1, error + 1e-12);
        assert_close(m.cv, table[t].cv, 10 * error + 1e-6);
        assert_true(l.request[0].session == KV_NO_SESSION);
        assert_int_equal(l.request[0].block_count, 0);
        free_requests(&l);
    }
    request_list l = read_requests(NULL, "synth", "requests=5000 prompt_min=900 prompt_max=1100");
    moments m = moments_of(&l, false);
    assert_true(m.min == 900 && m.max == 1100);
    free_requests(&l);
}

static void wrong_settings(void **state)
{
    static const struct {
        const char *settings, *message;
    } table[] = {{"prompt_min=0", "prompt_min: expected at least 1"},
                 {"output_min=9 output_max=8", "output_min is above output_max"},
                 {"contexts=3 context_max=200000", "context_max must be below prompt_limit"},
                 {"turns=0.5", "turns"},
                 {"documents=3", "documents_per_prompt is above documents"},
                 {"documents=9 document_min=0", "document_min: expected at least 1"},
                 {"arrivals=poisson rate=3", "set `session_rate` instead"},
                 {"sort_window=3", "leave `sort_window` out"}};
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        request_list l = read_requests(NULL, "synth", table[i].settings);
        assert_int_equal(l.err, KV_ERR_INPUT);
        assert_contains(l.message, table[i].message);
        free_requests(&l);
    }
}

/* Each turn's prompt begins with all the blocks of the turn before. What contexts are drawn follows
 * Zipf: of 4 contexts with skew 1 the first has the share 12/25. Sessions of 4 turns on average:
 * the standard error of their number is about that of a geometric mean, sqrt(12) / 4 per session.
 */
static void sessions_grow_and_share(void **state)
{
    enum { REQUESTS = 20000 };
    request_list l = read_requests(NULL, "synth",
                                   "requests=20000 turns=4 contexts=4 context_mean=1024 "
                                   "prompt_mean=300 block_tokens=128 session_rate=50");
    assert_string_equal(l.message, "");
    assert_int_equal(l.count, REQUESTS);
    static int latest[REQUESTS];
    uint64_t first_context = UINT64_MAX;
    int sessions = 0, of_first = 0;
    for (int i = 0; i < l.count; i++)
        first_context =
            l.request[i].blocks[0] < first_context ? l.request[i].blocks[0] : first_context;
    for (int i = 0; i < l.count; i++) {
        const kv_request *r = &l.request[i], *before = &l.request[latest[r->session]];
        assert_int_equal(r->block_count, r->prompt_tokens / 128);
        latest[r->session] = i;
        sessions += r->turn == 0;
        of_first += r->turn == 0 && r->blocks[0] == first_context;
        if (r->turn == 0)
            continue;
        assert_true(r->prompt_tokens >= before->prompt_tokens + before->output_tokens);
        assert_memory_equal(r->blocks, before->blocks,
                            (size_t)before->block_count * sizeof *r->blocks);
    }
    assert_close((double)REQUESTS / sessions, 4, 5 * sqrt(12) / 4 / sqrt(sessions));
    double share = 12.0 / 25;
    assert_close((double)of_first / sessions, share, 5 * sqrt(share * (1 - share) / sessions));
    free_requests(&l);
}

/* --- Rates that change ----------------------------------------------------------------------- */

/* With the swing s, the quarter of the period around its peak has (1 + s 2 sqrt(2) / pi) of the
 * mean rate: the integral of the sine from pi/4 to 3 pi/4 is sqrt(2). */
static void rate_swings(void **state)
{
    gsl_rng *rng = kv__rng_new(1, 1);
    kv__arrivals arrivals;
    kv__arrivals_config config = {
        .gaps = KV_GAPS_POISSON, .rate = 100, .swing = 0.8, .swing_s = 10};
    kv__arrivals_init(&arrivals, &config, rng);
    enum { ARRIVALS = 200000 };
    int peak = 0, trough = 0;
    double last_s = 0;
    for (int i = 0; i < ARRIVALS; i++) {
        last_s = (double)kv__arrivals_next(&arrivals) / 1e9;
        double phase = fmod(last_s, 10) / 10;
        peak += phase >= 0.125 && phase < 0.375;
        trough += phase >= 0.625 && phase < 0.875;
    }
    double lean = 0.8 * 2 * sqrt(2) / 3.14159265358979;
    assert_close(ARRIVALS / last_s, 100, 0.02);
    assert_close(4.0 * peak / ARRIVALS, 1 + lean, 0.03);
    assert_close(4.0 * trough / ARRIVALS, 1 - lean, 0.03);
    gsl_rng_free(rng);
}

/* Bursts of 1 s on average between calms of 9 s, at 21 times their rate: the mean stays, a tenth of
 * the time has the share 21 / (21 + 9) of the arrivals. So the count of a window of 0.1 s has a
 * mean of 10 and is 70 in a burst, 10/3 in a calm. */
static void rate_bursts(void **state)
{
    if (kv_is_under_valgrind())
        kv_skip("two million draws take valgrind half a minute");
    gsl_rng *rng = kv__rng_new(2, 1);
    kv__arrivals arrivals;
    kv__arrivals_config config = {
        .gaps = KV_GAPS_POISSON, .rate = 100, .burst_factor = 21, .burst_s = 1, .calm_s = 9};
    kv__arrivals_init(&arrivals, &config, rng);
    enum { ARRIVALS = 2000000, WINDOWS = 190000 };
    static int count[WINDOWS];
    double last_s = 0;
    for (int i = 0; i < ARRIVALS; i++) {
        last_s = (double)kv__arrivals_next(&arrivals) / 1e9;
        if (last_s < WINDOWS / 10)
            count[(int)(last_s * 10)]++;
    }
    /* 2,000 cycles: the share of time in bursts has an error of about 2 %. */
    assert_close(ARRIVALS / last_s, 100, 0.1);
    int busy = 0, in_busy = 0, total = 0;
    for (int i = 0; i < WINDOWS; i++) {
        busy += count[i] > 30;
        in_busy += count[i] > 30 ? count[i] : 0;
        total += count[i];
    }
    assert_close((double)busy / WINDOWS, 0.1, 0.02);
    assert_close((double)in_busy / total, 0.7, 0.06);
    gsl_rng_free(rng);
}

/* --- Traces like another --------------------------------------------------------------------- */

static kv_request_info info_of(const char *path, const char *format, const char *requests)
{
    kv_diag diag = {0};
    kv_request_spec spec = {0};
    kv_request_reader *reader = NULL;
    kv_request_info info = {0};
    kv_request_question question = {{kv_replacement_find("lru")}, 1, 10000};
    kv_err err = kv_request_spec_init(&spec, path, format, &diag);
    if (err == KV_OK && requests != NULL)
        err = kv_request_spec_set(&spec, "requests", requests, NULL, &diag);
    if (err == KV_OK)
        err = kv_request_open(&spec, &reader, &diag);
    if (err == KV_OK)
        err = kv_request_info_read(reader, &question, &info, &diag);
    assert_string_equal(diag.text, "");
    assert_int_equal(err, KV_OK);
    kv_request_close(reader);
    kv_request_spec_fini(&spec);
    return info;
}

/* Ten times as many requests like those of the published trace. Tolerances: lengths 3 % of the mean
 * (its standard error is below 1 %), the rate 6 % (gaps vary 3 times their mean), hit ratios three
 * points. */
static void resembles_the_published_trace(void **state)
{
    char path[4096];
    const char *shared = getenv("KV_SHARED");
    snprintf(path, sizeof path, "%s/requests/mooncake-conversation-head.jsonl.zst",
             shared == NULL ? "" : shared);
    if (access(path, R_OK) != 0)
        kv_skip("the shared data is not there");
    kv_request_info want = info_of(path, NULL, NULL), got = info_of(path, "resample", "56060");
    assert_int_equal(got.counts.requests, 56060);
    assert_close(got.rate / want.rate, 1, 0.06);
    assert_close(got.burstiness / want.burstiness, 1, 0.1);
    assert_close(got.prompt.mean / want.prompt.mean, 1, 0.03);
    assert_close(got.output.mean / want.output.mean, 1, 0.03);
    assert_close((double)got.prompt.p99 / want.prompt.p99, 1, 0.05);
    assert_close(got.ideal_hit_ratio - want.ideal_hit_ratio, 0, 0.03);
    assert_close(got.cache[0].hit_ratio - want.cache[0].hit_ratio, 0, 0.03);
    assert_int_equal(got.contradictions, 0);
}

static void write_list(const request_list *l, const char *path, const char *format)
{
    kv_diag diag = {0};
    kv_request_writer *writer;
    assert_int_equal(kv_request_writer_open(path, format, &writer, &diag), KV_OK);
    for (int i = 0; i < l->count; i++)
        assert_int_equal(kv_request_write(writer, &l->request[i], NULL, &diag), KV_OK);
    assert_int_equal(kv_request_writer_close(writer, true, &diag), KV_OK);
}

/* Prompts of 3 of 5 documents in whole blocks behind a context of one block, then a question. Which
 * document stands first follows Zipf: of 5 with skew 1 the first has the share 60/137. A document's
 * blocks are the same wherever it stands, and one after the other. */
static void documents_stand_anywhere(void **state)
{
    enum { COUNT = 4000 };
    request_list l = read_requests(
        NULL, "synth",
        "requests=4000 documents=5 documents_per_prompt=3 document=uniform document_min=33 "
        "document_max=64 block_tokens=32 contexts=1 context_mean=20 prompt=fixed prompt_mean=7");
    int first = 0;
    assert_string_equal(l.message, "");
    assert_int_equal(l.count, COUNT);
    for (int i = 0; i < COUNT; i++) {
        const kv_request *r = &l.request[i];
        assert_int_equal(r->prompt_tokens, 32 + 3 * 64 + 7);
        assert_int_equal(r->block_count, 7);
        assert_int_equal(r->contents[0], 0);
        bool seen[5] = {false};
        for (int d = 0; d < 3; d++) { /* names 1..10: two for each document */
            uint64_t name = r->contents[1 + 2 * d];
            assert_true(name % 2 == 1 && name < 11 && !seen[name / 2]);
            assert_int_equal(r->contents[2 + 2 * d], name + 1);
            seen[name / 2] = true;
        }
        first += r->contents[1] == 1;
    }
    assert_close(first / (double)COUNT, 60.0 / 137, 5 * sqrt(0.25 / COUNT));
    write_list(&l, "rag.jsonl", NULL);
    request_list back = read_requests("rag.jsonl", NULL, NULL);
    for (int i = 0; i < COUNT; i++) {
        size_t bytes = 7 * sizeof(uint64_t);
        assert_memory_equal(back.request[i].contents, l.request[i].contents, bytes);
        assert_memory_equal(back.request[i].blocks, l.request[i].blocks, bytes);
    }
    free_requests(&back);
    free_requests(&l);
    unlink("rag.jsonl");
}

/* --- Writing --------------------------------------------------------------------------------- */

static void what_is_written_reads_back_equal(void **state)
{
    static const char *const paths[] = {"w.jsonl", "w.jsonl.zst", "w.csv.gz", "w.csv"};
    request_list l = read_requests(
        NULL, "synth", "requests=3000 turns=3 contexts=5 block_tokens=64 session_rate=9");
    assert_int_equal(l.count, 3000);
    for (int p = 0; p < 4; p++) {
        write_list(&l, paths[p], NULL);
        request_list back = read_requests(paths[p], NULL, NULL);
        assert_string_equal(back.message, "");
        assert_int_equal(back.count, l.count);
        for (int i = 0; i < l.count; i++) {
            const kv_request *a = &l.request[i], *b = &back.request[i];
            assert_int_equal(a->arrival_ns, b->arrival_ns);
            assert_int_equal(a->prompt_tokens, b->prompt_tokens);
            assert_int_equal(a->output_tokens, b->output_tokens);
            assert_int_equal(a->session, b->session);
            assert_int_equal(a->turn, b->turn);
            assert_int_equal(a->think_time_ns, b->think_time_ns);
            assert_int_equal(a->block_tokens, b->block_tokens);
            assert_int_equal(a->block_count, b->block_count);
            assert_memory_equal(a->blocks, b->blocks, (size_t)a->block_count * sizeof *a->blocks);
        }
        free_requests(&back);
        unlink(paths[p]);
    }
    free_requests(&l);
}

/* Until a trace is complete, there is no file of its name; one that is given up leaves nothing. */
static void no_half_written_file(void **state)
{
    kv_diag diag = {0};
    kv_request_writer *writer;
    request_list l = read_requests(NULL, "synth", "requests=10");
    assert_int_equal(kv_request_writer_open("half.jsonl", NULL, &writer, &diag), KV_OK);
    assert_int_equal(kv_request_write(writer, &l.request[0], NULL, &diag), KV_OK);
    assert_int_not_equal(access("half.jsonl", F_OK), 0);
    assert_int_equal(kv_request_writer_close(writer, false, &diag), KV_OK);
    assert_int_not_equal(access("half.jsonl", F_OK), 0);
    assert_int_not_equal(access("half.jsonl.part", F_OK), 0);
    assert_int_equal(kv_request_writer_open("no/such/folder/x", NULL, &writer, &diag), KV_ERR_IO);
    assert_contains(diag.text, "cannot be written");
    diag = (kv_diag){0};
    assert_int_equal(kv_request_writer_open("x", "azure", &writer, &diag), KV_ERR_INPUT);
    assert_contains(diag.text, "cannot write the format azure");
    diag = (kv_diag){0};
    if (access("/dev/full", W_OK) == 0) {
        /* A full disk shows when the file is completed, at the latest. */
        symlink("/dev/full", "full.csv.part");
        assert_int_equal(kv_request_writer_open("full.csv", NULL, &writer, &diag), KV_OK);
        kv_err err = kv_request_write(writer, &l.request[0], NULL, &diag);
        kv_err closing = kv_request_writer_close(writer, err == KV_OK, &diag);
        assert_true(err == KV_ERR_IO || closing == KV_ERR_IO);
        assert_int_not_equal(access("full.csv", F_OK), 0);
        unlink("full.csv.part");
    }
    free_requests(&l);
}

static int run(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lengths_have_their_moments),
        cmocka_unit_test(wrong_settings),
        cmocka_unit_test(sessions_grow_and_share),
        cmocka_unit_test(rate_swings),
        cmocka_unit_test(rate_bursts),
        cmocka_unit_test(resembles_the_published_trace),
        cmocka_unit_test(what_is_written_reads_back_equal),
        cmocka_unit_test(documents_stand_anywhere),
        cmocka_unit_test(no_half_written_file),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(void)
{
    return run_in_folder("synth_test.files", run);
}
