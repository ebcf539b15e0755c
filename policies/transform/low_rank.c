/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "config.h"

#include "policies/transform/low_rank.h"

#include <math.h>
#include <string.h>

/* Rotates rows and columns p and q of the symmetric matrix a [n][n] so that a[p][q] vanishes, and
 * rows p and q of v with them (Golub and Van Loan, symmetric Schur decomposition). */
static void rotate(double *a, double *v, int n, int p, int q)
{
    double off = a[p * n + q];
    if (off == 0)
        return;
    double tau = (a[q * n + q] - a[p * n + p]) / (2 * off);
    double t = copysign(1, tau) / (fabs(tau) + sqrt(1 + tau * tau));
    double c = 1 / sqrt(1 + t * t), s = t * c;
    for (int k = 0; k < n; k++) {
        double x = a[k * n + p], y = a[k * n + q];
        a[k * n + p] = c * x - s * y;
        a[k * n + q] = s * x + c * y;
    }
    for (int k = 0; k < n; k++) {
        double x = a[p * n + k], y = a[q * n + k];
        a[p * n + k] = c * x - s * y;
        a[q * n + k] = s * x + c * y;
        x = v[p * n + k], y = v[q * n + k];
        v[p * n + k] = c * x - s * y;
        v[q * n + k] = s * x + c * y;
    }
}

/* Cyclic Jacobi: eigenvalues onto the diagonal of a, eigenvectors into the rows of v. */
static void diagonalise(double *a, double *v, int n)
{
    enum { MOST_SWEEPS = 30 };
    memset(v, 0, (size_t)n * (size_t)n * sizeof *v);
    for (int i = 0; i < n; i++)
        v[i * n + i] = 1;
    for (int sweep = 0; sweep < MOST_SWEEPS; sweep++) {
        double off = 0, all = 0;
        for (int i = 0; i < n * n; i++) {
            all += a[i] * a[i];
            off += i % (n + 1) == 0 ? 0 : a[i] * a[i];
        }
        if (off <= all * 1e-26)
            return;
        for (int p = 0; p < n; p++)
            for (int q = p + 1; q < n; q++)
                rotate(a, v, n, p, q);
    }
}

/* gram = m m' for m [n][width] with the given strides. */
static void multiply(const double *m, int n, int width, int row_stride, int stride, double *gram)
{
    for (int i = 0; i < n; i++)
        for (int j = i; j < n; j++) {
            double sum = 0;
            for (int k = 0; k < width; k++)
                sum += m[i * (ptrdiff_t)row_stride + k * (ptrdiff_t)stride] *
                       m[j * (ptrdiff_t)row_stride + k * (ptrdiff_t)stride];
            gram[i * n + j] = gram[j * n + i] = sum;
        }
}

/* Moves the `rank` eigenvectors of the greatest eigenvalues to the first rows of v. */
static void lead(double *a, double *v, int n, int rank)
{
    for (int r = 0; r < rank; r++) {
        int best = r;
        for (int i = r + 1; i < n; i++)
            if (a[i * n + i] > a[best * n + best])
                best = i;
        double value = a[r * n + r];
        a[r * n + r] = a[best * n + best];
        a[best * n + best] = value;
        for (int k = 0; k < n; k++) {
            double x = v[r * n + k];
            v[r * n + k] = v[best * n + k];
            v[best * n + k] = x;
        }
    }
}

/* Projects each vector of the long side onto the leading eigenvectors of the short one. */
static void project(double *m, const double *v, int n, int rank, int count, ptrdiff_t step,
                    ptrdiff_t stride, double *sum)
{
    for (int c = 0; c < count; c++) {
        double *x = m + c * step;
        memset(sum, 0, (size_t)n * sizeof *sum);
        for (int r = 0; r < rank; r++) {
            double dot = 0;
            for (int k = 0; k < n; k++)
                dot += v[r * n + k] * x[k * stride];
            for (int k = 0; k < n; k++)
                sum[k] += dot * v[r * n + k];
        }
        for (int k = 0; k < n; k++)
            x[k * stride] = sum[k];
    }
}

void kv_low_rank(double *matrix, int rows, int columns, int rank, double *work)
{
    int n = rows < columns ? rows : columns;
    if (rank >= n)
        return;
    double *gram = work, *vectors = work + (size_t)n * (size_t)n;
    if (rows <= columns)
        multiply(matrix, n, columns, columns, 1, gram);
    else
        multiply(matrix, n, rows, 1, columns, gram);
    diagonalise(gram, vectors, n);
    lead(gram, vectors, n, rank);
    double *sum = vectors + (size_t)n * (size_t)n;
    if (rows <= columns)
        project(matrix, vectors, n, rank, columns, 1, columns, sum);
    else
        project(matrix, vectors, n, rank, rows, columns, 1, sum);
}

size_t kv_low_rank_work(int rows, int columns)
{
    size_t n = (size_t)(rows < columns ? rows : columns);
    return 2 * n * n + n;
}
