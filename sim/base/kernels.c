/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* The loops for every processor of the architecture, and the choice among all versions. */
#include "config.h"

#define KV__KERNELS kv__kernels_base
#define KV__KERNELS_NAME "base"
#define KV__VECTOR_BYTES 16
extern const struct kv_kernels kv__kernels_base;
#include "sim/base/kernels_body.h"

#if HAVE_AVX2_FLAGS
extern const kv_kernels kv__kernels_avx2;
#endif

static const kv_kernels *const base_table[] = {&kv__kernels_base, NULL};
#if HAVE_AVX2_FLAGS
static const kv_kernels *const avx2_table[] = {&kv__kernels_base, &kv__kernels_avx2, NULL};
#endif

const kv_kernels *const *kv__kernels_all(void)
{
#if HAVE_AVX2_FLAGS
    if (__builtin_cpu_supports("avx2")) /* who has AVX2 has F16C; clang 14 cannot ask for that */
        return avx2_table;
#endif
    return base_table;
}

const kv_kernels *kv__kernels(void)
{
    const kv_kernels *const *best = kv__kernels_all();
    while (best[1] != NULL)
        best++;
    return *best;
}
