/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/draw.h"

/* The finaliser of splitmix64 (Steele et al. 2014): a bijection of 64 bits that mixes well. */
static uint64_t mix(uint64_t z)
{
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

double kv_draw(const kv_view *view, long long seed, int kv_head, int token)
{
    uint64_t key = mix(view->stream + (uint64_t)seed);
    key = mix(key ^ (uint64_t)view->layer << 32 ^ (uint64_t)kv_head);
    return (double)(mix(key + UINT64_C(0x9e3779b97f4a7c15) * ((uint64_t)token + 1)) >> 11) *
           0x1p-53;
}
