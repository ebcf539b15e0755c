/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Head masks: a number per (layer, KV head), from a file that was learned or measured elsewhere,
 * and the choice of heads that follows from it. */
#ifndef KVSIM_POLICIES_HEAD_MASK_H
#define KVSIM_POLICIES_HEAD_MASK_H

#include "policies/retention.h"

/* Reads layers x columns numbers, row by row, into *out (the caller frees it): as
 * kv_head_mask_read, of any width. In HDF5 the columns may be several dimensions. column says what
 * a number of a row belongs to ("KV head"). */
kv_err kv_layer_numbers_read(const char *path, int layers, int columns, const char *column,
                             double **out, kv_diag *diag) KV_MUST_USE;
/* The same of the path that a setting names; relative paths start from `directory`. */
kv_err kv_layer_numbers_load(const char *directory, const char *path, int layers, int columns,
                             const char *column, double **out, kv_diag *diag) KV_MUST_USE;

/* Reads layers x kv_heads numbers, row by row, into *out (the caller frees it). A path that ends in
 * .h5 or .hdf5, optionally followed by ":DATASET", names a matrix in HDF5 (the only dataset of the
 * file if none is named); any other path is text: a line per layer, numbers parted by tabs or
 * blanks. */
kv_err kv_head_mask_read(const char *path, int layers, int kv_heads, double **out,
                         kv_diag *diag) KV_MUST_USE;

/* Head-mask policies (duo, prulong): `sparsity` of all heads stream, the least important first
 * (ties: lower layer, lower head); the others keep everything. Slots for their tables. */
kv_err kv_head_mask_prepare(const void *config, const char *directory, const kv_shape *shape,
                            void **plan, kv_diag *diag);
void kv_head_mask_release(void *plan);
long long kv_head_mask_quota(const void *config, const kv_quota_query *query);
kv_pins kv_head_mask_pins(const void *config, const kv_quota_query *query, long long quota);
int kv_head_mask_class(const void *plan, int layer, int kv_head);
double kv_head_mask_share(const void *config);
bool kv_head_mask_counts_only(const void *config);
/* All of them, and what their rule claims. */
#define KV_HEAD_MASK_POLICY                                                                        \
    .config_bytes = sizeof(kv_retention_config), .claims = KV_COUNTS_FIXED | KV_LAYERS_ALIKE,      \
    .prepare = kv_head_mask_prepare, .release = kv_head_mask_release, .quota = kv_head_mask_quota, \
    .pins = kv_head_mask_pins, .head_share = kv_head_mask_share,                                   \
    .count_class = kv_head_mask_class, .counts_only = kv_head_mask_counts_only

#endif
