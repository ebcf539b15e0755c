/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* The loops of kernels.h, to be included once per instruction set by a file that first defines
 * KV__KERNELS (the table's name), KV__KERNELS_NAME, KV__VECTOR_BYTES (a register) and, where
 * the processor has instructions that compilers do not find, KV__DOUBLES(four) and, for a register
 * full of floats, KV__WIDEN(out, half).
 *
 * Written with the vector types of gcc and clang, which the compiler maps to whatever registers the
 * instruction set has. The lane that an element belongs to is thereby part of the source. */
#include "sim/base/kernels.h"

#include <math.h>
#include <string.h>

typedef float float4 __attribute__((vector_size(16)));
typedef double double4 __attribute__((vector_size(32)));

/* Where each element is on its own, a vector is as wide as a register. */
enum { WIDE = KV__VECTOR_BYTES / 4, LANES = 16 };
typedef float floats __attribute__((vector_size(KV__VECTOR_BYTES)));
typedef int32_t ints __attribute__((vector_size(KV__VECTOR_BYTES)));
typedef uint32_t words __attribute__((vector_size(KV__VECTOR_BYTES)));

/* Macros, not functions: a vector wider than the baseline's registers has no stable calling
 * convention, and compilers warn of it even where the call is inlined. */
#define LOAD(vector, from) memcpy(&(vector), (from), sizeof(vector))
#define STORE(to, vector) memcpy((to), &(vector), sizeof(vector))
/* Of the next loop, whose few turns are known: -O2 alone leaves it rolled. */
#ifdef __clang__
#define KV__UNROLL _Pragma("clang loop unroll(full)")
#else
#define KV__UNROLL _Pragma("GCC unroll 8")
#endif
#ifndef KV__DOUBLES
#define KV__DOUBLES(four) __builtin_convertvector((four), double4)
#endif

/* --- Halves ------------------------------------------------------------------------ */

#ifndef KV__WIDEN
typedef uint16_t halves __attribute__((vector_size(KV__VECTOR_BYTES / 2)));

/* Three cases, chosen lane by lane. Exponent 0, zero or subnormal: a small integer, exact as a
 * float. Exponent 31, infinity or a NaN that is made quiet: all ones. Else only the bias differs.
 */
#define KV__WIDEN(out, half)                                                                       \
    do {                                                                                           \
        halves halves_;                                                                            \
        LOAD(halves_, (half));                                                                     \
        words bits_ = __builtin_convertvector(halves_, words);                                     \
        words mantissa_ = bits_ & 0x3ff, exponent_ = bits_ & 0x7c00;                               \
        floats tiny_ = __builtin_convertvector((ints)mantissa_, floats) * 0x1p-24f;                \
        words quiet_ = (words)(mantissa_ != 0) & 0x400000;                                         \
        words usual_ = ((bits_ & 0x7fff) << 13) + (112 << 23);                                     \
        words special_ = mantissa_ << 13 | quiet_ | 0x7f800000;                                    \
        words is_tiny_ = (words)(exponent_ == 0), is_special_ = (words)(exponent_ == 0x7c00);      \
        words wide_ = ((words)tiny_ & is_tiny_) | (special_ & is_special_) |                       \
                      (usual_ & ~(is_tiny_ | is_special_)) | (bits_ & 0x8000) << 16;               \
        STORE((out), wide_);                                                                       \
    } while (0)
#endif

static void widen(float *out, const void *half, size_t n)
{
    const unsigned char *from = half;
    size_t i = 0;
    for (; i + WIDE <= n; i += WIDE)
        KV__WIDEN(out + i, from + 2 * i);
    if (i < n) {
        uint16_t last[WIDE] = {0};
        float wide[WIDE];
        memcpy(last, from + 2 * i, 2 * (n - i));
        KV__WIDEN(wide, last);
        memcpy(out + i, wide, (n - i) * sizeof *out);
    }
}

/* --- Sums -------------------------------------------------------------------------- */

static double fold(double *lane, int lanes)
{
    for (int distance = lanes / 2; distance > 0; distance /= 2)
        for (int k = 0; k < distance; k++)
            lane[k] += lane[k + distance];
    return lane[0];
}

/* The loop over i in steps of LANES, with LOAD_FOUR(four, i) loading floats i ... i+3. The four
 * groups of lanes are spelt out because -O2 leaves an inner loop rolled, and the sums in memory. */
#define SUM(LOAD_FOUR, ELEMENT)                                                                    \
    do {                                                                                           \
        double4 a = {0}, b = {0}, c = {0}, d = {0};                                                \
        double lane[LANES];                                                                        \
        size_t i = 0;                                                                              \
        for (; i + LANES <= n; i += LANES) {                                                       \
            float4 a4, b4, c4, d4;                                                                 \
            LOAD_FOUR(a4, i);                                                                      \
            LOAD_FOUR(b4, i + 4);                                                                  \
            LOAD_FOUR(c4, i + 8);                                                                  \
            LOAD_FOUR(d4, i + 12);                                                                 \
            a += KV__DOUBLES(a4);                                                                  \
            b += KV__DOUBLES(b4);                                                                  \
            c += KV__DOUBLES(c4);                                                                  \
            d += KV__DOUBLES(d4);                                                                  \
        }                                                                                          \
        STORE(lane, a);                                                                            \
        STORE(lane + 4, b);                                                                        \
        STORE(lane + 8, c);                                                                        \
        STORE(lane + 12, d);                                                                       \
        for (; i < n; i++)                                                                         \
            lane[i % LANES] += (double)ELEMENT(i);                                                 \
        return fold(lane, LANES);                                                                  \
    } while (0)

/* Two rows at once, as one alone waits for its own sums. */
static void dot_two(double out[2], const double *x, const float *p, const float *q, size_t width)
{
    double4 p_low = {0}, p_high = {0}, q_low = {0}, q_high = {0};
    double p_lane[8], q_lane[8];
    size_t d = 0;
    for (; d + 8 <= width; d += 8) {
        double4 low, high;
        float4 p0, p1, q0, q1;
        LOAD(low, x + d);
        LOAD(high, x + d + 4);
        LOAD(p0, p + d);
        LOAD(p1, p + d + 4);
        LOAD(q0, q + d);
        LOAD(q1, q + d + 4);
        p_low += low * KV__DOUBLES(p0);
        p_high += high * KV__DOUBLES(p1);
        q_low += low * KV__DOUBLES(q0);
        q_high += high * KV__DOUBLES(q1);
    }
    STORE(p_lane, p_low);
    STORE(p_lane + 4, p_high);
    STORE(q_lane, q_low);
    STORE(q_lane + 4, q_high);
    for (; d < width; d++) {
        p_lane[d % 8] += x[d] * p[d];
        q_lane[d % 8] += x[d] * q[d];
    }
    out[0] = fold(p_lane, 8);
    out[1] = fold(q_lane, 8);
}

static void dots(double *out, const double *x, const float *rows, const int32_t *at, size_t n,
                 size_t width)
{
    for (size_t i = 0; i < n; i += 2) {
        double two[2];
        size_t second = i + 1 < n ? i + 1 : i;
        dot_two(two, x, rows + (size_t)at[i] * width, rows + (size_t)at[second] * width, width);
        out[i] = two[0];
        out[second] = two[second - i];
    }
}

static double sum(const float *x, size_t n)
{
#define ELEMENT(i) x[i]
#define LOAD_FOUR(four, i) LOAD(four, x + (i))
    SUM(LOAD_FOUR, ELEMENT);
#undef ELEMENT
#undef LOAD_FOUR
}

static double sum_at(const float *x, const int32_t *at, size_t n)
{
#define ELEMENT(i) x[at[i]]
#define LOAD_FOUR(four, i)                                                                         \
    four = (float4){ELEMENT(i), ELEMENT(i + 1), ELEMENT(i + 2), ELEMENT(i + 3)}
    SUM(LOAD_FOUR, ELEMENT);
#undef ELEMENT
#undef LOAD_FOUR
}

/* --- Scaled accumulation ---------------------------------------------------------------------- */

/* The sums of LANES elements stay in registers while the rows pass by. */
static void add_rows_lanes(double *acc, const double *scale, const float *const *row, int rows,
                           size_t i)
{
    double4 a, b, c, d;
    LOAD(a, acc + i);
    LOAD(b, acc + i + 4);
    LOAD(c, acc + i + 8);
    LOAD(d, acc + i + 12);
    for (int r = 0; r < rows; r++) {
        float4 a4, b4, c4, d4;
        LOAD(a4, row[r] + i);
        LOAD(b4, row[r] + i + 4);
        LOAD(c4, row[r] + i + 8);
        LOAD(d4, row[r] + i + 12);
        a += scale[r] * KV__DOUBLES(a4);
        b += scale[r] * KV__DOUBLES(b4);
        c += scale[r] * KV__DOUBLES(c4);
        d += scale[r] * KV__DOUBLES(d4);
    }
    STORE(acc + i, a);
    STORE(acc + i + 4, b);
    STORE(acc + i + 8, c);
    STORE(acc + i + 12, d);
}

static void add_rows(double *acc, const double *scale, const float *const *row, int rows, size_t n)
{
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        add_rows_lanes(acc, scale, row, rows, i);
    for (; i < n; i++)
        for (int r = 0; r < rows; r++)
            acc[i] += scale[r] * (double)row[r][i];
}

static void add_at(double *acc, double scale, const float *x, const int32_t *at, size_t n)
{
    for (size_t i = 0; i < n; i++)
        acc[at[i]] += scale * (double)x[at[i]];
}

/* --- Weighted sums of rows -------------------------------------------------------------------- */

/* LANES columns of every row; the partial sums stay in registers. */
static void mix_lanes(double *out, const float *weight, const float *rows, const int32_t *at,
                      size_t n, size_t width)
{
    double4 a, b, c, d;
    LOAD(a, out);
    LOAD(b, out + 4);
    LOAD(c, out + 8);
    LOAD(d, out + 12);
    for (size_t i = 0; i < n; i++) {
        size_t j = at != NULL ? (size_t)at[i] : i;
        const float *row = rows + j * width;
        float4 a4, b4, c4, d4;
        LOAD(a4, row);
        LOAD(b4, row + 4);
        LOAD(c4, row + 8);
        LOAD(d4, row + 12);
        a += (double)weight[j] * KV__DOUBLES(a4);
        b += (double)weight[j] * KV__DOUBLES(b4);
        c += (double)weight[j] * KV__DOUBLES(c4);
        d += (double)weight[j] * KV__DOUBLES(d4);
    }
    STORE(out, a);
    STORE(out + 4, b);
    STORE(out + 8, c);
    STORE(out + 12, d);
}

static void mix_at(double *out, const float *weight, const float *rows, const int32_t *at, size_t n,
                   size_t width)
{
    size_t first = 0;
    for (; first + LANES <= width; first += LANES)
        mix_lanes(out + first, weight, rows + first, at, n, width);
    for (size_t d = first; d < width; d++)
        for (size_t i = 0; i < n; i++) {
            size_t j = at != NULL ? (size_t)at[i] : i;
            out[d] += (double)weight[j] * (double)rows[j * width + d];
        }
}

static void mix(double *out, const float *weight, const float *rows, size_t n, size_t width)
{
    mix_at(out, weight, rows, NULL, n, width);
}

/* --- Ranges --------------------------------------------------------------------------------------
 */

/* Partial sums of LANES elements and the bits that any of them has. */
typedef struct rough {
    floats part[LANES / WIDE];
    ints bits;
} rough;

#define ROUGH_ADD(r, x)                                                                            \
    KV__UNROLL                                                                                     \
    for (int k_ = 0; k_ < LANES / WIDE; k_++) {                                                    \
        floats some_;                                                                              \
        LOAD(some_, (x) + k_ * WIDE);                                                              \
        (r).bits |= (ints)some_;                                                                   \
        (r).part[k_] += some_;                                                                     \
    }

/* With the elements x[i..n) that fill no LANES. */
static float rough_end(const rough *r, const float *x, size_t i, size_t n, bool *signs)
{
    float lane[LANES];
    STORE(lane, r->part);
    *signs = false;
    for (int k = 0; k < WIDE; k++)
        *signs = *signs || r->bits[k] < 0;
    for (; i < n; i++) {
        lane[i % LANES] += x[i];
        *signs = *signs || signbit(x[i]);
    }
    for (int distance = LANES / 2; distance > 0; distance /= 2)
        for (int k = 0; k < distance; k++)
            lane[k] += lane[k + distance];
    return lane[0];
}

static float rough_sum(const float *x, size_t n, bool *signs)
{
    rough r = {0};
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        ROUGH_ADD(r, x + i);
    return rough_end(&r, x, i, n, signs);
}

static float widen_row(float *out, const void *half, size_t n, const void *ahead, bool *signs)
{
    enum { LINE_HALVES = 32 };
    const unsigned char *from = half, *next = ahead;
    rough r = {0};
    size_t i = 0;
    for (; i + LINE_HALVES <= n; i += LINE_HALVES) {
        __builtin_prefetch(next + 2 * i, 0, 2);
        KV__UNROLL
        for (size_t k = 0; k < LINE_HALVES; k += WIDE)
            KV__WIDEN(out + i + k, from + 2 * (i + k));
        ROUGH_ADD(r, out + i);
        ROUGH_ADD(r, out + i + LANES);
    }
    widen(out + i, from + 2 * i, n - i);
    if (i + LANES <= n) {
        ROUGH_ADD(r, out + i);
        i += LANES;
    }
    return rough_end(&r, out, i, n, signs);
}

static bool within(const float *x, size_t n, float most)
{
    ints good = (ints){0} == 0;
    int32_t lane[WIDE];
    size_t i = 0;
    for (; i + WIDE <= n; i += WIDE) {
        floats some;
        LOAD(some, x + i);
        good &= (some >= 0) & (some <= most);
    }
    STORE(lane, good);
    bool all = true;
    for (int k = 0; k < WIDE; k++)
        all = all && lane[k];
    for (; i < n; i++)
        all = all && x[i] >= 0 && x[i] <= most;
    return all;
}

/* --- Softmax ---------------------------------------------------------------------------------- */

/* The greater of two vectors, lane by lane; the first where the second is not a number. */
#define GREATER(a, b) ((floats)(((ints)(b) & ((b) > (a))) | ((ints)(a) & ~((b) > (a)))))

static float greatest(const float *x, size_t n)
{
    floats even = x[0] - (floats){0}, odd = even;
    float lane[WIDE];
    size_t i = 0;
    for (; i + 2 * WIDE <= n; i += 2 * WIDE) {
        floats some, more;
        LOAD(some, x + i);
        LOAD(more, x + i + WIDE);
        even = GREATER(even, some);
        odd = GREATER(odd, more);
    }
    even = GREATER(even, odd);
    STORE(lane, even);
    float top = lane[0];
    for (int k = 1; k < WIDE; k++)
        top = lane[k] > top ? lane[k] : top;
    for (; i < n; i++)
        top = x[i] > top ? x[i] : top;
    return top;
}

/* exp(x) for x <= 0, in place, within 1 ulp; 0 where the result would be subnormal. 2^n is split
 * off by rounding x / ln 2 to the integer n; what remains, |r| <= ln 2 / 2, goes into the minimax
 * polynomial of Cephes' expf (S. Moshier, netlib.org/cephes). ln 2 is subtracted in two parts, the
 * first short enough that its product with n is exact. */
#define EXP_IN_PLACE(x)                                                                            \
    do {                                                                                           \
        floats x_ = (x);                                                                           \
        floats shifted_ =                                                                          \
            x_ * 1.44269504088896341f + 12582912.0f; /* 1.5 * 2^23 rounds to integer */            \
        floats n_ = shifted_ - 12582912.0f;                                                        \
        floats r_ = x_ - n_ * 0.693359375f + n_ * 2.12194440e-4f;                                  \
        floats p_ = r_ * 1.9875691500e-4f + 1.3981999507e-3f;                                      \
        p_ = p_ * r_ + 8.3334519073e-3f;                                                           \
        p_ = p_ * r_ + 4.1665795894e-2f;                                                           \
        p_ = p_ * r_ + 1.6666665459e-1f;                                                           \
        p_ = p_ * r_ + 5.0000001201e-1f;                                                           \
        p_ = p_ * (r_ * r_) + r_ + 1.0f;                                                           \
        words power_ = (words)shifted_ << 23; /* the low bits of the shifted number are n */       \
        words normal_ = (words)(x_ >= -87.33654f);                                                 \
        (x) = (floats)(((words)p_ + power_) & normal_);                                            \
    } while (0)

/* x[i] = exp(x[i] - top); returns their sum. The last few go through a padded vector, so that an
 * element's value does not depend on how many follow it. */
static double exp_all(float *x, float top, size_t n)
{
    size_t i = 0;
    floats some;
    for (; i + WIDE <= n; i += WIDE) {
        LOAD(some, x + i);
        some -= top;
        EXP_IN_PLACE(some);
        STORE(x + i, some);
    }
    if (i < n) {
        float last[WIDE] = {0};
        memcpy(last, x + i, (n - i) * sizeof *x);
        LOAD(some, last);
        some -= top;
        EXP_IN_PLACE(some);
        STORE(last, some);
        memcpy(x + i, last, (n - i) * sizeof *x);
    }
    return sum(x, n);
}

static void softmax(float *x, size_t n)
{
    if (n == 0)
        return;
    float inverse = (float)(1.0 / exp_all(x, greatest(x, n), n));
    size_t i = 0;
    for (; i + WIDE <= n; i += WIDE) {
        floats some;
        LOAD(some, x + i);
        some *= inverse;
        STORE(x + i, some);
    }
    for (; i < n; i++)
        x[i] *= inverse;
}

const kv_kernels KV__KERNELS = {
    .name = KV__KERNELS_NAME,
    .widen = widen,
    .sum = sum,
    .sum_at = sum_at,
    .dots = dots,
    .add_rows = add_rows,
    .add_at = add_at,
    .rough_sum = rough_sum,
    .widen_row = widen_row,
    .mix = mix,
    .mix_at = mix_at,
    .within = within,
    .softmax = softmax,
};
