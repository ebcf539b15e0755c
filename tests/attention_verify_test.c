/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Checks that verify passes sound files of every kind, names the first wrong place of others, and
 * lets what rounding explains pass. */
#include "tests/kv_test.h"

#include "tests/attention_gen.h"
#include "traces/attention.h"

#define FIRST "/examples/0000"
#define SECOND "/examples/0001"

static const char *path_of(void)
{
    return kv_gen_path("attention_verify_test.h5");
}

static const char *write_file(const kv_gen *gen)
{
    kv_gen_write(path_of(), gen);
    return path_of();
}

static kv_err verify(const char *path, kv_diag *diag)
{
    kv_attention *attention = NULL;
    *diag = (kv_diag){0};
    kv_err err = kv_attention_open(path, &attention, diag);
    if (err == KV_OK)
        err = kv_attention_verify(attention, NULL, NULL, diag);
    kv_attention_close(attention);
    return err;
}

static void expect_sound(const char *path)
{
    kv_diag diag;
    if (verify(path, &diag) != KV_OK)
        fail_msg("%s: %s", diag.path, diag.text);
}

static void expect_fault(const char *path, const char *message)
{
    kv_diag diag;
    assert_int_equal(verify(path, &diag), KV_ERR_INPUT);
    assert_string_equal(diag.path, path);
    if (strstr(diag.text, message) == NULL)
        fail_msg("the message is \"%s\", expected \"%s\"", diag.text, message);
}

static void sound_files_pass(void **state)
{
    for (int i = 0; i < 32; i += kv_stride(9)) {
        kv_gen gen = kv_gen_default();
        gen.f32 = i & 1;
        gen.big_endian = i & 2;
        gen.storage = i & 4 ? GEN_CHUNKED | GEN_GZIP | GEN_SHUFFLE : 0;
        gen.row_step = i & 8 ? 5 : 1;
        gen.tokens = i & 16 ? 130 : 40;
        expect_sound(write_file(&gen));
    }
}

/* --- Numbers ---------------------------------------------------------------------------------- */

static const struct poke_case {
    const char *object;
    hsize_t index[4];
    double value;
    const char *message;
} poke_cases[] = {
    {SECOND "/probs", {1, 3, 17, 5}, NAN, "probs[layer 1, head 3, row 17, key 5]: is not finite"},
    {SECOND "/probs",
     {0, 0, 0, 0},
     INFINITY,
     "probs[layer 0, head 0, row 0, key 0]: is not finite"},
    {FIRST "/probs",
     {1, 2, 39, 39},
     -0.125,
     FIRST "/probs[layer 1, head 2, row 39, key 39]: is -0.125, expected 0 to 1"},
    {FIRST "/probs",
     {0, 1, 8, 2},
     1.5,
     "probs[layer 0, head 1, row 8, key 2]: is 1.5, expected 0 to 1"},
    {FIRST "/probs",
     {0, 1, 8, 9},
     0x1p-24,
     "probs[layer 0, head 1, row 8, key 9]: is 5.96046e-08, expected 0: the query at position 8"},
    {FIRST "/probs", {0, 1, 8, 39}, NAN, "probs[layer 0, head 1, row 8, key 39]: is not finite"},
    {FIRST "/probs",
     {1, 0, 0, 0},
     0.5,
     "probs[layer 1, head 0, row 0]: sums to 0.500000, expected 1"},
    {FIRST "/probs",
     {1, 0, 0, 0},
     0,
     "probs[layer 1, head 0, row 0]: sums to 0.000000, expected 1"},
    {FIRST "/q", {1, 3, 39, 7}, NAN, "q[layer 1, head 3, row 39, dimension 7]: is not finite"},
    {FIRST "/k",
     {0, 1, 2, 3},
     INFINITY,
     "k[layer 0, KV head 1, token 2, dimension 3]: is not finite"},
    {FIRST "/v", {1, 0, 39, 0}, -INFINITY, "v[layer 1, KV head 0, token 39, dimension 0]: is not"},
    {FIRST "/tokens", {11}, -5, FIRST "/tokens[11]: is -5, expected a token id from 0"},
    {FIRST "/turns", {0, 1}, 31, FIRST "/turns[0]: the first answer starts at 31, but prompt_len"},
};

static void wrong_numbers_are_named(void **state)
{
    for (size_t i = 0; i < 2 * sizeof poke_cases / sizeof *poke_cases; i++) {
        const struct poke_case *c = &poke_cases[i / 2];
        kv_gen gen = kv_gen_default();
        gen.storage = i % 2 ? GEN_CHUNKED | GEN_GZIP : 0;
        kv_gen_poke(write_file(&gen), c->object, c->index, c->value);
        expect_fault(path_of(), c->message);
    }
}

static void the_first_wrong_place_is_named(void **state)
{
    const kv_gen gen = kv_gen_default();
    const char *path = write_file(&gen);
    kv_gen_poke(path, FIRST "/probs", (hsize_t[]){1, 0, 3, 2}, NAN);
    kv_gen_poke(path, FIRST "/probs", (hsize_t[]){0, 3, 39, 2}, NAN);
    kv_gen_poke(path, FIRST "/probs", (hsize_t[]){0, 3, 39, 1}, -1);
    expect_fault(path, "probs[layer 0, head 3, row 39, key 1]: is -1");
}

static void turns_and_evidence_are_in_order(void **state)
{
    const kv_gen gen = kv_gen_default();
    const char *path = write_file(&gen);
    kv_gen_poke(path, FIRST "/turns", (hsize_t[]){0, 2}, 35);
    expect_sound(path);
    kv_gen_poke(path, FIRST "/evidence", (hsize_t[]){1, 2}, 36);
    expect_fault(path, FIRST "/evidence[1]: ends at 36, after the answer it is for (35)");
    path = write_file(&gen);
    kv_gen_drop(path, FIRST "/turns");
    hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    hid_t space = H5Screate_simple(2, (hsize_t[]){2, 3}, NULL);
    hid_t set = H5Dcreate2(file, FIRST "/turns", H5T_STD_I32LE, space, H5P_DEFAULT, H5P_DEFAULT,
                           H5P_DEFAULT);
    const int32_t turns[] = {28, 30, 34, 33, 36, 40};
    H5Dwrite(set, H5T_NATIVE_INT32, H5S_ALL, H5S_ALL, H5P_DEFAULT, turns);
    H5Dclose(set);
    H5Sclose(space);
    H5Fclose(file);
    expect_fault(path, FIRST "/turns[1]: starts at 33, before turn 0 ends at 34");
}

/* --- What rounding explains -------------------------------------------------------- */

/* Multiples of 2^-12 are off by 2^-13 each; 40 of them explain a sum of 1 +- 40 * 2^-13 = 0.0049,
 * which without the attribute is more than a half explains. */
static void a_quantum_explains_more(void **state)
{
    kv_gen gen = kv_gen_default();
    gen.arrays = GEN_PROBS;
    const char *path = write_file(&gen);
    double row[40];
    kv_gen_row(&gen, 0, 0, 0, 39, row);
    kv_gen_poke(path, FIRST "/probs", (hsize_t[]){0, 0, 39, 39},
                floor((row[39] + 0.0045) * 4096) / 4096);
    expect_fault(path, "probs[layer 0, head 0, row 39]: sums to 1.00");
    kv_gen_set_int(path, "/", "probs_quantum_bits", 12);
    expect_sound(path);
}

static void probs_are_held_against_q_and_k(void **state)
{
    kv_gen gen = kv_gen_default();
    gen.f32 = true;
    const char *path = write_file(&gen);
    kv_gen_set_real(path, "/", "scale", 0.35355339059327379 * 1.05);
    expect_fault(path, "but q and k of the file give");
    gen.f32 = false;
    kv_gen_set_real(write_file(&gen), "/", "scale", 0.7);
    expect_fault(path_of(), "but q and k of the file give");
}

static void broken_compression_is_reported(void **state)
{
    kv_gen gen = kv_gen_default();
    gen.storage = GEN_CHUNKED | GEN_FLETCHER;
    gen.arrays = GEN_V;
    const char *path = write_file(&gen);
    hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    hid_t set = H5Dopen2(file, SECOND "/v", H5P_DEFAULT);
    uint32_t filters = 0;
    unsigned char chunk[4096] = {0};
    hsize_t bytes = 0, offset[4] = {1, 1, 16, 0};
    assert_true(H5Dget_chunk_storage_size(set, offset, &bytes) >= 0 && bytes <= sizeof chunk);
    assert_true(H5Dread_chunk(set, H5P_DEFAULT, offset, &filters, chunk) >= 0);
    chunk[7] ^= 1;
    assert_true(H5Dwrite_chunk(set, H5P_DEFAULT, 0, offset, bytes, chunk) >= 0);
    H5Dclose(set);
    H5Fclose(file);
    expect_fault(path, SECOND "/v: the chunk at [1, 1, 16, 0] cannot be read: its Fletcher-32 "
                              "checksum is wrong");
}

static void count_calls(void *closure, double share)
{
    double *last = closure;
    assert_true(share >= *last && share <= 1);
    *last = share;
}

static void progress_ends_at_one(void **state)
{
    const kv_gen gen = kv_gen_default();
    kv_attention *attention = NULL;
    kv_diag diag = {0};
    double last = 0;
    assert_int_equal(kv_attention_open(write_file(&gen), &attention, &diag), KV_OK);
    assert_int_equal(kv_attention_verify(attention, count_calls, &last, &diag), KV_OK);
    assert_close(last, 1, 1e-12);
    kv_attention_close(attention);
}

static int quiet(void **state)
{
    return H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sound_files_pass),
        cmocka_unit_test(wrong_numbers_are_named),
        cmocka_unit_test(the_first_wrong_place_is_named),
        cmocka_unit_test(turns_and_evidence_are_in_order),
        cmocka_unit_test(a_quantum_explains_more),
        cmocka_unit_test(probs_are_held_against_q_and_k),
        cmocka_unit_test(broken_compression_is_reported),
        cmocka_unit_test(progress_ends_at_one),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, quiet, NULL);
}
