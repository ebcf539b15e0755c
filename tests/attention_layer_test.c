/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Checks what is read of recorded attention, layer by layer: every type, byte order, storage and
 * source of rows against numbers that the generator knows (softmax by its definition, in doubles),
 * and the recorded examples of the shared data against one another. */
#include "tests/kv_test.h"

#include "tests/attention_gen.h"
#include "traces/attention_private.h"

static const char *write_file(const kv_gen *gen)
{
    const char *path = kv_gen_path("attention_layer_test.h5");
    kv_gen_write(path, gen);
    return path;
}

static kv_attention *open_file(const char *path)
{
    kv_attention *attention = NULL;
    kv_diag diag = {0};
    if (kv_attention_open(path, &attention, &diag) != KV_OK)
        fail_msg("%s: %s", diag.path, diag.text);
    return attention;
}

static kv_layer *new_layer(kv_attention *attention, int example)
{
    kv_layer *layer = NULL;
    kv_diag diag = {0};
    assert_int_equal(kv_layer_new(attention, example, &layer, &diag), KV_OK);
    return layer;
}

static void load(kv_layer *layer, int number, unsigned want, const uint8_t *wanted)
{
    kv_diag diag = {0};
    if (kv_layer_load(layer, number, want, wanted, &diag) != KV_OK)
        fail_msg("%s: %s", diag.path, diag.text);
}

/* Rounding of a probability: half a unit in the last place of the type, and what float arithmetic
 * adds (logits up to 12 carry 12 * 2^-24 * a few). */
static double row_tolerance(const kv_gen *gen)
{
    bool rounded = (gen->arrays & GEN_PROBS) && !gen->f32;
    return rounded ? 0x1p-11 : 0x1p-18;
}

static void check_row(const kv_gen *gen, int example, int number, int head, int position,
                      const float *row)
{
    double want[256];
    kv_gen_row(gen, example, number, head, position, want);
    for (int j = 0; j <= position; j++)
        if (!(fabs(row[j] - want[j]) <= want[j] * row_tolerance(gen) + 0x1p-25))
            fail_msg("example %d layer %d head %d row %d key %d: %g, expected %g", example, number,
                     head, position, j, (double)row[j], want[j]);
}

static void check_tokens(const kv_gen *gen, kv_layer *layer, int example, int number)
{
    for (int h = 0; h < gen->kv_heads; h++) {
        const float *keys = kv_layer_keys(layer, h), *values = kv_layer_values(layer, h);
        assert_non_null(keys);
        assert_non_null(values);
        for (int i = 0; i < gen->tokens; i++)
            for (int d = 0; d < gen->head_dim; d++) {
                assert_true((double)*keys++ == kv_gen_number(gen, GEN_K, example, number, h, i, d));
                assert_true((double)*values++ ==
                            kv_gen_number(gen, GEN_V, example, number, h, i, d));
            }
    }
}

/* Everything that the file says is what the generator put in. */
static void check_file(const kv_gen *gen)
{
    kv_attention *attention = open_file(write_file(gen));
    float scratch[256];
    for (int e = 0; e < gen->examples; e++) {
        const kv_example *example = kv_attention_example(attention, e);
        kv_layer *layer = new_layer(attention, e);
        for (int l = 0; l < gen->layers; l++) {
            load(layer, l, KV_WANT_ROWS | KV_WANT_KEYS | KV_WANT_VALUES, NULL);
            for (int h = 0; h < gen->heads; h++)
                for (int r = 0; r < example->rows; r++)
                    check_row(gen, e, l, h, example->query_pos[r],
                              kv_layer_row(layer, h, r, scratch));
            if (gen->arrays & GEN_K)
                check_tokens(gen, layer, e, l);
        }
        kv_layer_free(layer);
    }
    kv_attention_close(attention);
}

static void every_type_and_storage_is_read(void **state)
{
    static const unsigned storages[] = {0,
                                        GEN_CHUNKED,
                                        GEN_CHUNKED | GEN_GZIP,
                                        GEN_CHUNKED | GEN_SHUFFLE | GEN_GZIP,
                                        GEN_CHUNKED | GEN_GZIP | GEN_FLETCHER,
                                        GEN_CHUNKED | GEN_FLETCHER,
                                        GEN_CHUNKED | GEN_NBIT /* left to HDF5 */};
    for (int i = 0; i < 7 * 8; i += kv_stride(11)) {
        kv_gen gen = kv_gen_default();
        gen.storage = storages[i / 8];
        gen.f32 = i & 1;
        gen.big_endian = i & 2;
        gen.arrays = i & 4 ? GEN_PROBS | GEN_Q | GEN_K | GEN_V : GEN_Q | GEN_K | GEN_V;
        check_file(&gen);
    }
}

static void every_chunking_is_read(void **state)
{
    static const hsize_t chunks[][4] = {{1, 1, 1, 1},  {1, 2, 7, 11}, {2, 4, 40, 40},
                                        {2, 1, 16, 9}, {1, 4, 40, 1}, {2, 3, 39, 40}};
    for (size_t i = 0; i < 2 * sizeof chunks / sizeof *chunks; i += (size_t)kv_stride(3)) {
        kv_gen gen = kv_gen_default();
        gen.storage = i % 2 ? GEN_CHUNKED | GEN_GZIP : GEN_CHUNKED | GEN_NBIT;
        memcpy(gen.chunk, chunks[i / 2], sizeof gen.chunk);
        check_file(&gen);
    }
}

static void shapes_and_samples_are_read(void **state)
{
    static const struct {
        int heads, kv_heads, head_dim, tokens, row_step, user_block;
    } cases[] = {{1, 1, 1, 1, 1, 0},   {8, 1, 3, 33, 1, 512}, {6, 6, 16, 17, 5, 0},
                 {4, 2, 5, 129, 7, 0}, {2, 1, 64, 16, 1, 0},  {3, 1, 7, 31, 1, 2048}};
    for (int i = 0; i < 6 * 4; i += kv_stride(11)) {
        kv_gen gen = kv_gen_default();
        gen.heads = cases[i / 4].heads;
        gen.kv_heads = cases[i / 4].kv_heads;
        gen.head_dim = cases[i / 4].head_dim;
        gen.tokens = cases[i / 4].tokens < 12 ? 12 : cases[i / 4].tokens;
        gen.row_step = cases[i / 4].row_step;
        gen.user_block_bytes = cases[i / 4].user_block;
        gen.f32 = i & 1;
        gen.variable_text = i & 1;
        gen.arrays = i & 2 ? GEN_PROBS | GEN_K | GEN_V : GEN_Q | GEN_K | GEN_V;
        check_file(&gen);
    }
}

/* --- Wanted rows ------------------------------------------------------------------------------ */

/* The bits of a row do not depend on which other rows are wanted. */
static void check_wanted(const kv_gen *gen)
{
    kv_attention *attention = open_file(write_file(gen));
    kv_layer *all = new_layer(attention, 0), *some = new_layer(attention, 0);
    float scratch[2][256];
    int rows = kv_attention_example(attention, 0)->rows;
    load(all, 1, KV_WANT_ROWS, NULL);
    for (int step = 1; step < 30; step += 3) {
        uint8_t wanted[256] = {0};
        for (int r = step / 2; r < rows; r += step)
            wanted[r] = 7;
        load(some, 1, KV_WANT_ROWS, wanted);
        for (int h = 0; h < gen->heads; h++)
            for (int r = 0; r < rows; r++)
                if (wanted[r])
                    assert_memory_equal(kv_layer_row(some, h, r, scratch[0]),
                                        kv_layer_row(all, h, r, scratch[1]),
                                        sizeof(float) * (size_t)(r + 1));
    }
    assert_true(kv_layer_bytes_read(some) > 0);
    kv_layer_free(all);
    kv_layer_free(some);
    kv_attention_close(attention);
}

static void a_row_is_the_same_whatever_else_is_wanted(void **state)
{
    for (int i = 0; i < 8; i++) {
        kv_gen gen = kv_gen_default();
        gen.tokens = 77;
        gen.arrays = i & 1 ? GEN_PROBS : GEN_Q | GEN_K;
        gen.f32 = i & 2;
        gen.storage = i & 4 ? GEN_CHUNKED | GEN_GZIP : 0;
        check_wanted(&gen);
    }
}

static void bytes_read_count_what_was_consumed(void **state)
{
    kv_gen gen = kv_gen_default();
    gen.arrays = GEN_PROBS;
    kv_attention *attention = open_file(write_file(&gen));
    kv_layer *layer = new_layer(attention, 0);
    assert_int_equal(kv_layer_bytes_read(layer), 0);
    load(layer, 0, KV_WANT_ROWS, NULL);
    /* 4 heads, rows of 1 ... 40 halves */
    assert_int_equal(kv_layer_bytes_read(layer), 4 * (40 * 41 / 2) * 2);
    kv_layer_free(layer);
    kv_attention_close(attention);
}

static void what_is_not_wanted_or_not_there_is_null(void **state)
{
    kv_gen gen = kv_gen_default();
    gen.arrays = GEN_Q | GEN_K;
    kv_attention *attention = open_file(write_file(&gen));
    kv_layer *layer = new_layer(attention, 1);
    load(layer, 0, KV_WANT_ROWS | KV_WANT_VALUES, NULL);
    assert_null(kv_layer_keys(layer, 0));
    assert_null(kv_layer_values(layer, 0));
    load(layer, 0, KV_WANT_KEYS, NULL);
    assert_non_null(kv_layer_keys(layer, 1));
    kv_layer_free(layer);
    kv_attention_close(attention);
}

static void rows_that_were_not_recorded_are_refused(void **state)
{
    kv_gen gen = kv_gen_default();
    gen.arrays = GEN_Q | GEN_V;
    kv_attention *attention = open_file(write_file(&gen));
    kv_layer *layer = new_layer(attention, 0);
    kv_diag diag = {0};
    assert_int_equal(kv_layer_load(layer, 0, KV_WANT_ROWS, NULL, &diag), KV_ERR_UNSUPPORTED);
    assert_non_null(strstr(diag.text, "/examples/0000: has neither 'probs' nor both 'q' and 'k'"));
    kv_layer_free(layer);
    kv_attention_close(attention);
}

/* --- Shared data ------------------------------------------------------------------------------ */

static const char *shared_path(const char *name)
{
    static char path[4096];
    const char *folder = getenv("KV_SHARED");
    snprintf(path, sizeof path, "%s/attention/%s", folder ? folder : "../shared/data", name);
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        return NULL;
    fclose(file);
    return path;
}

/* dense.h5 holds probs, rounded to halves and to multiples of 2^-18, beside q and k, rounded to
 * halves: each product is off by up to 2^-10 of itself, so logits of up to 30 by 0.03, their
 * difference by 0.06, and p(1-p) <= 1/4 of that is what a probability may be off by. */
static void recorded_and_computed_rows_agree(void **state)
{
    const char *path = shared_path("dense.h5");
    if (path == NULL)
        kv_skip("the shared data is not there");
    kv_attention *probs = open_file(path), *computed = open_file(path);
    float one[512], two[512];
    double worst = 0;
    for (int e = 0; e < kv_attention_examples(probs); e++) {
        computed->example[e].has_probs = false;
        kv_layer *a = new_layer(probs, e), *b = new_layer(computed, e);
        for (int l = 0; l < 4; l++) {
            load(a, l, KV_WANT_ROWS, NULL);
            load(b, l, KV_WANT_ROWS, NULL);
            for (int i = 0; i < 8 * 512; i++) {
                const float *x = kv_layer_row(a, i / 512, i % 512, one);
                const float *y = kv_layer_row(b, i / 512, i % 512, two);
                for (int j = 0; j <= i % 512; j++)
                    worst = fmax(worst, fabs(x[j] - y[j]));
            }
        }
        kv_layer_free(a);
        kv_layer_free(b);
    }
    kv_attention_close(probs);
    kv_attention_close(computed);
    print_message("# largest difference %g\n", worst);
    assert_true(worst < 0x1p-6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type_and_storage_is_read),
        cmocka_unit_test(every_chunking_is_read),
        cmocka_unit_test(shapes_and_samples_are_read),
        cmocka_unit_test(a_row_is_the_same_whatever_else_is_wanted),
        cmocka_unit_test(bytes_read_count_what_was_consumed),
        cmocka_unit_test(what_is_not_wanted_or_not_there_is_null),
        cmocka_unit_test(rows_that_were_not_recorded_are_refused),
        cmocka_unit_test(recorded_and_computed_rows_agree),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
