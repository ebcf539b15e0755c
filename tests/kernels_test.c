/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Checks the inner loops: each version against plain loops written here in another way, and all
 * versions against one another bit by bit. Nothing is said about speed. */
#include "tests/kv_test.h"

#include "sim/base/kernels.h"

enum { MOST = 203, WIDTHS = 5 }; /* MOST: no multiple of any lane count */

/* xorshift64*; the tests need numbers of high entropy, not good ones. */
static uint64_t next_bits(uint64_t *seed)
{
    *seed ^= *seed >> 12;
    *seed ^= *seed << 25;
    *seed ^= *seed >> 27;
    return *seed * 2685821657736338717u;
}

static float next_real(uint64_t *seed) /* -1..1 */
{
    return (float)(int32_t)(next_bits(seed) >> 32) * 0x1p-31f;
}

static bool same_bits(const void *a, const void *b, size_t n)
{
    return memcmp(a, b, n) == 0;
}

/* --- Halves ------------------------------------------------------------------------ */

/* IEEE 754 binary16 by its definition. */
static double half_by_definition(unsigned half)
{
    int exponent = half >> 10 & 31;
    double sign = half & 0x8000 ? -1 : 1, fraction = (half & 0x3ff) / 1024.0;
    if (exponent == 31)
        return fraction != 0 ? (double)NAN : sign * (double)INFINITY;
    return exponent == 0 ? sign * ldexp(fraction, -14) : sign * ldexp(1 + fraction, exponent - 15);
}

static void every_half_is_widened_exactly(void **state)
{
    static uint16_t half[65536];
    static float wide[65536];
    for (int i = 0; i < 65536; i++)
        half[i] = (uint16_t)i;
    for (const kv_kernels *const *k = kv__kernels_all(); *k != NULL; k++) {
        (*k)->widen(wide, half, 65536);
        for (int i = 0; i < 65536; i++) {
            double want = half_by_definition((unsigned)i);
            if (isnan(want)) {
                assert_true(isnan(wide[i]));
            } else {
                assert_true((double)wide[i] == want);
                assert_true(!signbit(wide[i]) == !signbit(want));
            }
        }
    }
}

static void versions_widen_to_equal_bits(void **state)
{
    static uint16_t half[65536 + 1];
    static float base[65536], other[65536];
    unsigned char *odd = (unsigned char *)half + 1; /* halves at an odd address */
    for (int i = 0; i < 65536; i++) {
        uint16_t bits = (uint16_t)i;
        memcpy(odd + 2 * i, &bits, 2);
    }
    kv__kernels_all()[0]->widen(base, odd, 65536);
    for (const kv_kernels *const *k = kv__kernels_all(); *k != NULL; k++)
        for (size_t n = 65536 - 9; n <= 65536; n++) {
            (*k)->widen(other, odd, n);
            assert_true(same_bits(base, other, n * sizeof *base));
        }
}

/* --- Sums -------------------------------------------------------------------------- */

static void sums_keep_the_stated_order(void **state)
{
    uint64_t seed = 11;
    float x[2 * MOST];
    int32_t at[MOST];
    for (int i = 0; i < 2 * MOST; i++)
        x[i] = ldexpf(next_real(&seed), (int)(next_bits(&seed) % 60) - 30);
    for (int i = 0; i < MOST; i++)
        at[i] = 2 * i + (int)(next_bits(&seed) & 1);
    for (const kv_kernels *const *k = kv__kernels_all(); *k != NULL; k++)
        for (int n = 0; n <= MOST; n++) {
            double lane[16] = {0}, lane_at[16] = {0};
            for (int i = 0; i < n; i++) {
                lane[i % 16] += x[i];
                lane_at[i % 16] += x[at[i]];
            }
            for (int d = 8; d > 0; d /= 2)
                for (int i = 0; i < d; i++) {
                    lane[i] += lane[i + d];
                    lane_at[i] += lane_at[i + d];
                }
            assert_true((*k)->sum(x, (size_t)n) == lane[0]);
            assert_true((*k)->sum_at(x, at, (size_t)n) == lane_at[0]);
        }
}

static void products_keep_the_stated_order(void **state)
{
    enum { ROWS = 5, WIDTH = 37 };
    uint64_t seed = 12;
    float rows[2 * ROWS * WIDTH];
    double x[WIDTH];
    int32_t at[ROWS];
    for (int i = 0; i < 2 * ROWS * WIDTH; i++)
        rows[i] = ldexpf(next_real(&seed), (int)(next_bits(&seed) % 60) - 30);
    for (int d = 0; d < WIDTH; d++)
        x[d] = next_real(&seed);
    for (int i = 0; i < ROWS; i++)
        at[i] = 2 * i + (int)(next_bits(&seed) & 1);
    for (const kv_kernels *const *k = kv__kernels_all(); *k != NULL; k++)
        for (int width = 0; width <= WIDTH; width++)
            for (int n = 0; n <= ROWS; n++) {
                double out[ROWS + 1] = {[0] = -1};
                out[n] = -1;
                (*k)->dots(out, x, rows, at, (size_t)n, (size_t)width);
                for (int i = 0; i < n; i++) {
                    double lane[8] = {0};
                    for (int d = 0; d < width; d++)
                        lane[d % 8] += x[d] * rows[at[i] * width + d];
                    for (int d = 4; d > 0; d /= 2)
                        for (int j = 0; j < d; j++)
                            lane[j] += lane[j + d];
                    assert_true(out[i] == lane[0]);
                }
                assert_true(out[n] == -1);
            }
}

static void sums_pass_special_values_on(void **state)
{
    for (const kv_kernels *const *k = kv__kernels_all(); *k != NULL; k++) {
        float x[40] = {0};
        x[3] = 1e-45f; /* the least subnormal: kept, not flushed */
        x[37] = 1e-45f;
        assert_true((*k)->sum(x, 40) == 0x1p-148);
        x[20] = INFINITY;
        assert_true(isinf((*k)->sum(x, 40)));
        x[38] = -INFINITY;
        assert_true(isnan((*k)->sum(x, 40)));
        x[38] = NAN;
        assert_true(isnan((*k)->sum(x, 40)));
    }
}

/* --- Accumulation ------------------------------------------------------------------------------
 */

static void scaled_rows_are_added_in_place(void **state)
{
    enum { ROWS = 5 };
    uint64_t seed = 5;
    float x[ROWS][MOST];
    double start[MOST], scale[ROWS];
    const float *row[ROWS];
    int32_t at[MOST / 2];
    for (int r = 0; r < ROWS; r++) {
        row[r] = x[r];
        scale[r] = next_real(&seed);
        for (int i = 0; i < MOST; i++)
            x[r][i] = next_real(&seed);
    }
    for (int i = 0; i < MOST; i++)
        start[i] = next_real(&seed);
    for (int i = 0; i < MOST / 2; i++)
        at[i] = 2 * i + (i & 1);
    for (const kv_kernels *const *k = kv__kernels_all(); *k != NULL; k++)
        for (int rows = 0; rows <= ROWS; rows++) {
            double acc[MOST], acc_at[MOST], want[MOST];
            memcpy(acc, start, sizeof acc);
            memcpy(acc_at, start, sizeof acc);
            memcpy(want, start, sizeof acc);
            (*k)->add_rows(acc, scale, row, rows, MOST);
            (*k)->add_at(acc_at, scale[0], x[0], at, MOST / 2);
            for (int i = 0; i < MOST; i++) {
                for (int r = 0; r < rows; r++)
                    want[i] += scale[r] * (double)x[r][i];
                assert_true(acc[i] == want[i]);
                bool listed = i / 2 < MOST / 2 && at[i / 2] == i;
                assert_true(acc_at[i] ==
                            (listed ? start[i] + scale[0] * (double)x[0][i] : start[i]));
            }
        }
}

static void rows_are_mixed_in_order(void **state)
{
    static const int widths[WIDTHS] = {1, 6, 16, 39, 128};
    uint64_t seed = 17;
    float weight[31], rows[31 * 128];
    const int32_t at[] = {0, 3, 4, 9, 30};
    for (int i = 0; i < 31; i++)
        weight[i] = next_real(&seed);
    for (int i = 0; i < 31 * 128; i++)
        rows[i] = next_real(&seed);
    for (const kv_kernels *const *k = kv__kernels_all(); *k != NULL; k++)
        for (int w = 0; w < WIDTHS; w++) {
            double out[128] = {0}, out_at[128] = {0};
            size_t width = (size_t)widths[w];
            (*k)->mix(out, weight, rows, 31, width);
            (*k)->mix_at(out_at, weight, rows, at, 5, width);
            for (size_t d = 0; d < width; d++) {
                double want = 0, want_at = 0;
                for (size_t j = 0; j < 31; j++)
                    want += (double)weight[j] * (double)rows[j * width + d];
                for (int i = 0; i < 5; i++)
                    want_at += (double)weight[at[i]] * (double)rows[(size_t)at[i] * width + d];
                assert_true(out[d] == want);
                assert_true(out_at[d] == want_at);
            }
        }
}

/* --- Ranges --------------------------------------------------------------------------------------
 */

static void one_number_out_of_range_is_found(void **state)
{
    static const float wrong[] = {-1e-45f, 1.0000001f, NAN, -NAN, INFINITY, -INFINITY};
    for (const kv_kernels *const *k = kv__kernels_all(); *k != NULL; k++)
        for (size_t n = 0; n < 70; n++) {
            float x[70];
            for (size_t i = 0; i < 70; i++)
                x[i] = i % 3 == 0 ? -0.0f : i % 3 == 1 ? 1e-45f : 1;
            assert_true((*k)->within(x, n, 1));
            for (size_t i = 0; i < n; i++)
                for (int w = 0; w < 6; w++) {
                    float right = x[i];
                    x[i] = wrong[w];
                    assert_false((*k)->within(x, n, 1));
                    x[i] = right;
                }
        }
}

static void widened_rows_are_summed_in_passing(void **state)
{
    uint64_t seed = 37;
    uint16_t half[MOST];
    float wide[MOST], want[MOST];
    for (int i = 0; i < MOST; i++)
        half[i] = (uint16_t)(next_bits(&seed) % 0x3c00);
    for (const kv_kernels *const *k = kv__kernels_all(); *k != NULL; k++)
        for (size_t n = 0; n <= MOST; n++)
            for (int negative = 0; negative < 2; negative++) {
                bool signs, want_signs;
                half[n / 2] ^= negative ? 0x8000 : 0;
                (*k)->widen(want, half, n);
                float want_sum = (*k)->rough_sum(want, n, &want_signs);
                assert_true((*k)->widen_row(wide, half, n, half, &signs) == want_sum);
                assert_true(signs == want_signs && signs == (negative && n > 0));
                assert_true(same_bits(wide, want, n * sizeof *wide));
                half[n / 2] &= 0x7fff;
            }
}

/* Each version against the exact sum, and all against the first bit by bit. */
static void rough_sums_are_near_and_see_signs(void **state)
{
    uint64_t seed = 31;
    float x[MOST];
    for (int i = 0; i < MOST; i++)
        x[i] = fabsf(next_real(&seed));
    for (const kv_kernels *const *k = kv__kernels_all(); *k != NULL; k++) {
        double exact = 0;
        for (size_t n = 0; n <= MOST; n++) {
            bool signs = true, other = true;
            float sum = (*k)->rough_sum(x, n, &signs);
            assert_true(fabs(sum - exact) <= (double)n * 0x1p-24 * exact);
            assert_false(signs);
            assert_true(kv__kernels_all()[0]->rough_sum(x, n, &other) == sum);
            exact += n < MOST ? x[n] : 0;
        }
        for (size_t i = 0; i < MOST; i++) {
            bool signs = false;
            float right = x[i];
            x[i] = -0.0f;
            (*k)->rough_sum(x, MOST, &signs);
            assert_true(signs);
            x[i] = NAN;
            assert_true(isnan((*k)->rough_sum(x, MOST, &signs)));
            x[i] = right;
        }
    }
}

/* --- Softmax ------------------------------------------------------------------------------------
 */

static void softmax_is_near_the_exact_one(void **state)
{
    uint64_t seed = 23;
    for (const kv_kernels *const *k = kv__kernels_all(); *k != NULL; k++)
        for (size_t n = 1; n <= MOST; n++) {
            float x[MOST], logit[MOST];
            double top = -INFINITY, total = 0, worst = 0;
            for (size_t i = 0; i < n; i++) {
                x[i] = logit[i] = 40 * next_real(&seed) + 300;
                top = fmax(top, logit[i]);
            }
            for (size_t i = 0; i < n; i++)
                total += exp(logit[i] - top);
            (*k)->softmax(x, n);
            for (size_t i = 0; i < n; i++) {
                double want = exp(logit[i] - top) / total;
                worst = fmax(worst, fabs(x[i] - want) / want);
            }
            assert_true(worst < 4 * 0x1p-23);
        }
}

static void softmax_of_far_and_equal_logits(void **state)
{
    for (const kv_kernels *const *k = kv__kernels_all(); *k != NULL; k++) {
        float far[3] = {-1e30f, 5, -100};
        (*k)->softmax(far, 3);
        assert_true(far[0] == 0 && far[1] == 1 && far[2] == 0);
        float equal[64];
        for (int i = 0; i < 64; i++)
            equal[i] = -3;
        (*k)->softmax(equal, 64);
        for (int i = 0; i < 64; i++)
            assert_true(equal[i] == 1.0f / 64);
        (*k)->softmax(NULL, 0);
    }
}

static void versions_give_equal_softmax_bits(void **state)
{
    uint64_t seed = 29;
    const kv_kernels *const *all = kv__kernels_all();
    for (int round = 0; round < 200; round++) {
        float logit[MOST], base[MOST], other[MOST];
        size_t n = 1 + next_bits(&seed) % MOST;
        float spread = ldexpf(1, (int)(next_bits(&seed) % 12) - 2);
        for (size_t i = 0; i < n; i++)
            logit[i] = spread * next_real(&seed);
        memcpy(base, logit, sizeof base);
        all[0]->softmax(base, n);
        for (const kv_kernels *const *k = all; *k != NULL; k++) {
            memcpy(other, logit, sizeof other);
            (*k)->softmax(other, n);
            assert_true(same_bits(base, other, n * sizeof *base));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_half_is_widened_exactly),
        cmocka_unit_test(versions_widen_to_equal_bits),
        cmocka_unit_test(sums_keep_the_stated_order),
        cmocka_unit_test(products_keep_the_stated_order),
        cmocka_unit_test(sums_pass_special_values_on),
        cmocka_unit_test(scaled_rows_are_added_in_place),
        cmocka_unit_test(rows_are_mixed_in_order),
        cmocka_unit_test(one_number_out_of_range_is_found),
        cmocka_unit_test(rough_sums_are_near_and_see_signs),
        cmocka_unit_test(widened_rows_are_summed_in_passing),
        cmocka_unit_test(softmax_is_near_the_exact_one),
        cmocka_unit_test(softmax_of_far_and_equal_logits),
        cmocka_unit_test(versions_give_equal_softmax_bits),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
