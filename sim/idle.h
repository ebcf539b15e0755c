/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Settings that were given and do nothing. */
#ifndef KVSIM_SIM_IDLE_H
#define KVSIM_SIM_IDLE_H

#include "policies/method.h"

/* A policy of a sweep with its settings; config of method.config_bytes. */
typedef struct kv_idle_point {
    kv_method method;
    const void *config;
    const kv_retention *beside; /* a transform: the retention policy of its point */
    bool scores;                /* for another, which says how much stays and when entries leave */
} kv_idle_point;

/* The scorers of a policy, one within the other, as points of their own; answers how many, at most
 * KV_SCORERS_MOST. */
int kv_idle_scorers(const kv_idle_point *point, kv_idle_point *out);

/* Tells `warn`, once for each policy and setting, of settings other than the policy's default that
 * matter under some values of another setting alone (`interval` under one schedule) where no point
 * of the policy has those; and once of each transform of what evictions take or leave that stands
 * beside `full`. */
void kv_idle_settings(const kv_idle_point *point, int points,
                      void (*warn)(void *closure, const char *text), void *closure);

#endif
