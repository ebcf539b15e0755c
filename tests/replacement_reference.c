/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "tests/replacement_reference.h"

#include <string.h>

static int find(const reference_list *list, uint64_t key)
{
    for (int i = 0; i < list->length; i++)
        if (list->item[i].key == key)
            return i;
    return -1;
}

static reference_item take(reference_list *list, int i)
{
    reference_item item = list->item[i];
    memmove(&list->item[i], &list->item[i + 1],
            (size_t)(list->length - i - 1) * sizeof list->item[0]);
    list->length--;
    return item;
}

static void push(reference_list *list, reference_item item)
{
    memmove(&list->item[1], &list->item[0], (size_t)list->length * sizeof list->item[0]);
    list->item[0] = item;
    list->length++;
}

static void push_within(reference_list *list, reference_item item, int limit)
{
    if (limit == 0)
        return;
    push(list, item);
    if (list->length > limit)
        list->length--;
}

static reference_item oldest(reference_list *list)
{
    return take(list, list->length - 1);
}

/* --- One list, a victim chosen by looking at all ------------------------------------------------
 */

/* True if x leaves rather than y under lfu, length-aware or belady. */
static bool leaves(const reference *cache, const reference_item *x, const reference_item *y)
{
    if (cache->policy[0] == 'b')
        return x->next != y->next ? x->next > y->next : x->position > y->position;
    if (x->uses != y->uses)
        return x->uses < y->uses;
    if (cache->policy[1] == 'e' && x->position != y->position)
        return x->position > y->position;
    return x->last < y->last;
}

static void evict_least(reference *cache)
{
    int worst = 0;
    for (int i = 1; i < cache->a.length; i++)
        if (leaves(cache, &cache->a.item[i], &cache->a.item[worst]))
            worst = i;
    take(&cache->a, worst);
}

static bool use_ranked(reference *cache, reference_item item)
{
    int i = find(&cache->a, item.key);
    if (i >= 0)
        item.uses += take(&cache->a, i).uses;
    else if (cache->a.length == cache->capacity)
        evict_least(cache);
    push(&cache->a, item);
    return i >= 0;
}

static bool use_lru(reference *cache, reference_item item)
{
    int i = find(&cache->a, item.key);
    if (i >= 0)
        take(&cache->a, i);
    push_within(&cache->a, item, cache->capacity);
    return i >= 0;
}

static bool use_fifo(reference *cache, reference_item item)
{
    if (find(&cache->a, item.key) >= 0)
        return true;
    push_within(&cache->a, item, cache->capacity);
    return false;
}

/* SIEVE: uses above 1 is the visited bit; the hand is kept as the place it points to. */
static bool use_sieve(reference *cache, reference_item item)
{
    int i = find(&cache->a, item.key);
    if (i >= 0) {
        cache->a.item[i].uses = 2;
        return true;
    }
    if (cache->a.length == cache->capacity) {
        int hand = cache->hand_key == 0 ? -1 : find(&cache->a, (uint64_t)cache->hand_key - 1);
        if (hand < 0)
            hand = cache->a.length - 1;
        while (cache->a.item[hand].uses == 2) {
            cache->a.item[hand].uses = 1;
            hand = hand == 0 ? cache->a.length - 1 : hand - 1;
        }
        take(&cache->a, hand);
        cache->hand_key = hand == 0 ? 0 : (int64_t)cache->a.item[hand - 1].key + 1;
    }
    push(&cache->a, item);
    return false;
}

/* --- S3-FIFO, algorithm 1 of the paper: a is S, b is M, past_a is G ------------------------------
 */

static void s3_evict_main(reference *cache)
{
    while (cache->b.length > 0) {
        reference_item item = oldest(&cache->b);
        if (item.uses == 0)
            return;
        item.uses--;
        push(&cache->b, item);
    }
}

static void s3_evict(reference *cache, int small)
{
    int main_limit = cache->capacity - small;
    if (cache->a.length < small && cache->b.length > 0) {
        s3_evict_main(cache);
        return;
    }
    while (cache->a.length > 0) {
        reference_item item = oldest(&cache->a);
        if (item.uses <= 1) {
            push_within(&cache->past_a, item, main_limit);
            return;
        }
        item.uses = 0;
        push(&cache->b, item);
        if (cache->b.length > main_limit) {
            s3_evict_main(cache);
            return;
        }
    }
    s3_evict_main(cache);
}

static bool use_s3_fifo(reference *cache, reference_item item)
{
    int small = cache->capacity / 10 > 0 ? cache->capacity / 10 : 1;
    int i = find(&cache->a, item.key), j = find(&cache->b, item.key);
    reference_item *resident = i >= 0 ? &cache->a.item[i] : j >= 0 ? &cache->b.item[j] : NULL;
    if (resident != NULL) {
        resident->uses = resident->uses < 3 ? resident->uses + 1 : 3;
        return true;
    }
    item.uses = 0;
    if (cache->a.length + cache->b.length == cache->capacity)
        s3_evict(cache, small);
    i = find(&cache->past_a, item.key);
    if (i >= 0)
        take(&cache->past_a, i);
    push(i >= 0 ? &cache->b : &cache->a, item);
    return false;
}

/* --- 2Q, "full version": a is A1in, past_a is A1out, b is Am -------------------------------------
 */

static bool use_2q(reference *cache, reference_item item)
{
    int in_limit = cache->capacity / 4, out_limit = cache->capacity / 2;
    int i = find(&cache->b, item.key);
    if (i >= 0) {
        push(&cache->b, take(&cache->b, i));
        return true;
    }
    if (find(&cache->a, item.key) >= 0)
        return true;
    if (cache->a.length + cache->b.length == cache->capacity) {
        if (cache->a.length > in_limit || cache->b.length == 0)
            push_within(&cache->past_a, oldest(&cache->a), out_limit);
        else
            oldest(&cache->b);
    }
    i = find(&cache->past_a, item.key);
    if (i >= 0)
        take(&cache->past_a, i);
    push(i >= 0 ? &cache->b : &cache->a, item);
    return false;
}

/* --- ARC, figure 4 of the paper: a is T1, b is T2, past_a is B1, past_b is B2 ------ */

static void arc_replace(reference *cache, bool in_past_b)
{
    int t1 = cache->a.length;
    if (t1 >= 1 && ((in_past_b && t1 == cache->target) || t1 > cache->target))
        push(&cache->past_a, oldest(&cache->a));
    else
        push(&cache->past_b, oldest(&cache->b));
}

static int64_t at_least_one(int64_t a, int64_t b)
{
    return a / b > 1 ? a / b : 1;
}

static void arc_miss_new(reference *cache)
{
    int c = cache->capacity, l1 = cache->a.length + cache->past_a.length;
    int all = l1 + cache->b.length + cache->past_b.length;
    if (l1 == c) {
        if (cache->a.length < c) {
            oldest(&cache->past_a);
            arc_replace(cache, false);
        } else {
            oldest(&cache->a);
        }
    } else if (all >= c) {
        if (all == 2 * c)
            oldest(&cache->past_b);
        arc_replace(cache, false);
    }
}

static bool use_arc(reference *cache, reference_item item)
{
    int c = cache->capacity, i;
    if ((i = find(&cache->a, item.key)) >= 0 || (i = find(&cache->b, item.key)) >= 0) {
        reference_list *list = find(&cache->a, item.key) >= 0 ? &cache->a : &cache->b;
        push(&cache->b, take(list, i));
        return true;
    }
    int in_a = find(&cache->past_a, item.key), in_b = find(&cache->past_b, item.key);
    if (in_a >= 0) {
        int64_t up = cache->target + at_least_one(cache->past_b.length, cache->past_a.length);
        cache->target = up < c ? up : c;
        arc_replace(cache, false);
        take(&cache->past_a, find(&cache->past_a, item.key));
    } else if (in_b >= 0) {
        int64_t down = cache->target - at_least_one(cache->past_a.length, cache->past_b.length);
        cache->target = down > 0 ? down : 0;
        arc_replace(cache, true);
        take(&cache->past_b, find(&cache->past_b, item.key));
    } else {
        arc_miss_new(cache);
    }
    push(in_a >= 0 || in_b >= 0 ? &cache->b : &cache->a, item);
    return false;
}

bool reference_use(reference *cache, uint64_t key, int64_t position, int64_t next)
{
    static const struct {
        const char *policy;
        bool (*use)(reference *cache, reference_item item);
    } table[] = {{"lru", use_lru},         {"fifo", use_fifo},
                 {"lfu", use_ranked},      {"length-aware", use_ranked},
                 {"belady", use_ranked},   {"sieve", use_sieve},
                 {"s3-fifo", use_s3_fifo}, {"2q", use_2q},
                 {"arc", use_arc}};
    reference_item item = {key, 1, ++cache->clock, next, position};
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        if (strcmp(table[i].policy, cache->policy) == 0)
            return table[i].use(cache, item);
    return false;
}
