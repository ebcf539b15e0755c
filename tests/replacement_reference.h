/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* The replacement policies once more, written from the text of their papers with plain arrays and
 * linear searches: slow, short, and sharing no code with policies/replacement. */
#ifndef KVSIM_TESTS_REPLACEMENT_REFERENCE_H
#define KVSIM_TESTS_REPLACEMENT_REFERENCE_H

#include <stdbool.h>
#include <stdint.h>

enum { REFERENCE_MOST = 512 }; /* names in one list */

/* A block in a list; item[0] is the newest. */
typedef struct reference_item {
    uint64_t key;
    int64_t uses, last, next, position;
} reference_item;

typedef struct reference_list {
    reference_item item[REFERENCE_MOST];
    int length;
} reference_list;

typedef struct reference {
    const char *policy;
    int capacity;
    reference_list a, b;           /* resident; b only for policies of two queues */
    reference_list past_a, past_b; /* histories */
    int64_t clock, target, hand_key;
} reference;

/* Uses a block; true if it was resident. */
bool reference_use(reference *cache, uint64_t key, int64_t position, int64_t next);

#endif
