/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Checks every registered replacement policy: answers worked by hand, agreement with the slow
 * versions of tests/replacement_reference.c on random workloads, and what must hold of any policy
 * (capacity, pins, order of seeds, Belady's bound, no allocation once warm). */
#include "tests/kv_test.h"

#include "sim/base/map.h"
#include "sim/cache/block_cache.h"
#include "tests/replacement_reference.h"

#ifdef HAVE_MALLINFO2
#include <malloc.h>
#endif

enum { ACCESSES = 4000 };

typedef struct workload {
    uint64_t key[ACCESSES];
    int32_t position[ACCESSES];
    int64_t next[ACCESSES];
    int count;
} workload;

/* A small generator of our own, so that the workloads are the same everywhere. */
static uint32_t draw(uint64_t *state)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(*state >> 33);
}

static void find_next_uses(workload *w)
{
    for (int i = 0; i < w->count; i++) {
        w->next[i] = KV_NEVER;
        for (int j = i + 1; j < w->count && w->next[i] == KV_NEVER; j++)
            if (w->key[j] == w->key[i])
                w->next[i] = j;
    }
}

/* Prompts over `names` blocks: runs of consecutive names, short ones and popular ones more often,
 * and now and then a scan over names that never come back. */
static void make_workload(workload *w, uint64_t seed, uint32_t names)
{
    uint64_t state = seed, scan = 1000000;
    w->count = 0;
    while (w->count < ACCESSES) {
        uint32_t kind = draw(&state) % 8, length = 1 + draw(&state) % 12;
        uint32_t first = kind < 5 ? draw(&state) % (names / 4 + 1) : draw(&state) % names;
        for (uint32_t i = 0; i < length && w->count < ACCESSES; i++) {
            w->key[w->count] = kind == 7 ? scan++ : first + i;
            w->position[w->count++] = (int32_t)i;
        }
    }
    find_next_uses(w);
}

static kv_block_cache *cache_of(const kv_replacement *policy, uint32_t capacity)
{
    kv_block_cache *cache = NULL;
    kv_diag diag = {0};
    assert_int_equal(kv_block_cache_new(policy, NULL, capacity, 1, &cache, &diag), KV_OK);
    return cache;
}

static kv_access access_of(const workload *w, int i)
{
    return (kv_access){w->key[i], i, w->next[i], w->position[i], 0};
}

static bool use(kv_block_cache *cache, kv_access access, kv_evicted *evicted)
{
    bool resident = kv_block_cache_find(cache, access.key) != KV_NO_SLOT;
    assert_int_equal(kv_block_cache_use(cache, &access, evicted, NULL), KV_OK);
    return resident;
}

static int hits_of(const kv_replacement *policy, uint32_t capacity, const workload *w)
{
    kv_block_cache *cache = cache_of(policy, capacity);
    int hits = 0;
    for (int i = 0; i < w->count; i++)
        hits += use(cache, access_of(w, i), NULL);
    kv_block_cache_free(cache);
    return hits;
}

/* --- Answers worked by hand -------------------------------------------------------- */

/* Uses one-letter blocks in order and writes what is evicted at each: '-' for nothing. */
static void assert_evictions(const char *policy, uint32_t capacity, const char *uses,
                             const char *evictions)
{
    workload w = {.count = (int)strlen(uses)};
    for (int i = 0; i < w.count; i++)
        w.key[i] = (uint64_t)uses[i];
    find_next_uses(&w);
    kv_block_cache *cache = cache_of(kv_replacement_find(policy), capacity);
    char got[64] = "";
    for (int i = 0; i < w.count; i++) {
        kv_evicted evicted;
        use(cache, access_of(&w, i), &evicted);
        got[i] = evicted.happened ? (char)evicted.key : '-';
    }
    kv_block_cache_free(cache);
    assert_string_equal(got, evictions);
}

/* The traces are short enough to follow with pencil and paper; beside each, the state that decides
 * (newest first). */
static void hand_worked(void **state)
{
    /* At d: c a b -> b leaves. At b: d c a -> a leaves. */
    assert_evictions("lru", 3, "abcacdb", "-----ba");
    /* At d: c b a -> a leaves although it was used again. At a: d c b -> b leaves. */
    assert_evictions("fifo", 3, "abcaada", "-----ab");
    /* At d: a3 b2 c1 -> c leaves. At c: a3 b2 d1 -> d leaves. */
    assert_evictions("lfu", 3, "abcaabdc", "------cd");
    /* Next uses at d: a never, b 6, c 5 -> a leaves. At a: b, c and d are never used again and at
     * the same depth: the heap's order does not matter to the hits, so the trace ends before. */
    assert_evictions("belady", 3, "abcdcb", "---a--");
    /* At d the hand goes a (used: spared), b -> b leaves; at e the hand goes on to c -> c leaves;
     * at f it goes on to d -> d leaves. */
    assert_evictions("sieve", 3, "abcadef", "----bcd");
    /* Capacity 4: A1in holds more than 1. At e: A1in d c b a -> a to A1out (2 names). At a: it is
     * in A1out, so a goes to Am; A1in e d c b -> b to A1out. At f: Am a, A1in e d c -> c leaves. */
    assert_evictions("2q", 4, "abcdeaf", "----abc");
    /* Capacity 10: small queue 1, main 9. a is used three times, so that the eviction at k moves a
     * to the main queue and takes b, which is then remembered; at b, c leaves and b joins the main
     * queue; at l, d leaves. */
    assert_evictions("s3-fifo", 10, "abcdefghijaakbl", "------------bcd");
    /* Capacity 2. At c: T1 b, T2 a, p 0 -> b leaves to B1. At b (in B1): p 1, T1 c, T2 a: |T1| is
     * not above p -> a leaves to B2, T2 b. At a (in B2): p 0, T1 c -> c leaves to B1. */
    assert_evictions("arc", 2, "aabcba", "---bac");
}

static void deepest_leaves_first(void **state)
{
    /* Blocks 1 2 3 of one prompt, all used once: 3 is the deepest. After 1 was used again and 4
     * came at depth 1, of 2 and 4 (once, depth 1 both) the one used longer ago, 2, leaves. */
    kv_block_cache *cache = cache_of(kv_replacement_find("length-aware"), 3);
    kv_evicted evicted;
    for (int32_t i = 0; i < 3; i++)
        use(cache, (kv_access){.key = (uint64_t)i + 1, .position = i}, NULL);
    use(cache, (kv_access){.key = 1, .position = 0}, NULL);
    use(cache, (kv_access){.key = 4, .position = 1}, &evicted);
    assert_int_equal(evicted.key, 3);
    use(cache, (kv_access){.key = 5, .position = 2}, &evicted);
    assert_int_equal(evicted.key, 2);
    kv_block_cache_free(cache);
}

/* Memory that others need takes blocks from a cache that is not full: three newcomers of s3-fifo,
 * all used twice more, leave nonetheless, in the order in which they came. */
static void a_cache_that_is_not_full_gives_way(void **state)
{
    kv_block_cache *cache = cache_of(kv_replacement_find("s3-fifo"), 100);
    kv_evicted evicted;
    for (uint64_t i = 0; i < 9; i++)
        use(cache, (kv_access){.key = i % 3 + 1}, NULL);
    for (uint64_t key = 1; key <= 3; key++) {
        assert_true(kv_block_cache_evict(cache, NULL, &evicted));
        assert_int_equal(evicted.key, key);
    }
    assert_false(kv_block_cache_evict(cache, NULL, &evicted));
    kv_block_cache_free(cache);
}

/* --- Against the slow versions ----------------------------------------------------- */

static void agree(const kv_replacement *policy, int capacity, const workload *w)
{
    static reference slow; /* large; one at a time */
    memset(&slow, 0, sizeof slow);
    slow.policy = policy->name;
    slow.capacity = capacity;
    kv_block_cache *cache = cache_of(policy, (uint32_t)capacity);
    for (int i = 0; i < w->count; i++) {
        bool want = reference_use(&slow, w->key[i], w->position[i], w->next[i]);
        if (use(cache, access_of(w, i), NULL) != want)
            fail_msg("%s, capacity %d: access %d differs", policy->name, capacity, i);
    }
    kv_block_cache_free(cache);
}

static void agree_with_slow_versions(void **state)
{
    static const int capacities[] = {1, 2, 3, 10, 40, 120};
    static workload w;
    for (uint64_t seed = 1; seed <= 3; seed++) {
        make_workload(&w, seed, 150);
        for (const kv_replacement *const *p = kv_replacement_all(); *p != NULL; p++)
            for (int c = 0; c < 6; c++)
                agree(*p, capacities[c], &w);
    }
}

/* --- What must hold of any policy -------------------------------------------------- */

static void never_above_belady(void **state)
{
    static workload w;
    const kv_replacement *belady = kv_replacement_find("belady");
    for (uint64_t seed = 10; seed < 14; seed++) {
        make_workload(&w, seed, 100);
        for (uint32_t capacity = 1; capacity < 130; capacity = 2 * capacity + 1) {
            int bound = hits_of(belady, capacity, &w);
            for (const kv_replacement *const *p = kv_replacement_all(); *p != NULL; p++) {
                int hits = hits_of(*p, capacity, &w);
                assert_true(hits <= bound);
                assert_int_equal(hits, hits_of(*p, capacity, &w));
            }
        }
    }
}

static void unlimited_keeps_all(void **state)
{
    static workload w;
    make_workload(&w, 5, 300);
    for (const kv_replacement *const *p = kv_replacement_all(); *p != NULL; p++) {
        int first_uses = w.count;
        for (int i = 0; i < w.count; i++)
            first_uses -= w.next[i] != KV_NEVER;
        assert_int_equal(hits_of(*p, 0, &w), w.count - first_uses);
    }
}

typedef struct pins {
    uint64_t key[8];
    int count;
} pins;

/* One random act on a cache: use, pin, unpin, evict or remove. */
static void act(kv_block_cache *cache, pins *held, const workload *w, int i, uint64_t *random)
{
    kv_evicted evicted = {0};
    kv_access access = access_of(w, i);
    uint32_t slot = kv_block_cache_find(cache, access.key), kind = draw(random) % 16;
    kv_err err = kv_block_cache_use(cache, &access, &evicted, &slot);
    assert_true(err == KV_OK ||
                (err == KV_END && kv_block_cache_pinned(cache) == kv_block_cache_capacity(cache)));
    for (int h = 0; evicted.happened && h < held->count; h++)
        assert_int_not_equal(held->key[h], evicted.key);
    if (err == KV_OK && kind < 4 && held->count < 8) {
        kv_block_cache_pin(cache, slot);
        held->key[held->count++] = access.key;
    } else if (kind < 8 && held->count > 0) {
        int h = (int)(draw(random) % (uint32_t)held->count);
        kv_block_cache_unpin(cache, kv_block_cache_find(cache, held->key[h]));
        held->key[h] = held->key[--held->count];
    } else if (kind == 8) {
        bool any = kv_block_cache_count(cache) > kv_block_cache_pinned(cache);
        assert_int_equal(kv_block_cache_evict(cache, NULL, &evicted), any);
    } else if (kind == 9 && err == KV_OK) {
        bool pinned = false;
        for (int h = 0; h < held->count; h++)
            pinned |= held->key[h] == access.key;
        if (!pinned)
            kv_block_cache_remove(cache, slot);
    }
}

static void pinned_blocks_stay(void **state)
{
    static workload w;
    make_workload(&w, 77, 60);
    for (const kv_replacement *const *p = kv_replacement_all(); *p != NULL; p++)
        for (uint32_t capacity = 1; capacity < 60; capacity = 2 * capacity + 3) {
            kv_block_cache *cache = cache_of(*p, capacity);
            pins held = {.count = 0};
            uint64_t random = capacity;
            for (int i = 0; i < w.count; i++) {
                act(cache, &held, &w, i, &random);
                assert_true(kv_block_cache_count(cache) <= capacity);
                const char *wrong = kv_block_cache_check(cache);
                if (wrong != NULL)
                    fail_msg("%s, capacity %u, access %d: %s", (*p)->name, capacity, i, wrong);
                for (int h = 0; h < held.count; h++)
                    assert_int_not_equal(kv_block_cache_find(cache, held.key[h]), KV_NO_SLOT);
            }
            kv_block_cache_free(cache);
        }
}

static void values_stay_with_their_blocks(void **state)
{
    kv_block_cache *cache = cache_of(kv_replacement_find("lru"), 2);
    uint32_t slot;
    kv_evicted evicted;
    kv_access a = {.key = 7}, b = {.key = 8}, c = {.key = 9};
    assert_int_equal(kv_block_cache_use(cache, &a, NULL, &slot), KV_OK);
    *kv_block_cache_value(cache, slot) = 70;
    assert_int_equal(kv_block_cache_use(cache, &b, NULL, &slot), KV_OK);
    assert_int_equal(*kv_block_cache_value(cache, slot), 0);
    uint64_t keys[] = {7, 8, 9};
    assert_int_equal(kv_block_cache_prefix(cache, keys, 3), 2);
    assert_int_equal(kv_block_cache_prefix(cache, keys + 2, 1), 0);
    assert_int_equal(kv_block_cache_use(cache, &c, &evicted, NULL), KV_OK);
    assert_true(evicted.happened);
    assert_int_equal(evicted.key, 7);
    assert_int_equal(evicted.value, 70);
    kv_block_cache_free(cache);
}

/* The table against an array that holds the same: 200,000 random additions and removals of few
 * names that collide, since their multiples of 2^32 share home cells. */
static void map_holds_what_was_put(void **state)
{
    kv__map map = {0};
    uint32_t value[700];
    memset(value, 0xff, sizeof value);
    uint64_t random = 3;
    size_t count = 0;
    for (uint32_t i = 0; i < 200000; i++) {
        uint32_t n = draw(&random) % 700;
        uint64_t key = (uint64_t)(n % 7) << 40 | n;
        assert_int_equal(kv__map_get(&map, key), value[n]);
        if (value[n] == KV_MAP_ABSENT) {
            assert_int_equal(kv__map_add(&map, key, i), KV_OK);
            value[n] = i;
            count++;
        } else if (draw(&random) % 2 == 0) {
            assert_int_equal(kv__map_remove(&map, key), value[n]);
            value[n] = KV_MAP_ABSENT;
            count--;
        }
        assert_int_equal(map.count, count);
    }
    kv__map_fini(&map);
}

/* The heap of the process neither grows nor shrinks while a warm cache replaces blocks. */
static void nothing_is_allocated_once_warm(void **state)
{
#ifdef HAVE_MALLINFO2
    static workload w;
    make_workload(&w, 21, 3000);
    for (const kv_replacement *const *p = kv_replacement_all(); *p != NULL; p++) {
        kv_block_cache *cache = cache_of(*p, 200);
        for (int i = 0; i < w.count / 2; i++)
            use(cache, access_of(&w, i), NULL);
        struct mallinfo2 before = mallinfo2();
        for (int i = w.count / 2; i < w.count; i++)
            use(cache, access_of(&w, i), NULL);
        struct mallinfo2 after = mallinfo2();
        assert_int_equal(before.uordblks, after.uordblks);
        kv_block_cache_free(cache);
    }
#else
    kv_skip("needs mallinfo2()");
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hand_worked),
        cmocka_unit_test(deepest_leaves_first),
        cmocka_unit_test(a_cache_that_is_not_full_gives_way),
        cmocka_unit_test(agree_with_slow_versions),
        cmocka_unit_test(never_above_belady),
        cmocka_unit_test(unlimited_keeps_all),
        cmocka_unit_test(pinned_blocks_stay),
        cmocka_unit_test(values_stay_with_their_blocks),
        cmocka_unit_test(nothing_is_allocated_once_warm),
        cmocka_unit_test(map_holds_what_was_put),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
