/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Checks what opening a file of recorded attention lists, and that whatever is wrong with a file's
 * links, types, shapes and ranges is refused by a message that names the object. */
#include "tests/kv_test.h"

#include "tests/attention_gen.h"
#include "traces/attention.h"

#include <sys/stat.h>
#include <unistd.h>

#define FIRST "/examples/0000"

static kv_err try_open(const char *path, kv_diag *diag)
{
    kv_attention *attention = NULL;
    *diag = (kv_diag){0};
    kv_err err = kv_attention_open(path, &attention, diag);
    kv_attention_close(attention);
    return err;
}

static const char *good_file(void)
{
    const kv_gen gen = kv_gen_default();
    const char *path = kv_gen_path("attention_open_test.h5");
    kv_gen_write(path, &gen);
    return path;
}

/* --- What is listed --------------------------------------------------------------------------- */

static void examples_are_listed_as_recorded(void **state)
{
    kv_attention *a = NULL;
    kv_diag diag = {0};
    const char *path = good_file();
    assert_int_equal(kv_attention_open(path, &a, &diag), KV_OK);
    assert_string_equal(kv_attention_path(a), path);
    const kv_shape *shape = kv_attention_shape(a);
    assert_string_equal(shape->model, "generated");
    assert_int_equal(shape->layers, 2);
    assert_int_equal(shape->heads, 4);
    assert_int_equal(shape->kv_heads, 2);
    assert_int_equal(shape->head_dim, 8);
    assert_close(shape->scale, 0.35355339059327379, 1e-15); /* 1/sqrt(8) */
    assert_int_equal(kv_attention_examples(a), 2);
    const kv_example *e = kv_attention_example(a, 1);
    assert_string_equal(e->name, "0001");
    assert_string_equal(e->task, "other");
    assert_null(e->context_id);
    assert_int_equal(e->mode, KV_SINGLE);
    assert_int_equal(e->context_tokens, 28);
    assert_int_equal(e->prompt_tokens, 30);
    assert_int_equal(e->total_tokens, 40);
    assert_true(e->full_score == 0.75);
    assert_int_equal(e->turns, 1);
    assert_int_equal(e->turn[0].answer_end, 40);
    assert_int_equal(e->evidences, 2);
    assert_int_equal(e->evidence[1].start, 9);
    assert_int_equal(e->rows, 40);
    assert_null(e->modality);
    assert_true(e->has_probs && e->has_q && e->has_k && e->has_v);
    kv_attention_close(a);
}

static void rows_are_found_by_position(void **state)
{
    kv_gen gen = kv_gen_default();
    gen.row_step = 7;
    const char *path = kv_gen_path("attention_open_test.h5");
    kv_gen_write(path, &gen);
    kv_attention *a = NULL;
    kv_diag diag = {0};
    assert_int_equal(kv_attention_open(path, &a, &diag), KV_OK);
    const kv_example *e = kv_attention_example(a, 0);
    assert_int_equal(e->rows, 7); /* 0 7 14 21 28 35 39 */
    assert_int_equal(kv_example_row(e, 0), 0);
    assert_int_equal(kv_example_row(e, 21), 3);
    assert_int_equal(kv_example_row(e, 22), -1);
    assert_int_equal(kv_example_row(e, 39), 6);
    assert_int_equal(kv_example_row(e, 40), -1);
    kv_attention_close(a);
}

/* The digest of a file whose bytes were hashed by sha256sum (coreutils). */
static void the_digest_is_that_of_the_bytes(void **state)
{
    char path[4096], digest[65];
    const char *folder = getenv("srcdir");
    snprintf(path, sizeof path, "%s/tests/data/tiny.h5", folder ? folder : ".");
    kv_attention *a = NULL;
    kv_diag diag = {0};
    assert_int_equal(kv_attention_open(path, &a, &diag), KV_OK);
    assert_int_equal(kv_attention_digest(a, digest, &diag), KV_OK);
    assert_string_equal(digest, "27bc69c363e2d6ffa548aee4591ea15dbdce19189f120dc8808d6b19522d3f6b");
    kv_attention_close(a);
}

static void a_soft_link_within_the_file_is_followed(void **state)
{
    const char *path = good_file();
    kv_gen_drop(path, "/examples/0001/k");
    hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    H5Lcreate_soft("/examples/0000/k", file, "/examples/0001/k", H5P_DEFAULT, H5P_DEFAULT);
    H5Fclose(file);
    kv_diag diag;
    assert_int_equal(try_open(path, &diag), KV_OK);
}

static void optional_things_may_be_absent(void **state)
{
    const char *path = good_file();
    static const char *const dropped[] = {"evidence", "probs", "q", "k", "v", "query_pos"};
    kv_diag diag;
    for (int i = 0; i < 6; i++) {
        char name[64];
        snprintf(name, sizeof name, FIRST "/%s", dropped[i]);
        kv_gen_drop(path, name);
        assert_int_equal(try_open(path, &diag), KV_OK);
    }
}

static void attributes_may_have_any_numeric_type(void **state)
{
    const char *path = good_file();
    kv_gen_set_int(path, FIRST, "full_score", 1);
    kv_gen_set_real(path, "/", "scale", 0.5);
    kv_diag diag;
    assert_int_equal(try_open(path, &diag), KV_OK);
    kv_gen_set_real(path, FIRST, "prompt_len", 30);
    assert_int_equal(try_open(path, &diag), KV_ERR_INPUT);
    assert_non_null(strstr(diag.text, "attribute 'prompt_len' must be an integer"));
}

/* --- Damage ----------------------------------------------------------------------------------- */

static void make_array(const char *path, const char *name, hid_t type, int rank,
                       const hsize_t *dims, hid_t creation)
{
    kv_gen_drop(path, name);
    hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    hid_t space = H5Screate_simple(rank, dims, NULL);
    hid_t set = H5Dcreate2(file, name, type, space, H5P_DEFAULT, creation, H5P_DEFAULT);
    assert_true(set >= 0);
    H5Dclose(set);
    H5Sclose(space);
    H5Fclose(file);
}

static const hsize_t k_dims[4] = {2, 2, 40, 8};

static void k_external_link(const char *path)
{
    kv_gen_drop(path, FIRST "/k");
    hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    H5Lcreate_external("other.h5", "/k", file, FIRST "/k", H5P_DEFAULT, H5P_DEFAULT);
    H5Fclose(file);
}

static void unused_external_link(const char *path)
{
    hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    H5Lcreate_external("/etc/passwd", "/", file, "/notes", H5P_DEFAULT, H5P_DEFAULT);
    H5Fclose(file);
}

static void example_external_link(const char *path)
{
    hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    H5Lcreate_external("other.h5", "/examples/0000", file, "/examples/0002", H5P_DEFAULT,
                       H5P_DEFAULT);
    H5Fclose(file);
}

static void soft_link(const char *path, const char *from, const char *to)
{
    hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    H5Lcreate_soft(to, file, from, H5P_DEFAULT, H5P_DEFAULT);
    H5Fclose(file);
}

static void soft_cycle(const char *path)
{
    kv_gen_drop(path, FIRST "/v");
    soft_link(path, FIRST "/v", FIRST "/w");
    soft_link(path, FIRST "/w", FIRST "/v");
}

static void soft_dangling(const char *path)
{
    soft_link(path, "/examples/0002", "/nowhere");
}

/* The soft link leads through an external one, here in a group that nothing else looks into. */
static void soft_through_external(const char *path)
{
    hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    H5Gclose(H5Gcreate2(file, "/attic", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    const kv_gen gen = kv_gen_default();
    char other[4096];
    snprintf(other, sizeof other, "%s", kv_gen_path("attention_open_test_other.h5"));
    kv_gen_write(other, &gen);
    H5Lcreate_external(other, FIRST "/k", file, "/attic/k", H5P_DEFAULT, H5P_DEFAULT);
    H5Ldelete(file, FIRST "/k", H5P_DEFAULT);
    H5Lcreate_soft("/attic/k", file, FIRST "/k", H5P_DEFAULT, H5P_DEFAULT);
    H5Fclose(file);
}

static void hard_cycle(const char *path)
{
    hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    H5Lcreate_hard(file, "/examples", file, "/examples/0002", H5P_DEFAULT, H5P_DEFAULT);
    H5Fclose(file);
}

static void external_storage(const char *path)
{
    hid_t creation = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_external(creation, "/etc/passwd", 0, H5F_UNLIMITED);
    make_array(path, FIRST "/k", H5T_IEEE_F32LE, 4, k_dims, creation);
    H5Pclose(creation);
}

static void virtual_storage(const char *path)
{
    hid_t creation = H5Pcreate(H5P_DATASET_CREATE), space = H5Screate_simple(4, k_dims, NULL);
    H5Pset_virtual(creation, space, "other.h5", "/k", space);
    make_array(path, FIRST "/k", H5T_IEEE_F32LE, 4, k_dims, creation);
    H5Sclose(space);
    H5Pclose(creation);
}

static void never_written(const char *path)
{
    make_array(path, FIRST "/k", H5T_IEEE_F32LE, 4, k_dims, H5P_DEFAULT);
}

static void wrong_extent(const char *path)
{
    make_array(path, FIRST "/probs", H5T_IEEE_F32LE, 4, (hsize_t[]){2, 4, 40, 41}, H5P_DEFAULT);
}

static void wrong_rank(const char *path)
{
    make_array(path, FIRST "/k", H5T_IEEE_F32LE, 3, (hsize_t[]){2, 2, 320}, H5P_DEFAULT);
}

static void huge_extent(const char *path)
{
    hid_t creation = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_chunk(creation, 4, k_dims);
    make_array(path, FIRST "/k", H5T_IEEE_F32LE, 4, (hsize_t[]){2, 2, 1ull << 40, 1ull << 20},
               creation);
    H5Pclose(creation);
}

/* Everything agrees that the example has 2^26 tokens, and nothing of them was stored. */
static void huge_but_consistent(const char *path)
{
    const hsize_t huge = 1 << 26, chunk = 1 << 20;
    hid_t creation = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_chunk(creation, 1, &chunk);
    kv_gen_set_int(path, FIRST, "total_len", 1 << 26);
    make_array(path, FIRST "/tokens", H5T_STD_I32LE, 1, &huge, creation);
    H5Pclose(creation);
}

/* In room that the file has for it, so that nothing but the type is wrong. */
static void make_stored(const char *path, const char *name, hid_t type, const hsize_t dims[4])
{
    hid_t creation = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_alloc_time(creation, H5D_ALLOC_TIME_EARLY);
    make_array(path, name, type, 4, dims, creation);
    H5Pclose(creation);
}

static void doubles(const char *path)
{
    make_stored(path, FIRST "/q", H5T_IEEE_F64LE, (hsize_t[]){2, 4, 40, 8});
}

static void bfloat16(const char *path)
{
    hid_t type = H5Tcopy(H5T_IEEE_F32LE);
    H5Tset_fields(type, 15, 7, 8, 0, 7);
    H5Tset_precision(type, 16);
    H5Tset_size(type, 2);
    make_stored(path, FIRST "/v", type, k_dims);
    H5Tclose(type);
}

static void integers(const char *path)
{
    make_array(path, FIRST "/v", H5T_STD_I16LE, 4, k_dims, H5P_DEFAULT);
}

static void real_tokens(const char *path)
{
    make_array(path, FIRST "/tokens", H5T_IEEE_F32LE, 1, (hsize_t[]){40}, H5P_DEFAULT);
}

static void group_in_place_of_k(const char *path)
{
    kv_gen_drop(path, FIRST "/k");
    hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    H5Gclose(H5Gcreate2(file, FIRST "/k", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    H5Fclose(file);
}

static void dataset_among_examples(const char *path)
{
    hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    H5Lcreate_hard(file, FIRST "/k", file, "/examples/k", H5P_DEFAULT, H5P_DEFAULT);
    H5Fclose(file);
}

static void no_examples(const char *path)
{
    kv_gen_drop(path, "/examples/0000");
    kv_gen_drop(path, "/examples/0001");
}

static void no_examples_group(const char *path)
{
    kv_gen_drop(path, "/examples");
}

static size_t pass_through(unsigned flags, size_t parameters, const unsigned *parameter,
                           size_t bytes, size_t *room, void **data)
{
    return bytes;
}

/* Stored through a filter that is there when writing and gone when reading. */
static void unknown_filter(const char *path)
{
    const H5Z_class2_t filter = {H5Z_CLASS_T_VERS, 300, 1, 1, "gone", NULL, NULL, pass_through};
    static float zeros[2 * 2 * 40 * 8];
    H5Zregister(&filter);
    hid_t creation = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_chunk(creation, 4, k_dims);
    H5Pset_filter(creation, 300, 0, 0, NULL);
    make_array(path, FIRST "/k", H5T_IEEE_F32LE, 4, k_dims, creation);
    H5Pclose(creation);
    hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    hid_t set = H5Dopen2(file, FIRST "/k", H5P_DEFAULT);
    H5Dwrite(set, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, zeros);
    H5Dclose(set);
    H5Fclose(file);
    H5Zunregister(300);
}

static void control_name(const char *path)
{
    soft_link(path, FIRST "/\033[2J", FIRST "/k");
}

/* Ways to break a file that take a function. */
static const struct damage {
    void (*inflict)(const char *path);
    const char *message; /* part of it */
} damages[] = {
    {k_external_link, FIRST ": 'k' is a link to another file"},
    {unused_external_link, "'notes' is a link to another file"},
    {example_external_link, "/examples: '0002' is a link to another file"},
    {soft_cycle, FIRST ": the soft link 'v' leads nowhere, in a circle or to another file"},
    {soft_dangling, "/examples: the soft link '0002' leads nowhere"},
    {soft_through_external, FIRST ": the soft link 'k' leads nowhere"},
    {hard_cycle, "/examples/0002: has no attribute 'task'"},
    {external_storage, FIRST "/k: has its numbers in another file"},
    {virtual_storage, FIRST "/k: has its numbers in another file"},
    {never_written, FIRST "/k: was never written"},
    {wrong_extent, FIRST "/probs: has shape [2, 4, 40, 41], expected [2, 4, 40, 40]"},
    {wrong_rank, FIRST "/k: has shape [2, 2, 320], expected [2, 2, 40, 8]"},
    {huge_extent, FIRST "/k: has shape [2, 2, 1099511627776, 1048576], expected [2, 2, 40, 8]"},
    {huge_but_consistent, FIRST "/tokens: was never written"},
    {doubles, FIRST "/q: must hold IEEE floating-point numbers of 16 or 32 bits"},
    {bfloat16, FIRST "/v: must hold IEEE floating-point numbers of 16 or 32 bits"},
    {integers, FIRST "/v: must hold floating-point numbers"},
    {real_tokens, FIRST "/tokens: must hold integers"},
    {group_in_place_of_k, FIRST "/k: is not a dataset"},
    {dataset_among_examples, "/examples/k: is not a group"},
    {no_examples, "/examples: holds no example"},
    {no_examples_group, "has no group 'examples'"},
    {unknown_filter, FIRST "/k: is stored with filter 300 (gone)"},
    {control_name, FIRST ": holds a name with control characters"},
};

static void expect_refusal(const char *path, const char *message)
{
    kv_diag diag;
    assert_int_equal(try_open(path, &diag), KV_ERR_INPUT);
    assert_string_equal(diag.path, path);
    if (strstr(diag.text, message) == NULL)
        fail_msg("the message is \"%s\", expected \"%s\"", diag.text, message);
}

static void damaged_files_are_refused(void **state)
{
    for (size_t i = 0; i < sizeof damages / sizeof *damages; i++) {
        const char *path = good_file();
        damages[i].inflict(path);
        expect_refusal(kv_gen_path("attention_open_test.h5"), damages[i].message);
    }
}

/* --- Attributes ------------------------------------------------------------------------------- */

static const struct attribute_case {
    const char *object, *name;
    double value;
    bool is_real;
    const char *message;
} attribute_cases[] = {
    {"/", "version", 2, false, "has version 2 of the format"},
    {"/", "version", -1, false, "attribute 'version' is -1"},
    {"/", "num_layers", 0, false, "attribute 'num_layers' is 0, expected 1 to"},
    {"/", "num_layers", -3, false, "attribute 'num_layers' is -3"},
    {"/", "num_layers", 3, false,
     FIRST "/probs: has shape [2, 4, 40, 40], expected [3, 4, 40, 40]"},
    {"/", "num_heads", 3, false, "num_heads 3 is not a multiple of num_kv_heads 2"},
    {"/", "num_kv_heads", 1e15, false, "attribute 'num_kv_heads' is 1000000000000000"},
    {"/", "head_dim", 1.5, true, "attribute 'head_dim' must be an integer"},
    {"/", "scale", -1, true, "attribute 'scale' is -1"},
    {"/", "scale", NAN, true, "attribute 'scale' is not finite"},
    {"/", "probs_quantum_bits", 0, false, "attribute 'probs_quantum_bits' is 0"},
    {FIRST, "total_len", 41, false, FIRST "/tokens: has shape [40], expected [41]"},
    {FIRST, "total_len", -1, false, FIRST ": attribute 'total_len' is -1"},
    {FIRST, "total_len", 1e18, false, FIRST ": attribute 'total_len' is 1000000000000000000"},
    {FIRST, "prompt_len", 41, false, FIRST ": attribute 'prompt_len' is 41, expected 1 to 40"},
    {FIRST, "context_len", 31, false, FIRST ": attribute 'context_len' is 31, expected 0 to 30"},
    {FIRST, "full_score", 1.25, true, FIRST ": attribute 'full_score' is 1.25, expected 0 to 1"},
    {FIRST, "full_score", -0.5, true, FIRST ": attribute 'full_score' is -0.5, expected 0 to 1"},
    {FIRST, "full_score", INFINITY, true, FIRST ": attribute 'full_score' is not finite"},
};

static void attributes_out_of_range_are_refused(void **state)
{
    for (size_t i = 0; i < sizeof attribute_cases / sizeof *attribute_cases; i++) {
        const struct attribute_case *c = &attribute_cases[i];
        const char *path = good_file();
        if (c->is_real)
            kv_gen_set_real(path, c->object, c->name, c->value);
        else
            kv_gen_set_int(path, c->object, c->name, (long long)c->value);
        expect_refusal(path, c->message);
    }
}

static void texts_are_checked(void **state)
{
    static const char *const cases[][4] = {
        {"/", "format", "kvsim.requests", "attribute 'format' is 'kvsim.requests'"},
        {FIRST, "mode", "multiturn", "attribute 'mode' is 'multiturn', expected single"},
        {FIRST, "task", "", "attribute 'task' is empty"},
        {FIRST, "task", "a\nb", "attribute 'task' must be a string"},
    };
    for (int i = 0; i < 4; i++) {
        const char *path = good_file();
        kv_gen_set_text(path, cases[i][0], cases[i][1], cases[i][2]);
        expect_refusal(path, cases[i][3]);
    }
    static const char *const needed[][2] = {
        {"/", "format"},       {"/", "version"},     {"/", "num_layers"},   {"/", "num_heads"},
        {"/", "num_kv_heads"}, {"/", "head_dim"},    {"/", "model"},        {FIRST, "task"},
        {FIRST, "mode"},       {FIRST, "total_len"}, {FIRST, "prompt_len"}, {FIRST, "context_len"},
        {FIRST, "full_score"}};
    for (size_t i = 0; i < sizeof needed / sizeof *needed; i++) {
        const char *path = good_file();
        char words[64];
        kv_gen_drop_attribute(path, needed[i][0], needed[i][1]);
        snprintf(words, sizeof words, "has no attribute '%s'", needed[i][1]);
        expect_refusal(path, words);
    }
}

/* --- Small datasets --------------------------------------------------------------------------- */

static const struct poke_case {
    const char *object;
    hsize_t index[2];
    double value;
    const char *message;
} poke_cases[] = {
    {FIRST "/turns", {0, 0}, 31, FIRST ": turns[0] is (31, 30, 40)"},
    {FIRST "/turns", {0, 0}, -1, FIRST ": turns[0] is (-1, 30, 40)"},
    {FIRST "/turns", {0, 2}, 41, FIRST ": turns[0] is (28, 30, 41)"},
    {FIRST "/turns", {0, 2}, 29, FIRST ": turns[0] is (28, 30, 29)"},
    {FIRST "/evidence",
     {1, 0},
     1,
     FIRST ": evidence[1] is (1, 9, 10), expected a turn from 0 to 0"},
    {FIRST "/evidence", {1, 0}, -1, FIRST ": evidence[1] is (-1, 9, 10)"},
    {FIRST "/evidence", {0, 1}, -2, FIRST ": evidence[0] is (0, -2, 6)"},
    {FIRST "/evidence", {0, 1}, 6, FIRST ": evidence[0] is (0, 6, 6)"},
    {FIRST "/evidence", {0, 2}, 41, FIRST ": evidence[0] is (0, 3, 41)"},
    {FIRST "/query_pos",
     {5},
     4,
     FIRST ": query_pos[5] is 4, expected ascending positions below 40"},
    {FIRST "/query_pos", {39}, 40, FIRST ": query_pos[39] is 40"},
    {FIRST "/query_pos", {0}, -1, FIRST ": query_pos[0] is -1"},
};

static void positions_out_of_range_are_refused(void **state)
{
    for (size_t i = 0; i < sizeof poke_cases / sizeof *poke_cases; i++) {
        const char *path = good_file();
        kv_gen_poke(path, poke_cases[i].object, poke_cases[i].index, poke_cases[i].value);
        expect_refusal(path, poke_cases[i].message);
    }
}

static void rows_need_positions(void **state)
{
    const char *path = good_file();
    kv_gen_drop(path, FIRST "/query_pos");
    expect_refusal(path, FIRST "/probs: has shape [2, 4, 40, 40], expected [2, 4, 0, 40]");
    path = good_file();
    kv_gen_drop(path, FIRST "/turns");
    expect_refusal(path, FIRST ": has no dataset 'turns'");
}

/* --- Not a file, or not all of one ------------------------------------------------- */

static void what_is_no_hdf5_file_is_refused(void **state)
{
    const char *path = kv_gen_path("attention_open_test.txt");
    FILE *file = fopen(path, "w");
    fputs("format: kvsim.attention\n", file);
    fclose(file);
    expect_refusal(path, "is not an HDF5 file");
    expect_refusal(kv_gen_path("attention_open_test_absent.h5"), "cannot be read");
    expect_refusal("/dev/null", "is not a file");
    path = kv_gen_path("attention_open_test.fifo");
    unlink(path);
    assert_int_equal(mkfifo(path, 0600), 0);
    expect_refusal(path, "is not a file");
    unlink(path);
}

/* Cut anywhere, a file is refused or, where only what nobody asks for is gone, opens. */
static void truncated_files_are_refused(void **state)
{
    struct stat status;
    const char *path = good_file();
    assert_int_equal(stat(path, &status), 0);
    for (int part = 0; part < 40; part++) {
        path = good_file();
        assert_int_equal(truncate(path, status.st_size * part / 40), 0);
        kv_diag diag;
        assert_int_equal(try_open(path, &diag), KV_ERR_INPUT);
    }
}

static int quiet(void **state)
{
    return H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(examples_are_listed_as_recorded),
        cmocka_unit_test(rows_are_found_by_position),
        cmocka_unit_test(the_digest_is_that_of_the_bytes),
        cmocka_unit_test(a_soft_link_within_the_file_is_followed),
        cmocka_unit_test(optional_things_may_be_absent),
        cmocka_unit_test(attributes_may_have_any_numeric_type),
        cmocka_unit_test(damaged_files_are_refused),
        cmocka_unit_test(attributes_out_of_range_are_refused),
        cmocka_unit_test(texts_are_checked),
        cmocka_unit_test(positions_out_of_range_are_refused),
        cmocka_unit_test(rows_need_positions),
        cmocka_unit_test(what_is_no_hdf5_file_is_refused),
        cmocka_unit_test(truncated_files_are_refused),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, quiet, NULL);
}
