/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* One replica: its memory, its queues and the steps it takes. Internal to sim/serving. */
#ifndef KVSIM_SIM_SERVING_REPLICA_H
#define KVSIM_SIM_SERVING_REPLICA_H

#include "sim/engine/pool.h"
#include "sim/serving/link.h"
#include "sim/serving/memory.h"
#include "sim/serving/serving.h"

#include <limits.h>

/* The steps under way: `steps` equal in kind, of which `begun` have begun and `done` are over.
 * Their durations form a ramp. Tokens and blocks of a step are accounted when it is over. */
typedef struct kv__plan {
    bool active;
    bool decode_only; /* every running request computes exactly one token per step */
    bool even;        /* ... and had its last token when the plan began */
    kv_step_batch batch;
    kv_step_ramp ramp;
    int64_t chunk_reads;           /* entries that its chunks read */
    int64_t fetched, fetch_growth; /* entries that the first step fetches, more in each further */
    int64_t leaving;               /* entries that leave the device in each step */
    int64_t moving;                /* the same when it is over, as a prompt's chunk ends */
    int64_t away, away_growth;     /* entries in the home tier in the first step, more in each
                                      further */
    uint64_t fetch_id, move_id;    /* transfers of these on a link that others share; 0: none */
    kv_fine alone_first;           /* of the ramp, if the first step waited for no link */
    int64_t waited_ns;             /* until its link is free for them */
    kv_step_ramp link;             /* fine time that its link is busy with these */
    int64_t stored, stored_growth; /* entries in memory in the first step, more in each further;
                                      without a retention policy in tokens, all layers together */
    int64_t start_ns, start_fine;  /* start_fine: the part below one nanosecond */
    int64_t begun, done;
    int64_t end_ns; /* of all steps */
} kv__plan;

typedef struct kv__replica kv__replica;

/* What all replicas share. */
typedef struct kv__server {
    const kv_serving_settings *settings;
    const kv_step_time *time;
    const kv_serving_source *source;
    const kv_serving_listener *listener;
    kv__replica *replica; /* [settings->replicas] */
    kv_serving_result *result;
    kv_diag *diag;
    kv_pool pool;                        /* of kv__live */
    int64_t entries;                     /* KV entries that a token adds to what attention reads */
    kv__live probe;                      /* scratch of kv__keep_most */
    int64_t next_arrival;                /* of the next request; INT64_MAX: none */
    int64_t link_free_ns[KV_MOST_TIERS]; /* of links that replicas share, as of a tier */
    kv__link link[KV_MOST_TIERS];        /* the same where transfers share them, too */
} kv__server;

/* A tier of one replica. */
typedef struct kv__tier {
    kv_block_cache *cache; /* NULL: no prefix cache */
    int64_t swapped;       /* blocks of preempted requests, beside those of the cache */
    int64_t free_ns;       /* when its link, if it has one alone, has carried all it was given */
    int64_t seen_ns;       /* until when block_ns is accounted */
    kv__link link;         /* the same where transfers share it */
    int64_t clock;         /* counts accesses */
    double block_ns;       /* resident blocks over time */
    kv_tier_result done;
} kv__tier;

struct kv__replica {
    kv__server *server;
    kv__tier tier[KV_MOST_TIERS];
    int64_t time_ns; /* of the schedule under way, or of the end of the plan that is finished */
    int64_t wake_ns; /* with no step under way: when something loaded arrives; INT64_MAX: nothing */
    bool stirred;    /* since the last schedule a request has come or a plan has ended */
    int64_t copied_ns; /* when all that had to leave the GPU is copied: its memory is free */
    int group;         /* of writes: those of one admission */
    kv_err failed;     /* of a call that could not say so */
    int index;
    kv__memory memory;
    kv__contents contents; /* of blocks in the GPU and in tiers */
    kv__live **running;    /* [max_seqs] in order of admission */
    int32_t running_count;
    kv__line resumed; /* preempted, the first to be admitted */
    kv__line waiting;
    kv__plan plan;
    int64_t now_ns, now_fine; /* end of the last step accounted */
    int64_t peak_pages;
    int64_t peak_stored; /* entries */
    int64_t away;        /* entries that running requests have in the home tier */
    int32_t peak_running;
    int64_t pending_tokens;         /* that its requests still have to compute or generate */
    unsigned __int128 page_fine;    /* pages in use times fine time */
    unsigned __int128 stored_fine;  /* entries in memory times fine time */
    unsigned __int128 away_fine;    /* the same of those in the home tier */
    unsigned __int128 link_fine;    /* fine time that its link was busy with them */
    unsigned __int128 running_fine; /* requests in the batch times fine time */
    unsigned __int128 read;         /* entries that attention read */
};

kv_err kv__replica_init(kv__replica *replica, kv__server *server, int index) KV_MUST_USE;
void kv__replica_fini(kv__replica *replica);

/* A request arrives. It belongs to the server's pool, and is given back when it is done. */
void kv__replica_enqueue(kv__replica *replica, kv__live *live);
/* Accounts the steps that are over at `time_ns`, with the blocks of the one that has begun before.
 */
kv_err kv__replica_advance(kv__replica *replica, int64_t time_ns) KV_MUST_USE;
/* The same when all that happens at `time_ns` is past: a step that begins then has begun. */
kv_err kv__replica_advance_after(kv__replica *replica, int64_t time_ns) KV_MUST_USE;
/* Remembers the most pages that were in use. */
void kv__replica_note_peak(kv__replica *replica);
/* Ends the plan with the step that is under way at `time_ns` (all before are accounted). */
void kv__replica_cut(kv__replica *replica, int64_t time_ns);
/* With no step under way: composes the next batch and plans its steps, if there is work. */
kv_err kv__replica_schedule(kv__replica *replica, int64_t time_ns) KV_MUST_USE;

/* --- The future (foresee.c)
 * ------------------------------------------------------------------------- */

/* A request makes the uses of its named blocks by being admitted or rejected, or (made false) will
 * make them again; tells all caches whose policies look ahead. Without foresight nothing happens.
 */
void kv__foresee(kv__server *server, const kv__live *live, bool made);

/* --- Tiers (tiers.c)
 * --------------------------------------------------------------------------------- */

kv_err kv__tiers_init(kv__replica *replica) KV_MUST_USE;
void kv__tiers_fini(kv__replica *replica);
/* The first tier that holds a block; -1: the GPU does; KV_MOST_TIERS: none. */
int kv__tiers_holder(const kv__replica *replica, uint64_t key);
/* Blocks of a waiting request that lie in lower tiers, right behind those the GPU holds. */
int32_t kv__tiers_look(const kv__replica *replica, const kv__live *live, int32_t held);
/* Nanoseconds from now on until blocks from..to - 1 would be here, and until computing could go on
 * behind them. */
void kv__tiers_expect(kv__replica *replica, const kv__live *live, int32_t from, int32_t to,
                      int64_t *ready_ns, int64_t *loaded_ns);
/* The same of so many blocks of each tier. */
void kv__tiers_expect_blocks(kv__replica *replica, const int32_t blocks[KV_MOST_TIERS],
                             int64_t *ready_ns, int64_t *loaded_ns);
/* Where loading begins, in blocks from held to held + more: what lies before is computed (load.c).
 */
int32_t kv__load_split(kv__replica *replica, const kv__live *live, int32_t held, int32_t more);
/* Uses blocks from..to - 1 where they lie: how many each tier has to send. Of a request that is
 * admitted for the first time these are its hits. */
kv_err kv__tiers_choose(kv__replica *replica, kv__live *live, int32_t from, int32_t to,
                        int32_t blocks[KV_MOST_TIERS]) KV_MUST_USE;
/* Has the tiers send them, once the request has its memory; sets when they arrive. */
void kv__tiers_send(kv__replica *replica, kv__live *live, const int32_t blocks[KV_MOST_TIERS]);
/* Asks a tier to send bytes to a request, and sets when they arrive (what else it waits for comes
 * later or earlier). */
void kv__tier_deliver(kv__replica *replica, int number, kv__live *live, double bytes);
/* Gives a transfer to a tier's link, which is busy with it for so long, from `from_ns` at the
 * earliest; when it is over. */
int64_t kv__tier_carry(kv__replica *replica, int number, int64_t from_ns, int64_t busy_ns);
/* Writes bytes into a tier, from now on. Returns what kv__tier_hold knows the copy by. */
uint64_t kv__tier_write(kv__replica *replica, int number, double bytes);
/* Begins any other transfer, now. Returns its id. */
uint64_t kv__tier_begin(kv__replica *replica, int number, const kv__transfer *transfer);
/* Has the replica's next step wait for a copy. */
void kv__tier_hold(kv__replica *replica, int number, uint64_t copy);
/* The link of a tier if its transfers share it, else NULL. */
kv__link *kv__tier_link(kv__replica *replica, int number);
/* A request begins to wait for what tiers send. */
void kv__links_await(kv__replica *replica, kv__live *live);
/* It does so no longer. */
void kv__links_forget(kv__replica *replica, const kv__live *live);
/* Copies made since the group began are waited for by loads alone, not by the next step. */
void kv__links_release(kv__replica *replica, int64_t copied_ns);
/* When all that the next step waits for is copied. */
int64_t kv__links_copied_ns(kv__replica *replica);
/* After transfers were begun: says when all of them arrive, to other replicas, too. */
void kv__links_settle(kv__replica *replica);
/* With no step under way: when the first of what its requests wait for can be used. */
void kv__replica_set_wake(kv__replica *replica);
/* What a replica waits for arrives at another time than was expected. */
void kv__replica_rewait(kv__replica *replica, int64_t time_ns);
/* Adds the time since the last call to what the tier's blocks took; before their number changes. */
void kv__tier_account(kv__replica *replica, kv__tier *tier);
/* Blocks that a tier holds. */
int64_t kv__tier_blocks(const kv__replica *replica, int number);
/* Has the link of a tier be busy until a time, if it is not for longer. */
void kv__tier_reserve(kv__replica *replica, int number, int64_t until_ns);
/* When the link of a tier has carried all it was given. */
int64_t kv__tier_free_at(const kv__replica *replica, int number);
/* Evicts what a tier holds above its capacity. */
void kv__tier_squeeze(kv__replica *replica, int number);
/* Adds what the tiers of the replica did to the result. */
void kv__tiers_sum(kv__replica *replica, kv_serving_result *result);

/* --- Entries in host memory (away.c)
 * ------------------------------------------------------------------------- */

/* Entries for which the home tier has room. */
int64_t kv__home_capacity(const kv_serving_settings *settings);
/* Entries that the home tier can take, and those that it can without dropping a block. */
int64_t kv__home_available(const kv__replica *replica);
int64_t kv__home_empty(const kv__replica *replica);
/* Gives a request room there for a step of so many tokens; it must be available. */
void kv__home_take(kv__replica *replica, kv__live *live, int32_t tokens);
/* The same for further steps of a plan that only decodes. */
void kv__home_grow(kv__replica *replica, kv__live *live, int64_t steps);
/* Takes it away. */
void kv__home_give(kv__replica *replica, kv__live *live);
/* Adds what a request fetches and what leaves the device in a step to the plan. */
void kv__home_describe(const kv__replica *replica, const kv__live *live, bool decodes,
                       kv__plan *plan);
/* The fine time of a first step, with its wait for what it fetches over a link that others share.
 */
kv_fine kv__home_wait(kv__replica *replica, const kv__plan *plan, kv_fine first);
/* Lets the plan's steps take as long as its link needs. */
void kv__home_carry(kv__replica *replica, kv__plan *plan);
/* Accounts `steps` steps of the plan from its step `done` on. */
void kv__home_account(kv__replica *replica, int64_t steps);
/* When a plan is over: what leaves the device at once is copied. */
void kv__home_move(kv__replica *replica);
/* Adds what the home tier did to the result. */
void kv__home_sum(const kv__replica *replica, kv_serving_result *result);
/* Sum over j < n of (a + j * da) * (b + j * db), exactly. */
unsigned __int128 kv__sum_products(__int128 a, __int128 da, __int128 b, __int128 db, int64_t n);

/* --- Swap (swap.c)
 * ---------------------------------------------------------------------------------- */

/* Moves what a running request has computed to the first tier; its memory is the caller's to
 * release. False if it is not to be swapped or the tier has no room: then it computes again. */
bool kv__swap_out(kv__replica *replica, kv__live *live);
/* Brings it back, all but the first `held` blocks, and sets when it arrives. */
void kv__swap_in(kv__replica *replica, kv__live *live, int32_t held);

#endif
