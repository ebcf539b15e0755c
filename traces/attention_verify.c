/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Reads every number of a file and names the first that cannot be.
 *
 * What rounding explains is no fault. A probability stored as a half is off by 2^-11 of itself and
 * by 2^-25 where it is subnormal; one rounded to a multiple of 2^-b by 2^-(b+1); a float softmax of
 * n keys by some n 2^-24. Tolerances are twice what these add up to. */
#include "config.h"

#include "sim/base/kernels.h"
#include "traces/attention_private.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct verifier {
    kv_attention *attention;
    const kv_shape *shape;
    const kv_example *example;
    kv__array array[KV__ARRAYS];
    kv__slab slab[KV__ARRAYS]; /* one layer of each */
    kv__softmax *softmax;      /* of this example; NULL if it lacks q or k */
    kv__buffer extra;          /* one layer of numbers per token */
    int layer;
    float *row;    /* [widest row] */
    float *second; /* the same */
    void (*progress)(void *, double);
    void *closure;
    double done, total; /* numbers */
} verifier;

static int row_width(const verifier *v)
{
    int total = v->example->total_tokens, dim = v->shape->head_dim;
    return total > dim ? total : dim;
}

/* Names the place, the innermost index being called `last_name`. */
static kv_err wrong_at(const verifier *v, kv__array_id id, const int place[3],
                       const char *last_name, kv_diag *diag, const char *format, ...)
    __attribute__((format(printf, 6, 7)));

static kv_err wrong_at(const verifier *v, kv__array_id id, const int place[3],
                       const char *last_name, kv_diag *diag, const char *format, ...)
{
    char words[256], last[48] = "";
    va_list args;
    va_start(args, format);
    vsnprintf(words, sizeof words, format, args);
    va_end(args);
    if (last_name != NULL)
        snprintf(last, sizeof last, ", %s %d", last_name, place[2]);
    const kv_mark mark = {.path = v->attention->path};
    return kv_fail(diag, KV_ERR_INPUT, &mark, "%s[layer %d, %s %d, %s %d%s]: %s",
                   v->array[id].dataset.name, v->layer, id >= KV__K ? "KV head" : "head", place[0],
                   id >= KV__K ? "token" : "row", place[1], last, words);
}

/* --- Rows of probabilities -------------------------------------------------------------------- */

/* What probabilities are multiples of. */
static double quantum(const verifier *v)
{
    return v->attention->quantum_bits ? ldexp(1, -v->attention->quantum_bits) : 0;
}

/* What rounding to the type and the quantum may add to a sum of n probabilities near 1. */
static double sum_tolerance(const verifier *v, int n)
{
    bool half = v->array[KV__PROBS].element == KV__F16;
    return half ? 0x1p-10 + n * (0x1p-24 + quantum(v)) : 0x1p-20 + n * (0x1p-23 + quantum(v));
}

/* Names the first key whose number cannot be; `most` is 1 and what it may be rounded up by. */
static kv_err blame_key(const verifier *v, int head, int r, float most, kv_diag *diag)
{
    int last = v->example->query_pos[r];
    for (int j = 0; j < v->example->total_tokens; j++) {
        double p = v->row[j];
        const int place[] = {head, r, j};
        if (isnan(p) || isinf(p))
            return wrong_at(v, KV__PROBS, place, "key", diag, "is not finite");
        if (j > last && p != 0)
            return wrong_at(v, KV__PROBS, place, "key", diag,
                            "is %g, expected 0: the query at position %d cannot see this key", p,
                            last);
        if (p < 0 || p > most)
            return wrong_at(v, KV__PROBS, place, "key", diag, "is %g, expected 0 to 1", p);
    }
    return KV_OK;
}

static kv_err check_probs_row(const verifier *v, int head, int r, kv_diag *diag)
{
    int keys = v->example->query_pos[r] + 1, total = v->example->total_tokens;
    double tolerance = sum_tolerance(v, keys);
    const kv_kernels *kernels = kv__kernels();
    /* A key that has all the attention may be rounded up past 1. */
    float most = (float)(1 + tolerance);
    if (!kernels->within(v->row, (size_t)keys, most) ||
        !kernels->within(v->row + keys, (size_t)(total - keys), 0))
        return blame_key(v, head, r, most, diag);
    double sum = kernels->sum(v->row, (size_t)keys);
    const int place[] = {head, r, 0};
    if (fabs(sum - 1) > tolerance)
        return wrong_at(v, KV__PROBS, place, NULL, diag, "sums to %.6f, expected 1 within %.2g",
                        sum, tolerance);
    return KV_OK;
}

/* --- Numbers that only have to be finite ------------------------------------------- */

static kv_err check_finite_row(const verifier *v, kv__array_id id, int head, int r, kv_diag *diag)
{
    for (int d = 0; d < v->shape->head_dim; d++)
        if (!isfinite(v->row[d])) {
            const int place[] = {head, r, d};
            return wrong_at(v, id, place, "dimension", diag, "is not finite");
        }
    return KV_OK;
}

static void take_row(const verifier *v, kv__array_id id, int head, int r)
{
    const kv__slab *slab = &v->slab[id];
    const void *from = kv__slab_row(slab, head, r);
    if (slab->element == KV__F16)
        kv__kernels()->widen(v->row, from, (size_t)slab->width);
    else
        memcpy(v->row, from, (size_t)slab->width * sizeof *v->row);
}

static kv_err check_layer_of(verifier *v, kv__array_id id, kv_diag *diag)
{
    kv__array *array = &v->array[id];
    const kv__selection all = {.kept = array->rows, .widen = id == KV__K};
    kv_err err = kv__slab_load(&v->slab[id], array, v->layer, &all, diag);
    for (int h = 0; h < array->heads; h++) {
        for (int r = 0; r < array->rows && err == KV_OK; r++) {
            take_row(v, id, h, r);
            err = id == KV__PROBS ? check_probs_row(v, h, r, diag)
                                  : check_finite_row(v, id, h, r, diag);
        }
        v->done += (double)array->rows * array->width;
        if (v->progress != NULL && err == KV_OK)
            v->progress(v->closure, v->done / v->total);
    }
    return err;
}

/* --- Probabilities against queries and keys ---------------------------------------- */

static double norm(const float *x, int n)
{
    double sum = 0;
    for (int d = 0; d < n; d++)
        sum += (double)x[d] * (double)x[d];
    return sqrt(sum);
}

static double longest_key(const verifier *v, int kv_head)
{
    double longest = 0;
    for (int t = 0; t < v->example->total_tokens; t++)
        longest =
            fmax(longest, norm(kv__slab_row(&v->slab[KV__K], kv_head, t), v->shape->head_dim));
    return longest;
}

/* Rounding q and k changes a logit by at most the product of their lengths times the sum of their
 * relative roundings, and a probability by the factor exp of twice that, once for its own logit and
 * once for the others'. */
static kv_err compare_row(const verifier *v, int head, int r, double key_length, kv_diag *diag)
{
    take_row(v, KV__Q, head, r);
    bool half = v->array[KV__Q].element == KV__F16 || v->array[KV__K].element == KV__F16;
    double logit =
        v->shape->scale * norm(v->row, v->shape->head_dim) * key_length * (half ? 0x1p-9 : 0x1p-20);
    int keys = v->example->query_pos[r] + 1;
    double relative = expm1(2 * logit) + 0x1p-10, absolute = quantum(v) + 0x1p-23;
    const float *computed = kv__softmax_row(v->softmax, head, r, v->second);
    take_row(v, KV__PROBS, head, r);
    for (int j = 0; j < keys; j++)
        if (!(fabs(v->row[j] - computed[j]) <= relative * computed[j] + absolute)) {
            const int place[] = {head, r, j};
            return wrong_at(v, KV__PROBS, place, "key", diag,
                            "is %.6g, but q and k of the file give %.6g; are scale, rotary "
                            "embedding and head order those of the model?",
                            (double)v->row[j], (double)computed[j]);
        }
    return KV_OK;
}

static kv_err compare_layer(verifier *v, kv_diag *diag)
{
    const kv__softmax_input input = {v->shape, v->example, &v->slab[KV__Q],
                                     kv__slab_row(&v->slab[KV__K], 0, 0), NULL};
    kv_err err = kv__softmax_start(v->softmax, &input, diag);
    int group = v->shape->heads / v->shape->kv_heads;
    for (int h = 0; h < v->shape->heads && err == KV_OK; h++) {
        double key_length = longest_key(v, h / group);
        for (int r = 0; r < v->example->rows && err == KV_OK; r++)
            err = compare_row(v, h, r, key_length, diag);
    }
    return err;
}

/* --- What surrounds the numbers ---------------------------------------------------- */

static kv_err wrong(const verifier *v, kv_diag *diag, const char *format, ...) KV_PRINTF(3, 4);

static kv_err wrong(const verifier *v, kv_diag *diag, const char *format, ...)
{
    char words[256];
    va_list args;
    va_start(args, format);
    vsnprintf(words, sizeof words, format, args);
    va_end(args);
    const kv_mark mark = {.path = v->attention->path};
    return kv_fail(diag, KV_ERR_INPUT, &mark, "/examples/%s/%s", v->example->name, words);
}

static kv_err check_turns(const verifier *v, kv_diag *diag)
{
    const kv_example *e = v->example;
    if (e->turns > 0 && e->turn[0].answer_start != e->prompt_tokens)
        return wrong(v, diag,
                     "turns[0]: the first answer starts at %d, but prompt_len, the tokens before "
                     "it, is %d",
                     e->turn[0].answer_start, e->prompt_tokens);
    for (int i = 1; i < e->turns; i++)
        if (e->turn[i].query_start < e->turn[i - 1].answer_end)
            return wrong(v, diag, "turns[%d]: starts at %d, before turn %d ends at %d", i,
                         e->turn[i].query_start, i - 1, e->turn[i - 1].answer_end);
    for (int i = 0; i < e->evidences; i++) {
        const kv_evidence *x = &e->evidence[i];
        if (x->end > e->turn[x->turn].answer_end)
            return wrong(v, diag, "evidence[%d]: ends at %d, after the answer it is for (%d)", i,
                         x->end, e->turn[x->turn].answer_end);
    }
    return KV_OK;
}

static kv_err check_tokens(const verifier *v, kv_diag *diag)
{
    int32_t *tokens = NULL;
    kv__h5_guard guard;
    kv__h5_enter(&guard);
    kv_err err = kv__example_read_tokens(v->attention, v->example, &tokens, diag);
    kv__h5_leave(&guard);
    for (int i = 0; i < v->example->total_tokens && err == KV_OK; i++)
        if (tokens[i] < 0)
            err = wrong(v, diag, "tokens[%d]: is %d, expected a token id from 0", i, tokens[i]);
    free(tokens);
    return err;
}

/* --- Examples ---------------------------------------------------------------------- */

static void close_example(verifier *v)
{
    kv__h5_guard guard;
    kv__h5_enter(&guard);
    for (int id = 0; id < KV__ARRAYS; id++)
        kv__array_close(&v->array[id]);
    kv__h5_leave(&guard);
    for (int id = 0; id < KV__ARRAYS; id++)
        kv__slab_free(&v->slab[id]);
    kv__softmax_free(v->softmax);
    v->softmax = NULL;
    free(v->row);
    free(v->second);
    v->row = v->second = NULL;
}

static kv_err open_example(verifier *v, const kv_example *example, kv_diag *diag)
{
    v->example = example;
    memset(v->slab, 0, sizeof v->slab);
    kv__h5_guard guard;
    kv__h5_enter(&guard);
    kv_err err = kv__arrays_open(v->attention, example, v->array, diag);
    kv__h5_leave(&guard);
    v->row = malloc((size_t)row_width(v) * sizeof *v->row);
    v->second = malloc((size_t)row_width(v) * sizeof *v->second);
    if (err == KV_OK && (v->row == NULL || v->second == NULL))
        err = kv_fail_memory(diag);
    if (err == KV_OK && example->has_probs && example->has_q && example->has_k)
        err = kv__softmax_new(v->shape, example, &v->softmax, diag);
    return err;
}

static kv_err check_example(verifier *v, const kv_example *example, kv_diag *diag)
{
    kv_err err = open_example(v, example, diag);
    if (err == KV_OK)
        err = check_turns(v, diag);
    if (err == KV_OK)
        err = check_tokens(v, diag);
    for (v->layer = 0; v->layer < v->shape->layers; v->layer++) {
        for (int id = 0; id < KV__ARRAYS && err == KV_OK; id++)
            if (v->array[id].dataset.id >= 0)
                err = check_layer_of(v, (kv__array_id)id, diag);
        if (err == KV_OK && v->softmax != NULL)
            err = compare_layer(v, diag);
        for (int id = 0; id < KV_EXTRAS && err == KV_OK; id++)
            if (example->has_extra[id])
                err =
                    kv__extra_load(v->attention, example, (kv_extra)id, v->layer, &v->extra, diag);
    }
    kv__buffer_free(&v->extra);
    close_example(v);
    return err;
}

static double numbers_in(const kv_shape *s, const kv_example *e)
{
    double rows = (double)s->heads * e->rows, tokens = (double)s->kv_heads * e->total_tokens;
    return s->layers * (rows * e->total_tokens * e->has_probs + rows * s->head_dim * e->has_q +
                        tokens * s->head_dim * (e->has_k + e->has_v));
}

kv_err kv_attention_verify(kv_attention *attention, void (*progress)(void *, double), void *closure,
                           kv_diag *diag)
{
    verifier v = {.attention = attention,
                  .shape = &attention->shape,
                  .progress = progress,
                  .closure = closure};
    for (int i = 0; i < attention->examples; i++)
        v.total += numbers_in(v.shape, &attention->example[i]);
    kv_err err = KV_OK;
    for (int i = 0; i < attention->examples && err == KV_OK; i++)
        err = check_example(&v, &attention->example[i], diag);
    return err;
}
