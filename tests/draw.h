/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Random numbers for tests: xorshift64, random enough, and the same on every machine. The state is
 * never 0. */
#ifndef KVSIM_TESTS_DRAW_H
#define KVSIM_TESTS_DRAW_H

#include <stdint.h>

static inline uint64_t draw(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* low to high, both included. */
static inline int64_t between(uint64_t *state, int64_t low, int64_t high)
{
    return low + (int64_t)(draw(state) % (uint64_t)(high - low + 1));
}

#endif
