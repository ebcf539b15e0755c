/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Checks what is said of a request trace: prefix hits against a brute-force cache on random traces
 * and against the reference counts of the published trace, the rest against answers worked by hand.
 */
#include "tests/kv_test.h"
#include "tests/request_text.h"

#include "traces/request_info.h"

static kv_request_info info_of(const char *path, const char *format, kv_request_question question)
{
    kv_diag diag = {0};
    kv_request_spec spec = {0};
    kv_request_reader *reader = NULL;
    kv_request_info info = {0};
    kv_err err = kv_request_spec_init(&spec, path, format, &diag);
    if (err == KV_OK) {
        spec.options.arrivals = KV_ARRIVALS_IF_RECORDED;
        err = kv_request_open(&spec, &reader, &diag);
    }
    if (err == KV_OK)
        err = kv_request_info_read(reader, &question, &info, &diag);
    assert_string_equal(diag.text, "");
    assert_int_equal(err, KV_OK);
    kv_request_close(reader);
    kv_request_spec_fini(&spec);
    return info;
}

static kv_request_question of_lru(uint32_t blocks)
{
    return (kv_request_question){{kv_replacement_find("lru")}, 1, blocks};
}

/* Five requests at 0, 1, 1, 3 and 6 s: gaps 1 0 2 3, mean 1.5, squares of differences 0.25 2.25
 * 0.25 2.25, sample variance 5/3. Blocks of 512: [1 2 3] [1 2 4] [1] [] [5 2]: hits 0, 2 (1024
 * tokens), 1 (all of its 100 tokens), none, 0 (2 is known but its head is not). */
static void worked_by_hand(void **state)
{
    static const char text[] =
        "{\"timestamp\": 0, \"input_length\": 1500, \"output_length\": 10, \"hash_ids\": [1, 2, "
        "3], "
        "\"session_id\": 1}\n"
        "{\"timestamp\": 1000, \"input_length\": 1300, \"output_length\": 0, \"hash_ids\": [1, 2, "
        "4], "
        "\"session_id\": 2}\n"
        "{\"timestamp\": 1000, \"input_length\": 100, \"output_length\": 30, \"hash_ids\": [1], "
        "\"session_id\": 1}\n"
        "{\"timestamp\": 3000, \"input_length\": 100, \"output_length\": 40}\n"
        "{\"timestamp\": 6000, \"input_length\": 1000, \"output_length\": 20, \"hash_ids\": [5, "
        "2]}\n";
    write_bytes("h.jsonl", text, strlen(text));
    kv_request_info i = info_of("h.jsonl", NULL, of_lru(2));
    unlink("h.jsonl");
    assert_int_equal(i.counts.requests, 5);
    assert_int_equal(i.counts.zero_output, 1);
    assert_close(i.duration_s, 6, 1e-15);
    assert_close(i.rate, 4.0 / 6, 1e-15);
    assert_close(i.burstiness, sqrt(5.0 / 3) / 1.5, 1e-12);
    assert_int_equal(i.prompt.total, 4000);
    assert_close(i.prompt.mean, 800, 1e-15);
    assert_int_equal(i.prompt.min, 100);
    assert_int_equal(i.prompt.p50, 1000);
    assert_int_equal(i.prompt.p90, 1500);
    assert_int_equal(i.prompt.max, 1500);
    assert_int_equal(i.output.p50, 20);
    assert_int_equal(i.sessions, 2);
    assert_int_equal(i.block_tokens, 512);
    assert_int_equal(i.blocks, 9);
    assert_int_equal(i.distinct_blocks, 5);
    assert_int_equal(i.reused_blocks, 2);
    assert_int_equal(i.working_set_tokens, 5 * 512);
    assert_int_equal(i.ideal_hit_tokens, 1024 + 100);
    assert_close(i.ideal_hit_ratio, 1124.0 / 4000, 1e-15);
    /* LRU of 2: after the first request 2 3; the second starts with 1: no hit; then 2 4, no 1:
     * none; the third leaves 4 1; the last none. */
    assert_int_equal(i.cache[0].hit_tokens, 0);
}

/* --- Against brute force
 * ---------------------------------------------------------------------------------- */

enum { REQUESTS = 400, MOST_BLOCKS = 30, BLOCK = 16 };

typedef struct prompts {
    int blocks[REQUESTS], tokens[REQUESTS];
    int id[REQUESTS][MOST_BLOCKS];
} prompts;

static unsigned draw(uint64_t *state)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (unsigned)(*state >> 33);
}

/* Prompts that begin like an earlier one, and go on with blocks of their own. */
static void make_prompts(prompts *p, uint64_t seed)
{
    uint64_t state = seed;
    int fresh = 0;
    for (int i = 0; i < REQUESTS; i++) {
        int like = i == 0 ? 0 : (int)(draw(&state) % (unsigned)i);
        int shared = i == 0 ? 0 : (int)(draw(&state) % (unsigned)(p->blocks[like] + 1));
        p->blocks[i] = 1 + (int)(draw(&state) % MOST_BLOCKS);
        for (int b = 0; b < p->blocks[i]; b++)
            p->id[i][b] = b < shared ? p->id[like][b] : fresh++;
        p->tokens[i] = BLOCK * p->blocks[i] - (int)(draw(&state) % BLOCK);
    }
}

static void write_prompts(const prompts *p, const char *path)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fprintf(file, "prompt,output,blocks\n");
    for (int i = 0; i < REQUESTS; i++) {
        fprintf(file, "%d,1,", p->tokens[i]);
        for (int b = 0; b < p->blocks[i]; b++)
            fprintf(file, " %d", p->id[i][b]);
        fprintf(file, "\n");
    }
    assert_int_equal(fclose(file), 0);
}

/* The cache as a list of names, the least recently used first, searched from end to end. */
static long long brute_force(const prompts *p, int capacity)
{
    static int cache[REQUESTS * MOST_BLOCKS + 1];
    int held = 0;
    long long hits = 0;
    for (int i = 0; i < REQUESTS; i++) {
        int run = 0;
        for (bool found = true; found && run < p->blocks[i]; run += found) {
            found = false;
            for (int c = 0; c < held; c++)
                found |= cache[c] == p->id[i][run];
        }
        hits += run * BLOCK < p->tokens[i] ? run * BLOCK : p->tokens[i];
        for (int b = 0; b < p->blocks[i]; b++) {
            int kept = 0;
            for (int c = 0; c < held; c++)
                if (cache[c] != p->id[i][b])
                    cache[kept++] = cache[c];
            cache[kept++] = p->id[i][b];
            held = kept;
            if (held > capacity)
                memmove(cache, cache + 1, (size_t)--held * sizeof cache[0]);
        }
    }
    return hits;
}

static void lru_agrees_with_brute_force(void **state)
{
    static prompts p;
    static const int capacities[] = {1, 2, 7, 30, 100, 1000, REQUESTS * MOST_BLOCKS};
    for (uint64_t seed = 1; seed <= 5; seed++) {
        make_prompts(&p, seed);
        write_prompts(&p, "r.csv");
        kv_diag diag = {0};
        for (size_t c = 0; c < sizeof capacities / sizeof capacities[0]; c++) {
            kv_request_spec spec = {0};
            kv_request_reader *reader = NULL;
            kv_request_info info;
            kv_request_question question = of_lru((uint32_t)capacities[c]);
            assert_int_equal(kv_request_spec_init(&spec, "r.csv", "csv", &diag), KV_OK);
            assert_int_equal(kv_request_spec_set(&spec, "block_tokens", "16", NULL, &diag), KV_OK);
            spec.options.arrivals = KV_ARRIVALS_TOGETHER;
            assert_int_equal(kv_request_open(&spec, &reader, &diag), KV_OK);
            assert_int_equal(kv_request_info_read(reader, &question, &info, &diag), KV_OK);
            assert_int_equal(info.cache[0].hit_tokens, brute_force(&p, capacities[c]));
            if (c == 6)
                assert_int_equal(info.ideal_hit_tokens, info.cache[0].hit_tokens);
            assert_true(info.cache[0].hit_tokens <= info.ideal_hit_tokens);
            kv_request_close(reader);
            kv_request_spec_fini(&spec);
        }
    }
    unlink("r.csv");
}

/* All uses of the trace in a row, and where the same block is used next (or NEVER): found by
 * searching onwards from each. */
enum { NEVER = INT32_MAX, USES = REQUESTS * MOST_BLOCKS };

static int find_next_uses(const prompts *p, int *id, int *next)
{
    int uses = 0;
    for (int i = 0; i < REQUESTS; i++)
        for (int b = 0; b < p->blocks[i]; b++)
            id[uses++] = p->id[i][b];
    for (int u = 0; u < uses; u++) {
        next[u] = NEVER;
        for (int v = u + 1; v < uses && next[u] == NEVER; v++)
            if (id[v] == id[u])
                next[u] = v;
    }
    return uses;
}

typedef struct served {
    long long hits, resident;
} served;

/* Belady's MIN as a list: whoever is used again latest leaves. */
static served farthest_leaves(const prompts *p, int capacity)
{
    static int id[USES], next[USES], cache[USES + 1], when[USES + 1];
    int held = 0, use = 0;
    served s = {0, 0};
    find_next_uses(p, id, next);
    for (int i = 0; i < REQUESTS; i++) {
        int run = 0;
        for (bool found = true; found && run < p->blocks[i]; run += found) {
            found = false;
            for (int c = 0; c < held; c++)
                found |= cache[c] == p->id[i][run];
        }
        s.hits += run * BLOCK < p->tokens[i] ? run * BLOCK : p->tokens[i];
        for (int b = 0; b < p->blocks[i]; b++, use++) {
            int place = 0, farthest = 0;
            while (place < held && cache[place] != p->id[i][b])
                place++;
            s.resident += place < held;
            for (int c = 0; c < held; c++)
                farthest = when[c] > when[farthest] ? c : farthest;
            if (place == held && held == capacity)
                place = farthest;
            held += place == held;
            cache[place] = p->id[i][b];
            when[place] = next[use];
        }
    }
    return s;
}

static kv_request_info all_policies(const char *path, uint32_t blocks)
{
    kv_request_question question = {.blocks = blocks};
    for (const kv_replacement *const *p = kv_replacement_all(); *p != NULL; p++)
        question.policy[question.policies++] = *p;
    kv_diag diag = {0};
    kv_request_spec spec = {0};
    kv_request_reader *reader = NULL;
    kv_request_info info;
    assert_int_equal(kv_request_spec_init(&spec, path, "csv", &diag), KV_OK);
    assert_int_equal(kv_request_spec_set(&spec, "block_tokens", "16", NULL, &diag), KV_OK);
    spec.options.arrivals = KV_ARRIVALS_TOGETHER;
    assert_int_equal(kv_request_open(&spec, &reader, &diag), KV_OK);
    assert_int_equal(kv_request_info_read(reader, &question, &info, &diag), KV_OK);
    kv_request_close(reader);
    kv_request_spec_fini(&spec);
    return info;
}

/* Belady's policy agrees with the list, and no other finds more blocks resident: that is what is
 * proven of it (of uses of single blocks; a prefix that is broken off may cost it tokens). */
static void belady_agrees_with_brute_force(void **state)
{
    static prompts p;
    static const int capacities[] = {1, 2, 7, 30, 100, 1000};
    for (uint64_t seed = 1; seed <= 3; seed++) {
        make_prompts(&p, seed);
        write_prompts(&p, "b.csv");
        for (size_t c = 0; c < sizeof capacities / sizeof capacities[0]; c++) {
            kv_request_info info = all_policies("b.csv", (uint32_t)capacities[c]);
            served want = farthest_leaves(&p, capacities[c]);
            int64_t most = 0;
            for (int i = 0; i < info.caches; i++)
                most = info.cache[i].resident_blocks > most ? info.cache[i].resident_blocks : most;
            for (int i = 0; i < info.caches; i++)
                if (strcmp(info.cache[i].policy->name, "belady") == 0) {
                    assert_int_equal(info.cache[i].hit_tokens, want.hits);
                    assert_int_equal(info.cache[i].resident_blocks, want.resident);
                    assert_int_equal(most, want.resident);
                }
        }
    }
    unlink("b.csv");
}

/* Equal names that do not mean equal prefixes, and none at all. */
static void names_that_contradict(void **state)
{
    static const struct {
        const char *ids, *more;
        int contradictions;
    } cases[] = {{"[1, 2]", "[1, 2]", 0}, {"[1, 2]", "[1, 3]", 0}, {"[1, 2]", "[2, 1]", 2},
                 {"[1, 2]", "[3, 2]", 1}, {"[1, 1]", "[4]", 1},    {"[1, 2]", "[1, 2, 3]", 1},
                 {"[1, 2]", "[5, 6]", 0}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[512];
        /* 700 tokens: the second block covers 188; of a prompt of 1200 it covers 512 */
        snprintf(text, sizeof text,
                 "{\"timestamp\": 0, \"input_length\": 700, \"output_length\": 1, \"hash_ids\": "
                 "%s}\n{\"timestamp\": 0, \"input_length\": %d, \"output_length\": 1, "
                 "\"hash_ids\": %s}\n",
                 cases[i].ids,
                 strlen(cases[i].more) > 6   ? 1200
                 : strlen(cases[i].more) > 3 ? 700
                                             : 500,
                 cases[i].more);
        write_bytes("c.jsonl", text, strlen(text));
        kv_request_info info = info_of("c.jsonl", NULL, of_lru(0));
        assert_int_equal(info.contradictions, cases[i].contradictions);
        if (info.contradictions > 0)
            assert_non_null(strstr(info.contradiction.text, "stands at another place"));
    }
    static const char plain[] = "{\"timestamp\": 0, \"input_length\": 9, \"output_length\": 1}\n";
    write_bytes("c.jsonl", plain, strlen(plain));
    kv_request_info info = info_of("c.jsonl", NULL, of_lru(0));
    assert_true(isnan(info.ideal_hit_ratio) && isnan(info.cache[0].hit_ratio));
    assert_int_equal(info.unnamed, 1);
    unlink("c.jsonl");
}

/* --- The published trace, with the counts that its README gives
 * -------------------------------------------- */

static void reference_counts(void **state)
{
    static const struct {
        uint32_t blocks;
        int64_t hit_tokens;
    } table[] = {{1000, 3184640},   {2000, 3820640},   {5000, 8047898}, {10000, 15214943},
                 {20000, 20473115}, {50000, 24840986}, {0, 25125658}};
    char path[4096];
    const char *shared = getenv("KV_SHARED");
    snprintf(path, sizeof path, "%s/requests/mooncake-conversation-head.jsonl.zst",
             shared == NULL ? "" : shared);
    if (access(path, R_OK) != 0)
        kv_skip("the shared data is not there");
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        kv_request_info info = info_of(path, NULL, of_lru(table[i].blocks));
        assert_int_equal(info.counts.requests, 5606);
        assert_int_equal(info.prompt.total, 72511056);
        assert_int_equal(info.cache[0].hit_tokens, table[i].hit_tokens);
        assert_int_equal(info.ideal_hit_tokens, 25125658);
    }
}

static int run(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(worked_by_hand),
        cmocka_unit_test(lru_agrees_with_brute_force),
        cmocka_unit_test(belady_agrees_with_brute_force),
        cmocka_unit_test(names_that_contradict),
        cmocka_unit_test(reference_counts),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(void)
{
    return run_in_folder("request_info_test.files", run);
}
