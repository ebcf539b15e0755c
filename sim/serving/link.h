/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* A link that its transfers share: each of n has an n-th of the bandwidth.
 *
 * What a transfer has left is counted in nanoseconds at full bandwidth, so the link carries one
 * nanosecond of it per nanosecond, whoever's. Between two begins shares are exact; at a begin what
 * does not divide by n goes to the transfers that began first, a nanosecond each. So nothing is
 * lost: a link that is busy has carried all it was given when the sum of it has passed. */
#ifndef KVSIM_SIM_SERVING_LINK_H
#define KVSIM_SIM_SERVING_LINK_H

#include <stdbool.h>
#include <stdint.h>

typedef struct kv__transfer {
    uint64_t id; /* from 1, in the order of begin */
    int64_t begin_ns;
    int64_t left_ns;  /* when the link was last brought up to date */
    int64_t rest_ns;  /* of what is sent, that may come after it can be used */
    int64_t ready_ns; /* when it can be used, if no other begins */
    int64_t end_ns;   /* when all of it has come */
    void *owner;      /* the caller's */
    void *target;     /* who waits for it; NULL: no one */
    int tier, group;  /* the caller's */
    bool holds;       /* the owner's next step waits for it */
} kv__transfer;

/* Zeroed is idle. */
typedef struct kv__link {
    kv__transfer *active; /* [count] in the order of begin */
    int64_t *left;        /* scratch */
    int count, room;
    int64_t at_ns; /* when it was last brought up to date */
    uint64_t made;
    bool news;  /* something began; the caller's to clear */
    bool dirty; /* ready_ns and end_ns are out of date */
} kv__link;

void kv__link_fini(kv__link *link);
/* Begins a transfer of left_ns; time never goes back. Its id; 0: there is no memory. */
uint64_t kv__link_begin(kv__link *link, int64_t now_ns, const kv__transfer *transfer);
/* Adds to a transfer that began now. */
void kv__link_add(kv__link *link, kv__transfer *transfer, int64_t more_ns);
/* One that may be under way; NULL: it is over. */
kv__transfer *kv__link_find(const kv__link *link, uint64_t id);
/* Works out when each transfer can be used and ends, if it is not known. */
void kv__link_expect(kv__link *link);
/* True if something is under way then. */
bool kv__link_busy(kv__link *link, int64_t now_ns);
/* About when a further transfer of so much would end. */
int64_t kv__link_estimate(const kv__link *link, int64_t now_ns, int64_t work_ns);

#endif
