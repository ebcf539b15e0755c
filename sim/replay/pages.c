/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Occupancy in entries: as if memory had no pages, with each KV head compacted into pages of its
 * own, and with pages that are freed only when every entry of theirs is gone. */
#include "config.h"

#include "sim/replay/lane.h"

#include <stdlib.h>
#include <string.h>

kv_err kv__pages_init(kv__pages *pages, int tokens, int page_tokens, kv_diag *diag)
{
    pages->page_tokens = page_tokens;
    pages->pages = (tokens + page_tokens - 1) / page_tokens;
    pages->level = malloc((size_t)pages->pages);
    pages->count = malloc((size_t)pages->pages * sizeof *pages->count);
    pages->at_level = malloc(256 * sizeof *pages->at_level);
    if (pages->level == NULL || pages->count == NULL || pages->at_level == NULL)
        return kv_fail_memory(diag);
    return KV_OK;
}

void kv__pages_fini(kv__pages *pages)
{
    free(pages->level);
    free(pages->count);
    free(pages->at_level);
}

void kv__pages_clear(kv__pages *pages)
{
    memset(pages->level, KV__DEAD, (size_t)pages->pages);
    memset(pages->count, 0, (size_t)pages->pages * sizeof *pages->count);
    memset(pages->at_level, 0, 256 * sizeof *pages->at_level);
    pages->at_level[KV__DEAD] = pages->pages;
    pages->last = -1;
}

static void page_set_level(kv__pages *pages, int page, int level)
{
    pages->at_level[pages->level[page]]--;
    pages->level[page] = (uint8_t)level;
    pages->at_level[level]++;
}

void kv__pages_settle(kv__pages *pages, int position, int level)
{
    int page = position / pages->page_tokens;
    if (level == KV__DEAD)
        return;
    if (page > pages->last)
        pages->last = page;
    pages->count[page]++;
    if (level < pages->level[page])
        page_set_level(pages, page, level);
}

void kv__pages_drop(kv__pages *pages, int position)
{
    int page = position / pages->page_tokens;
    if (--pages->count[page] == 0)
        page_set_level(pages, page, KV__DEAD);
}

/* Sum of floor(i / p) over 0 <= i < n. */
static int64_t floor_sum(int64_t n, int64_t p)
{
    int64_t whole = n / p, rest = n % p;
    return p * whole * (whole - 1) / 2 + whole * rest;
}

/* Sum of ceil(x / p) over first <= x < end. */
static int64_t ceil_sum(int64_t first, int64_t end, int64_t p)
{
    return floor_sum(end + p - 1, p) - floor_sum(first + p - 1, p);
}

/* Pages that hold retained entries at a budget, without those that the tail holds anyway. */
static int64_t pages_before_tail(const kv__pages *pages, int budget, int tail_first)
{
    int64_t held = 0;
    for (int level = 0; level <= budget; level++)
        held += pages->at_level[level];
    for (int page = tail_first / pages->page_tokens; page <= pages->last; page++)
        held -= pages->level[page] <= budget;
    return held;
}

static void add(kv__occupancy *occupancy, int kind, bool prefill, int64_t area, int step,
                int64_t at_end)
{
    if (prefill)
        occupancy->prefill[kind] += area;
    else
        occupancy->decode[kind] += area;
    occupancy->at_step[kind][step] += at_end;
}

/* Tails of the heads of one layer may start at different tokens (head masks): a page is held as
 * soon as one head holds it, so the earliest tail counts. */
static int earliest_tail(const kv__lane *lane, int kv_heads)
{
    int first = lane->head[0].tail_first;
    for (int h = 1; h < kv_heads; h++)
        if (lane->head[h].tail_first < first)
            first = lane->head[h].tail_first;
    return first;
}

void kv__occupancy_add(kv__occupancy *occupancy, const kv__lane *lane, int kv_heads, int budget,
                       bool prefill, int64_t probes)
{
    int64_t n = lane->entered, p = lane->pages.page_tokens;
    int64_t triangle = n * (n + 1) / 2, probe_triangle = probes * (probes + 1) / 2;
    int64_t area = 0, area_head = 0, end = 0, end_head = 0;
    for (int h = 0; h < kv_heads; h++) {
        int64_t past = kv__lane_found(lane, h, budget);
        area += n * past + triangle + probes * (past + n) + probe_triangle;
        area_head += p * ceil_sum(past + 1, past + n + probes + 1, p);
        end += past + n + probes;
        end_head += p * ((past + n + probes + p - 1) / p);
    }
    int tail = earliest_tail(lane, kv_heads);
    int64_t held = pages_before_tail(&lane->pages, budget, tail) - tail / p + 1;
    int64_t last = lane->step_end + probes;
    int64_t area_page = (n + probes) * held + floor_sum(last, p) - floor_sum(lane->step_start, p);
    int64_t end_page = held + (last - 1) / p;
    add(occupancy, KV__IDEAL, prefill, area, lane->step, end);
    add(occupancy, KV__BY_HEAD, prefill, area_head, lane->step, end_head);
    bool dense = lane->group->policy->admits != NULL; /* what enters lies without gaps */
    add(occupancy, KV__BY_PAGE, prefill, dense ? area_head : area_page * p * kv_heads, lane->step,
        dense ? end_head : end_page * p * kv_heads);
}
