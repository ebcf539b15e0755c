/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* What transforms that merge share: whom a dropped entry goes to, and how both become one. Weights
 * come from what was stored before the merge; the sums are linear in the entries:
 *
 *     x' = (x (1 + sum of self) + sum of weight x_dropped) / (1 + sum of norm). */
#ifndef KVSIM_POLICIES_TRANSFORM_MERGE_H
#define KVSIM_POLICIES_TRANSFORM_MERGE_H

#include "policies/transform.h"

/* What one dropped entry contributes to the entry that takes it. */
typedef struct kv_blend {
    double weight, self, norm;
} kv_blend;

/* A dropped entry and the present one that takes it, by token; cosine of their keys. */
typedef struct kv_merge_pair {
    int dropped, taker;
    double cosine;
} kv_merge_pair;

typedef kv_blend (*kv_blend_rule)(const kv_transform_step *step, const kv_merge_pair *pair);

/* averaged: the mean of the entry and what it takes. pivotal: the mean of the entry and of the
 * midpoints between it and what it takes. weighted: each at the cosine of its key. */
kv_blend kv_merge_averaged(const kv_transform_step *step, const kv_merge_pair *pair);
kv_blend kv_merge_pivotal(const kv_transform_step *step, const kv_merge_pair *pair);
kv_blend kv_merge_by_cosine(const kv_transform_step *step, const kv_merge_pair *pair);

/* step->order[i] = index into present of the entry whose key has the highest cosine with that of
 * dropped[i], the earliest of several; -1: nothing is present. */
void kv_merge_find_nearest(const kv_transform_step *step);

/* `work_doubles` of transforms that do so. */
size_t kv_merge_work(const void *config, const kv_shape *shape, int tokens);

/* Merges dropped[i] into present[step->order[i]], for all that is not below 0. `changes` says
 * whether keys, values or both. */
void kv_merge(const kv_transform_step *step, kv_blend_rule rule, unsigned changes);

/* Cosine and squared distance of two vectors; the cosine of nothing is 0. */
double kv_merge_cosine(const float *x, const float *y, int width);
double kv_merge_distance2(const float *x, const float *y, int width);
/* The stored key or value of a token. */
float *kv_stored_row(float *numbers, const kv_transform_step *step, int token);

#endif
