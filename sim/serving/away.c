/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Entries that a read policy keeps in host memory: room for them in their tier, and the time that
 * its link takes to fetch what steps read and to bring down what leaves the device.
 *
 * A step fetches layer by layer, as each layer's query says what it reads: every layer pays the
 * latency. With overlap a step computes from when its first layer's entries are here and does not
 * end before the last ones; without, it computes when all are. What leaves the device while an
 * answer is generated goes down in the same step. What leaves it when a chunk of a prompt ends is
 * copied while the step computes, but for the last layer, and the next step begins when that is
 * done. */
#include "config.h"

#include "sim/serving/replica.h"

#include <math.h>

static const kv_tier_settings *home_of(const kv_serving_settings *s)
{
    return &s->tier[s->home];
}

static int64_t block_entries(const kv_serving_settings *s)
{
    return kv_serving_cached_pages(s) * s->block_tokens;
}

/* Bytes of an entry as it is stored. */
static double stored_bytes(const kv_serving_settings *s)
{
    return kv_serving_page_bytes(s) / s->block_tokens;
}

/* --- Room -------------------------------------------------------------------------- */

int64_t kv__home_capacity(const kv_serving_settings *settings)
{
    if (!kv_serving_has_home(settings))
        return INT64_MAX;
    return home_of(settings)->capacity_blocks * block_entries(settings);
}

int64_t kv__home_available(const kv__replica *replica)
{
    return kv__home_capacity(replica->server->settings) - replica->away;
}

int64_t kv__home_empty(const kv__replica *replica)
{
    const kv_serving_settings *s = replica->server->settings;
    int64_t blocks = home_of(s)->capacity_blocks - kv__tier_blocks(replica, s->home);
    return blocks * block_entries(s);
}

void kv__home_take(kv__replica *replica, kv__live *live, int32_t tokens)
{
    const kv_serving_settings *s = replica->server->settings;
    int64_t more = kv__keep_away_after(s->keep, live, tokens) - live->away;
    live->away += more;
    replica->away += more;
    if (more <= 0)
        return;
    kv__tier_account(replica, &replica->tier[s->home]);
    kv__tier_squeeze(replica, s->home);
}

void kv__home_grow(kv__replica *replica, kv__live *live, int64_t steps)
{
    if (live->away_growth == 0)
        return;
    live->away += live->away_growth * steps;
    replica->away += live->away_growth * steps;
    kv__tier_squeeze(replica, replica->server->settings->home);
}

void kv__home_give(kv__replica *replica, kv__live *live)
{
    replica->away -= live->away;
    live->away = 0;
}

/* --- Time -------------------------------------------------------------------------- */

void kv__home_describe(const kv__replica *replica, const kv__live *live, bool decodes,
                       kv__plan *plan)
{
    const kv_keep *keep = replica->server->settings->keep;
    int64_t leaving = kv__keep_leaving(keep, live, live->scheduled);
    if (live->scheduled == 0)
        return;
    plan->fetched += kv__keep_fetched(keep, live, live->scheduled);
    plan->leaving += decodes ? leaving : 0;
    plan->moving += decodes ? 0 : leaving;
    plan->fetch_growth += decodes ? live->fetch_growth : 0;
    plan->away_growth += decodes ? live->away_growth : 0;
}

/* Fine time of one entry on a link. */
static int64_t entry_fine(double bytes, double bandwidth)
{
    return llround(ldexp(bytes / bandwidth * 1e9, KV_FINE_BITS));
}

/* The greater of two lines, as far as it is the same one. */
static void greater(kv_step_ramp a, kv_step_ramp b, kv_step_ramp *out)
{
    kv_step_ramp high = a.first >= b.first ? a : b, low = a.first >= b.first ? b : a;
    int64_t steps = out->steps;
    if (low.slope > high.slope) {
        kv_fine alike = (high.first - low.first) / (low.slope - high.slope) + 1;
        steps = alike < steps ? (int64_t)alike : steps;
    }
    *out = (kv_step_ramp){high.first, high.slope, steps};
}

/* No other replica uses the link. */
static bool is_alone(const kv_serving_settings *s)
{
    return s->replicas == 1 || !s->tier[home_of(s)->link].shared_link;
}

/* On a link that transfers share, with others under way or other replicas about: the fetch is one
 * of them. first_layer: fine time of it that computing waits for. */
static bool begin_fetch(kv__replica *replica, kv__plan *plan, kv_fine first_layer)
{
    const kv_serving_settings *s = replica->server->settings;
    kv__link *link = kv__tier_link(replica, s->home);
    kv_fine work = plan->link.first;
    if (link == NULL || (is_alone(s) && !kv__link_busy(link, plan->start_ns)))
        return false;
    kv_fine rest = work > first_layer ? work - first_layer : 0;
    kv__transfer t = {.left_ns = (int64_t)((work + (1 << KV_FINE_BITS) - 1) >> KV_FINE_BITS),
                      .rest_ns = s->overlap ? (int64_t)(rest >> KV_FINE_BITS) : 0,
                      .owner = replica,
                      .tier = s->home};
    plan->fetch_id = kv__tier_begin(replica, s->home, &t);
    plan->ramp.steps = 1;
    plan->ramp.slope = 0;
    return true;
}

kv_fine kv__home_wait(kv__replica *replica, const kv__plan *plan, kv_fine first)
{
    const kv_serving_settings *s = replica->server->settings;
    kv__link *link = plan->fetch_id > 0 ? kv__tier_link(replica, s->home) : NULL;
    const kv__transfer *t = link != NULL ? kv__link_find(link, plan->fetch_id) : NULL;
    if (t == NULL)
        return first;
    kv_fine all = (kv_fine)(t->end_ns - plan->start_ns) << KV_FINE_BITS;
    if (!s->overlap)
        return first + all;
    if (plan->fetched > 0)
        first += (kv_fine)(t->ready_ns - plan->start_ns) << KV_FINE_BITS;
    return first > all ? first : all;
}

/* What leaves when a chunk ends, on a link that transfers share. */
static void begin_move(kv__replica *replica, kv__plan *plan, int64_t now_ns)
{
    const kv_serving_settings *s = replica->server->settings;
    double ns = (double)plan->moving * stored_bytes(s) / home_of(s)->write_bandwidth * 1e9;
    kv__transfer t = {.left_ns = (int64_t)ceil(ns), .owner = replica, .tier = s->home};
    replica->tier[s->home].done.busy_ns += t.left_ns;
    replica->time_ns = now_ns;
    plan->move_id = kv__tier_begin(replica, s->home, &t);
}

void kv__home_carry(kv__replica *replica, kv__plan *plan)
{
    const kv_serving_settings *s = replica->server->settings;
    const kv_tier_settings *tier = home_of(s);
    int64_t read = entry_fine(s->entry_bytes, tier->read_bandwidth);
    int64_t write = entry_fine(stored_bytes(s), tier->write_bandwidth);
    if (plan->moving > 0 && s->overlap && kv__tier_link(replica, s->home) != NULL)
        begin_move(replica, plan, replica->time_ns);
    kv_fine latency = plan->fetched > 0 ? (kv_fine)tier->latency_ns << KV_FINE_BITS : 0;
    if (plan->fetched == 0 && plan->leaving == 0)
        return;
    plan->link = (kv_step_ramp){(kv_fine)plan->fetched * read + latency * s->layers +
                                    (kv_fine)plan->leaving * write,
                                (kv_fine)plan->fetch_growth * read, 1};
    if (begin_fetch(replica, plan, latency + (kv_fine)plan->fetched * (read / s->layers)))
        return;
    int64_t free_ns = kv__tier_free_at(replica, s->home);
    plan->waited_ns = free_ns > plan->start_ns ? free_ns - plan->start_ns : 0;
    kv_fine wait = (kv_fine)plan->waited_ns << KV_FINE_BITS;
    kv_step_ramp compute = plan->ramp, link = plan->link;
    link.first += wait;
    if (s->overlap && plan->fetched > 0) {
        compute.first += wait + latency + (kv_fine)plan->fetched * (read / s->layers);
        compute.slope += (kv_fine)plan->fetch_growth * (read / s->layers);
    }
    if (s->overlap)
        greater(compute, link, &plan->ramp);
    else
        plan->ramp = (kv_step_ramp){compute.first + link.first, compute.slope + link.slope,
                                    plan->ramp.steps};
    bool alone = is_alone(s);
    if (wait > 0 || !alone)
        plan->ramp.steps = 1;
    if (!alone)
        kv__tier_reserve(replica, s->home, plan->start_ns + (int64_t)(link.first >> KV_FINE_BITS));
}

void kv__home_account(kv__replica *replica, int64_t steps)
{
    const kv__plan *plan = &replica->plan;
    kv_tier_result *done = &replica->tier[replica->server->settings->home].done;
    int64_t pairs = steps * (steps - 1) / 2;
    int64_t fetched = plan->fetched + plan->fetch_growth * plan->done;
    replica->away_fine +=
        kv__sum_products(plan->away + (__int128)plan->away_growth * plan->done, plan->away_growth,
                         plan->ramp.first + plan->ramp.slope * plan->done, plan->ramp.slope, steps);
    replica->link_fine += kv__sum_products(1, 0, plan->link.first + plan->link.slope * plan->done,
                                           plan->link.slope, steps);
    done->entries_out += steps * fetched + pairs * plan->fetch_growth;
    done->entries_in += steps * plan->leaving;
}

void kv__home_move(kv__replica *replica)
{
    const kv_serving_settings *s = replica->server->settings;
    kv__plan *plan = &replica->plan;
    if (plan->moving == 0)
        return;
    double ns = (double)plan->moving * stored_bytes(s) / home_of(s)->write_bandwidth * 1e9;
    int64_t last = plan->end_ns + (int64_t)ceil(ns / (double)s->layers);
    if (kv__tier_link(replica, s->home) != NULL) {
        if (!s->overlap)
            begin_move(replica, plan, plan->end_ns);
        kv__tier_hold(replica, s->home, plan->move_id);
        kv__links_settle(replica);
    } else {
        int64_t from = s->overlap ? plan->start_ns + plan->waited_ns +
                                        (int64_t)(plan->link.first >> KV_FINE_BITS)
                                  : plan->end_ns;
        int64_t over = kv__tier_carry(replica, s->home, from, (int64_t)ceil(ns));
        last = over > last ? over : last;
    }
    if (s->overlap || kv__tier_link(replica, s->home) == NULL)
        replica->copied_ns = last > replica->copied_ns ? last : replica->copied_ns;
    replica->tier[s->home].done.entries_in += plan->moving;
}

void kv__home_sum(const kv__replica *replica, kv_serving_result *result)
{
    const kv_serving_settings *s = replica->server->settings;
    kv_tier_result *sum = &result->tier[s->home];
    sum->busy_ns += (int64_t)(replica->link_fine >> KV_FINE_BITS);
    sum->block_seconds +=
        ldexp((double)replica->away_fine * 1e-9, -KV_FINE_BITS) / (double)block_entries(s);
}
