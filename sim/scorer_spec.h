/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* The setting `scorer` of a policy: another policy with the settings of its scores, written as
 * policies are, `knorm` or `{expected_attention: {epsilon: 0.01}}`. */
#ifndef KVSIM_SIM_SCORER_SPEC_H
#define KVSIM_SIM_SCORER_SPEC_H

#include "policies/method.h"
#include "sim/base/yaml.h"

/* Names of the policies that can be scorers; answers how many, at most `room`. */
int kv__scorer_names(const char **names, int room);

/* Parses the value of the row of a policy's configuration, whose preset is applied already: the
 * scorer has the preset of the same name, unless it says another or has none. */
kv_err kv__scorer_parse(const kv_method *outer, void *config, const kv_param *row,
                        const kv_node *value, kv_diag *diag) KV_MUST_USE;

/* Once all settings of `map` (NULL: none) are in: makes those agree that the policy shares with
 * its scorer, and refuses those that the scorer replaces. */
kv_err kv__scorer_finish(const kv_method *outer, void *config, const kv_node *map,
                         kv_diag *diag) KV_MUST_USE;

/* Splits an item of `policies` into the policy's name and its settings (NULL if none). */
kv_err kv__policy_split(const kv_node *item, const char **name, kv_mark *mark,
                        const kv_node **settings, kv_diag *diag) KV_MUST_USE;

#endif
