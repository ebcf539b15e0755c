/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* The nearest matrix of low rank. */
#ifndef KVSIM_POLICIES_TRANSFORM_LOW_RANK_H
#define KVSIM_POLICIES_TRANSFORM_LOW_RANK_H

#include <stddef.h>

/* Makes matrix [rows][columns] its best approximation of that rank in the sense of least squares
 * (the leading parts of its singular value decomposition); zero for rank 0. work:
 * kv_low_rank_work(rows, columns) doubles. */
void kv_low_rank(double *matrix, int rows, int columns, int rank, double *work);
size_t kv_low_rank_work(int rows, int columns);

#endif
