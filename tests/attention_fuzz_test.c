/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Checks that files with a few bytes changed, anywhere, are read or refused: opening and verifying
 * come back, with no crash, no hang and a message. Which bytes change follows from the variant's
 * number. A crash of HDF5 itself, which 1.10 has on some of these, must arrive as a message too. */
#include "tests/kv_test.h"

#include "tests/attention_gen.h"
#include "traces/attention.h"
#include "traces/h5.h"

#include <signal.h>

enum { VARIANTS = 110, MOST_BYTES = 1 << 16 };

static uint64_t next_bits(uint64_t *seed)
{
    *seed ^= *seed >> 12;
    *seed ^= *seed << 25;
    *seed ^= *seed >> 27;
    return *seed * 2685821657736338717u;
}

static size_t read_bytes(const char *path, unsigned char *bytes)
{
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    size_t n = fread(bytes, 1, MOST_BYTES, file);
    assert_true(n > 0 && n < MOST_BYTES);
    fclose(file);
    return n;
}

static void write_damaged(const char *path, const unsigned char *bytes, size_t n, int variant)
{
    static unsigned char damaged[MOST_BYTES];
    uint64_t seed = 1000003u * (uint64_t)(variant + 1);
    memcpy(damaged, bytes, n);
    for (int i = 0; i <= variant % 3; i++) {
        size_t at = next_bits(&seed) % n;
        uint64_t bits = next_bits(&seed);
        damaged[at] = bits & 1 ? (unsigned char)(bits >> 8)
                               : (unsigned char)(damaged[at] ^ 1u << (bits >> 8 & 7));
    }
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(damaged, 1, n, file), n);
    fclose(file);
}

static kv_err open_and_verify(const char *path, kv_diag *diag)
{
    kv_attention *attention = NULL;
    kv_err err = kv_attention_open(path, &attention, diag);
    if (err == KV_OK)
        err = kv_attention_verify(attention, NULL, NULL, diag);
    kv_attention_close(attention);
    return err;
}

static void check_variants(const kv_gen *gen)
{
    static unsigned char bytes[MOST_BYTES];
    char path[4096];
    snprintf(path, sizeof path, "%s", kv_gen_path("attention_fuzz_test.h5"));
    kv_gen_write(path, gen);
    size_t n = read_bytes(path, bytes);
    int refused = 0;
    for (int variant = 0; variant < VARIANTS; variant++) {
        kv_diag diag = {0};
        write_damaged(path, bytes, n, variant);
        kv_err err = open_and_verify(path, &diag);
        if (err != KV_OK && err != KV_ERR_INPUT)
            fail_msg("variant %d ends with %d: %s", variant, err, diag.text);
        assert_true(err == KV_OK || diag.text[0] != '\0');
        refused += err != KV_OK;
    }
    assert_true(refused > VARIANTS / 20); /* or the damage would not be one */
}

static void damaged_contiguous_files_do_no_harm(void **state)
{
    if (kv_is_under_valgrind())
        kv_skip("valgrind would report what HDF5 does to damaged files");
    kv_gen gen = kv_gen_default();
    gen.layers = gen.examples = 1;
    gen.tokens = 12;
    check_variants(&gen);
}

static void damaged_compressed_files_do_no_harm(void **state)
{
    if (kv_is_under_valgrind())
        kv_skip("valgrind would report what HDF5 does to damaged files");
    kv_gen gen = kv_gen_default();
    gen.layers = gen.examples = 1;
    gen.tokens = 12;
    gen.variable_text = true;
    gen.storage = GEN_CHUNKED | GEN_SHUFFLE | GEN_GZIP;
    check_variants(&gen);
}

/* --- Trials --------------------------------------------------------------------------------------
 */

static void do_nothing(void *closure)
{
}

static void crash(void *closure)
{
    raise(SIGSEGV);
}

static void fall_asleep_busily(void *closure)
{
    volatile bool for_ever = true;
    while (for_ever)
        ;
}

static void trials_tell_how_they_ended(void **state)
{
    assert_int_equal(kv__h5_survives(do_nothing, NULL, 5), KV__H5_RETURNED);
    assert_int_equal(kv__h5_survives(crash, NULL, 5), KV__H5_CRASHED);
    assert_int_equal(kv__h5_survives(fall_asleep_busily, NULL, 1), KV__H5_ENDLESS);
}

/* HDF5 forgets some memory when it gives a damaged file up; LeakSanitizer asks for this. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libhdf5";
}

static int quiet(void **state)
{
    return H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(damaged_contiguous_files_do_no_harm),
        cmocka_unit_test(damaged_compressed_files_do_no_harm),
        cmocka_unit_test(trials_tell_how_they_ended),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, quiet, NULL);
}
