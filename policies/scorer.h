/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* One policy's scores under another's budget.
 *
 * Policies that divide, regroup or weight entries by scores (adakv, chunkkv, criticalkv and their
 * kin) have the setting `scorer` (KV_ROW_SCORER): any policy whose scores they then take, in place
 * of those of the observation window. What the scores need of a recording, what they accumulate,
 * which rows observe and what is pinned is the scorer's; how much stays and when entries leave is
 * for the outer policy to say. Every policy that ranks entries by scores of its own can be one. */
#ifndef KVSIM_POLICIES_SCORER_H
#define KVSIM_POLICIES_SCORER_H

#include "policies/retention.h"

/* Whether the policy can score for another: it ranks entries by scores of its own, one by one, and
 * knows nothing that is yet to come. */
bool kv_scorer_can(const kv_retention *policy);
/* The policy as the value of a setting, without a configuration. */
kv_item kv_scorer_item(const kv_retention *policy);

/* Makes the settings that an outer policy and its scorer share agree, the scorer's own scorer
 * included: those that are KV_PARAM_OUTERMOST become the outer's, those that the scorer replaces
 * the scorer's. outer: the table of the policy that has the configuration. */
void kv_scorer_settle(const kv_param *outer, void *config);

/* `score` of policies that rank by the scorer alone: the scorer's, or kv_score_window. */
void kv_scorer_score(const kv_event *event, double *score);

/* The same over all candidates, as kvpress's presses build on it: those that the scorer pins (the
 * window's own, where there is none) score above all others of the layer, by 1 above the best or
 * 0. Exact where all heads have the same candidates. For policies with kv_pins_none. */
void kv_scorer_score_padded(const kv_event *event, double *score);
/* Its sum over all KV heads of the layer. */
void kv_scorer_sum_padded(const kv_event *event, double *score);

/* Whether what the scorer pins is the same whatever the budget, and so what it ranks and, padded,
 * the scores. */
bool kv_scorer_ignores_budget(const void *config);

#endif
