/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
/* Checks that memory stays bounded by one layer when files of 3 GiB (mapped) and 1.5 GiB
 * (compressed; to save time) are verified and read through. All its rows put everything on key 0,
 * so that it takes little of the disk: contiguous it is full of holes, compressed all its chunks
 * are one. */
#include "tests/kv_test.h"

#include "tests/attention_gen.h"
#include "traces/attention.h"

#include <sys/resource.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include <zlib.h>

enum { HEADS = 2, ROWS = 48, CHUNK_ROWS = 16, TOKENS = 1 << 20 };
enum { MAPPED_LAYERS = 16, COMPRESSED_LAYERS = 8 };
static const uint16_t one = 0x3c00; /* 1.0 as a half */

#if defined(__SANITIZE_ADDRESS__)
static const long most_kib = 1024 << 10; /* its own share included */
#else
static const long most_kib = 512 << 10; /* a layer is 192 MiB, the file 3 GiB */
#endif

/* Why the test cannot be run here; NULL: it can. */
static const char *obstacle(void)
{
    struct statvfs disk;
    const char *folder = getenv("builddir");
    assert_int_equal(statvfs(folder ? folder : ".", &disk), 0);
    if (kv_is_under_valgrind())
        return "valgrind would take minutes";
    return (double)disk.f_bavail * (double)disk.f_frsize > 4.0 * (1 << 30)
               ? NULL
               : "less than 4 GiB of disk free";
}

static hid_t half_type(void)
{
    hid_t type = H5Tcopy(H5T_IEEE_F32LE);
    H5Tset_fields(type, 15, 10, 5, 0, 10);
    H5Tset_precision(type, 16);
    H5Tset_ebias(type, 15);
    H5Tset_size(type, 2);
    return type;
}

static void put_ints(hid_t group, const char *name, hsize_t count, const int32_t *values)
{
    hid_t space = H5Screate_simple(1, &count, NULL);
    hid_t set =
        H5Dcreate2(group, name, H5T_STD_I32LE, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(H5Dwrite(set, H5T_NATIVE_INT32, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0);
    H5Dclose(set);
    H5Sclose(space);
}

/* Turns a small generated file into one of TOKENS tokens without arrays. */
static hid_t make_frame(const char *path, int layers)
{
    kv_gen gen = kv_gen_default();
    gen.layers = layers;
    gen.heads = gen.kv_heads = HEADS;
    gen.examples = 1;
    gen.arrays = 0;
    kv_gen_write(path, &gen);
    kv_gen_set_int(path, "/examples/0000", "total_len", TOKENS);
    kv_gen_drop(path, "/examples/0000/tokens");
    kv_gen_drop(path, "/examples/0000/query_pos");
    hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    int32_t *tokens = calloc(TOKENS, sizeof *tokens), position[ROWS];
    for (int r = 0; r < ROWS; r++)
        position[r] = TOKENS - ROWS + r;
    put_ints(file, "/examples/0000/tokens", TOKENS, tokens);
    put_ints(file, "/examples/0000/query_pos", ROWS, position);
    free(tokens);
    return file;
}

static hid_t make_probs(hid_t file, int layers, hid_t creation)
{
    const hsize_t dims[4] = {(hsize_t)layers, HEADS, ROWS, TOKENS};
    hid_t type = half_type(), space = H5Screate_simple(4, dims, NULL);
    hid_t set =
        H5Dcreate2(file, "/examples/0000/probs", type, space, H5P_DEFAULT, creation, H5P_DEFAULT);
    assert_true(set >= 0);
    H5Sclose(space);
    H5Tclose(type);
    H5Pclose(creation);
    return set;
}

static void write_holes(const char *path)
{
    hid_t file = make_frame(path, MAPPED_LAYERS), creation = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_alloc_time(creation, H5D_ALLOC_TIME_EARLY);
    H5Pset_fill_time(creation, H5D_FILL_TIME_NEVER);
    hid_t set = make_probs(file, MAPPED_LAYERS, creation);
    long long offset = (long long)H5Dget_offset(set);
    H5Dclose(set);
    H5Fclose(file);
    FILE *raw = fopen(path, "r+b");
    for (long long row = 0; row < MAPPED_LAYERS * HEADS * ROWS; row++) {
        assert_int_equal(fseeko(raw, offset + row * TOKENS * 2, SEEK_SET), 0);
        assert_int_equal(fwrite(&one, sizeof one, 1, raw), 1);
    }
    assert_int_equal(fclose(raw), 0);
}

static void write_compressed(const char *path)
{
    const hsize_t chunk[4] = {1, 1, CHUNK_ROWS, TOKENS};
    hid_t file = make_frame(path, COMPRESSED_LAYERS), creation = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_chunk(creation, 4, chunk);
    H5Pset_deflate(creation, 1);
    hid_t set = make_probs(file, COMPRESSED_LAYERS, creation);
    uint16_t *plain = calloc((size_t)CHUNK_ROWS * TOKENS, sizeof *plain);
    for (size_t r = 0; r < CHUNK_ROWS; r++)
        plain[r * TOKENS] = one;
    uLongf bytes = compressBound((uLong)CHUNK_ROWS * TOKENS * 2);
    unsigned char *packed = malloc(bytes);
    assert_int_equal(
        compress2(packed, &bytes, (unsigned char *)plain, (uLong)CHUNK_ROWS * TOKENS * 2, 1), Z_OK);
    free(plain);
    hsize_t at[4] = {0};
    for (at[0] = 0; at[0] < COMPRESSED_LAYERS; at[0]++)
        for (at[1] = 0; at[1] < HEADS; at[1]++)
            for (at[2] = 0; at[2] < ROWS; at[2] += CHUNK_ROWS)
                assert_true(H5Dwrite_chunk(set, H5P_DEFAULT, 0, at, bytes, packed) >= 0);
    free(packed);
    H5Dclose(set);
    H5Fclose(file);
}

static void read_rows(kv_attention *attention)
{
    kv_layer *layer = NULL;
    kv_diag diag = {0};
    float *scratch = malloc(TOKENS * sizeof *scratch);
    assert_int_equal(kv_layer_new(attention, 0, &layer, &diag), KV_OK);
    int layers = kv_attention_shape(attention)->layers;
    for (int l = 0; l < layers; l++) {
        assert_int_equal(kv_layer_load(layer, l, KV_WANT_ROWS, NULL, &diag), KV_OK);
        for (int i = 0; i < HEADS * ROWS; i++) {
            const float *row = kv_layer_row(layer, i / ROWS, i % ROWS, scratch);
            assert_true(row[0] == 1 && row[1] == 0 && row[TOKENS - ROWS] == 0);
        }
    }
    assert_true((double)kv_layer_bytes_read(layer) > 0.99 * layers * HEADS * ROWS * 2.0 * TOKENS);
    kv_layer_free(layer);
    free(scratch);
}

static void check_memory(const char *path)
{
    kv_attention *attention = NULL;
    kv_diag diag = {0};
    struct rusage usage;
    if (kv_attention_open(path, &attention, &diag) != KV_OK ||
        kv_attention_verify(attention, NULL, NULL, &diag) != KV_OK)
        fail_msg("%s", diag.text);
    read_rows(attention);
    kv_attention_close(attention);
    unlink(path);
    assert_int_equal(getrusage(RUSAGE_SELF, &usage), 0);
    print_message("# at most %ld MiB of memory\n", usage.ru_maxrss / 1024);
    assert_true(usage.ru_maxrss < most_kib);
}

static void a_mapped_file_takes_one_layer_of_memory(void **state)
{
    if (obstacle() != NULL)
        kv_skip(obstacle());
    write_holes(kv_gen_path("attention_big_test.h5"));
    check_memory(kv_gen_path("attention_big_test.h5"));
}

static void a_compressed_file_takes_one_layer_of_memory(void **state)
{
    if (obstacle() != NULL)
        kv_skip(obstacle());
    write_compressed(kv_gen_path("attention_big_test.h5"));
    check_memory(kv_gen_path("attention_big_test.h5"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_mapped_file_takes_one_layer_of_memory),
        cmocka_unit_test(a_compressed_file_takes_one_layer_of_memory),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
