/* SPDX-License-Identifier: GPL-3.0-or-later
 * SPDX-FileCopyrightText: The kvsim authors */
#include "tests/kv_test.h"

#include "tests/attention_gen.h"

kv_gen kv_gen_default(void)
{
    return (kv_gen){.layers = 2,
                    .heads = 4,
                    .kv_heads = 2,
                    .head_dim = 8,
                    .tokens = 40,
                    .examples = 2,
                    .arrays = GEN_PROBS | GEN_Q | GEN_K | GEN_V,
                    .row_step = 1,
                    .chunk = {1, 1, 16, 40}};
}

const char *kv_gen_path(const char *name)
{
    static char path[4096];
    const char *folder = getenv("builddir");
    snprintf(path, sizeof path, "%s/tests/%s", folder ? folder : ".", name);
    return path;
}

int kv_gen_query_pos(const kv_gen *gen, int32_t *out)
{
    int rows = 0;
    for (int p = 0; p < gen->tokens; p++)
        if (p % gen->row_step == 0 || p == gen->tokens - 1)
            out[rows++] = p;
    return rows;
}

/* --- Numbers ---------------------------------------------------------------------------------- */

static uint64_t mix_bits(uint64_t x) /* the finalizer of splitmix64 */
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

double kv_gen_number(const kv_gen *gen, unsigned array, int example, int layer, int head, int row,
                     int column)
{
    const int place[] = {(int)array, example, layer, head, row, column};
    uint64_t hash = 1;
    for (int i = 0; i < 6; i++)
        hash = mix_bits(hash ^ (uint64_t)place[i]);
    return ((double)(hash % 1025) - 512) / 256; /* -2 to 2 in steps of 1/256 */
}

void kv_gen_row(const kv_gen *gen, int example, int layer, int head, int position, double *out)
{
    int kv_head = head / (gen->heads / gen->kv_heads);
    double top = -INFINITY, total = 0;
    for (int j = 0; j <= position; j++) {
        out[j] = 0;
        for (int d = 0; d < gen->head_dim; d++)
            out[j] += kv_gen_number(gen, GEN_Q, example, layer, head, position, d) *
                      kv_gen_number(gen, GEN_K, example, layer, kv_head, j, d);
        out[j] /= sqrt(gen->head_dim);
        top = fmax(top, out[j]);
    }
    for (int j = 0; j <= position; j++)
        total += out[j] = exp(out[j] - top);
    for (int j = 0; j <= position; j++)
        out[j] /= total;
}

/* --- Writing ---------------------------------------------------------------------------------- */

static void put_attribute(hid_t object, const char *name, hid_t type, const void *value)
{
    hid_t space = H5Screate(H5S_SCALAR);
    hid_t attribute = H5Acreate2(object, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(H5Awrite(attribute, type, value) >= 0);
    H5Aclose(attribute);
    H5Sclose(space);
}

static void put_int(hid_t object, const char *name, int value)
{
    put_attribute(object, name, H5T_NATIVE_INT, &value);
}

static void put_text(const kv_gen *gen, hid_t object, const char *name, const char *text)
{
    hid_t type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, gen->variable_text ? H5T_VARIABLE : strlen(text) + 1);
    put_attribute(object, name, type, gen->variable_text ? (const void *)&text : text);
    H5Tclose(type);
}

static void put_ints(hid_t group, const char *name, int rank, const hsize_t *dims,
                     const int32_t *values)
{
    hid_t space = H5Screate_simple(rank, dims, NULL);
    hid_t set =
        H5Dcreate2(group, name, H5T_STD_I32LE, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(H5Dwrite(set, H5T_NATIVE_INT32, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0);
    H5Dclose(set);
    H5Sclose(space);
}

static hid_t number_type(const kv_gen *gen)
{
    hid_t type = H5Tcopy(gen->big_endian ? H5T_IEEE_F32BE : H5T_IEEE_F32LE);
    if (!gen->f32) {
        H5Tset_fields(type, 15, 10, 5, 0, 10);
        H5Tset_precision(type, 16);
        H5Tset_ebias(type, 15);
        H5Tset_size(type, 2);
    }
    return type;
}

static hid_t storage_list(const kv_gen *gen, const hsize_t dims[4])
{
    hid_t list = H5Pcreate(H5P_DATASET_CREATE);
    if (!gen->storage)
        return list;
    hsize_t chunk[4];
    for (int i = 0; i < 4; i++)
        chunk[i] = gen->chunk[i] < dims[i] ? gen->chunk[i] : dims[i];
    H5Pset_chunk(list, 4, chunk);
    if (gen->storage & GEN_SHUFFLE)
        H5Pset_shuffle(list);
    if (gen->storage & GEN_GZIP)
        H5Pset_deflate(list, 6);
    if (gen->storage & GEN_NBIT)
        H5Pset_nbit(list);
    if (gen->storage & GEN_FLETCHER)
        H5Pset_fletcher32(list);
    return list;
}

/* To the nearest number of the type, even at a tie. HDF5 1.10 halves what its own conversion rounds
 * up to a power of two, so what it is handed must be exact. */
static double rounded(const kv_gen *gen, double value)
{
    int exponent;
    frexp(value, &exponent);
    int lowest = exponent - 11 > -24 ? exponent - 11 : -24;
    return gen->f32 ? (double)(float)value : ldexp(nearbyint(ldexp(value, -lowest)), lowest);
}

static void put_numbers(hid_t group, const char *name, const kv_gen *gen, const hsize_t dims[4],
                        const double *values)
{
    hid_t type = number_type(gen), list = storage_list(gen, dims);
    hid_t space = H5Screate_simple(4, dims, NULL);
    hid_t set = H5Dcreate2(group, name, type, space, H5P_DEFAULT, list, H5P_DEFAULT);
    assert_true(H5Dwrite(set, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0);
    H5Dclose(set);
    H5Sclose(space);
    H5Pclose(list);
    H5Tclose(type);
}

static void put_array(hid_t group, const kv_gen *gen, unsigned array, int example)
{
    int32_t *position = calloc((size_t)gen->tokens, sizeof *position);
    int rows = kv_gen_query_pos(gen, position);
    bool of_rows = array == GEN_PROBS || array == GEN_Q;
    hsize_t dims[4] = {(hsize_t)gen->layers, (hsize_t)(of_rows ? gen->heads : gen->kv_heads),
                       (hsize_t)(of_rows ? rows : gen->tokens),
                       (hsize_t)(array == GEN_PROBS ? gen->tokens : gen->head_dim)};
    double *values = calloc(dims[0] * dims[1] * dims[2] * dims[3], sizeof *values), *out = values;
    for (int l = 0; l < gen->layers; l++)
        for (int h = 0; h < (int)dims[1]; h++)
            for (int r = 0; r < (int)dims[2]; r++, out += dims[3]) {
                int p = of_rows ? position[r] : r;
                if (array == GEN_PROBS)
                    kv_gen_row(gen, example, l, h, p, out);
                for (int d = 0; d < (int)dims[3] && array == GEN_PROBS; d++)
                    out[d] = rounded(gen, out[d]);
                for (int d = 0; d < (int)dims[3] && array != GEN_PROBS; d++)
                    out[d] = kv_gen_number(gen, array, example, l, h, p, d);
            }
    const char *name = array == GEN_PROBS ? "probs"
                       : array == GEN_Q   ? "q"
                       : array == GEN_K   ? "k"
                                          : "v";
    put_numbers(group, name, gen, dims, values);
    free(values);
    free(position);
}

static void put_example(hid_t examples, const kv_gen *gen, int example)
{
    char name[16];
    snprintf(name, sizeof name, "%04d", example);
    hid_t group = H5Gcreate2(examples, name, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    const int total = gen->tokens, prompt = total - total / 4;
    const double score = 0.75;
    put_text(gen, group, "task", example % 2 ? "other" : "recall");
    put_text(gen, group, "mode", "single");
    put_int(group, "context_len", prompt - 2);
    put_int(group, "prompt_len", prompt);
    put_int(group, "total_len", total);
    put_attribute(group, "full_score", H5T_NATIVE_DOUBLE, &score);
    int32_t *list = calloc((size_t)total, sizeof *list);
    for (int i = 0; i < total; i++)
        list[i] = (int32_t)(mix_bits((uint64_t)i) % 1000);
    put_ints(group, "tokens", 1, (hsize_t[]){(hsize_t)total}, list);
    put_ints(group, "turns", 2, (hsize_t[]){1, 3}, (int32_t[]){prompt - 2, prompt, total});
    put_ints(group, "evidence", 2, (hsize_t[]){2, 3}, (int32_t[]){0, 3, 6, 0, 9, 10});
    int rows = kv_gen_query_pos(gen, list);
    put_ints(group, "query_pos", 1, (hsize_t[]){(hsize_t)rows}, list);
    free(list);
    for (unsigned array = GEN_PROBS; array <= GEN_V; array *= 2)
        if (gen->arrays & array)
            put_array(group, gen, array, example);
    H5Gclose(group);
}

void kv_gen_write(const char *path, const kv_gen *gen)
{
    hid_t creation = H5Pcreate(H5P_FILE_CREATE);
    H5Pset_userblock(creation, (hsize_t)gen->user_block_bytes);
    hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, creation, H5P_DEFAULT);
    assert_true(file >= 0);
    put_text(gen, file, "format", "kvsim.attention");
    put_text(gen, file, "model", "generated");
    put_int(file, "version", 1);
    put_int(file, "num_layers", gen->layers);
    put_int(file, "num_heads", gen->heads);
    put_int(file, "num_kv_heads", gen->kv_heads);
    put_int(file, "head_dim", gen->head_dim);
    hid_t examples = H5Gcreate2(file, "examples", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    for (int i = 0; i < gen->examples; i++)
        put_example(examples, gen, i);
    H5Gclose(examples);
    H5Pclose(creation);
    assert_true(H5Fclose(file) >= 0);
}

/* --- Damage ----------------------------------------------------------------------------------- */

static hid_t open_to_change(const char *path)
{
    hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    assert_true(file >= 0);
    return file;
}

static void replace_attribute(const char *path, const char *object, const char *name, hid_t type,
                              const void *value)
{
    hid_t file = open_to_change(path), owner = H5Oopen(file, object, H5P_DEFAULT);
    if (H5Aexists(owner, name) > 0)
        H5Adelete(owner, name);
    if (value != NULL)
        put_attribute(owner, name, type, value);
    H5Oclose(owner);
    assert_true(H5Fclose(file) >= 0);
}

void kv_gen_set_int(const char *path, const char *object, const char *name, long long value)
{
    replace_attribute(path, object, name, H5T_NATIVE_LLONG, &value);
}

void kv_gen_set_real(const char *path, const char *object, const char *name, double value)
{
    replace_attribute(path, object, name, H5T_NATIVE_DOUBLE, &value);
}

void kv_gen_set_text(const char *path, const char *object, const char *name, const char *value)
{
    hid_t type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, strlen(value) + 1);
    replace_attribute(path, object, name, type, value);
    H5Tclose(type);
}

void kv_gen_drop_attribute(const char *path, const char *object, const char *name)
{
    replace_attribute(path, object, name, -1, NULL);
}

void kv_gen_drop(const char *path, const char *object)
{
    hid_t file = open_to_change(path);
    assert_true(H5Ldelete(file, object, H5P_DEFAULT) >= 0);
    assert_true(H5Fclose(file) >= 0);
}

void kv_gen_poke(const char *path, const char *object, const hsize_t *index, double value)
{
    hid_t file = open_to_change(path), set = H5Dopen2(file, object, H5P_DEFAULT);
    hid_t space = H5Dget_space(set), one = H5Screate(H5S_SCALAR);
    assert_true(H5Sselect_elements(space, H5S_SELECT_SET, 1, index) >= 0);
    assert_true(H5Dwrite(set, H5T_NATIVE_DOUBLE, one, space, H5P_DEFAULT, &value) >= 0);
    H5Sclose(one);
    H5Sclose(space);
    H5Dclose(set);
    assert_true(H5Fclose(file) >= 0);
}
