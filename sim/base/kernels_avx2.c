/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* The loops for x86 processors with AVX2 and F16C: this file alone is compiled for them. */
#include "config.h"

#include <immintrin.h>

#define KV__KERNELS kv__kernels_avx2
#define KV__KERNELS_NAME "avx2"
#define KV__VECTOR_BYTES 32
#define KV__DOUBLES(four) ((double4)_mm256_cvtps_pd((__m128)(four)))
#define KV__WIDEN(out, half)                                                                       \
    _mm256_storeu_ps((out), _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(half))))
extern const struct kv_kernels kv__kernels_avx2;
#include "sim/base/kernels_body.h"
