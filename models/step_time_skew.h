/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* What decodes of uneven length cost beyond their mean: t = t_mean + alpha (t_max - t_mean). How
 * many decodes share the device decides alpha, for the longest can only be waited for where the
 * others are done sooner; so it is a curve over their number, one for steps with prefill and one
 * for those without. Internal to models/step_time_table*.c. */
#ifndef KVSIM_MODELS_STEP_TIME_SKEW_H
#define KVSIM_MODELS_STEP_TIME_SKEW_H

#include "models/step_time_grid.h"

typedef struct kv__skew {
    kv__curve alpha[2]; /* over log2 of the decodes; [1]: with prefill chunks in the step */
} kv__skew;

/* Reads skew.csv of a folder of tables: t_mean_us, t_max_us and t_skew_us (the same batch at its
 * mean length, at its longest, and as it is), and if it has them n (decodes) and pc (prefill
 * tokens). Without the file, or where meta.yaml beside it says `skew_fit: {enabled: false}`, alpha
 * is 0. */
kv_err kv__skew_read(const char *directory, kv__skew *out, kv_diag *diag) KV_MUST_USE;
void kv__skew_fini(kv__skew *skew);
/* 0..1; 0 for less than two decodes. */
double kv__skew_alpha(const kv__skew *skew, double decodes, bool prefill);

#endif
